"""The forward of attention in one kernel: a program runs a block of queries past the keys, and keeps one block of products.

A softmax is known except for its denominator, which grows from block to block (Dao et al. 2022, algorithm 1).
"""

import math
from functools import partial
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl

from ...linear import broadcast
from ..attend_products import contract
from . import steps
from .calls import call, laid, laid_shape, laid_t, numbers_spec, placed, spec
from .plan import Plan, accumulator, blocks, loop, outline_of, over, rest


def _queries(q_ref: Any, k_ref: Any, v_ref: Any, y_ref: Any, log_z_ref: Any, *, plan: Plan, causal: bool) -> None:
    """q, y: (rows, d); k, v: (keys, d); log_z: (rows, 1)."""
    i, q = rest(pl.program_id(0), blocks(plan.queries, plan.rows)), q_ref[...]
    acc = accumulator(q.dtype)

    def step(j, carry):
        y, top, z = carry
        at = pl.ds(j * plan.columns, plan.columns)
        k, v = k_ref[at, :], v_ref[at, :]
        if causal:
            k = k + 0 * v  # the score of its key shows a value that is not finite
        s = steps.scaled(contract("qd,kd->qk", q, k), plan)
        if causal:
            s = s + 0 * s  # infinite scores are NaN too
        s = steps.only(s, steps.seen(i, j, plan, causal), -math.inf)
        new = jnp.maximum(top, s.max(-1, keepdims=True))  # y does not depend on it, but exp would overflow without it
        e, shrink = jnp.exp(steps.less(s, new)), jnp.exp(top - new)  # a larger maximum shrinks the earlier sums
        y = steps.rescaled(y, shrink) + contract("qk,kd->qd", e.astype(v.dtype), steps.finite(v, causal))
        return y, new, z * shrink + steps.row_sum(e)

    zeros = jnp.zeros((plan.rows, 1), acc)
    start = jnp.zeros((plan.rows, plan.width), acc), zeros - math.inf, zeros
    y, top, z = loop(0, steps.keys_behind(i, plan, causal), step, start)
    y_ref[...] = (y / broadcast(z, y.shape)).astype(y_ref.dtype)
    log_z_ref[...] = top + jnp.log(z)


def attend_fwd(q: Array, k: Array, v: Array, causal: bool, plan: Plan) -> tuple[Array, Array]:
    """(y, log_z), the new arrays in the result of `nnjax.layers.attend.attend_fwd` for q, k, v, without a mask."""
    (b, h, g, s, d), t = q.shape, k.shape[-2]
    heads, n = h * g, blocks(s, plan.rows)
    q_, k_, v_ = laid(q.reshape(b, heads, s, d), plan.rows, plan), laid(k, plan.columns, plan), laid(v, plan.columns, plan)
    all_keys = blocks(t, plan.columns) * plan.columns

    def own(program):
        return placed(program, heads, n)

    def keys(program):
        example, head, _ = placed(program, heads, n)
        return example, over(head, g), 0  # a head of keys serves g heads of queries

    y, log_z = call(
        partial(_queries, plan=plan, causal=causal), "attend_fwd", b * heads * n, plan,
        in_specs=[spec(plan, plan.rows, own), *[spec(plan, all_keys, keys)] * 2],
        out_specs=[spec(plan, plan.rows, own), numbers_spec((plan.rows, 1), own)],
        out_shape=[outline_of(laid_shape(b, heads, s, plan.rows, plan), q.dtype, q, k, v),
                   outline_of((b, heads, n * plan.rows, 1), accumulator(q.dtype), q, k, v)],
    )(q_, k_, v_)  # fmt: skip
    return laid_t(y, (b, heads, s, d), plan).reshape(q.shape), log_z[:, :, :s, 0].reshape(q.shape[:-1])
