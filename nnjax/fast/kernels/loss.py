"""The linear cross-entropy in our own Pallas kernels, for a GPU and a TPU: which platform has them, for which arguments.

`kernel=True` selects them, as in `nnjax.fast.kernels.attend`, with the same limits of platforms and versions.
The scores are never in memory: each of three kernels forms them again, block by block.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax import Array

from .loss_plan import Plan, plan_for
from .loss_tangent import tangent
from .plan import CUDA, TPU, has_pallas, has_triton


@partial(jax.custom_jvp, nondiff_argnums=(4,))
def gradient_of_rows(rows: Array, w: Array, labels: Array, share: Array, plan: Plan) -> tuple[Array, Array, Array]:
    """(loss of each row, ct_h, ct_w), as `nnjax.losses.fused.gradient_of_rows`."""
    from .loss_bwd import loss_bwd
    from .loss_fwd import loss_fwd

    losses, log_z = loss_fwd(rows, w, labels, plan)
    return losses, *loss_bwd(rows, w, labels, share, log_z, plan)


@gradient_of_rows.defjvp
def _(plan, primals, tangents):
    (rows, w, labels, share), (dot_rows, dot_w, _, dot_share) = primals, tangents  # labels are integers
    changed = tangent(rows, w, labels, share, dot_rows, dot_w, dot_share)
    return gradient_of_rows(*primals, plan), changed


def plans(rows: Any, w: Any) -> dict[str, Plan]:
    """The plan of each platform that has kernels for rows and a table like these: none without Pallas."""
    if not has_pallas():
        return {}
    found = {platform: plan_for(platform, rows, w) for platform in (CUDA, TPU) if platform == TPU or has_triton()}
    return {platform: plan for platform, plan in found.items() if plan is not None}


def spellings(rows: Array, w: Array) -> dict[str, Callable[..., Any]]:
    """For each of these platforms f(rows, w, labels, share) -> (losses, ct_h, ct_w)."""

    def of(plan):
        return lambda rows, w, labels, share: gradient_of_rows(rows, w, labels, share, plan)

    return {platform: of(plan) for platform, plan in plans(rows, w).items()}
