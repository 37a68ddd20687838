"""The loss of each row in one kernel: a program runs a block of rows past the classes, and keeps one block of scores.

The denominator of a softmax grows from block to block, together with the largest score so far.
"""

import math
from functools import partial
from typing import Any

import jax.numpy as jnp
from jax import Array

from ...linear import broadcast
from . import loss_steps, steps
from .loss_calls import OWN, PAST, call, spec
from .loss_plan import Plan, rows_grid
from .plan import accumulator


def _losses(h_ref: Any, w_ref: Any, labels_ref: Any, top_ref: Any, z_ref: Any, hit_ref: Any, *, plan: Plan) -> None:
    """h: (rows, d), w: (classes, d), labels: (rows, 1); top, z, hit: (rows, 1), the last the score of the label."""
    grid = rows_grid(plan, 1)
    part, _, i = loss_steps.placed(grid, plan)
    h, labels = loss_steps.featured(h_ref, i, plan.rows, plan.count, plan), loss_steps.numbers(labels_ref, i, plan)
    shape = plan.rows, plan.columns

    def step(j, carry):
        top, z, hit = carry
        w = loss_steps.featured(w_ref, j, plan.columns, plan.classes, plan)
        s = loss_steps.products("rd,cd->rc", h, w, shape, plan)
        s = steps.only(s, loss_steps.below(j * plan.columns, plan.classes, shape, 1), -math.inf)
        new = jnp.maximum(top, s.max(-1, keepdims=True))
        e = jnp.exp(steps.less(s, safe(new)))
        z = steps.rescaled(z, jnp.exp(top - safe(new))) + steps.row_sum(e)  # a larger maximum shrinks earlier sums
        return new, z, hit + steps.row_sum(steps.only(s, loss_steps.hits(labels, j, shape, plan)))

    zeros, refs = jnp.zeros((plan.rows, 1), accumulator(h_ref.dtype)), (top_ref, z_ref, hit_ref)
    carry = loss_steps.gathered(refs, (zeros - math.inf, zeros, zeros), step, grid, part, plan)
    for ref, x in zip(refs, carry, strict=True):
        loss_steps.write(ref, x, part, (i * plan.rows, jnp.int32(0)), plan)


def safe(top: Array) -> Array:
    """The largest score, or 0 if all so far are -infinity, so that their exponentials are 0 and not NaN."""
    return jnp.where(top == -math.inf, jnp.zeros_like(top), top)


def loss_fwd(rows: Array, w: Array, labels: Array, plan: Plan) -> tuple[Array, Array]:
    """(losses, log_z): for each row -log softmax(h wᵀ)[label], and the logarithm of softmax's denominator."""
    (n, d), v, acc = rows.shape, w.shape[0], accumulator(rows.dtype)
    top, z, hit = call(
        partial(_losses, plan=plan), "loss_fwd", rows_grid(plan, 1), plan, [(n, 1)] * 3, plan.rows, acc,
        in_specs=[spec((n, d), plan.rows, OWN, plan), spec((v, d), plan.columns, PAST, plan),
                  spec((n, 1), plan.rows, OWN, plan)],
        like=(rows, w, labels),
    )(rows, w, labels[:, None])  # fmt: skip
    most = top.max(0)  # of all parts of the classes, each of which has its own maximum
    z = (z * jnp.exp(top - broadcast(safe(most), top.shape))).sum(0)
    log_z = (most + jnp.log(z))[:, 0]
    return log_z - hit.sum(0)[:, 0], log_z
