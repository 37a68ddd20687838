"""The devices of a run, from the options of a command line: how many, and the mesh that they form."""

import math
import re
from typing import Any

import jax
from jax.sharding import Mesh

from ..errors import expect_positive
from .mesh import make_mesh
from .training import AXES


def present(who: str, platform: str | None) -> list[Any]:
    """The devices of this platform, or of JAX's default one. Raises ValueError if there is none."""
    try:
        return jax.devices(platform)
    except RuntimeError:
        found = sorted({d.platform for d in jax.devices()})
        raise ValueError(f"{who}: no device of platform {platform!r} is here; pass one of {', '.join(found)}.") from None


def mesh_sizes(mesh: str | None, devices: int | None, who: str = "train") -> dict[str, int] | None:
    """{"data": 4, "model": 2} from "data=4,model=2", or all devices along data. Raises ValueError if the two disagree."""
    if devices is not None:
        expect_positive(who, devices=devices)
    if mesh is None:
        return None if devices is None else {"data": devices}
    entries = [entry.strip() for entry in mesh.split(",")]
    found = [re.fullmatch(rf"({'|'.join(AXES)})=([1-9]\d*)", entry) for entry in entries]
    for entry, match in zip(entries, found):
        if match is None:
            raise ValueError(
                f"{who}: --mesh must list axes ({', '.join(AXES)}) with sizes, got {entry!r}; write e.g. data=4,model=2."
            )
    sizes = {match[1]: int(match[2]) for match in found if match}
    if len(sizes) < len(entries):
        raise ValueError(f"{who}: --mesh must name each axis once, got {mesh!r}; give each axis one size.")
    n = math.prod(sizes.values())
    if devices is not None and n != devices:
        raise ValueError(f"{who}: --mesh {mesh} needs {n} devices, got --devices {devices}; make the two agree.")
    return sizes


def share_of(devices: int | None, processes: int) -> int | None:
    """How many of the devices each process has. Raises ValueError if the shares cannot be equal."""
    if devices is not None and devices % processes:
        raise ValueError(
            f"train: --devices must be a multiple of the {processes} processes, got {devices}; each has an equal share."
        )
    return None if devices is None else devices // processes


def simulate(devices: int | None) -> None:
    """Make the CPU simulate this many devices, unless JAX has been used already. It does not affect accelerators."""
    if devices is not None:
        try:
            jax.config.update("jax_num_cpu_devices", devices)
        except RuntimeError:
            return


def mesh_of(sizes: dict[str, int]) -> Mesh:
    """The mesh. Raises ValueError if fewer devices are present."""
    n, present, platform = math.prod(sizes.values()), jax.device_count(), jax.devices()[0].platform
    if n > present:
        remedy = f"pass --devices {n} to simulate them" if platform == "cpu" else "make an axis smaller"
        raise ValueError(f"train: the mesh needs {n} devices, got {present} of platform {platform}; {remedy}.")
    if n < present and jax.process_count() > 1:
        raise ValueError(f"train: the mesh needs {n} devices, but the processes have {present}; name a mesh of all of them.")
    return make_mesh(**sizes)
