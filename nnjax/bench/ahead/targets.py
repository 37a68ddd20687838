"""Machines to compile for that are not here: GPUs by their numbers, TPUs by their topology."""

import importlib.util
import json
import os
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, SingleDeviceSharding

TPU = re.compile(r"v\d+\w*:\d+(?:x\d+){1,2}")
# A GPU's compiler tries its choices out on the card, which is not there. A TPU's searches, for minutes where kernels of
# convolutions are large: its least effort is asked for.
OPTIONS = {"cuda": {"xla_gpu_autotune_level": 0}, "tpu": {"exec_time_optimization_effort": -1.0}}
EXTRAS = {"cuda": ("jax_cuda12_plugin", "h100"), "tpu": ("libtpu", "tpu-compiler")}


class Target(NamedTuple):
    """A machine that programs are compiled for.  platform: as JAX names it when it lowers, cuda or tpu."""

    name: str
    platform: str
    devices: tuple[Any, ...]

    def compile(self, f: Callable[..., Any], args: Any) -> Any:
        """f, which may be a jax.jit, compiled for one device of it and arguments like these (arrays or shapes)."""
        one = SingleDeviceSharding(self.devices[0])
        return self.compile_laid_out(f, jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=one), args))

    def compile_laid_out(self, f: Callable[..., Any], args: Any, options: Mapping[str, Any] | None = None) -> Any:
        """As `compile`, for shapes that say themselves on which of the devices they lie.  options: in the place of OPTIONS."""
        lowered = (f if hasattr(f, "trace") else jax.jit(f)).trace(*args).lower(lowering_platforms=(self.platform,))
        return lowered.compile(compiler_options=OPTIONS.get(self.platform) if options is None else dict(options))

    def mesh(self, sizes: Mapping[str, int]) -> Mesh:
        """A mesh of these axes over all its devices. Raises ValueError where they are not as many."""
        n = int(np.prod(list(sizes.values())))
        if n != len(self.devices):
            raise ValueError(
                f"bench: a mesh of {n} devices, and {self.name} has {len(self.devices)}; make them as many as each other."
            )
        return Mesh(np.array(self.devices).reshape(tuple(sizes.values())), tuple(sizes))


@lru_cache
def numbers() -> dict[str, Any]:
    """What gpus.json says."""
    return json.loads(files("nnjax.bench.ahead").joinpath("gpus.json").read_text())


def expect_target(name: str, who: str = "bench") -> str:
    """The platform of a target of this name.

    Raises ValueError for a name of none, and where what compiles for it is not installed.
    """
    cards = numbers()["cards"]
    platform = "cuda" if name in cards else "tpu" if TPU.fullmatch(name) else None
    if platform is None:
        raise ValueError(
            f"{who}: --compile-for takes a GPU ({', '.join(cards)}) or a TPU topology such as v5e:2x2 or v5p:2x2x1, "
            f"got {name!r}; name one of them."
        )
    package, extra = EXTRAS[platform]
    if importlib.util.find_spec(package) is None:
        raise ValueError(
            f"{who}: to compile for {name} XLA's compiler for {platform.upper()} is needed, and {package} is not installed: "
            f"python -m pip install 'nnjax[{extra}]'"
        )
    return platform


@lru_cache
def target(name: str, who: str = "bench") -> Target:
    """The target of this name: h100, h200, a100, or a TPU topology such as v5e:2x2. No such machine needs to be there.

    JAX is set to the CPU for what runs. Raises ValueError as `expect_target` does, and for a topology that is not known.
    """
    from jax.experimental import topologies

    platform = expect_target(name, who)
    jax.config.update("jax_platforms", "cpu")
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # or libtpu asks the network for the machine that it is on
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # which it refuses, as two cannot share a TPU; none is used here
    how = {"topology": "1x1x1", "target_config": spec(name)} if platform == "cuda" else {}
    try:
        found = topologies.get_topology_desc(platform=platform, topology_name=name, **how)
    except NotImplementedError as error:
        raise ValueError(
            f"{who}: JAX started without its compiler for {platform.upper()}; ask for {name} before anything else, or set "
            "JAX_PLATFORMS=cpu in the environment."
        ) from error
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{who}: XLA does not know the machine {name}: {reason}") from error
    return Target(name, platform, tuple(found.devices))


def spec(card: str) -> str:
    """A card as XLA's GpuTargetConfigProto, in its text form."""
    all_numbers = numbers()
    info = {**all_numbers["each"], **all_numbers["cards"][card]}
    described, (major, minor) = info.pop("device_description_str"), info.pop("cuda_compute_capability")
    lines = [f"{name}: {value}" for name, value in info.items()]
    dnn = "major: {} minor: {} patch: {}".format(*all_numbers["dnn_version_info"])
    return "\n".join((
        "gpu_device_info {", *lines, f"cuda_compute_capability {{ major: {major} minor: {minor} }}", "}",
        'platform_name: "CUDA"', f"dnn_version_info {{ {dnn} }}", f'device_description_str: "{described}"',
    ))  # fmt: skip
