import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax import models
from nnjax.bench.peers import flax

pytestmark = pytest.mark.skipif(importlib.util.find_spec("flax") is None, reason="flax is not installed")
IDS = jnp.array([[1, 4, 2, 0], [3, 3, 0, 1]], jnp.int32)


def dense(p):
    return {"kernel": p.w, "bias": p.b}


def norm(p):
    return {"scale": p.scale, "bias": p.offset}


def attention(p, heads, width):
    shape = (width, heads, width // heads)
    w, b = jnp.split(p.qkv.w, 3, 1), jnp.split(p.qkv.b, 3)
    parts = {
        name: {"kernel": w[i].reshape(shape), "bias": b[i].reshape(shape[1:])}
        for i, name in enumerate(("query", "key", "value"))
    }
    return {**parts, "out": {"kernel": p.out.w.reshape(*shape[1:], width), "bias": p.out.b}}


def test_a_gpt_with_our_parameters_gives_our_scores():
    model = models.gpt(5, 4, 2, 2, 8, scan=False)
    params = jax.tree.map(lambda p: p + 0.3 * jax.random.normal(jax.random.key(p.size), p.shape), model.init(jax.random.key(0)))
    positions, *blocks, last = params.body[0], *params.body[1], params.body[2]
    theirs = {"Embed_0": {"embedding": params.table.table}, "positions": positions.table, "LayerNorm_4": norm(last)}
    for i, ((first, attend), (second, up, (_, down))) in enumerate(blocks):
        theirs |= {f"LayerNorm_{2 * i}": norm(first), f"LayerNorm_{2 * i + 1}": norm(second)}
        theirs |= {f"MultiHeadDotProductAttention_{i}": attention(attend, 2, 8)}
        theirs |= {f"Dense_{2 * i}": dense(down), f"Dense_{2 * i + 1}": dense(up)}
    scores = jax.jit(flax.gpt(5, 4, 2, 2, 8).apply)({"params": theirs}, IDS)
    np.testing.assert_allclose(scores, jax.jit(model.apply)(params, IDS), rtol=1e-4, atol=1e-5)


def test_a_char_rnn_with_our_parameters_gives_our_scores():
    model = models.char_rnn(5, 8)
    embed, lstm, head = params = model.init(jax.random.key(0))
    w, u, b = (jnp.split(p, 4, -1) for p in lstm)
    cell = {f"i{gate}": {"kernel": w[i]} for i, gate in enumerate("ifgo")}
    cell |= {f"h{gate}": {"kernel": u[i], "bias": b[i]} for i, gate in enumerate("ifgo")}
    theirs = {"layers_0": {"embedding": embed.table}, "layers_1": {"cell": cell}, "layers_2": dense(head)}
    scores = jax.jit(flax.char_rnn(5, 8).apply)({"params": theirs}, IDS)
    np.testing.assert_allclose(scores, jax.jit(model.apply)(params, IDS), rtol=1e-4, atol=1e-5)
