"""Machines that are not here, to compile for: GPUs by their numbers, TPUs by their topology."""

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
# A GPU's compiler would try its choices on the card, which is missing. A TPU's searches for minutes if kernels of
# convolutions are large, so its least effort is used.
OPTIONS = {"cuda": {"xla_gpu_autotune_level": 0}, "tpu": {"exec_time_optimization_effort": -1.0}}
EXTRAS = {"cuda": ("jax_cuda12_plugin", "h100"), "tpu": ("libtpu", "tpu-compiler")}


class Target(NamedTuple):
    """A machine to compile programs for.  platform: the name that JAX uses in lowering, cuda or tpu."""

    name: str
    platform: str
    devices: tuple[Any, ...]

    def compile(self, f: Callable[..., Any], args: Any) -> Any:
        """f, which may be a jax.jit, compiled for one device of it and arguments like these (arrays or shapes)."""
        one = SingleDeviceSharding(self.devices[0])
        return self.compile_laid_out(f, jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=one), args))

    def compile_laid_out(self, f: Callable[..., Any], args: Any, options: Mapping[str, Any] | None = None) -> Any:
        """Like `compile`, for shapes that say on which of the devices they lie.  options: replaces OPTIONS."""
        lowered = (f if hasattr(f, "trace") else jax.jit(f)).trace(*args).lower(lowering_platforms=(self.platform,))
        return lowered.compile(compiler_options=OPTIONS.get(self.platform) if options is None else dict(options))

    def mesh(self, sizes: Mapping[str, int]) -> Mesh:
        """A mesh of these axes over all its devices. Raises ValueError if the numbers differ."""
        n = int(np.prod(list(sizes.values())))
        if n != len(self.devices):
            raise ValueError(f"bench: the mesh has {n} devices, but {self.name} has {len(self.devices)}; make the two agree.")
        return Mesh(np.array(self.devices).reshape(tuple(sizes.values())), tuple(sizes))


@lru_cache
def numbers() -> dict[str, Any]:
    """The content of gpus.json."""
    return json.loads(files("nnjax.bench.ahead").joinpath("gpus.json").read_text())


def expect_target(name: str, who: str = "bench") -> str:
    """The platform of a target of this name.

    Raises ValueError for an unknown name, and if its compiler is not installed.
    """
    cards = numbers()["cards"]
    platform = "cuda" if name in cards else "tpu" if TPU.fullmatch(name) else None
    if platform is None:
        raise ValueError(
            f"{who}: --compile-for must be a GPU ({', '.join(cards)}) or a TPU topology such as v5e:2x2 or v5p:2x2x1, "
            f"got {name!r}; name one of them."
        )
    package, extra = EXTRAS[platform]
    if importlib.util.find_spec(package) is None:
        raise ValueError(
            f"{who}: compiling for {name} needs XLA's compiler for {platform.upper()}, but {package} is not installed: "
            f"python -m pip install 'nnjax[{extra}]'"
        )
    return platform


@lru_cache
def target(name: str, who: str = "bench") -> Target:
    """The target of this name: h100, h200, a100, or a TPU topology such as v5e:2x2. The machine need not be here.

    JAX is set to run on the CPU. Raises ValueError as `expect_target` does, and for an unknown topology.
    """
    from jax.experimental import topologies

    platform = expect_target(name, who)
    jax.config.update("jax_platforms", "cpu")
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # otherwise libtpu asks the network which machine it is on
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # libtpu refuses it, as two cannot share a TPU; none is used here
    how = {"topology": "1x1x1", "target_config": spec(name)} if platform == "cuda" else {}
    try:
        found = topologies.get_topology_desc(platform=platform, topology_name=name, **how)
    except NotImplementedError as error:
        raise ValueError(
            f"{who}: JAX started without its compiler for {platform.upper()}; make the target {name} first, or set "
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
