"""Find the wrong layer inside a composition: the first one, walking backwards, at which the cotangents differ."""

from collections.abc import Callable
from typing import Any, NamedTuple

from ...layer import Layer, met
from ..report import Report, Row

TENSORS = {"w": "weight", "b": "bias", "x": "delta", "output": "activation"}


class Found(NamedTuple):
    """path: e.g. `5:dense(8, 8)`; rows: the failures of that layer when it is checked alone."""

    path: str
    rows: tuple[Row, ...]

    def words(self) -> str:
        """The layer, and which of its tensors are wrong."""
        wrong = [TENSORS.get(row.leaf.rpartition(".")[2].partition("[")[0], row.leaf) for row in self.rows]
        return f"walking backwards, the cotangents first differ at {self.path}, in its {', '.join(dict.fromkeys(wrong))}"


def localise(layer: Layer, params: Any, x: Any, key: Any, check: Callable[..., Report], path: str = "") -> Found | None:
    """The innermost wrong layer, found by checking each part alone, on the values that it meets; None if all are right.

    check(layer, params, x, key) -> Report. The last part is checked first, and so on back to the first.
    """
    for at in reversed(met(layer, params, x, key)):
        report = check(at.layer, at.params, at.x, at.key)
        if report.failures:
            here = f"{path}/{at.name}".lstrip("/")
            inner = localise(at.layer, at.params, at.x, at.key, check, here)
            return inner or Found(f"{here}:{at.layer.name}", report.failures)
    return None
