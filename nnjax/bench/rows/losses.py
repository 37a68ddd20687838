"""The rows of losses: of outputs that are given, and with the linear map before them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ... import losses
from ...layer import Layer
from .entry import Entry
from .making import ids, keys, normal


def graded(loss: Layer, inputs: Callable[..., Any]) -> Callable[..., Any]:
    """Value and gradient of a loss to the first of its inputs(keys) -> (y, *rest of x), the others being constants."""

    def make():
        y, *rest = inputs(keys(6))

        def hand(y, *rest):
            value, residuals = loss.fwd((), (y, *rest))
            return value, loss.bwd(residuals, jnp.ones_like(value))[1][0]

        def plain(y, *rest):
            return loss.apply((), (y, *rest))

        def by_jax(f):
            def run(y, *rest):
                value, pull = jax.vjp(lambda y: f(y, *rest), y)
                return value, pull(jnp.ones_like(value))[0]

            return run

        return hand, {"jax.grad": by_jax(plain), "checkpoint": by_jax(jax.checkpoint(plain))}, (y, *rest)

    return make


def _table(k: Any, n: int, vocab: int, width: int) -> Any:
    return normal(n, width)(k[0]), 0.1 * normal(vocab, width)(k[1])


def fused(n: int, vocab: int, width: int = 256) -> Callable[..., Any]:
    return lambda k: (_table(k, n, vocab, width), ids(vocab, n)(k[2]))


def taught(n: int, vocab: int, width: int = 256) -> Callable[..., Any]:
    return lambda k: (_table(k, n, vocab, width), _table(k[2:], n, vocab, width))


def preferred(pairs: int, tokens: int, vocab: int, width: int = 256) -> Callable[..., Any]:
    def inputs(k):
        h, w = _table(k, pairs * 2 * tokens, vocab, width)
        return (h.reshape(pairs, 2, tokens, width), w), (ids(vocab, pairs, 2, tokens)(k[2]), normal(pairs, 2)(k[3]))

    return inputs


def of_losses() -> list[Entry]:
    numbers = lambda k: (normal(2048, 8192)(k[0]), ids(8192, 2048)(k[1]))  # noqa: E731
    shares = lambda k: (normal(2048, 8192)(k[0]), jax.nn.softmax(normal(2048, 8192)(k[1])))  # noqa: E731
    targets = lambda k: (normal(4096, 768)(k[0]), jax.nn.sigmoid(normal(4096, 768)(k[1])))  # noqa: E731
    options = losses.softmax_cross_entropy(label_smoothing=0.1, z_loss=1e-4, softcap=30.0)
    capped, n, vocab = losses.linear_cross_entropy(softcap=30.0, z_loss=1e-4), 2048, 32768
    return [
        Entry("softmax_cross_entropy 2048 x 8192", graded(losses.softmax_cross_entropy(), numbers)),
        Entry("softmax_cross_entropy, smoothed, capped, 2048 x 8192", graded(options, numbers)),
        Entry("softmax_cross_entropy, probabilities, 2048 x 8192", graded(losses.softmax_cross_entropy(), shares)),
        Entry("binary_cross_entropy, pos_weight, 4096 x 768", graded(losses.binary_cross_entropy(pos_weight=3.0), targets)),
        Entry("huber_loss 4096 x 768", graded(losses.huber_loss(), targets)),
        Entry("kl_divergence 4096 x 768", graded(losses.kl_divergence(), targets)),
        *(
            Entry(f"{name}, V = {vocab}, N = {n}", graded(loss, inputs), 1.02, temp)
            for name, loss, inputs, temp in (
                ("linear_cross_entropy, capped", capped, fused(n, vocab), 0.08),
                (
                    "linear_cross_entropy, a cotangent a row",
                    losses.linear_cross_entropy(reduction="none"),
                    fused(n, vocab),
                    0.12,
                ),
                ("linear_kl_divergence", losses.linear_kl_divergence(), taught(n, vocab), 0.06),
                ("linear_jensen_shannon", losses.linear_jensen_shannon(), taught(n, vocab), 0.06),
                ("linear_dpo", losses.linear_dpo(), preferred(4, n // 8, vocab), 0.18),
            )
        ),
    ]
