"""The devices of a run, from the options of a command line: how many, and the mesh that they are laid out in."""

import math
import re
from typing import Any

import jax
from jax.sharding import Mesh

from ..errors import expect_positive
from .mesh import make_mesh
from .training import AXES


def present(who: str, platform: str | None) -> list[Any]:
    """The devices of this platform, or of JAX's first choice. Raises ValueError where there is none."""
    try:
        return jax.devices(platform)
    except RuntimeError:
        found = sorted({d.platform for d in jax.devices()})
        raise ValueError(f"{who}: no device of platform {platform!r} here; present are {', '.join(found)}.") from None


def mesh_sizes(mesh: str | None, devices: int | None, who: str = "train") -> dict[str, int] | None:
    """{"data": 4, "model": 2} of "data=4,model=2", or all devices along data. Raises ValueError where they do not agree."""
    if devices is not None:
        expect_positive(who, devices=devices)
    if mesh is None:
        return None if devices is None else {"data": devices}
    entries = [entry.strip() for entry in mesh.split(",")]
    found = [re.fullmatch(rf"({'|'.join(AXES)})=([1-9]\d*)", entry) for entry in entries]
    for entry, match in zip(entries, found):
        if match is None:
            raise ValueError(
                f"{who}: --mesh lists axes with their sizes, as data=4,model=2, of {', '.join(AXES)}, got {entry!r}; write so."
            )
    sizes = {match[1]: int(match[2]) for match in found if match}
    if len(sizes) < len(entries):
        raise ValueError(f"{who}: --mesh names an axis twice, got {mesh!r}; give each axis one size.")
    n = math.prod(sizes.values())
    if devices is not None and n != devices:
        raise ValueError(f"{who}: --mesh {mesh} has {n} places for --devices {devices}; make them as many as each other.")
    return sizes


def share_of(devices: int | None, processes: int) -> int | None:
    """How many of the devices each process has. Raises ValueError where they cannot have equal shares."""
    if devices is not None and devices % processes:
        raise ValueError(
            f"train: --devices must be a multiple of the {processes} processes, which have equal shares, got {devices}."
        )
    return None if devices is None else devices // processes


def simulate(devices: int | None) -> None:
    """Have a CPU show so many devices, unless JAX has been used already. Accelerators are as many as there are."""
    if devices is not None:
        try:
            jax.config.update("jax_num_cpu_devices", devices)
        except RuntimeError:
            return


def mesh_of(sizes: dict[str, int]) -> Mesh:
    """The mesh. Raises ValueError where fewer devices are present."""
    n, present, platform = math.prod(sizes.values()), jax.device_count(), jax.devices()[0].platform
    if n > present:
        remedy = f"pass --devices {n} to simulate them" if platform == "cpu" else "make an axis smaller"
        raise ValueError(f"train: a mesh of {n} devices, and {present} of platform {platform} are present; {remedy}.")
    if n < present and jax.process_count() > 1:
        raise ValueError(f"train: a mesh of {n} devices, and the processes have {present}; name a mesh of all of them.")
    return make_mesh(**sizes)
