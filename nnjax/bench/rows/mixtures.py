"""The rows of mixtures of experts, beside jax.grad of JAX's own ragged product, and of every expert for every token."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ... import auxiliary, layers, models
from ...layer import Layer
from ...losses.fused import linear_cross_entropy
from .entry import Entry
from .making import backward, batched, ids, normal, step


def sorted_by_expert(params: Any, x: Array, top_k: int) -> Array:
    """The swiglu mixture as one writes it in JAX: tokens sorted by expert, and `jax.lax.ragged_dot`.  x: (tokens, n)."""
    logits, of = jax.lax.top_k(x @ params.router, top_k)
    order = jnp.argsort(of.reshape(-1), stable=True)
    sizes = jnp.bincount(of.reshape(-1), length=params.router.shape[1]).astype(jnp.int32)
    a, b = jnp.split(jax.lax.ragged_dot(x[order // top_k], params.up, sizes), 2, -1)
    y = jax.lax.ragged_dot(jax.nn.silu(a) * b, params.down, sizes)
    y = jnp.zeros_like(y).at[order].set(y, unique_indices=True).reshape(len(x), top_k, -1)
    return jnp.einsum("tk,tkn->tn", jax.nn.softmax(logits), y)


def mixture(n: int, hidden: int, experts: int, top_k: int, tokens: int) -> Entry:
    layer = layers.mixture_of_experts(n, hidden, experts, top_k)
    beside = layer._replace(apply=lambda params, x, *, key=None: sorted_by_expert(params, x, top_k))
    name = f"mixture_of_experts {n} x {hidden}, {top_k} of {experts}, {tokens} tokens"
    return Entry(name, backward(beside, normal(tokens, n), {"every expert": layer.apply}), 1.02, 0.7)


def model() -> Entry:
    sizes = (65, 64, 2, 4, 128, 8, 2)
    moe: Layer = models.moe(*sizes, fused=True, auxiliary=True)
    make = step(moe, auxiliary.to_loss(linear_cross_entropy()), batched(ids(65, 32, 64), ids(65, 32, 64)))
    return Entry("moe 2 x 128, 2 of 8, T = 64, batch 32", make, 1.02, 0.7)


def mixtures() -> list[Entry]:
    return [mixture(128, 344, 8, 2, 2048), mixture(128, 344, 64, 8, 512), mixture(512, 512, 8, 2, 64), model()]
