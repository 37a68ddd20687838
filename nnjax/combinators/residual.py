"""x + f(x): x was copied, so its cotangents are added."""

from typing import Any

import jax.numpy as jnp

from ..errors import describe, expect_array
from ..layer import Layer, Met, Y, add_cotangents, expect_layer, split_key
from .compose import expect_parts


def residual(f: Layer[Y], shortcut: Layer[Y] | None = None) -> Layer[Y]:
    """y = x + f(x); with a shortcut, such as a projection to the shape of f(x), y = shortcut(x) + f(x).

    If f returns a tuple, x is added to its first entry, and the others stay (see `nnjax.auxiliary`).
    params: those of f, or (those of f, those of the shortcut), and then the key is split.
    Backward: ct_x = ct_y + J_fᵀ ct_y; the transpose of the copy of x is the sum of the two cotangents. A shortcut takes its own
    back through its transpose.
    Raises TypeError for what is no Layer, ValueError where the two terms have different shapes or dtypes.

    >>> y, residuals = nnjax.residual(nnjax.tanh()).fwd((), jnp.zeros(2))
    >>> nnjax.residual(nnjax.tanh()).bwd(residuals, jnp.ones(2))[1].tolist()
    [2.0, 2.0]
    """
    expect_layer("residual", f)

    def added(x: Any, fx: Any) -> Any:
        return (total(x, fx[0]), *fx[1:]) if _is_several(fx) else total(x, fx)

    def total(x: Any, fx: Any) -> Any:
        for what, value in (("x", x), ("f(x)", fx)):
            expect_array(f"residual({f.name})", what, value)
        if jnp.shape(fx) != jnp.shape(x):
            raise ValueError(
                f"residual({f.name}): f(x) must have the shape of {'x' if shortcut is None else 'shortcut(x)'}, {describe(x)}, "
                f"got {describe(fx)}; give f as many outputs as inputs, or a shortcut with as many as f."
            )
        return x + fx

    if shortcut is not None:
        return _projected(f, shortcut, added)

    def apply(params, x, *, key=None):
        return added(x, f.apply(params, x, key=key))

    def fwd(params, x, *, key=None):
        fx, residuals = f.fwd(params, x, key=key)
        return added(x, fx), residuals

    def bwd(residuals, ct_y):
        ct_params, ct_fx = f.bwd(residuals, ct_y)
        return ct_params, _of_sum(ct_y) + ct_fx

    def walk(params, x, key):
        params, fx = yield Met("residual", f, params, x, key)
        return params, added(x, fx)

    return Layer("residual", f.init, apply, fwd, bwd, (f,), walk, residual)


def _is_several(y: Any) -> bool:
    """A plain tuple, whose first entry takes part in the sum."""
    return type(y) is tuple and bool(y)


def _of_sum(ct_y: Any) -> Any:
    """The cotangent of the sum."""
    return ct_y[0] if _is_several(ct_y) else ct_y


def _projected(f: Layer[Y], shortcut: Layer[Y], added: Any) -> Layer[Y]:
    expect_layer("residual", shortcut)
    who = f"residual({f.name})"

    def init(key):
        k_f, k_shortcut = split_key(key, 2)
        return f.init(k_f), shortcut.init(k_shortcut)

    def apply(params, x, *, key=None):
        expect_parts(who, params, 2)
        k_f, k_shortcut = split_key(key, 2)
        return added(shortcut.apply(params[1], x, key=k_shortcut), f.apply(params[0], x, key=k_f))

    def fwd(params, x, *, key=None):
        expect_parts(who, params, 2)
        k_f, k_shortcut = split_key(key, 2)
        fx, f_residuals = f.fwd(params[0], x, key=k_f)
        gx, shortcut_residuals = shortcut.fwd(params[1], x, key=k_shortcut)
        return added(gx, fx), (f_residuals, shortcut_residuals)

    def bwd(residuals, ct_y):
        f_residuals, shortcut_residuals = residuals
        ct_f, ct_fx = f.bwd(f_residuals, ct_y)
        ct_shortcut, ct_gx = shortcut.bwd(shortcut_residuals, _of_sum(ct_y))
        return (ct_f, ct_shortcut), add_cotangents(ct_fx, ct_gx)

    def walk(params, x, key):
        expect_parts(who, params, 2)
        k_f, k_shortcut = split_key(key, 2)
        p, fx = yield Met("residual", f, params[0], x, k_f)
        q, gx = yield Met("shortcut", shortcut, params[1], x, k_shortcut)
        return (p, q), added(gx, fx)

    return Layer("residual", init, apply, fwd, bwd, (f, shortcut), walk, residual)
