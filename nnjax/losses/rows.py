"""Losses of the outputs of a linear map to many classes, which never exist all at once: x = ((h, w[, b]), labels[, weights]).

The gradient of such a loss is known as soon as the outputs are, and the cotangent of a mean is one number. So for a mean or
a sum the forward computes the gradient of the rows while their outputs exist, and the backward multiplies by that number.
Where every row has a cotangent of its own, the backward forms the outputs again. The plain pair takes all rows at once, that
of a platform a chunk of them.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from ..errors import describe, expect_float, expect_same_dtype, expect_shape
from ..fast.by_rows import in_chunks
from ..fast.choose import as_it_is, by_platform
from ..fast.cpu import linear_cross_entropy as cpu
from ..fast.gpu import linear_cross_entropy as gpu
from ..layer import Layer
from ..leaf import leaf, outline
from ..linear import broadcast, fold, wide
from .example import Rows, closed, expect_weights, only, only_targets, output, seen_of, total_of, unpacked, unseen_apply
from .reduction import expect_reduction, reduced_apply, reduced_bwd, reduced_fwd, shares, weight_in


class Table(NamedTuple):
    """s = h wᵀ + b.  w: (classes, n), b: (classes,), or None for 0."""

    w: Array
    b: Array | None = None


def scores(rows: Array, table: Table, held: Callable[[Array], Array] = as_it_is) -> Array:
    """s: (n, classes), in float32 at least.  rows: (n, d).  held: what the product goes through (`for_the_platform`)."""
    s = held(jnp.einsum("nd,vd->nv", rows, table.w, preferred_element_type=wide(rows)))
    return s if table.b is None else s + broadcast(table.b.astype(s.dtype)[None], s.shape)


def scores_t(ct_s: Array, rows: Array, table: Table) -> tuple[Array, Table]:
    """(ct_rows, ct_table), in float32 at least: s was summed over d; ct_s is, for h, over classes, for w and b over rows."""
    ct_b = None if table.b is None else ct_s.sum(0)
    acc, ct_s = ct_s.dtype, ct_s.astype(rows.dtype)
    ct_h = jnp.einsum("nv,vd->nd", ct_s, table.w, preferred_element_type=acc)
    return ct_h, Table(jnp.einsum("nv,nd->vd", ct_s, rows, preferred_element_type=acc), ct_b)


def gradient_of_rows(each: Any, whole: Any, *, rows: Rows, held: Callable[[Array], Array] = as_it_is) -> Any:
    """((losses, ct_h, ct_labels), ct_table) of the sum of share times the losses.

    each: (h, labels, share) of n rows; whole: (table, shared).
    """
    (h, labels, share), (table, shared) = each, whole
    losses, residuals = rows.fwd(scores(h, table, held), labels, shared)
    ct_s, ct_labels = rows.bwd(residuals, share)
    ct_h, ct_table = scores_t(ct_s, h, table)
    return (losses, ct_h, ct_labels), ct_table


def losses_of_rows(each: Any, whole: Any, *, rows: Rows, held: Callable[[Array], Array] = as_it_is) -> Any:
    """(losses, ()).  each: (h, labels) of n rows; whole: (table, shared)."""
    (h, labels), (table, shared) = each, whole
    return rows.fwd(scores(h, table, held), labels, shared)[0], ()


def fast_rows(f: Callable[..., Any], on_cpu: Callable[..., Any], each: Any, whole: Any, like: Any) -> Any:
    """f(each, whole), spelled for the platform: on a CPU and a GPU in chunks.  like: what the sums over rows look like."""
    h, vocab = each[0], whole[0].w.shape[0]
    n = h.shape[0]

    def chunked(f, size):
        return f if size >= n else lambda each, whole: in_chunks(f, each, whole, like(whole), size, wide(h))

    fast = {"cpu": chunked(on_cpu, cpu.rows_at_a_time(n, vocab)), "cuda": chunked(f, gpu.rows_at_a_time(n, vocab))}
    return by_platform(each, whole, plain=f, how=None, **fast)


class Of(NamedTuple):
    """How rows are computed: gradient(each, whole) and losses(each, whole), as `gradient_of_rows` and `losses_of_rows`."""

    gradient: Callable[..., Any]
    losses: Callable[..., Any]


def plainly(rows: Rows, held: Callable[[Array], Array] = as_it_is) -> Of:
    return Of(*(partial(f, rows=rows, held=held) for f in (gradient_of_rows, losses_of_rows)))


def for_the_platform(rows: Rows, on_cpu: Rows | None = None) -> Of:
    """on_cpu: rows that keep products of their own apart, as the scores are: fused with a maximum they are slow there."""
    gradient, losses = plainly(rows)
    apart = plainly(on_cpu or rows, lax.optimization_barrier)
    return Of(
        lambda each, whole: fast_rows(gradient, apart.gradient, each, whole, lambda whole: whole[0]),
        lambda each, whole: fast_rows(losses, apart.losses, each, whole, lambda whole: ()),
    )


class Entered(NamedTuple):
    """The x of a loss, checked: h and labels with zeros where they are not seen; weights, seen: (...), or None."""

    h: Array
    table: Table
    labels: Any
    weights: Any
    seen: Any
    shared: Any


def expect_table(name: str, h: Any, table: Any, what: tuple[str, str, str] = ("h", "w", "b")) -> Table:
    """The table of (w,) or (w, b). Raises TypeError or ValueError unless h: (..., n), w: (classes, n), b: (classes,) fit."""
    w, *b = table
    for label, a in zip(what, (h, w, *b)):
        expect_float(name, label, a)
        expect_same_dtype(name, what[0], h, label, a)
    if w.ndim != 2 or h.ndim < 1 or h.shape[-1] != w.shape[1]:
        raise ValueError(
            f"{name}: {what[0]} must have shape (..., n) and {what[1]} (vocabulary, n), got {describe(h)} and {describe(w)}; "
            f"a kernel of shape (n, vocabulary) is passed as {what[1]}.T."
        )
    for bias in b:
        expect_shape(name, what[2], bias, w.shape[:1])
    return Table(*map(jnp.asarray, (w, *b)))


def split_first(name: str, x: Any) -> tuple[Any, tuple[Any, ...], Any, list[Any]]:
    """(h, (w[, b]), labels, [weights]) of the x of a fused loss. Raises TypeError for anything else."""
    y = x[0] if isinstance(x, tuple) and x else None
    if not isinstance(x, tuple) or len(x) not in (2, 3) or not isinstance(y, tuple) or len(y) not in (2, 3):
        raise TypeError(
            f"{name}: x must be ((h, w), labels) or ((h, w), labels, weights), with (h, w, b) for a bias, got {describe(x)}; "
            "a model made with fused=True outputs (h, w)."
        )
    (h, *table), labels, weights = unpacked(name, x)
    return h, tuple(table), labels, weights


def entered(name: str, rows: Rows, x: Any, shared: Any) -> Entered:
    h, table, labels, weights = split_first(name, x)
    table = expect_table(name, h, table)
    expect_weights(name, weights, "h", h, h.shape[:-1])
    rows.expect(jax.ShapeDtypeStruct((*h.shape[:-1], table.w.shape[0]), h.dtype), labels, weights, shared)
    h, labels, *weights = jax.tree.map(jnp.asarray, (h, labels, *weights))
    seen = seen_of(rows, labels, weights)
    labels, shared = rows.parts(labels, shared)
    return Entered(only(h, seen), table, only_targets(labels, seen), weights[0] if weights else None, seen, shared)


def linear_apply(x: Any, shared: Any, *, name: str, rows: Rows, reduction: str) -> Array:
    """The loss of the outputs h wᵀ + b, which are formed whole."""
    h, table, labels, weights, seen, shared = entered(name, rows, x, shared)
    acc = wide(h)  # also for the product, as its transpose gets a probability over n rows, too small for float16
    s = h.astype(acc) @ table.w.astype(acc).T
    s = s if table.b is None else s + broadcast(table.b.astype(acc), s.shape)
    losses = unseen_apply(rows.apply(s, labels, shared), seen)
    return reduced_apply(losses, weights, rows.counts(labels, shared, acc), reduction).astype(h.dtype)


def linear_fwd(x: Any, shared: Any, *, name: str, rows: Rows, reduction: str, of: Of) -> Any:
    h, table, labels, weights, seen, shared = entered(name, rows, x, shared)
    lead, n, acc = h.shape[:-1], math.prod(h.shape[:-1]), wide(h)
    labels, whole = labels.reshape(n, *labels.shape[len(lead) :]), (table, shared)
    if reduction == "none":
        losses, _ = of.losses((fold(h), labels), whole)
        value, reduced = reduced_fwd(unseen_apply(losses.reshape(lead), seen), weights, None, reduction)
        value = value.astype(h.dtype)
        return value, ((h, labels, whole, seen), reduced, outline(value))
    counts = rows.counts(labels, shared, acc)
    flat = None if weights is None else weights.reshape(n)
    total = weight_in(labels, flat, lambda *_: counts, (n,), acc) if reduction == "mean" else None
    share, most = scaled(shares(flat, total, n, acc), h)
    share = share if seen is None else jnp.where(seen.reshape(n), share, jnp.zeros_like(share))
    (losses, ct_h, ct_labels), ct_table = of.gradient((fold(h), labels, share), whole)
    losses = losses if seen is None else unseen_apply(losses, seen.reshape(n))
    value, reduced = reduced_fwd(losses, flat, counts, reduction)
    value = value.astype(h.dtype)
    return value, ((ct_h.reshape(h.shape), ct_labels, ct_table, most), reduced, outline(value))


def linear_bwd(residuals: Any, ct_value: Array, *, reduction: str, of: Of) -> Any:
    kept, reduced, like = residuals
    ct_losses, ct_weights = reduced_bwd(reduced, ct_value, reduction)
    if reduction == "none":  # each row has a cotangent of its own: its outputs are formed again
        h, labels, whole, seen = kept
        n = math.prod(h.shape[:-1])
        share, scale = scaled(shares(unseen_apply(ct_losses, seen), None, n, wide(h)), h)
        (_, ct_h, ct_labels), ct_table = of.gradient((fold(h), labels, share), whole)
        ct_h = ct_h.reshape(h.shape)
    else:  # a scalar is left, which is its own transpose
        ct_h, ct_labels, ct_table, most = kept
        scale = ct_value.astype(most.dtype) * most
    ct_y = tuple((ct * scale).astype(like.dtype) for ct in (ct_h, *ct_table) if ct is not None)
    if ct_labels is not None:
        ct_labels = (
            (ct_labels.astype(scale.dtype) * scale).astype(ct_labels.dtype).reshape(*ct_h.shape[:-1], ct_labels.shape[-1])
        )
    weights = reduced[1]
    return (ct_y, ct_labels) if weights is None else (ct_y, ct_labels, ct_weights.reshape(*ct_h.shape[:-1]))


def scaled(found: tuple[Array, Array], h: Array) -> tuple[Array, Array]:
    """(share, most), as one number for each row where its range allows it: a factor of 1 saves a pass over ct_w."""
    share, most = found
    return found if h.dtype == jnp.float16 else (share * most, jnp.ones_like(most))


def linear_loss(name: str, rows: Rows, reduction: str, plain: Of, fast: Of) -> Layer[Array]:
    """The Layer of a loss of each row's outputs, with `shared` in place of the parameters."""
    expect_reduction(name, reduction)
    how = {"name": name, "rows": rows, "reduction": reduction}

    def fwd(of):
        return lambda shared, x, *, key=None: linear_fwd(x, shared, of=of, **how)

    def bwd(of):
        return lambda residuals, ct_value: (None, linear_bwd(residuals, ct_value, reduction=reduction, of=of))

    made = leaf(
        name, lambda key: None, lambda shared, x, *, key=None: linear_apply(x, shared, **how),
        fwd(plain), bwd(plain), output, fast=(fwd(fast), bwd(fast)),
    )  # fmt: skip
    return made._replace(counts=total_of(name, reduction))


def closed_loss(name: str, rows: Rows, reduction: str, plain: Of, fast: Of, shared: Any = None) -> Layer[Array]:
    """The same with the parameters ()."""
    return closed(linear_loss(name, rows, reduction, plain, fast), rows, shared)
