"""Direct preference optimisation over many classes: the scores of all tokens never exist at once."""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from ..errors import describe, expect_flag, expect_float, expect_shape, real_number
from ..fast.by_rows import in_chunks
from ..fast.choose import by_platform
from ..layer import Layer
from ..layer import plain as plain_of
from ..leaf import leaf, outline
from ..linear import broadcast, fold, wide
from .cross_entropy import Entropy, entropy, entropy_rows, expect_labels, ignored
from .example import expect_weights, only, output, total_of
from .fused import fast_gradient_of_rows, gradient_of_rows, of_entropy
from .reduction import expect_reduction, reduced_apply, reduced_bwd, reduced_fwd, shares, weight_in
from .rows import Of, Table, expect_table, for_the_platform, plainly, scaled, split_first

NAME = "linear_dpo"
MANY = 128  # tokens in a pair from which the products of one pair at a time are as fast as those of more
TIMES = 8  # as many tokens as features from which a matrix like w is little beside all scores


class Entered(NamedTuple):
    """The x, checked.  h: (..., 2, t, n); labels, seen: (..., 2, t); reference: (..., 2), or (h, table); weights: (...)."""

    h: Array
    table: Table
    labels: Array
    seen: Array
    reference: Any
    weights: Any


def _entered(x: Any, how: Entropy) -> Entered:
    h, table, both, weights = split_first(NAME, x)
    table = expect_table(NAME, h, table)
    if not isinstance(both, tuple) or len(both) != 2:
        raise TypeError(f"{NAME}: labels must be (labels, reference), got {describe(both)}; pass a pair.")
    labels, reference = both
    if h.ndim < 3 or h.shape[-3] != 2:
        raise ValueError(f"{NAME}: h must have shape (..., 2, tokens, n), chosen before rejected, got {describe(h)}.")
    if jnp.issubdtype(getattr(labels, "dtype", jnp.float32), jnp.floating):
        raise TypeError(
            f"{NAME}: labels must be integer class numbers, got {describe(labels)}; convert with astype(jnp.int32)."
        )
    expect_weights(NAME, weights, "h", h, h.shape[:-3])
    outputs = jax.ShapeDtypeStruct((*h.shape[:-1], table.w.shape[0]), h.dtype)
    expect_labels(NAME, how.ignore_index)(
        outputs, labels, [jnp.broadcast_to(w[..., None, None], labels.shape) for w in weights], None
    )
    h, labels, *weights = map(jnp.asarray, (h, labels, *weights))
    left_out = ignored(labels, how.ignore_index)
    seen = jnp.ones(labels.shape, bool) if left_out is None else ~left_out
    for w in weights:
        seen = seen & broadcast((w != 0)[..., None, None], seen.shape)
    return Entered(
        only(h, seen), table, labels, seen, _reference(reference, outputs.shape, seen), weights[0] if weights else None
    )


def _reference(reference: Any, outputs: tuple[int, ...], seen: Array) -> Any:
    if not isinstance(reference, tuple):
        expect_float(NAME, "reference", reference)
        expect_shape(NAME, "reference", reference, outputs[:-2])
        return only(jnp.asarray(reference), seen.any((-2, -1)))
    if len(reference) not in (2, 3):
        raise TypeError(f"{NAME}: reference must be log-probabilities, (h, w) or (h, w, b), got {len(reference)} entries.")
    h, *table = reference
    expect_float(NAME, "reference h", h)
    table = expect_table(NAME, h, tuple(table), ("reference h", "reference w", "reference b"))
    if (*h.shape[:-1], table.w.shape[0]) != outputs:
        raise ValueError(
            f"{NAME}: the reference must have the same tokens and classes as the model, got "
            f"{(*h.shape[:-1], table.w.shape[0])} and {outputs}."
        )
    return only(jnp.asarray(h), seen), table


def _log_p(losses: Array, seen: Array) -> Array:
    """The log-probability of each answer, from the cross-entropies of its tokens.  losses, seen: (..., 2, t)."""
    return -jnp.where(seen, losses, jnp.zeros_like(losses)).sum(-1)


def _pairs(log_p: Array, reference: Array, beta: float, smoothing: float) -> tuple[Array, Array]:
    """(l, dl/dm) of every pair: l = -(1 - a) log s(m) - a log s(-m),  m = beta (log pi_c - log ref_c - log pi_r + log ref_r).

    log_p, reference: (..., 2), l: (...).
    """
    gain = log_p - reference.astype(log_p.dtype)
    m = beta * (gain[..., 0] - gain[..., 1])
    losses = (1 - smoothing) * jax.nn.softplus(-m) + smoothing * jax.nn.softplus(m)
    return losses, smoothing * jax.nn.sigmoid(m) - (1 - smoothing) * jax.nn.sigmoid(-m)


def linear_dpo_apply(params: Any, x: Any, *, key: Any = None, beta: float, how: Entropy, reduction: str = "mean") -> Array:
    """The (weighted) mean of the losses of `_pairs`, the scores of all tokens formed whole."""
    h, table, labels, seen, reference, weights = _entered(x, how)
    rows = entropy_rows(NAME, how._replace(smoothing=0.0))

    def log_p(h, table):
        acc = wide(h)
        s = h.astype(acc) @ table.w.astype(acc).T
        s = s if table.b is None else s + broadcast(table.b.astype(acc), s.shape)
        return _log_p(rows.apply(s, labels, None), seen)

    reference = lax.stop_gradient(log_p(*reference) if isinstance(reference, tuple) else reference)
    losses, _ = _pairs(log_p(h, table), reference, beta, how.smoothing)
    return reduced_apply(losses, weights, None, reduction).astype(h.dtype)


def _of_model(h: Array, table: Table, labels: Array, seen: Array, of: Of) -> Array:
    """The log-probability of each answer: (..., 2)."""
    losses, _ = of.losses((fold(h), labels.reshape(labels.size)), (table, None))
    return _log_p(losses.reshape(labels.shape), seen)


def _of_reference(reference: Any, labels: Array, seen: Array, of: Of) -> Array:
    """That of the reference, which is fixed."""
    if isinstance(reference, tuple):
        h, table = reference
        reference = _of_model(h, table, labels, seen, of)
    return lax.stop_gradient(reference)


def _sent_back(h: Array, table: Table, labels: Array, seen: Array, ct_m: Array, beta: float, of: Of) -> Any:
    """(ct_h, ct_table, scale), the first two to be multiplied by scale.  ct_m: (...), the cotangent of each pair's m."""
    # log pi is minus the sum of its tokens' losses, the sum's transpose copies; the rejected answer enters with a minus.
    ct_tokens = broadcast(jnp.stack([-beta * ct_m, beta * ct_m], -1)[..., None], labels.shape)
    ct_tokens = jnp.where(seen, ct_tokens, jnp.zeros_like(ct_tokens))
    share, scale = scaled(shares(ct_tokens, None, labels.size, ct_m.dtype), h)
    (_, ct_h, _), ct_table = of.gradient((fold(h), labels.reshape(labels.size), share), (table, None))
    return ct_h.reshape(h.shape), ct_table, scale


def linear_dpo_fwd(params: Any, x: Any, *, key: Any = None, beta: float, how: Entropy, reduction: str = "mean", of: Of) -> Any:
    h, table, labels, seen, reference, weights = _entered(x, how)
    reference = _of_reference(reference, labels, seen, of)
    losses, slope = _pairs(_of_model(h, table, labels, seen, of), reference, beta, how.smoothing)
    value, reduced = reduced_fwd(losses, weights, None, reduction)
    value = value.astype(h.dtype)
    return value, (h, table, labels, seen, slope, reduced, outline(value))


def linear_dpo_bwd(residuals: Any, ct_value: Array, *, beta: float, reduction: str = "mean", of: Of) -> Any:
    h, table, labels, seen, slope, reduced, like = residuals
    ct_losses, ct_weights = reduced_bwd(reduced, ct_value, reduction)
    ct_h, ct_table, scale = _sent_back(h, table, labels, seen, ct_losses * slope, beta, of)
    ct_y = tuple((ct * scale).astype(like.dtype) for ct in (ct_h, *ct_table) if ct is not None)
    return (), (ct_y, None) if ct_weights is None else (ct_y, None, ct_weights)


class Known(NamedTuple):
    """The gradient of the value: ct_h: (..., 2, t, n), and the table's, each of them to be multiplied by scale."""

    h: Array
    table: Table
    scale: Array


def _gradient_of_pairs(each: Any, whole: Any, *, beta: float, how: Entropy, of: Of) -> Any:
    """((losses, ct_h), ct_table) of the sum of share times the losses.

    each: (h, labels, seen, reference, share) of the pairs; whole: (table, None).
    """
    h, labels, seen, reference, share = each
    losses, slope = _pairs(_of_model(h, whole[0], labels, seen, of), reference, beta, how.smoothing)
    ct_h, ct_table, scale = _sent_back(h, whole[0], labels, seen, share * slope, beta, of)
    return (losses, ct_h * scale), jax.tree.map(lambda ct: ct * scale, ct_table)


def _gradient_of_pair(each: Any, whole: Any, *, beta: float, how: Entropy, of: Of) -> Any:
    """The same of one pair, whose scores are formed once: how much it counts is known when its last token is, so until then
    the gradient of its m is added up."""
    h, labels, seen, reference, share = each
    sign = jnp.asarray([-1, 1], share.dtype)  # of log pi's tokens, the chosen and the rejected
    signs = jnp.where(seen, broadcast(sign[None, :, None], seen.shape), jnp.zeros_like(share, shape=seen.shape))
    (losses, ct_h, _), ct_table = of.gradient((fold(h), labels.reshape(labels.size), signs.reshape(signs.size)), whole)
    losses, slope = _pairs(_log_p(losses.reshape(labels.shape), seen), reference, beta, how.smoothing)
    ct_m = beta * (share * slope)[0]
    return (losses, ct_h.reshape(h.shape) * ct_m), jax.tree.map(lambda ct: ct * ct_m, ct_table)


def fast_fwd(params: Any, x: Any, *, key: Any = None, beta: float, how: Entropy, reduction: str = "mean", of: Of) -> Any:
    """`linear_dpo_fwd`, which for a mean or a sum of long answers keeps the gradient: on a CPU and a GPU one pair after
    another, three products in place of four.
    """
    h, table, labels, seen, reference, weights = _entered(x, how)
    pairs, rest, acc = math.prod(h.shape[:-3]), h.shape[-3:], wide(h)
    if reduction == "none" or 2 * rest[1] < MANY or 2 * pairs * rest[1] < TIMES * rest[2]:
        return linear_dpo_fwd(params, x, beta=beta, how=how, reduction=reduction, of=of)
    reference = _of_reference(reference, labels, seen, of)
    flat = None if weights is None else weights.reshape(pairs)
    total = weight_in(None, flat, None, (pairs,), acc) if reduction == "mean" else None
    share, scale = scaled(shares(flat, total, pairs, acc), h)
    each = (
        h.reshape(pairs, *rest), labels.reshape(pairs, *rest[:2]), seen.reshape(pairs, *rest[:2]), reference.reshape(pairs, 2),
        share,
    )  # fmt: skip
    one, several = (partial(f, beta=beta, how=how, of=of) for f in (_gradient_of_pair, _gradient_of_pairs))

    def in_turn(each, whole):
        return in_chunks(one, each, whole, whole[0], 1, acc)

    (losses, ct_h), ct_table = by_platform(each, (table, None), plain=several, cpu=in_turn, cuda=in_turn)
    value, reduced = reduced_fwd(losses, flat, None, reduction)
    value = value.astype(h.dtype)
    return value, (Known(ct_h.reshape(h.shape), ct_table, scale), reduced, outline(value))


def fast_bwd(residuals: Any, ct_value: Array, *, beta: float, reduction: str = "mean", of: Of) -> Any:
    if not isinstance(residuals[0], Known):
        return linear_dpo_bwd(residuals, ct_value, beta=beta, reduction=reduction, of=of)
    found, reduced, like = residuals
    _, ct_weights = reduced_bwd(reduced, ct_value, reduction)
    scale = ct_value.astype(found.scale.dtype) * found.scale  # a multiple is its own transpose
    ct_y = tuple((ct * scale).astype(like.dtype) for ct in (found.h, *found.table) if ct is not None)
    return (), (ct_y, None) if ct_weights is None else (ct_y, None, ct_weights.reshape(found.h.shape[:-3]))


def linear_dpo(
    *, beta: float = 0.1, label_smoothing: float = 0.0, ignore_index: int | None = -100, reduction: str = "mean",
    kernel: bool = False,
) -> Layer[Array]:  # fmt: skip
    """The mean over pairs of -log sigmoid(beta (log pi_c - log ref_c - log pi_r + log ref_r)): direct preference optimisation.

    pi and ref are the probabilities of the chosen and the rejected answer, products over their tokens, under the model and a
    fixed reference (Rafailov et al. 2023, eq. 7). x = ((h, w), (labels, reference)) or with weights, and with (h, w, b) for a
    bias. h: (..., 2, tokens, n), chosen before rejected; w: (vocabulary, n); labels: integers (..., 2, tokens), ignore_index
    where a token does not count (the prompt, padding); reference: log ref, (..., 2), or the reference's own (h, w) or
    (h, w, b), without a gradient; weights: (...), one for each pair.
    label_smoothing a: the share of pairs that are the wrong way round, l = -(1 - a) log sigmoid(m) - a log sigmoid(-m).
    reduction: "mean" over pairs, "sum" or "none".  kernel: as in `nnjax.ops.linear_cross_entropy`, for the backward.
    The forward keeps two numbers of each pair, and the backward forms the scores again, in chunks of tokens; of long answers
    the fast pair keeps the gradient of a mean or sum instead.
    The transpose: ct_log_pi = -ct beta sigmoid(-m), its negative for the rejected one, copied to all tokens, and from there as
    in `nnjax.linear_cross_entropy`.
    Raises TypeError or ValueError where these do not fit.

    >>> h, w, labels = jnp.ones((5, 2, 3, 4)), jnp.eye(6, 4), jnp.zeros((5, 2, 3), jnp.int32)
    >>> value = nnjax.linear_dpo().apply((), ((h, w), (labels, (h, w))))
    >>> round(float(value), 4)  # log 2: the model is its own reference
    0.6931
    """
    strength = real_number(beta)
    if strength is None or not 0 < strength < math.inf:
        raise ValueError(f"{NAME}: beta must be a number above 0, got {beta!r}; 0.1 is usual.")
    expect_flag(NAME, kernel=kernel)
    expect_reduction(NAME, reduction)
    how = entropy(NAME, label_smoothing, 0.0, None, ignore_index)
    bare = how._replace(smoothing=0.0)  # of the labels of pairs, not of tokens
    plain = of_entropy(bare, gradient_of_rows, plainly)
    fast = of_entropy(bare, partial(fast_gradient_of_rows, kernel=bool(kernel)), for_the_platform)

    def pair(fwd, bwd, of):
        return (
            partial(fwd, beta=strength, how=how, reduction=reduction, of=of),
            partial(bwd, beta=strength, reduction=reduction, of=of),
        )

    apply = partial(linear_dpo_apply, beta=strength, how=how, reduction=reduction)
    made = leaf(
        NAME, lambda key: (), apply, *pair(linear_dpo_fwd, linear_dpo_bwd, plain), output, fast=pair(fast_fwd, fast_bwd, fast)
    )
    counts = total_of(NAME, reduction) or (lambda labels, dtype: jnp.ones(labels[0].shape[:-2], dtype))
    own: dict[str, Any] = {"counts": counts, "cuts": ("x[1][1]",)}  # the reference is fixed
    return made._replace(**own, plain=plain_of(made)._replace(**own))
