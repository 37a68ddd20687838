"""`nnjax check`, also over a mesh."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import Mesh

from ..check import command
from ..check.report import Report
from ..check.vjp import check_layer
from .cases import Case, cases
from .check import check_draws
from .command import simulate
from .mesh import make_mesh
from .sharded import Sharded

SIMULATED = 8  # devices that a CPU shows at least


@dataclass
class Check(command.Check):
    """Check every layer, loss and model: the hand-written gradient against jax.grad, on every device of this machine."""

    mesh: str | None = None
    """Check those of nnjax.parallel instead, over a mesh such as data=4,model=2 of the axes data, shard and model, against one
    device. A CPU simulates its devices. Programs are compiled; with --full also run operation by operation."""

    def run(self) -> int:
        """As `nnjax.check.command.Check.run`. Raises ValueError for a mesh that is none, or larger than the devices present."""
        if self.mesh is not None:
            if self.mutants:
                raise ValueError("check: mutants are planted in layers of one device; leave out --mutants or --mesh.")
            if self.device == "cpu":
                jax.config.update("jax_platforms", "cpu")
            simulate(max(SIMULATED, math.prod(sizes_of(self.mesh).values())))
        return super().run()

    def _workers(self) -> int:
        return super()._workers() if self.mesh is None else 1  # programs that communicate must not run two at a time

    def _cases(self) -> Sequence[Any]:
        return super()._cases() if self.mesh is None else cases(self._mesh())

    def _mesh(self) -> Mesh:
        return make_mesh(**sizes_of(self.mesh or ""))

    def _held(self, case: Any, seed: int, devices: list) -> Report:
        if not isinstance(case, Case):
            return super()._held(case, seed, devices)
        (params, x), mesh = case.make(seed), self._mesh()
        if case.reference is None:
            axes = tuple(name for name in ("data", "shard") if name in mesh.axis_names)
            report = check_draws(Sharded(case.layer, case.specs[0]), params, x, mesh, axes, key=jax.random.key(seed))
        else:
            report = check_layer(
                case.layer, params, x, mesh=mesh, specs=case.specs, reference=case.reference, seed=seed,
                transforms=("eager", "jit") if self.full else ("jit",),
            )  # fmt: skip
        return report._replace(
            rows=tuple(row._replace(case=row.case.replace(case.layer.name, case.name)) for row in report.rows)
        )


def sizes_of(text: str) -> dict[str, int]:
    """{"data": 4, "model": 2} of "data=4,model=2". Raises ValueError for anything else."""
    found = [re.fullmatch(r"(\w+)=([1-9]\d*)", entry.strip()) for entry in text.split(",")]
    sizes = {match[1]: int(match[2]) for match in found if match}
    if len(sizes) != len(found):
        raise ValueError(f"check: --mesh lists axes with their sizes, each once, as data=4,model=2, got {text!r}; write so.")
    return sizes
