"""Exercises without time: what is given, and what the cotangents would be under the mistakes that people make.

The right backward is the exercise, so it stands in notebooks/08_exercises.ipynb and not here.
"""

import jax
import jax.numpy as jnp
from jax import lax

from ..linear import broadcast
from .exercise import Mistakes


def shares(x):
    """The shares of a row in its sum, and the logarithm of the sum.

    x: (rows, n), all positive.
    """
    s = x.sum(-1, keepdims=True)
    return x / s, jnp.log(s)


def shares_fwd(x):
    return shares(x), (x, x.sum(-1, keepdims=True))


def shares_mistakes(residuals, ct_y) -> Mistakes:
    """ct_y: the cotangents of the shares and of the logarithm."""
    (x, s), (ct_share, ct_log) = residuals, ct_y
    by_share, by_log = -(ct_share * x).sum(-1, keepdims=True) / s**2, ct_log / s
    return {
        "x": {
            "the way through the sum is missing: x stands in s too": ct_share / s,
            "s is used twice, and only the shares send something back to it": ct_share / s + by_share,
            "s is used twice, and only the logarithm sends something back to it": ct_share / s + by_log,
            "the direct way is missing: x also stands above the fraction line": broadcast(by_share + by_log, x.shape),
            "s was copied to all n shares, so its cotangent is a sum over them: that sum is missing": (
                ct_share / s - ct_share * x / s**2 + by_log
            ),
            "the sign of d(1/s)/ds is lost: it is -1/s²": ct_share / s - by_share + by_log,
            "a mean over the shares: s was copied to every share, so it is a sum": (
                ct_share / s + by_share / x.shape[-1] + by_log
            ),
        }
    }


def project(x, w):
    """Every head's projection of every position.

    x: (batch, time, c), w: (heads, c, d), y: (batch, heads, time, d).
    """
    return jnp.einsum("btc,hcd->bhtd", x, w)


def project_fwd(x, w):
    return project(x, w), (x, w)


def project_mistakes(residuals, ct_y) -> Mistakes:
    x, w = residuals
    b, h, t, d = ct_y.shape
    heads, c, _ = w.shape
    side_by_side = ct_y.reshape(b, t, h * d)  # wrong: time and heads have not changed places
    return {
        "x": {
            "w is not transposed: c is summed where d belongs": jnp.einsum("bhtd,hdc->btc", ct_y, w),
            "a reshape does not move axes: bring ct_y to (batch, time, heads, d) first": (
                side_by_side @ jnp.moveaxis(w, 0, 1).reshape(c, heads * d).T
            ),
            "only the first head sends something back: x fed all of them": ct_y[:, 0] @ w[0].T,
            "the heads are averaged: x fed each of them, so it is a sum": jnp.einsum("bhtd,hcd->btc", ct_y, w) / heads,
        },
        "w": {
            "c and d have changed places": jnp.einsum("bhtd,btc->hdc", ct_y, x),
            "only the first example counts: w met all of them, so b is summed": jnp.einsum("htd,tc->hcd", ct_y[0], x[0]),
        },
    }


def cross_entropy(scores, labels):
    """The mean over examples of -log softmax(scores)[label].

    scores: (n, classes), labels: (n,) integers.
    """
    chosen = jnp.take_along_axis(jax.nn.log_softmax(scores), labels[:, None], 1)
    return -chosen.mean()


def cross_entropy_fwd(scores, labels):
    return cross_entropy(scores, labels), (jax.nn.softmax(scores), labels)


def cross_entropy_mistakes(residuals, ct_y) -> Mistakes:
    p, labels = residuals
    one = jax.nn.one_hot(labels, p.shape[1], dtype=p.dtype)
    g = ct_y * (p - one) / p.shape[0]
    return {
        "scores": {
            "the label's row alone: raising any score lowers the probabilities of the others": (
                ct_y * one * (p - one) / p.shape[0]
            ),
            "softmax is differentiated twice: p - one_hot has its Jacobian in it already": (
                p * (g - broadcast((p * g).sum(-1, keepdims=True), p.shape))
            ),
            "this is the gradient of the sum: the loss is the mean over n examples": g * p.shape[0],
            "the mean is over the n examples, not over all n times classes entries": g / p.shape[1],
            "one_hot is missing: this is the derivative of the log of the sum alone": ct_y * p / p.shape[0],
            "ct_y is left out: the loss may be a part of a larger one": g / ct_y,
        }
    }


EPSILON = 1e-5


def batch_norm(x, gamma, beta):
    """(x - mean) / s · gamma + beta, mean and s over the batch.

    x: (batch, n), gamma, beta: (n,).
    """
    x_hat = (x - x.mean(0, keepdims=True)) / jnp.sqrt(x.var(0, keepdims=True) + EPSILON)
    return x_hat * broadcast(gamma, x.shape) + broadcast(beta, x.shape)


def batch_norm_fwd(x, gamma, beta):
    s = jnp.sqrt(x.var(0, keepdims=True) + EPSILON)
    return batch_norm(x, gamma, beta), ((x - x.mean(0, keepdims=True)) / s, s, gamma)


def batch_norm_mistakes(residuals, ct_y) -> Mistakes:
    x_hat, s, gamma = residuals

    def back(ct, axis: int, mean: bool = True, spread: bool = True):
        centred = ct - ct.mean(axis, keepdims=True) if mean else ct
        return (centred - x_hat * (ct * x_hat).mean(axis, keepdims=True) if spread else centred) / s

    ct = ct_y * broadcast(gamma, ct_y.shape)
    return {
        "x": {
            "the batch's mean and deviation were taken for constants: both move with x": back(ct, 0, mean=False, spread=False),
            "the batch's mean was taken for a constant: it moves with x": back(ct, 0, mean=False),
            "the batch's deviation s was taken for a constant: it moves with x": back(ct, 0, spread=False),
            "the means are over the features, as in layer norm: here they are over the batch": back(ct, 1),
            "gamma is left out": back(ct_y, 0),
            "the means over the batch are written as sums": (
                (ct - ct.sum(0, keepdims=True) - x_hat * (ct * x_hat).sum(0, keepdims=True)) / s
            ),
            "divided by the variance, where the forward divides by its root": back(ct, 0) / s,
        },
        "gamma": {
            "gamma was multiplied by x_hat: without x_hat this is ct_beta": ct_y.sum(0),
            "x - mean stands where x_hat belongs: divide by s": (ct_y * x_hat * s).sum(0),
            "a mean over the batch: gamma was copied to every row, so it is a sum": (ct_y * x_hat).mean(0),
            "gamma stands in its own cotangent: y is linear in it": (ct * x_hat).sum(0),
        },
        "beta": {
            "a mean over the batch: beta was copied to every row, so it is a sum": ct_y.mean(0),
            "gamma does not reach beta": ct.sum(0),
        },
    }


STRIDE = 2


def windows(x, width: int, stride: int):
    """What each window sees, (width, windows, channels).

    x: (positions, channels).
    """
    last = stride * ((len(x) - width) // stride)  # where the last window begins
    return jnp.stack([lax.slice_in_dim(x, j, j + last + 1, stride) for j in range(width)])


def convolve(x, w):
    """y[p, o] = the sum over j and c of x[2 p + j, c] w[j, c, o].

    x: (positions, c), w: (width, c, o).
    """
    return jnp.einsum("jpc,jco->po", windows(x, len(w), STRIDE), w)


def convolve_fwd(x, w):
    return convolve(x, w), (x, w)


def convolve_mistakes(residuals, ct_y) -> Mistakes:
    x, w = residuals

    def spread(w, stride: int, added: bool = True):
        ct_x = jnp.zeros_like(x)
        for j, ct in enumerate(jnp.einsum("po,jco->jpc", ct_y, w)):
            read = ct_x.at[j : j + stride * (len(ct) - 1) + 1 : stride]  # where weight j was
            ct_x = read.add(ct) if added else read.set(ct)
        return ct_x

    side_by_side = jnp.stack([x[j : j + len(ct_y)] for j in range(len(w))])
    return {
        "x": {
            "windows overlap: what a position gets from two of them is added, not overwritten": spread(w, STRIDE, added=False),
            "the stride is forgotten: window p begins at 2 p": spread(w, 1),
            "the kernel is flipped once too often: x[2 p + j] met w[j], and gets its share through w[j]": spread(
                w[::-1], STRIDE
            ),
        },
        "w": {
            "the stride is forgotten: window p begins at 2 p": jnp.einsum("jpc,po->jco", side_by_side, ct_y),
            "the kernel's places are in reverse order": jnp.einsum("jpc,po->jco", windows(x, len(w), STRIDE)[::-1], ct_y),
        },
    }
