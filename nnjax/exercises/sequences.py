"""Exercises over positions and time: what is given, and the cotangents under the mistakes that people make."""

import math

import jax
import jax.numpy as jnp
from jax import lax

from ..linear import broadcast
from .exercise import Mistakes


def attend(q, k, v):
    """softmax(q kᵀ / sqrt(d)) v.

    q, k: (time, d), v: (time, n), y: (time, n).
    """
    return jax.nn.softmax(q @ k.T / math.sqrt(q.shape[1])) @ v


def attend_fwd(q, k, v):
    return attend(q, k, v), (q, k, v, jax.nn.softmax(q @ k.T / math.sqrt(q.shape[1])))


def attend_mistakes(residuals, ct_y) -> Mistakes:
    q, k, v, p = residuals
    root = math.sqrt(q.shape[1])
    ct_p = ct_y @ v.T
    ct_scores = p * (ct_p - broadcast((p * ct_p).sum(1, keepdims=True), p.shape)) / root
    wrong_scores = {
        "softmax was taken entry by entry: the probabilities of a row share one sum, subtract (p * ct_p).sum(1)": (
            p * ct_p / root
        ),
        "softmax was taken for a sigmoid, p (1 - p): the probabilities of a row share one sum": p * (1 - p) * ct_p / root,
        "softmax is left out on the way back": ct_p / root,
        "the sum in softmax's backward runs over the columns: a row of p adds up to 1, so it is over a row": (
            p * (ct_p - broadcast((p * ct_p).sum(0, keepdims=True), p.shape)) / root
        ),
        "the factor 1 / sqrt(d) is left out": ct_scores * root,
        "the factor 1 / sqrt(d) is there twice": ct_scores / root,
    }
    return {
        "q": {words: ct @ k for words, ct in wrong_scores.items()}
        | {"the scores' cotangent is transposed: ct_q takes it as it is, ct_k transposed": ct_scores.T @ k},
        "k": {words: ct.T @ q for words, ct in wrong_scores.items()}
        | {"the transpose is missing: forward a query sums over keys, backward a key sums over queries": ct_scores @ q},
        "v": {
            "the transpose is missing: v[j] went to every position i with weight p[i, j]": p @ ct_y,
            "p is left out: each position took its own share of v": ct_y,
        },
    }


def recurrence(u, w, h0, xs):
    """h_t = tanh(h_{t-1} u + x_t w).

    u: (n, n), w: (c, n), h0: (n,), xs: (time, c), all the h_t: (time, n).
    """

    def step(h, x):
        h = jnp.tanh(h @ u + x @ w)
        return h, h

    return lax.scan(step, h0, xs)[1]


def recurrence_fwd(u, w, h0, xs):
    hs = recurrence(u, w, h0, xs)
    return hs, (u, w, xs, jnp.concatenate([h0[None], hs[:-1]]), hs)


def sent_back(u, hs, ct_hs, *, carry=True, reverse=True, slope=True, cut=None):
    """(ct_h0, ct_zs) of the sweep back through time, z_t what tanh is given; with parts of it left out.

    u: what the carry is multiplied by; cut: (time,), where nothing goes further back.
    """
    cut = jnp.zeros(len(hs), bool) if cut is None else cut

    def step(ct_h, at):
        ct_h_t, h, here = at
        ct_h_t = ct_h_t + ct_h if carry else ct_h_t
        ct_z = ct_h_t * (1 - h**2) if slope else ct_h_t
        back = ct_z @ u
        return jnp.where(here, jnp.zeros_like(back), back), ct_z

    return lax.scan(step, jnp.zeros_like(hs[0]), (ct_hs, hs, cut), reverse=reverse)


def _of(residuals, ct_h0, ct_zs):
    u, w, xs, before, hs = residuals
    return {"u": before.T @ ct_zs, "w": xs.T @ ct_zs, "h0": ct_h0, "xs": ct_zs @ w.T}


def _by_argument(wrong: dict[str, dict]) -> Mistakes:
    found: Mistakes = {}
    for words, cotangents in wrong.items():
        for name, ct in cotangents.items():
            found.setdefault(name, {})[words] = ct
    return found


def recurrence_mistakes(residuals, ct_hs) -> Mistakes:
    u, w, xs, before, hs = residuals
    last = jnp.concatenate([jnp.zeros_like(ct_hs[:-1]), ct_hs[-1:]])
    wrong = {
        "what comes back from later steps is missing: h_t also acts through h_{t+1}": (sent_back(u.T, hs, ct_hs, carry=False)),
        "only the last output's cotangent is there: every step has one of its own": sent_back(u.T, hs, last),
        "u is not transposed on the way back": sent_back(u, hs, ct_hs),
        "the scan runs forwards: the last step comes first, reverse=True": sent_back(u.T, hs, ct_hs, reverse=False),
        "the slope of tanh, 1 - h_t², is left out": sent_back(u.T, hs, ct_hs, slope=False),
        "the slope of tanh is taken at h_{t-1}: z_t made h_t, so it is 1 - h_t²": sent_back(u.T, before, ct_hs),
    }
    found = _by_argument({words: _of(residuals, *back) for words, back in wrong.items()})
    _, right = sent_back(u.T, hs, ct_hs)
    found["u"]["h_t stands where h_{t-1} belongs: u was multiplied by the state before"] = hs.T @ right
    found["u"]["the outer product is transposed: rows of u go with h_{t-1}"] = right.T @ before
    return found


PIECE = 4
OWN = "the cut takes the step's own cotangent too: only what goes back to h_{t-1} is cut"


def in_pieces(u, w, h0, xs):
    """The same recurrence, and nothing goes back beyond the start of a piece of 4 steps.

    Pieces start at t = 4, 8, ...; h0 is not cut off from the first.
    """

    def step(h, at):
        x, start = at
        h = jnp.where(start, lax.stop_gradient(h), h)
        h = jnp.tanh(h @ u + x @ w)
        return h, h

    return lax.scan(step, h0, (xs, starts(len(xs))))[1]


def starts(time: int):
    """Where a piece begins, but the first, (time,)."""
    t = jnp.arange(time)
    return (t % PIECE == 0) & (t > 0)


def in_pieces_fwd(u, w, h0, xs):
    hs, (*kept, hs) = recurrence_fwd(u, w, h0, xs)
    return hs, (*kept, hs, starts(len(xs)))


def in_pieces_mistakes(residuals, ct_hs) -> Mistakes:
    *kept, start = residuals
    u, w, xs, before, hs = kept
    end = jnp.concatenate([start[1:], jnp.zeros(1, bool)])
    cut = jnp.where(start[:, None], jnp.zeros_like(ct_hs), ct_hs)
    wrong = {
        "this is the full gradient: nothing is cut": sent_back(u.T, hs, ct_hs),
        "the cut is one step off: where start[t], it is what step t sends to h_{t-1} that is cut": (
            sent_back(u.T, hs, ct_hs, cut=end)
        ),
        OWN: sent_back(u.T, hs, cut, cut=start),
        "nothing goes back at all, not even within a piece": sent_back(u.T, hs, ct_hs, carry=False),
    }
    found = _by_argument({words: _of(kept, *back) for words, back in wrong.items()})
    del found["h0"][OWN]  # h0 is in the first piece, which has no cut
    return found
