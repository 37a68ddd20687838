"""The backward of attention in two kernels, one for queries and one for keys, as no program may add to another's output.

Each forms the weights again from log_z (Dao et al. 2022, algorithm 4). The first runs a block of queries past the keys, the
second a block of keys and values past the queries of all heads that they served.
"""

from functools import partial
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl

from ...linear import pad
from ..attend_products import contract
from . import steps
from .calls import call, laid, laid_shape, laid_t, numbers_spec, placed, spec
from .plan import Plan, accumulator, amounts, blocks, loop, outline_of, over, rest


def _queries(q_ref: Any, k_ref: Any, v_ref: Any, ct_y_ref: Any, log_z_ref: Any, delta_ref: Any, ct_q_ref: Any, *,
             plan: Plan, causal: bool) -> None:  # fmt: skip
    """q, ct_y, ct_q: (rows, d); k, v: (keys, d); log_z, delta: (rows, 1)."""
    i = rest(pl.program_id(0), blocks(plan.queries, plan.rows))
    q, ct_y, log_z, delta = q_ref[...], ct_y_ref[...], log_z_ref[...], delta_ref[...]

    def step(j, ct_q):
        at = pl.ds(j * plan.columns, plan.columns)
        k, v = k_ref[at, :], v_ref[at, :]
        seen = steps.seen(i, j, plan, causal)
        p = steps.only(jnp.exp(steps.less(steps.scaled(contract("qd,kd->qk", q, k), plan), log_z)), seen)
        ct_p = contract("qd,kd->qk", ct_y, v)  # forward, p v summed over keys k; back, over features d
        # softmax's Jacobian diag(p) - p pᵀ is its own transpose; pᵀ ct_p = yᵀ ct_y, so delta replaces whole rows of p.
        ct_s = steps.only(p * steps.less(ct_p, delta), seen).astype(q.dtype)
        return ct_q + contract("qk,kd->qd", ct_s, steps.finite(k, causal))  # forward, q k summed over d; back, over keys k

    ct_q = jnp.zeros((plan.rows, plan.width), accumulator(q.dtype))
    ct_q = loop(0, steps.keys_behind(i, plan, causal), step, ct_q)
    ct_q_ref[...] = steps.scaled(ct_q, plan).astype(ct_q_ref.dtype)  # a multiple is its own transpose


def _keys(q_ref: Any, k_ref: Any, v_ref: Any, ct_y_ref: Any, log_z_ref: Any, delta_ref: Any, ct_k_ref: Any, ct_v_ref: Any, *,
          plan: Plan, causal: bool, heads: int) -> None:  # fmt: skip
    """k, v, ct_k, ct_v: (columns, d); for all heads q, ct_y: (queries, d), log_z, delta: (1, queries).

    Rows are keys here: s, p, ct_p and ct_s are the transposes of those in `_queries`.
    """
    j = rest(pl.program_id(0), blocks(plan.keys, plan.columns))
    k, v = k_ref[...], v_ref[...]

    def step(head, i, cts):
        ct_k, ct_v = cts
        at = pl.ds(i * plan.rows, plan.rows)
        q, ct_y = steps.head_of(q_ref, head, i, plan), steps.head_of(ct_y_ref, head, i, plan)
        seen = steps.seen(i, j, plan, causal, keys_first=True)
        p = steps.only(jnp.exp(steps.less(steps.scaled(contract("kd,qd->kq", k, q), plan), log_z_ref[head, :, at])), seen)
        ct_v = ct_v + contract("kq,qd->kd", p.astype(v.dtype), ct_y)  # forward, p v summed over keys k; back, over queries q
        ct_p = contract("kd,qd->kq", v, ct_y)  # and over features d
        ct_s = steps.only(p * steps.less(ct_p, delta_ref[head, :, at]), seen).astype(q.dtype)
        return ct_k + contract("kq,qd->kd", ct_s, steps.finite(q, causal)), ct_v  # forward over d; back, over queries q

    def of_head(head, cts):
        first, last = steps.queries_from(j, plan, causal), blocks(plan.queries, plan.rows)
        return loop(first, last, lambda i, cts: step(head, i, cts), cts)

    zeros = jnp.zeros((plan.columns, plan.width), accumulator(k.dtype))
    ct_k, ct_v = loop(0, heads, of_head, (zeros, zeros))  # a key was copied to all of them: sum over the copies
    ct_k_ref[...] = steps.scaled(ct_k, plan).astype(ct_k_ref.dtype)
    ct_v_ref[...] = ct_v.astype(ct_v_ref.dtype)


def attend_bwd(
    q: Array, k: Array, v: Array, y: Array, log_z: Array, ct_y: Array, causal: bool, plan: Plan
) -> tuple[Array, Array, Array]:
    """(ct_q, ct_k, ct_v), as `nnjax.layers.attend.attend_bwd` computes them from these residuals, without a mask."""
    (b, h, g, s, d), t = q.shape, k.shape[-2]
    heads, n, m = h * g, blocks(s, plan.rows), blocks(t, plan.columns)
    q_, ct_ = (laid(x.reshape(b, heads, s, d), plan.rows, plan) for x in (q, ct_y))
    k_, v_ = laid(k, plan.columns, plan), laid(v, plan.columns, plan)
    delta = (ct_y.astype(log_z.dtype) * y.astype(log_z.dtype)).sum(-1)
    log_z, delta = (x.reshape(b, heads, s) for x in (log_z, delta))
    log_z, delta = (pad(x, amounts(x.shape, {-1: n * plan.rows})) for x in (log_z, delta))
    operands = (q, k, v, log_z, ct_y)

    def own(program):
        return placed(program, heads, n)

    def its_keys(program):
        example, head, _ = placed(program, heads, n)
        return example, over(head, g), 0

    ct_q = call(
        partial(_queries, plan=plan, causal=causal), "attend_bwd_queries", b * heads * n, plan,
        in_specs=[spec(plan, plan.rows, own), *[spec(plan, m * plan.columns, its_keys)] * 2, spec(plan, plan.rows, own),
                  *[numbers_spec((plan.rows, 1), own)] * 2],
        out_specs=spec(plan, plan.rows, own),
        out_shape=outline_of(laid_shape(b, heads, s, plan.rows, plan), q.dtype, *operands),
    )(q_, k_, v_, ct_, log_z[..., None], delta[..., None])  # fmt: skip

    def own_keys(program):
        return placed(program, h, m)

    def its_queries(program):
        example, head, _ = placed(program, h, m)
        return example, head, 0

    like_k = outline_of(laid_shape(b, h, t, plan.columns, plan), k.dtype, *operands)
    ct_k, ct_v = call(
        partial(_keys, plan=plan, causal=causal, heads=g), "attend_bwd_keys", b * h * m, plan,
        in_specs=[spec(plan, n * plan.rows, its_queries, g), *[spec(plan, plan.columns, own_keys)] * 2,
                  spec(plan, n * plan.rows, its_queries, g), *[numbers_spec((1, n * plan.rows), its_queries, g)] * 2],
        out_specs=[spec(plan, plan.columns, own_keys)] * 2,
        out_shape=[like_k, like_k],
    )(q_, k_, v_, ct_, log_z[:, :, None], delta[:, :, None])  # fmt: skip
    return laid_t(ct_q, (b, heads, s, d), plan).reshape(q.shape), laid_t(ct_k, k.shape, plan), laid_t(ct_v, v.shape, plan)
