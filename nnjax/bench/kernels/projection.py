"""The linear cross-entropy for the bench: the hand-written one, with or without kernels, and the plain definition."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ...cases import quickly
from ...losses.fused import linear_cross_entropy


def projects(n: int, vocab: int, width: int = 256, kernel: bool = False) -> Callable[..., Any]:
    """Value and gradient of the fused loss to h and w; kernel: with kernels, beside the platform's spelling without them."""

    def make():
        keys = jax.random.split(jax.random.key(0), 3)
        h, w = (quickly(lambda key, s=s: jax.random.normal(key, (s, width)), key) for key, s in zip(keys, (n, vocab)))
        labels = quickly(lambda key: jax.random.randint(key, (n,), 0, vocab, jnp.int32), keys[2])

        def by_hand(loss):
            def run(h, w, labels):
                value, residuals = loss.fwd((), ((h, w), labels))
                return value, loss.bwd(residuals, jnp.ones_like(value))[1][0]

            return run

        def plain(h, w, labels):
            return linear_cross_entropy().apply((), ((h, w), labels))

        references = {"jax.grad": jax.value_and_grad(plain, (0, 1))}
        references["checkpoint"] = jax.value_and_grad(jax.checkpoint(plain), (0, 1))
        if kernel:
            references["no kernels"] = by_hand(linear_cross_entropy())
        return by_hand(linear_cross_entropy(kernel=kernel)), references, (h, 0.1 * w, labels)

    return make
