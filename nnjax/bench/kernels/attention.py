"""Causal attention for the bench: the hand-written one, the plain definition, and those of other libraries where they run."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ... import ops
from ...cases import quickly

Attend = Callable[[Any, Any, Any], Any]  # q, k, v -> y, all (batch, positions, heads, d)


def plain(q: Any, k: Any, v: Any) -> Any:
    """Attention in the simplest way: it forms every product of a query with a key."""
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) * q.shape[-1] ** -0.5
    seen = jnp.broadcast_to(jnp.tril(jnp.ones(scores.shape[-2:], bool)), scores.shape)
    weights = jax.nn.softmax(jnp.where(seen, scores, jnp.full_like(scores, -jnp.inf)))
    return jnp.einsum("bhqk,bkhd->bqhd", weights, v)


def others(platform: str) -> dict[str, Attend]:
    """Other kernels for this platform: cuDNN's, which takes only 16 bits, and those in JAX."""

    def cudnn(q, k, v):
        low = (x.astype(jnp.bfloat16) for x in (q, k, v))
        return jax.nn.dot_product_attention(*low, is_causal=True, implementation="cudnn").astype(q.dtype)

    def triton(q, k, v):
        from jax.experimental.pallas.ops.gpu.attention import mha

        return mha(q, k, v, None, sm_scale=q.shape[-1] ** -0.5, causal=True)

    def flash(q, k, v):
        from jax.experimental.pallas.ops.tpu.flash_attention import flash_attention

        by_head = (x.transpose(0, 2, 1, 3) for x in (q, k, v))
        return flash_attention(*by_head, causal=True, sm_scale=q.shape[-1] ** -0.5).transpose(0, 2, 1, 3)

    return {"cuda": {"cuDNN, bfloat16": cudnn, "JAX's Triton": triton}, "tpu": {"JAX's flash": flash}}.get(platform, {})


def attends(s: int, batch: int = 1, heads: int = 4, d: int = 64, kernels_of: str | None = None) -> Callable[..., Any]:
    """Value and cotangents of attention over s positions; kernels_of: with our kernels, beside others for that platform."""

    def make():
        shape = (batch, s, heads, d)
        keys = jax.random.split(jax.random.key(0), 4)
        q, k, v, ct = (quickly(lambda key: jax.random.normal(key, shape), key) for key in keys)

        def pulled(f: Attend):
            def run(q, k, v, ct):
                y, pull = jax.vjp(f, q, k, v)
                return y, pull(ct)

            return run

        def hand(q, k, v):
            return ops.attention(q, k, v, kernel=kernels_of is not None)

        named: dict[str, Attend] = {"jax.grad": plain, "checkpoint": jax.checkpoint(plain)}
        named["jax.nn"] = lambda q, k, v: jax.nn.dot_product_attention(q, k, v, is_causal=True)
        if kernels_of is not None:
            named |= {"no kernels": ops.attention, **others(kernels_of)}
        return pulled(hand), {name: pulled(f) for name, f in named.items()}, (q, k, v, ct)

    return make
