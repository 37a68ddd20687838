"""`nnjax train`, on as many devices as a mesh has."""

import math
import re
from dataclasses import dataclass, fields
from typing import ClassVar

import jax
from jax.sharding import Mesh

from ..errors import expect_positive
from ..layer import Layer
from ..train import command
from ..train.options import expect_options
from ..train.placement import expect_batch
from ..train.recipe import ACTIVATIONS, Gradients
from ..train.recipe import gradients as on_one_device
from .mesh import make_mesh
from .processes import CONNECT, Place, expect_alike, found_place, join, together
from .training import AXES, gradients


@dataclass
class Train(command.Train):
    """Train a network on real images or text with gradients written by hand, checked against jax.grad."""

    MAY_DIFFER: ClassVar[tuple[str, ...]] = (
        "devices", "mesh", "coordinator", "num_processes", "process_id", "connect_seconds",
    )  # fmt: skip

    devices: int | None = None
    """Train on so many devices; of a CPU, as many are simulated, an equal share in each process."""
    mesh: str | None = None
    """How they are laid out, as data=4,model=2: by default data=DEVICES. data: each has its own examples; shard: and its
    share of every parameter and of what the optimizer keeps; model: layers of an mlp or a gpt are cut."""
    coordinator: str | None = None
    """Train in several processes, on one machine or many; HOST:PORT, where process 0 can be reached. Each runs the same command
    but for its --process-id. Under SLURM's srun and Open MPI's mpirun these three options are known: leave them out."""
    num_processes: int | None = None
    """How many processes there are."""
    process_id: int | None = None
    """Which of them this is, from 0."""
    connect_seconds: int = CONNECT
    """How long to wait for all processes to come."""

    def __post_init__(self):
        self._mesh: Mesh | None = None

    def run(self) -> int:
        """As `nnjax.train.command.Train.run`. Raises ValueError where the devices or the other processes are not there."""
        expect_options(self)
        place = found_place(self.coordinator, self.num_processes, self.process_id)
        sizes = mesh_sizes(self.mesh, self.devices)
        expect_positive("train", connect_seconds=self.connect_seconds)
        if place is None and sizes is None:
            return self._judged()
        self._expect_on_mesh()
        simulate(_share(self.devices, place.count if place else 1))
        if place is None:
            return self._on(sizes)
        join(place, self.connect_seconds)
        return together(place, lambda: self._in_company(place, sizes))

    def _in_company(self, place: Place, sizes: dict[str, int] | None) -> int:
        own = ("coordinator", "process_id")
        expect_alike({f.name: getattr(self, f.name) for f in fields(self) if f.name not in own})
        return self._on(sizes)

    def _on(self, sizes: dict[str, int] | None) -> int:
        self._mesh = mesh_of(sizes or {"data": jax.device_count()})
        return self._judged()

    def gradients(self, model: Layer, loss: Layer) -> Gradients:
        """By hand and by jax.grad, over the mesh."""
        if self._mesh is None:
            return on_one_device(model, loss)
        activation = ACTIVATIONS[self.activation or "relu"]()
        found = gradients(model, loss, self._mesh, activation=activation, heads=self.heads, dropout=self.dropout)
        expect_batch("train", found.placement, self.batch_size)
        return found

    def described(self) -> str:
        """How the run optimises, and on what mesh, in words."""
        if self._mesh is None:
            return super().described()
        sizes = ", ".join(f"{name}={size}" for name, size in self._mesh.shape.items())
        where = f"{self._mesh.size} devices ({self._mesh.devices.flat[0].platform})"
        where += f" of {jax.process_count()} processes" if jax.process_count() > 1 else ""
        return f"{super().described()}\non {where}, mesh {sizes}"

    def _expect_on_mesh(self) -> None:
        """Raise ValueError for what only one device does."""
        given = {"--model nielsen": self.model == "nielsen", f"--feedback {self.feedback}": self.feedback != "transpose",
                 "--grad both": self.grad == "both", "--trajectory": self.trajectory > 0}  # fmt: skip
        for option in (name for name, asked in given.items() if asked):
            raise ValueError(f"train: {option} is for one device; leave it out, or --devices and --mesh.")


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


def _share(devices: int | None, processes: int) -> int | None:
    """How many of the devices each process has."""
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
