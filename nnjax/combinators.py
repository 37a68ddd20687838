"""A layer is a definition and its hand-written pair; layers compose by a fold whose backward runs the other way.

    y = A B x    pulls a cotangent back as    ct_x = (A B)ᵀ ct_y = Bᵀ Aᵀ ct_y

so every combinator calls the `bwd` of its parts in the opposite order of their `fwd`.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from .errors import describe, expect_array, expect_arrays, expect_flag, expect_key, expect_positive
from .fast.choose import by_platform
from .fast.gpu.scan import AT_A_TIME
from .layer import Layer, Met, Y, add_cotangents, expect_layer, split_key
from .trees.residuals import with_parameters, without_parameters


def _expect_parts(who: str, params: Any, n: int) -> None:
    if not isinstance(params, tuple) or len(params) != n:
        came = f"{len(params)} entries" if isinstance(params, tuple) else describe(params)
        raise TypeError(
            f"{who}: params must be a tuple with one entry for each of its {n} parts, got {came}; "
            "make them with layer.init(key)."
        )


def _expect_cotangents(who: str, cts: Any, n: int) -> None:
    if not isinstance(cts, tuple) or len(cts) != n:
        came = f"{len(cts)} entries" if isinstance(cts, tuple) else describe(cts)
        raise TypeError(
            f"{who}: the cotangent must be a tuple with one entry for each of its {n} outputs, got {came}; pass it as the "
            "output is."
        )


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
    for layer in layers:
        expect_layer(who, layer)

    def init(key):
        return tuple(layer.init(k) for layer, k in zip(layers, split_key(key, len(layers))))

    def apply(params, x, *, key=None):
        _expect_parts(who, params, len(layers))
        for layer, p, k in zip(layers, params, split_key(key, len(layers))):
            x = layer.apply(p, x, key=k)
        return x

    def fwd(params, x, *, key=None):
        _expect_parts(who, params, len(layers))
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
        _expect_parts(who, params, len(layers))
        found = []
        for i, (layer, p, k) in enumerate(zip(layers, params, split_key(key, len(layers)))):
            p, x = yield Met(str(i), layer, p, x, k)
            found.append(p)
        return tuple(found), x

    return Layer("serial", init, apply, fwd, bwd, tuple(layers), walk, serial)


def residual(f: Layer[Y]) -> Layer[Y]:
    """y = x + f(x).  params: those of f.  f must keep the shape of x.

    If f returns a tuple, x is added to its first entry, and the others stay (see `nnjax.auxiliary`).
    Backward: ct_x = ct_y + J_fᵀ ct_y; the transpose of the copy of x is the sum of the two cotangents.
    Raises TypeError for what is no Layer, ValueError where f(x) has another shape or dtype than x.

    >>> y, residuals = nnjax.residual(nnjax.tanh()).fwd((), jnp.zeros(2))
    >>> nnjax.residual(nnjax.tanh()).bwd(residuals, jnp.ones(2))[1].tolist()
    [2.0, 2.0]
    """
    expect_layer("residual", f)

    def added(x: Any, fx: Any) -> Any:
        return (summed(x, fx[0]), *fx[1:]) if isinstance(fx, tuple) and fx else summed(x, fx)

    def summed(x, fx):
        for what, value in (("x", x), ("f(x)", fx)):
            expect_array(f"residual({f.name})", what, value)
        if jnp.shape(fx) != jnp.shape(x):
            raise ValueError(
                f"residual({f.name}): f(x) must have the shape of x, {describe(x)}, got {describe(fx)}; "
                "give f as many outputs as inputs."
            )
        return x + fx

    def apply(params, x, *, key=None):
        return added(x, f.apply(params, x, key=key))

    def fwd(params, x, *, key=None):
        fx, residuals = f.fwd(params, x, key=key)
        return added(x, fx), residuals

    def bwd(residuals, ct_y):
        ct_params, ct_fx = f.bwd(residuals, ct_y)
        return ct_params, (ct_y[0] if isinstance(ct_y, tuple) else ct_y) + ct_fx

    def walk(params, x, key):
        params, fx = yield Met("residual", f, params, x, key)
        return params, added(x, fx)

    return Layer("residual", f.init, apply, fwd, bwd, (f,), walk, residual)


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
    for layer in layers:
        expect_layer(who, layer)

    def init(key):
        return tuple(layer.init(k) for layer, k in zip(layers, split_key(key, len(layers))))

    def apply(params, x, *, key=None):
        _expect_parts(who, params, len(layers))
        return tuple(layer.apply(p, x, key=k) for layer, p, k in zip(layers, params, split_key(key, len(layers))))

    def fwd(params, x, *, key=None):
        _expect_parts(who, params, len(layers))
        pairs = [layer.fwd(p, x, key=k) for layer, p, k in zip(layers, params, split_key(key, len(layers)))]
        return tuple(y for y, _ in pairs), tuple(kept for _, kept in pairs)

    def bwd(residuals, ct_ys):
        _expect_cotangents(who, ct_ys, len(layers))
        ct_params, ct_x = [], None
        for layer, kept, ct_y in zip(reversed(layers), reversed(residuals), reversed(ct_ys)):
            ct_p, ct = layer.bwd(kept, ct_y)
            ct_params.append(ct_p)
            ct_x = add_cotangents(ct_x, ct)
        return tuple(reversed(ct_params)), ct_x

    def walk(params, x, key):
        _expect_parts(who, params, len(layers))
        found = []
        for i, (layer, p, k) in enumerate(zip(layers, params, split_key(key, len(layers)))):
            found.append((yield Met(str(i), layer, p, x, k)))
        return tuple(p for p, _ in found), tuple(y for _, y in found)

    return Layer("parallel", init, apply, fwd, bwd, tuple(layers), walk, parallel)


def scan_layers(block: Layer[Y], n: int, *, remat: bool = False) -> Layer[Y]:
    """y = block(... block(x)), n times with n sets of parameters, compiled once.

    params: those of block, stacked along a new first axis of length n.  block must keep the shape and dtype of x.
    Backward: the same scan from the end, carrying only the cotangent of x. Residuals that are parameters are not kept
    again: the backward reads the stacked ones. With `remat` only each block's input is kept (`recompute`).
    On a GPU a step of the scan runs a few blocks in a row (`nnjax.fast.gpu.scan`).
    Raises TypeError for what is no Layer, ValueError where block changes the shape or dtype of x, or params are not n sets.

    >>> model = nnjax.scan_layers(nnjax.residual(nnjax.dense(4, 4)), 6)
    >>> model.init(jax.random.key(0)).w.shape
    (6, 4, 4)
    """
    expect_layer("scan_layers", block)
    expect_positive("scan_layers", n=n)
    expect_flag("scan_layers", remat=remat)
    part = block
    if remat:
        block = recompute(block)

    def same(x, y):
        if jax.tree.map(describe, x) != jax.tree.map(describe, y):
            raise ValueError(
                f"scan_layers({block.name}): the block must keep the shape and dtype of x, {describe(x)}, "
                f"got {describe(y)}; give it as many outputs as inputs."
            )
        return y

    def stacked(params, key):
        expect_arrays(f"scan_layers({block.name})", "params", params, "make them with layer.init(key)")
        if key is not None:
            expect_key(f"scan_layers({block.name})", key)
        if any(jnp.shape(p)[:1] != (n,) for p in jax.tree.leaves(params)):
            came = sorted({str(jnp.shape(p)) for p in jax.tree.leaves(params)})
            raise ValueError(
                f"scan_layers({block.name}): every parameter must be stacked along a first axis of length {n}, "
                f"got {', '.join(came)}; make them with layer.init(key)."
            )
        return params, (None if key is None else jax.random.split(key, n))

    # The three bodies are made once: lax.scan compiles a body it has not seen before.
    def apply_step(x, params_key):
        p, k = params_key
        return same(x, block.apply(p, x, key=k)), None

    def fwd_step(x, params_key):
        p, k = params_key
        y, kept = block.fwd(p, x, key=k)
        return same(x, y), without_parameters(kept, p)

    def bwd_step(ct_y, params_kept):
        p, kept = params_kept
        ct_p, ct_x = block.bwd(with_parameters(kept, p), ct_y)
        return ct_x, ct_p

    def scan_fwd(x, params_keys, at_a_time=1):
        return lax.scan(fwd_step, x, params_keys, n, unroll=at_a_time)

    def scan_bwd(ct_y, residuals, at_a_time=1):
        return lax.scan(bwd_step, ct_y, residuals, n, reverse=True, unroll=at_a_time)

    def in_a_row(f):  # in a row, XLA would merge the recomputed values with the first ones, and so keep them
        return f if remat else partial(f, at_a_time=min(n, AT_A_TIME))

    def init(key):
        expect_key("scan_layers.init", key)
        return jax.vmap(block.init)(jax.random.split(key, n))

    def apply(params, x, *, key=None):
        expect_arrays(f"scan_layers({block.name})", "x", x)
        return lax.scan(apply_step, x, stacked(params, key), n)[0]

    def fwd(params, x, *, key=None):
        expect_arrays(f"scan_layers({block.name})", "x", x)
        y, kept = by_platform(x, stacked(params, key), plain=scan_fwd, cuda=in_a_row(scan_fwd))
        return y, (params, kept)

    def bwd(residuals, ct_y):
        expect_arrays(f"scan_layers({block.name})", "ct_y", ct_y)
        ct_x, ct_params = by_platform(ct_y, residuals, plain=scan_bwd, cuda=in_a_row(scan_bwd))
        return ct_params, ct_x

    def walk(params, x, key):
        params, keys = stacked(params, key)
        found = []
        for i in range(n):
            p, k = jax.tree.map(lambda rows, i=i: rows[i], (params, keys))
            p, x = yield Met(f"scan_layers[{i}]", part, p, x, k)
            found.append(p)
        return jax.tree.map(lambda *ps: jnp.stack(ps), *found), x

    return Layer("scan_layers", init, apply, fwd, bwd, (part,), walk, lambda other: scan_layers(other, n, remat=remat))


class TiedParams(NamedTuple):
    """table: the parameters that embed and head share; body: those of the body. See `tied`."""

    table: Any
    body: Any


def tied(embed: Layer, body: Layer, head: Layer[Y]) -> Layer[Y]:
    """y = head(table, body(embed(table, x))): one table used twice.

    Backward: head gives ct_table_out and embed gives ct_table_in. The table's cotangent is their sum: the table was copied,
    and the transpose of a copy is a sum. The key is split in three.
    Raises TypeError for what is no Layer, and for params that are not TiedParams.

    >>> model = nnjax.tied(nnjax.embedding(10, 4), nnjax.tanh(), nnjax.unembedding(10, 4))
    >>> model.apply(model.init(jax.random.key(0)), jnp.array([1, 7])).shape
    (2, 10)
    """
    for layer in (embed, body, head):
        expect_layer("tied", layer)

    def init(key):
        expect_key("tied.init", key)
        k_table, k_body = jax.random.split(key)
        return TiedParams(embed.init(k_table), body.init(k_body))

    def checked(params):
        if not isinstance(params, TiedParams):
            raise TypeError(
                f"tied: params must be TiedParams(table, body), got {describe(params)}; make them with layer.init(key)."
            )
        return params

    def apply(params, x, *, key=None):
        table, inner = checked(params)
        k_embed, k_body, k_head = split_key(key, 3)
        e = embed.apply(table, x, key=k_embed)
        return head.apply(table, body.apply(inner, e, key=k_body), key=k_head)

    def fwd(params, x, *, key=None):
        table, inner = checked(params)
        k_embed, k_body, k_head = split_key(key, 3)
        e, embed_residuals = embed.fwd(table, x, key=k_embed)
        h, body_residuals = body.fwd(inner, e, key=k_body)
        y, head_residuals = head.fwd(table, h, key=k_head)
        return y, (embed_residuals, body_residuals, head_residuals)

    def bwd(residuals, ct_y):
        embed_residuals, body_residuals, head_residuals = residuals
        ct_table_out, ct_h = head.bwd(head_residuals, ct_y)
        ct_body, ct_e = body.bwd(body_residuals, ct_h)
        ct_table_in, ct_x = embed.bwd(embed_residuals, ct_e)
        return TiedParams(add_cotangents(ct_table_in, ct_table_out), ct_body), ct_x

    def walk(params, x, key):
        table, inner = checked(params)
        k_embed, k_body, k_head = split_key(key, 3)
        table, e = yield Met("embed", embed, table, x, k_embed)
        inner, h = yield Met("body", body, inner, e, k_body)
        _, y = yield Met("head", head, table, h, k_head)
        return TiedParams(table, inner), y

    return Layer("tied", init, apply, fwd, bwd, (embed, body, head), walk, tied)
