"""A mixture of experts: each token goes through a few of many mlps, which a linear router chooses. No token is dropped."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ...errors import (
    describe,
    expect_float,
    expect_init,
    expect_not_negative,
    expect_params,
    expect_positive,
    expect_same_dtype,
    expect_shape,
    unknown_name,
)
from ...layer import Layer
from ...leaf import Like, leaf, outline, outlined
from ...linear import fold, fold_t, wide, widened
from .experts import WIDTHS, Experts, activated, experts_bwd, experts_fwd
from .places import by_expert, joined, rows_at, sorted_gates, spread, spread_t
from .ragged import FAST
from .router import Routing, gates_apply, gates_bwd, losses_apply, losses_bwd, pick_t, scores

WHO = "mixture_of_experts"


class MixtureParams(NamedTuple):
    """router: (n, experts); up: (experts, n, hidden), for swiglu (experts, n, 2 hidden), the columns of the gate first; down:
    (experts, hidden, n). See `mixture_of_experts`."""

    router: Array
    up: Array
    down: Array

    WEIGHTS = ("router", "up", "down")


class Options(NamedTuple):
    """What the factory was told. how: of the routing."""

    n: int
    hidden: int
    experts: int
    activation: str
    how: Routing

    @property
    def has_losses(self) -> bool:
        """Whether the output is (y, losses)."""
        return self.how.balance is not None or self.how.z is not None


def _expect(params: Any, x: Any, opts: Options) -> None:
    expect_params(WHO, params, MixtureParams)
    expect_float(WHO, "x", x)
    if x.ndim < 1 or x.shape[-1] != opts.n:
        raise ValueError(f"{WHO}: x must have {opts.n} features in its last axis, got {describe(x)}; pass (..., {opts.n}).")
    e, n, hidden = opts.experts, opts.n, opts.hidden
    shapes = (n, e), (e, n, WIDTHS[opts.activation] * hidden), (e, hidden, n)
    for name, p, shape in zip(params._fields, params, shapes):
        expect_float(WHO, name, p)
        expect_shape(WHO, name, p, shape)
        expect_same_dtype(WHO, name, p, "x", x)


def load_of(sizes: Array, choices: int, dtype: Any) -> Array:
    """Each expert's share of all choices, 0 if there is none.  sizes: int32 (experts,)."""
    return sizes.astype(dtype) / max(choices, 1)


def mixture_of_experts_apply(params: Any, x: Array, *, key: Any = None, opts: Options, load: Any = load_of) -> Any:
    """y = sum over the experts e that x chooses of g_e f_e(x),  f_e(x) = activated(x U_e) D_e,  g = gates of x W_router.

    Every expert meets every token here, and g is 0 where it was not chosen.  x, y: (..., n).
    With `balance` or `z` the result is (y, losses), losses: (), as `losses_apply` has them.
    """
    rows, (router, up, down) = fold(x), params
    logits = scores(rows, router)
    ids, g = gates_apply(logits, opts.how)
    every = jnp.einsum("teh,ehn->ten", activated(jnp.einsum("tn,enh->teh", rows, up), opts.activation), down)
    y = jnp.einsum("te,ten->tn", pick_t(g, ids, opts.experts), widened(every)).astype(x.dtype)
    y = fold_t(y, x.shape)
    if not opts.has_losses:
        return y
    sizes = by_expert(ids, opts.experts).sizes
    return y, losses_apply(logits, load(sizes, ids.size, logits.dtype), opts.how)


def mixture_of_experts_fwd(
    params: Any, x: Array, *, key: Any = None, opts: Options, meet: Any = experts_fwd, load: Any = load_of
) -> Any:
    rows = fold(x)
    logits = scores(rows, params.router)
    ids, g = gates_apply(logits, opts.how)
    at = by_expert(ids, opts.experts)
    y, kept = meet(Experts(params.up, params.down), spread(rows, at), at.sizes, opts.activation)
    y = fold_t(joined(y, g, at), x.shape)
    if not opts.has_losses:
        return y, (params, x, logits, ids, g, at, kept, None)
    shares = load(at.sizes, ids.size, logits.dtype)
    return (y, losses_apply(logits, shares, opts.how)), (params, x, logits, ids, g, at, kept, shares)


def mixture_of_experts_bwd(residuals: Any, ct: Any, *, opts: Options, meet_bwd: Any = experts_bwd) -> Any:
    params, x, logits, ids, g, at, kept, shares = residuals
    ct_y, ct_losses = ct if opts.has_losses else (ct, None)
    rows = fold(x)
    # Forward, a token was copied to its experts and their outputs summed: backward, its cotangent is copied to them, and
    # what they send back is summed.
    ct_experts, ct_copies, ct_gates = meet_bwd(
        Experts(params.up, params.down), spread(rows, at), kept, sorted_gates(g, at), spread(fold(ct_y), at), at.sizes,
        opts.activation,
    )  # fmt: skip
    ct_logits = gates_bwd((logits, ids, g), rows_at(ct_gates, at.inverse), opts.how)
    if ct_losses is not None:
        ct_logits = ct_logits + losses_bwd((logits, shares), ct_losses, opts.how)
    ct_router = (widened(rows).T @ ct_logits).astype(params.router.dtype)
    ct_rows = spread_t(ct_copies, at) + (ct_logits @ widened(params.router).T).astype(x.dtype)
    return MixtureParams(ct_router, *ct_experts), fold_t(ct_rows, x.shape)


def expect_mixture(
    n: int, hidden: int, experts: int, top_k: int, activation: Any = "swiglu", over: Any = None, balance: Any = None,
    z: Any = None,
) -> Options:  # fmt: skip
    """The arguments as Options. Raises ValueError if they do not fit together."""
    n, hidden, experts, top_k = expect_positive(WHO, n=n, hidden=hidden, experts=experts, top_k=top_k)
    if top_k > experts:
        raise ValueError(f"{WHO}: top_k must be at most the number of experts, {experts}, got {top_k}.")
    if not isinstance(activation, str) or activation not in WIDTHS:
        raise unknown_name(f"activation of {WHO}", activation, WIDTHS)
    over = ("chosen" if top_k > 1 else "all") if over is None else over
    if not isinstance(over, str) or over not in ("chosen", "all"):
        raise unknown_name(f"softmax of {WHO}, over,", over, ("chosen", "all"))
    if over == "chosen" and top_k == 1 < experts:
        raise ValueError(f'{WHO}: the softmax over a single chosen expert is always 1, and teaches the router nothing; pass '
                         'over="all" with top_k=1.')  # fmt: skip
    given = [None if c is None else expect_not_negative(WHO, **{name: c})[0] for name, c in (("balance", balance), ("z", z))]
    return Options(n, hidden, experts, activation, Routing(top_k, over, *given))


def initial(opts: Options, init: Callable[..., Array], init_out: Callable[..., Array], key: Any) -> MixtureParams:
    """Parameters in which every matrix of every expert is drawn by itself, as `dense` would."""
    n, hidden = opts.n, opts.hidden
    k_router, k_up, k_down = jax.random.split(key, 3)
    ups = jax.random.split(k_up, (opts.experts, WIDTHS[opts.activation]))
    up = jax.vmap(jax.vmap(lambda k: init(k, (n, hidden), jnp.float32)))(ups)
    down = jax.vmap(lambda k: init_out(k, (hidden, n), jnp.float32))(jax.random.split(k_down, opts.experts))
    up = jnp.moveaxis(up, 1, 2).reshape(opts.experts, n, -1)
    return MixtureParams(init(k_router, (n, opts.experts), jnp.float32), up, down)


def mixture_of_experts(
    n: int,
    hidden: int,
    experts: int,
    top_k: int,
    *,
    activation: Literal["swiglu", "gelu"] = "swiglu",
    over: Literal["chosen", "all"] | None = None,
    balance: float | None = None,
    z: float | None = None,
    init: Callable[..., Array] | None = None,
    init_out: Callable[..., Array] | None = None,
) -> Layer:
    """y = sum of g_e f_e(x) over the top_k experts e with the largest logits x W_router, f_e an mlp with `hidden` neurons.

    x, y: (..., n).  Of equal logits the lower number goes first; no expert is ever full, so no token is dropped.
    activation: of the experts, f_e(x) = (silu(x A_e) * x B_e) D_e for "swiglu", gelu(x B_e) D_e for "gelu".
    over: g is the softmax of the "chosen" logits (Mixtral, Jiang et al. 2024), or of "all", of which the chosen entries are
    taken (Switch, Fedus et al. 2022); by default of the chosen, with top_k=1 of all. Logits are computed in float32 at least.
    balance, z: the weights of the loss that keeps experts evenly busy and of the one that keeps logits small. With one of them
    the result is (y, losses), whose second entry belongs into the loss: `nnjax.auxiliary` brings it there.
    init and init_out make the matrix of each expert, by default as `dense` does.

    Backward: tokens are copied and sorted by expert, and one product for each expert takes its rows, here as there
    (`nnjax.ops.ragged_dot`). The transpose of the sorting is its inverse, that of the copies a sum.
    Raises ValueError for a top_k above experts, or of 1 with the softmax over the chosen, which would never learn.

    >>> layer = nnjax.mixture_of_experts(16, 32, experts=4, top_k=2)
    >>> layer.apply(layer.init(jax.random.key(0)), jnp.ones((2, 9, 16))).shape
    (2, 9, 16)
    """
    opts = expect_mixture(n, hidden, experts, top_k, activation, over, balance, z)
    init = jax.nn.initializers.glorot_uniform() if init is None else init
    init_out = init if init_out is None else init_out
    expect_init(WHO, init)
    expect_init(WHO, init_out)

    def fwd(params, x, *, key=None, meet=experts_fwd):
        _expect(params, x, opts)
        y, residuals = mixture_of_experts_fwd(params, x, opts=opts, meet=meet)
        return y, (residuals, outline(x))

    def bwd(residuals, ct_y, *, meet_bwd=experts_bwd):
        return mixture_of_experts_bwd(residuals[0], ct_y, opts=opts, meet_bwd=meet_bwd)

    def apply(params, x, *, key=None):
        _expect(params, x, opts)
        return mixture_of_experts_apply(params, x, opts=opts)

    def output(residuals):
        like: Any = outlined(residuals[1])
        return (like, Like((), wide(like))) if opts.has_losses else like

    fast = partial(fwd, meet=partial(experts_fwd, by=FAST)), partial(bwd, meet_bwd=partial(experts_bwd, by=FAST))
    name = f"{WHO}({opts.n}, {opts.hidden}, {opts.experts}, {opts.how.top_k})"
    return leaf(name, partial(initial, opts, init, init_out), apply, fwd, bwd, output, fast=fast)
