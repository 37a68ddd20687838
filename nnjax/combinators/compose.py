"""In a row, side by side, or once more: the transpose of A B is Bᵀ Aᵀ, and that of a copy is a sum."""

from collections.abc import Callable, Sequence
from typing import Any

from ..errors import describe
from ..layer import Layer, Met, Y, add_cotangents, expect_layer, split_key


def expect_parts(who: str, params: Any, n: int) -> None:
    if not isinstance(params, tuple) or len(params) != n:
        came = f"{len(params)} entries" if isinstance(params, tuple) else describe(params)
        raise TypeError(
            f"{who}: params must be a tuple with one entry for each of its {n} parts, got {came}; "
            "make them with layer.init(key)."
        )


def expect_cotangents(who: str, cts: Any, n: int) -> None:
    if not isinstance(cts, tuple) or len(cts) != n:
        came = f"{len(cts)} entries" if isinstance(cts, tuple) else describe(cts)
        raise TypeError(
            f"{who}: the cotangent must be a tuple with one entry for each of its {n} outputs, got {came}; pass it as the "
            "output is."
        )


def _init_of(who: str, layers: Sequence[Layer]) -> Callable[[Any], tuple[Any, ...]]:
    """key -> the parameters of each, from a key of its own. Raises TypeError for what is no Layer."""
    for layer in layers:
        expect_layer(who, layer)
    return lambda key: tuple(layer.init(k) for layer, k in zip(layers, split_key(key, len(layers))))


def serial(*layers: Layer[Y]) -> Layer[Y]:
    """y = f_n(... f_2(f_1(x))).  params: a tuple, one entry for each layer.

    Backward: ct_x = J_1ᵀ J_2ᵀ ... J_nᵀ ct_y, last layer first. The key is split, one for each layer.
    Raises TypeError for parts that are not layers, or params without one entry for each layer.

    >>> model = nnjax.serial(nnjax.dense(4, 8), nnjax.tanh(), nnjax.dense(8, 3))
    >>> params = model.init(jax.random.key(0))
    >>> len(params), model.apply(params, jnp.ones((5, 4))).shape
    (3, (5, 3))
    """
    who = f"serial of {len(layers)}"
    init = _init_of(who, layers)

    def apply(params, x, *, key=None):
        expect_parts(who, params, len(layers))
        for layer, p, k in zip(layers, params, split_key(key, len(layers))):
            x = layer.apply(p, x, key=k)
        return x

    def fwd(params, x, *, key=None):
        expect_parts(who, params, len(layers))
        residuals = []
        for layer, p, k in zip(layers, params, split_key(key, len(layers))):
            x, kept = layer.fwd(p, x, key=k)
            residuals.append(kept)
        return x, tuple(residuals)

    def bwd(residuals, ct_y):
        ct_params = []
        for layer, kept in zip(reversed(layers), reversed(residuals)):  # (A B)ᵀ = Bᵀ Aᵀ
            ct_p, ct_y = layer.bwd(kept, ct_y)
            ct_params.append(ct_p)
        return tuple(reversed(ct_params)), ct_y

    def walk(params, x, key):
        expect_parts(who, params, len(layers))
        found = []
        for i, (layer, p, k) in enumerate(zip(layers, params, split_key(key, len(layers)))):
            p, x = yield Met(str(i), layer, p, x, k)
            found.append(p)
        return tuple(found), x

    return Layer("serial", init, apply, fwd, bwd, tuple(layers), walk, serial)


def parallel(*layers: Layer) -> Layer:
    """x -> (f_1(x), ..., f_n(x)).  params: a tuple, one entry for each layer.

    Backward: ct_x = sum of J_iᵀ ct_y_i: x was copied, and the transpose of a copy is a sum (None adds nothing).
    Raises TypeError for what is no Layer, ValueError for no layers.

    >>> both = nnjax.parallel(nnjax.dense(4, 3), nnjax.dense(4, 2))
    >>> [y.shape for y in both.apply(both.init(jax.random.key(0)), jnp.ones((5, 4)))]
    [(5, 3), (5, 2)]
    """
    who = f"parallel of {len(layers)}"
    if not layers:
        raise ValueError("parallel: expected at least one layer, got none; pass the layers that x is copied to.")
    init = _init_of(who, layers)

    def apply(params, x, *, key=None):
        expect_parts(who, params, len(layers))
        return tuple(layer.apply(p, x, key=k) for layer, p, k in zip(layers, params, split_key(key, len(layers))))

    def fwd(params, x, *, key=None):
        expect_parts(who, params, len(layers))
        pairs = [layer.fwd(p, x, key=k) for layer, p, k in zip(layers, params, split_key(key, len(layers)))]
        return tuple(y for y, _ in pairs), tuple(kept for _, kept in pairs)

    def bwd(residuals, ct_ys):
        expect_cotangents(who, ct_ys, len(layers))
        ct_params, ct_x = [], None
        for layer, kept, ct_y in zip(reversed(layers), reversed(residuals), reversed(ct_ys)):
            ct_p, ct = layer.bwd(kept, ct_y)
            ct_params.append(ct_p)
            ct_x = add_cotangents(ct_x, ct)
        return tuple(reversed(ct_params)), ct_x

    def walk(params, x, key):
        expect_parts(who, params, len(layers))
        found = []
        for i, (layer, p, k) in enumerate(zip(layers, params, split_key(key, len(layers)))):
            found.append((yield Met(str(i), layer, p, x, k)))
        return tuple(p for p, _ in found), tuple(y for _, y in found)

    return Layer("parallel", init, apply, fwd, bwd, tuple(layers), walk, parallel)


def recompute(layer: Layer[Y]) -> Layer[Y]:
    """The same layer, keeping only its input: its backward calls `layer.fwd` again for the residuals, never `apply`.

    It saves memory across the boundary of a loop, as in `scan_layers`. In straight code XLA may merge the two calls again.
    Raises TypeError for what is no Layer.

    >>> layer = nnjax.recompute(nnjax.mlp([4, 8, 3]))
    >>> layer.apply(layer.init(jax.random.key(0)), jnp.ones((5, 4))).shape
    (5, 3)
    """
    expect_layer("recompute", layer)

    def fwd(params, x, *, key=None):
        return layer.fwd(params, x, key=key)[0], (params, x, key)

    def bwd(residuals, ct_y):
        params, x, key = residuals
        return layer.bwd(layer.fwd(params, x, key=key)[1], ct_y)

    made, own = layer.remade, None if layer.plain is None else recompute(layer.plain)
    remade = None if made is None else lambda *parts: recompute(made(*parts))
    return layer._replace(fwd=fwd, bwd=bwd, remade=remade, plain=own)
