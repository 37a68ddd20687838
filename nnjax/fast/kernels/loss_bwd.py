"""The gradient of the linear cross-entropy in two kernels, as no program may add to another's output.

Each forms the scores again, and from them, with log_z, their cotangent. The first runs a block of rows past the classes, the
second a block of classes past the rows.
"""

from functools import partial
from typing import Any

import jax.numpy as jnp
from jax import Array

from ..attend_products import contract
from . import loss_steps, steps
from .loss_calls import OWN, PAST, call, spec
from .loss_plan import Plan, classes_grid, rows_grid
from .plan import accumulator, blocks


def _rows(h_ref: Any, w_ref: Any, labels_ref: Any, share_ref: Any, log_z_ref: Any, ct_h_ref: Any, *, plan: Plan) -> None:
    """h, ct_h: (rows, d); w: (classes, d); labels, share, log_z: (rows, 1)."""
    grid = rows_grid(plan, blocks(plan.features, plan.width))
    part, f, i = loss_steps.placed(grid, plan)
    h = loss_steps.featured(h_ref, i, plan.rows, plan.count, plan)
    labels, share, log_z = (loss_steps.numbers(ref, i, plan) for ref in (labels_ref, share_ref, log_z_ref))
    shape = plan.rows, plan.columns

    def step(j, carry):
        (ct_h,) = carry
        w = loss_steps.featured(w_ref, j, plan.columns, plan.classes, plan)
        s = loss_steps.products("rd,cd->rc", h, w, shape, plan)
        ct_s = loss_steps.ct_scores(s, log_z, share, loss_steps.hits(labels, j, shape, plan))
        ct_s = steps.only(ct_s, loss_steps.below(j * plan.columns, plan.classes, shape, 1)).astype(h_ref.dtype)
        return (ct_h + contract("rc,cd->rd", ct_s, w(f)),)  # forward, h w summed over features d; back, over classes c

    zeros = jnp.zeros((plan.rows, plan.width), accumulator(h_ref.dtype))
    (ct_h,) = loss_steps.gathered((ct_h_ref,), (zeros,), step, grid, part, plan)
    loss_steps.write(ct_h_ref, ct_h, part, (i * plan.rows, f * plan.width), plan)


def _table(h_ref: Any, w_ref: Any, labels_ref: Any, share_ref: Any, log_z_ref: Any, ct_w_ref: Any, *, plan: Plan) -> None:
    """h: (rows, d); w, ct_w: (classes, d); labels, share, log_z: (1, rows). s and ct_s: the transposes of those in `_rows`."""
    grid = classes_grid(plan, blocks(plan.features, plan.width))
    part, f, j = loss_steps.placed(grid, plan)
    w = loss_steps.featured(w_ref, j, plan.columns, plan.classes, plan)
    shape = plan.columns, plan.rows

    def step(i, carry):
        (ct_w,) = carry
        h = loss_steps.featured(h_ref, i, plan.rows, plan.count, plan)
        labels, share, log_z = (loss_steps.numbers(ref, i, plan, True) for ref in (labels_ref, share_ref, log_z_ref))
        s = loss_steps.products("cd,rd->cr", w, h, shape, plan)
        ct_s = loss_steps.ct_scores(s, log_z, share, loss_steps.hits(labels, j, shape, plan, 0))
        ct_s = steps.only(ct_s, loss_steps.below(i * plan.rows, plan.count, shape, 1)).astype(h_ref.dtype)
        return (ct_w + contract("cr,rd->cd", ct_s, h(f)),)  # forward over features d; back, over the rows

    zeros = jnp.zeros((plan.columns, plan.width), accumulator(h_ref.dtype))
    (ct_w,) = loss_steps.gathered((ct_w_ref,), (zeros,), step, grid, part, plan)
    loss_steps.write(ct_w_ref, ct_w, part, (j * plan.columns, f * plan.width), plan)


def loss_bwd(rows: Array, w: Array, labels: Array, share: Array, log_z: Array, plan: Plan) -> tuple[Array, Array]:
    """(ct_h, ct_w) of the sum of share times the losses, as in `nnjax.losses.fused.gradient_of_rows`."""
    (n, d), v, acc, like = rows.shape, w.shape[0], accumulator(rows.dtype), (rows, w, labels, share, log_z)
    features, numbers = blocks(d, plan.width), (labels, share, log_z)
    (ct_h,) = call(
        partial(_rows, plan=plan), "loss_bwd_rows", rows_grid(plan, features), plan, [(n, d)], plan.rows, acc,
        in_specs=[spec((n, d), plan.rows, OWN, plan), spec((v, d), plan.columns, PAST, plan),
                  *[spec((n, 1), plan.rows, OWN, plan)] * 3],
        like=like,
    )(rows, w, *(x[:, None] for x in numbers))  # fmt: skip
    (ct_w,) = call(
        partial(_table, plan=plan), "loss_bwd_table", classes_grid(plan, features), plan, [(v, d)], plan.columns, acc,
        in_specs=[spec((n, d), plan.rows, PAST, plan), spec((v, d), plan.columns, OWN, plan),
                  *[spec((1, n), plan.rows, PAST, plan, across=True)] * 3],
        like=like,
    )(rows, w, *(x[None] for x in numbers))  # fmt: skip
    return ct_h.sum(0), ct_w.sum(0)
