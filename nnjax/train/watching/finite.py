"""Where a number that is not finite first appears in a step: in which layer, forward or backward."""

from typing import Any

import jax
import jax.numpy as jnp

from ...errors import expect_arrays, expect_key
from ...grad import expect_model_and_loss
from ...layer import Layer, met


def _bad(tree: Any) -> bool:
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return not all(bool(jnp.isfinite(x).all()) for x in leaves)


def first_not_finite(model: Layer, loss: Layer, params: Any, x: Any, labels: Any, key: Any = None) -> str:
    """A sentence on the first layer at which NaN or infinity appears in value or gradient; "" if there is none.

    It walks the forward from the first layer to the last, then the backward from the last to the first.
    """
    expect_model_and_loss("first_not_finite", model, loss)
    for name, tree in (("params", params), ("x", x), ("labels", labels)):
        expect_arrays("first_not_finite", name, tree)
    if key is not None:
        expect_key("first_not_finite", key)
    bad = [p for p, w in jax.tree_util.tree_leaves_with_path(params) if _bad(w)]
    if bad:
        return f"params{jax.tree_util.keystr(bad[0])} is not finite, before the step"
    forward = _forward(model, params, x, key)
    if forward:
        return f"the output of {forward} is the first that is not finite"
    y, residuals = model.fwd(params, x, key=key)
    value, kept = loss.fwd((), (y, labels))
    if _bad(value):
        return f"the loss, {loss.name}, is the first that is not finite"
    _, (ct_y, *_) = loss.bwd(kept, jnp.ones_like(value))
    if _bad(ct_y):
        return f"the cotangent that {loss.name} sends back is the first that is not finite"
    if not _bad(model.bwd(residuals, ct_y)):
        return ""
    return f"a cotangent of {_backward(model, params, x, ct_y, key) or model.name} is the first that is not finite"


def _forward(layer: Layer, params: Any, x: Any, key: Any, path: str = "") -> str:
    for at in met(layer, params, x, key):
        if _bad(at.layer.apply(at.params, at.x, key=at.key)):
            here = f"{path}{at.name}"
            return _forward(at.layer, at.params, at.x, at.key, f"{here}/") or f"{here}:{at.layer.name}"
    return f"0:{layer.name}" if layer.walk is None and not path and _bad(layer.apply(params, x, key=key)) else ""


def _backward(layer: Layer, params: Any, x: Any, ct_y: Any, key: Any, path: str = "") -> str:
    parts = met(layer, params, x, key)
    if not parts or layer.remade is None:
        return ""
    calls = []

    def recorded(part: Layer) -> Layer:
        def bwd(residuals, ct):
            found = part.bwd(residuals, ct)
            calls.append((ct, found))
            return found

        return part._replace(bwd=bwd)

    made = layer.remade(*map(recorded, layer.parts))
    with jax.disable_jit():  # loops run in Python, so that numbers are recorded, not tracers
        made.bwd(made.fwd(params, x, key=key)[1], ct_y)
    for n, (ct, found) in enumerate(calls):
        if _bad(found):
            at = parts[-1 - n % len(parts)]  # parts run in reverse order, once for each chunk of examples
            here = f"{path}{at.name}"
            whole = len(calls) == len(parts)
            return (whole and _backward(at.layer, at.params, at.x, ct, at.key, f"{here}/")) or f"{here}:{at.layer.name}"
    return ""
