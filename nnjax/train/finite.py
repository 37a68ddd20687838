"""Where a number that is not finite first appears in a step: which layer, on its way forward or back."""

from typing import Any

import jax
import jax.numpy as jnp

from ..check.localise import meets
from ..layer import Layer


def _bad(tree: Any) -> bool:
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return not all(bool(jnp.isfinite(x).all()) for x in leaves)


def first_not_finite(model: Layer, loss: Layer, params: Any, x: Any, labels: Any, key: Any = None) -> str:
    """In words, the first layer at which NaN or infinity appears in value or gradient; "" where there is none.

    The forward is walked from the first layer to the last, then the backward from the last to the first.
    """
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
    backward = _backward(model, params, x, ct_y, key)
    return f"a cotangent of {backward} is the first that is not finite" if backward else ""


def _forward(layer: Layer, params: Any, x: Any, key: Any, path: str = "") -> str:
    for name, part, p, v, k in reversed(meets(layer, params, x, key)):
        if _bad(part.apply(p, v, key=k)):
            return _forward(part, p, v, k, f"{path}{name}/") or f"{path}{name}:{part.name}"
    return f"0:{layer.name}" if not layer.parts and not path and _bad(layer.apply(params, x, key=key)) else ""


def _backward(layer: Layer, params: Any, x: Any, ct: Any, key: Any) -> str:
    if not layer.parts or layer.name in ("residual", "parallel", "scan_layers", "tied"):  # not simply one after the other
        return layer.name if _bad(layer.bwd(layer.fwd(params, x, key=key)[1], ct)) else ""
    for name, part, p, v, k in meets(layer, params, x, key):
        ct_p, ct_x = part.bwd(part.fwd(p, v, key=k)[1], ct)
        if _bad((ct_p, ct_x)):
            return f"{name}:{_backward(part, p, v, ct, k) or part.name}"
        ct = ct_x
    return ""
