"""The cases of attention."""

import math
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np

from .. import layers
from ..layer import Layer
from ..layers import attend
from ..layers.attending import scored
from ..leaf import leaf, outline, outlined
from ..linear import broadcast
from .case import Case
from .inputs import heads, positions


def _spoilt_attention() -> Layer:
    """Causal attention, with NaN and infinity in keys and values that are masked and in queries that see no key.

    x: (q, k, v, mask), (..., s, 2) each and (..., s).  The spoilt entries have no gradient.
    """

    def spoilt(x):
        *qkv, mask = x
        q, k, v = (a.reshape(math.prod(a.shape[:-2]), 1, *a.shape[-2:]) for a in qkv)
        keep = mask.reshape(q.shape[0], mask.shape[-1])
        sees = jnp.cumsum(keep, -1, dtype=jnp.int32) > 0
        bad = zip((q, k, v), (sees, keep, keep), (jnp.inf, jnp.nan, -jnp.inf))
        q, k, v = (jnp.where(broadcast(ok[:, None, :, None], a.shape), a, jnp.full_like(a, b)) for a, ok, b in bad)
        return q[:, :, None], k, v, keep

    def apply(params, x, *, key=None):
        return attend.attend_apply(*spoilt(x), causal=True).reshape(x[0].shape)

    def fwd(params, x, *, key=None, attend=attend.attend_fwd):
        y, residuals = attend(*spoilt(x), causal=True)
        return y.reshape(x[0].shape), (residuals, outline(x[0]))

    def bwd(residuals, ct_y, *, attend=attend.attend_bwd):
        residuals, _ = residuals
        cts = attend(residuals, ct_y.reshape(residuals[0].shape), causal=True)
        return (), (*(ct.reshape(ct_y.shape) for ct in cts), None)

    fast = partial(fwd, attend=attend.fast_fwd), partial(bwd, attend=attend.fast_bwd)
    return leaf("attend", lambda key: (), apply, fwd, bwd, lambda residuals: outlined(residuals[1]), fast=fast)


HOW = scored.Scoring(0.7, softcap=2.0, causal="end", window=(2, None), rate=0.25)


def _scored_attention() -> Layer:
    """Attention with a bias, slopes, a mask, a soft cap, a window and dropout.  x: (q, k, v, bias, slopes, mask) -> (y, log z).

    q: (..., 2, s, 2), k, v: (..., t, 2) for one head of keys and two of queries, bias: (2, s, t), slopes: (2,), mask: (..., t).
    """

    def given(x, key) -> Any:
        q, k, v, bias, slopes, mask = x
        b = math.prod(k.shape[:-2])
        q, k, v = q.reshape(b, 1, *q.shape[-3:]), *(a.reshape(b, 1, *a.shape[-2:]) for a in (k, v))
        mask = mask.reshape(b, 1, 1, 1, mask.shape[-1])
        return q, k, v, scored.Extras(bias[None, None], slopes[None], mask, key=key)

    def out(y, log_z, lead):
        return y.reshape(*lead, *y.shape[2:]), log_z.reshape(*lead, *log_z.shape[2:])

    def apply(params, x, *, key=None):
        return out(*scored.scored_apply(*given(x, key), how=HOW), x[0].shape[:-3])

    def fwd(params, x, *, key=None, scored=scored.scored_fwd):
        y, residuals = scored(*given(x, key), how=HOW)
        y = out(y[0], y[1], x[0].shape[:-3])
        return y, (residuals, tuple(map(outline, y)))

    def bwd(residuals, ct_y, *, scored=scored.scored_bwd):
        residuals, _ = residuals
        q, k, *_ = residuals
        lead = ct_y[0].shape[:-3]
        cts = ct_y[0].reshape(q.shape), ct_y[1].reshape(q.shape[:-1])
        ct_q, ct_k, ct_v, ct = scored(residuals, cts, how=HOW)
        ct_k, ct_v = (a.reshape(*lead, *a.shape[2:]) for a in (ct_k, ct_v))
        return (), (ct_q.reshape(ct_y[0].shape), ct_k, ct_v, ct.bias[0, 0], ct.slopes[0], None)

    fast = partial(fwd, scored=scored.fast_fwd), partial(bwd, scored=scored.fast_bwd)
    return leaf(
        "scored", lambda key: (), apply, fwd, bwd, lambda residuals: tuple(map(outlined, residuals[1])), fast=fast
    )._replace(draws=True)  # fmt: skip


def _scored_inputs(s: int, t: int) -> Any:
    def inputs(rng, lead):
        shapes = (*lead, 2, s, 2), (*lead, t, 2), (*lead, t, 2), (2, s, t), (2,)
        mask = rng.random((*lead, t)) < 0.7
        mask[..., :1] = True  # a query that sees no key has the logarithm of 0
        return *(jnp.asarray(rng.standard_normal(shape).astype(np.float32)) for shape in shapes), jnp.asarray(mask)

    return inputs


def _crossed(s: int, n: int, t: int, m: int) -> Any:
    def inputs(rng, lead):
        x, memory = (jnp.asarray(rng.standard_normal((*lead, *shape)).astype(np.float32)) for shape in ((s, n), (t, m)))
        return x, memory, jnp.asarray(rng.random((*lead, t)) < 0.6)

    return inputs


def _segmented(s: int, n: int) -> Any:
    def inputs(rng, lead):
        return positions(s, n)(rng, lead), jnp.asarray(np.sort(rng.integers(0, 3, (*lead, s)), -1).astype(np.int8))

    return inputs


def attentions() -> list[Case]:
    """Attention and all that is done to its scores."""
    masked = layers.attention(8, 4, kv_heads=2, rope=True, key_mask=True)
    packed = layers.attention(4, 2, segments=True, alibi=True, softcap=3.0, window=(2, 0), dropout=0.25)
    return [
        Case("attention", layers.attention(4, 2), positions(5, 4)),
        Case("attention, blocks", layers.attention(2, 1, bias=False), positions(70, 2)),
        Case("attention, not causal", layers.attention(6, 3, causal=False), positions(3, 6)),
        Case("attention, grouped, rope, masked", masked, positions(4, 8, masked=True)),
        Case("attention, nobody looks at NaN", _spoilt_attention(), heads(4)),
        Case("attention, segments, alibi, capped, window", packed, _segmented(5, 4), keyed=True),
        Case("attention, scored", _scored_attention(), _scored_inputs(3, 4), keyed=True),
        Case("cross_attention", layers.cross_attention(4, 3, 2, kv_heads=1, mask=True), _crossed(3, 4, 5, 3)),
    ]
