"""Attention in our own Pallas kernels, for a GPU and a TPU: which platform has them, for which arguments.

`kernel=True` selects them. On a GPU they run by Pallas' lowering to Triton, if the installed JAX has it. A program with
kernels is exported for one platform at a time, as Pallas lowers a kernel only for its own platform.
Pallas is imported on first use.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax import Array

from .attend_tangent import bwd_tangent, fwd_tangent
from .plan import CUDA, TPU, Plan, has_pallas, has_triton, plan_for

Spellings = dict[str, Callable[..., Any]]


@partial(jax.custom_jvp, nondiff_argnums=(3, 4))
def attend_fwd(q: Array, k: Array, v: Array, causal: bool, plan: Plan) -> tuple[Array, Array]:
    """(y, log_z): the new arrays in the result of `nnjax.layers.attend.attend_fwd`, for the same arguments without a mask."""
    from .attend_fwd import attend_fwd as kernel

    return kernel(q, k, v, causal, plan)


@attend_fwd.defjvp
def _(causal, plan, primals, tangents):
    y, log_z = attend_fwd(*primals, causal, plan)
    return (y, log_z), fwd_tangent(primals, log_z, tangents, causal)


@partial(jax.custom_jvp, nondiff_argnums=(6, 7))
def attend_bwd(
    q: Array, k: Array, v: Array, y: Array, log_z: Array, ct_y: Array, causal: bool, plan: Plan
) -> tuple[Array, Array, Array]:
    """(ct_q, ct_k, ct_v): as `nnjax.layers.attend.attend_bwd`, for the same residuals without a mask."""
    from .attend_bwd import attend_bwd as kernels

    return kernels(q, k, v, y, log_z, ct_y, causal, plan)


@attend_bwd.defjvp
def _(causal, plan, primals, tangents):
    (q, k, v, _, log_z, ct_y), (dot_q, dot_k, dot_v, _, _, dot_ct_y) = primals, tangents
    changed = bwd_tangent((q, k, v, ct_y), log_z, (dot_q, dot_k, dot_v, dot_ct_y), causal)
    return attend_bwd(*primals, causal, plan), changed


def plans(q: Any, k: Any, keep: Any) -> dict[str, Plan]:
    """The plan of each platform that has kernels for queries and keys like these: none with a mask, or without Pallas."""
    if keep is not None or not has_pallas():
        return {}
    found = {platform: plan_for(platform, q, k) for platform in (CUDA, TPU) if platform == TPU or has_triton()}
    return {platform: plan for platform, plan in found.items() if plan is not None}


def spellings_fwd(q: Array, k: Array, keep: Array | None) -> Spellings:
    """For each of these platforms f(q, k, v, keep, *, causal) -> (y, log_z)."""

    def of(plan):
        return lambda q, k, v, keep, *, causal: attend_fwd(q, k, v, causal, plan)

    return {platform: of(plan) for platform, plan in plans(q, k, keep).items()}


def spellings_bwd(residuals: Any) -> Spellings:
    """For each of these platforms f(residuals, ct_y, *, causal) -> (ct_q, ct_k, ct_v)."""

    def of(plan):
        def f(residuals, ct_y, *, causal):
            q, k, v, _, y, log_z = residuals
            return attend_bwd(q, k, v, y, log_z, ct_y, causal, plan)

        return f

    q, k, _, keep, *_ = residuals
    return {platform: of(plan) for platform, plan in plans(q, k, keep).items()}
