"""The same block n times in a loop; its backward is the loop from the end."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from ..errors import describe, expect_arrays, expect_flag, expect_key, expect_positive
from ..fast.choose import by_platform
from ..fast.gpu.scan import AT_A_TIME
from ..layer import Layer, Met, Y, expect_layer
from ..trees.residuals import with_parameters, without_parameters
from .compose import recompute


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
