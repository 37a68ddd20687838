"""Which layer inside a composition is wrong: the first one, walking backwards, at which the cotangents part."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from ..layer import Layer
from .report import Report, Row

TENSORS = {"w": "weight", "b": "bias", "x": "delta", "output": "activation"}


class Found(NamedTuple):
    """path: e.g. `5:dense(8, 8)`; rows: the failures of that layer checked by itself."""

    path: str
    rows: tuple[Row, ...]

    def words(self) -> str:
        """The layer, and which of its tensors are wrong."""
        wrong = [TENSORS.get(row.leaf.rpartition(".")[2].partition("[")[0], row.leaf) for row in self.rows]
        return f"walking backwards the cotangents part at {self.path}, in its {', '.join(dict.fromkeys(wrong))}"


def localise(layer: Layer, params: Any, x: Any, key: Any, check: Callable[..., Report], path: str = "") -> Found | None:
    """The innermost wrong layer, found by checking parts by themselves, on the values that they meet; None if it has none.

    check(layer, params, x, key) -> Report. Parts of a `serial` are taken from the last to the first.
    """
    met = meets(layer, params, x, key)
    for name, part, p, v, k in met:
        report = check(part, p, v, k)
        if report.failures:
            here = f"{path}/{name}:{part.name}".lstrip("/")
            return localise(part, p, v, k, check, here.rpartition(":")[0]) or Found(here, report.failures)
    return None


def meets(layer: Layer, params: Any, x: Any, key: Any) -> list[tuple[str, Layer, Any, Any, Any]]:
    """(name, part, params, x, key) of every part of a composition, the last to act first."""
    parts = layer.parts
    if not parts:
        return []
    if layer.name == "residual":
        return [("residual", parts[0], params, x, key)]
    if layer.name == "scan_layers":
        n = jax.tree.leaves(params)[0].shape[0] if jax.tree.leaves(params) else 1
        rows = [jax.tree.map(lambda p, i=i: p[i], params) for i in range(n)]
        met = _in_a_row([(str(i), parts[0], p) for i, p in enumerate(rows)], x, key)
        return [(f"scan_layers[{name}]", *rest) for name, *rest in met]
    if layer.name == "tied":
        table, inner = params
        named = zip(("embed", "body", "head"), parts, (table, inner, table))
        return _in_a_row(list(named), x, key)
    if layer.name == "parallel":
        keys = (None,) * len(parts) if key is None else jax.random.split(key, len(parts))
        return [(str(i), part, p, x, k) for i, (part, p, k) in enumerate(zip(parts, params, keys))]
    return _in_a_row([(str(i), part, p) for i, (part, p) in enumerate(zip(parts, params))], x, key)


def _in_a_row(named: list[tuple[str, Layer, Any]], x: Any, key: Any) -> list:
    keys = (None,) * len(named) if key is None else jax.random.split(key, len(named))
    met = []
    for (name, part, p), k in zip(named, keys):
        met.append((name, part, p, x, k))
        x = part.apply(p, x, key=k)
    return met[::-1]
