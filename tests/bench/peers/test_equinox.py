import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax import models
from nnjax.bench.peers import equinox

pytestmark = pytest.mark.skipif(importlib.util.find_spec("equinox") is None, reason="equinox is not installed")
IDS = jnp.array([[1, 4, 2, 0], [3, 3, 0, 1]], jnp.int32)


def with_arrays(model, pairs):
    """The model with each of its arrays, found by `where`, replaced."""
    import equinox as eqx

    for where, array in pairs:
        assert where(model).shape == array.shape
        model = eqx.tree_at(where, model, array)
    return model


def dense(where, p):
    return [(lambda m: where(m).weight, p.w.T), (lambda m: where(m).bias, p.b)]


def norm(where, p):
    return [(lambda m: where(m).weight, p.scale), (lambda m: where(m).bias, p.offset)]


def block(i, p):
    (first, attend), (second, up, (_, down)) = p
    pairs = [*norm(lambda m: m.blocks[i].first, first), *norm(lambda m: m.blocks[i].second, second)]
    for j, name in enumerate(("query_proj", "key_proj", "value_proj")):
        part = type(up)(jnp.split(attend.qkv.w, 3, 1)[j], jnp.split(attend.qkv.b, 3)[j])
        pairs += dense(lambda m, name=name: getattr(m.blocks[i].attention, name), part)
    pairs += dense(lambda m: m.blocks[i].attention.output_proj, attend.out)
    return [*pairs, *dense(lambda m: m.blocks[i].mlp.layers[0], up), *dense(lambda m: m.blocks[i].mlp.layers[2], down)]


@pytest.mark.in_turn
def test_a_gpt_with_our_parameters_gives_our_scores():
    model = models.gpt(5, 4, 2, 2, 8, scan=False)
    params = jax.tree.map(lambda p: p + 0.3 * jax.random.normal(jax.random.key(p.size), p.shape), model.init(jax.random.key(0)))
    positions, blocks, last = params.body
    pairs = [(lambda m: m.tokens.weight, params.table.table), (lambda m: m.positions, positions.table)]
    pairs += [*norm(lambda m: m.last, last), *block(0, blocks[0]), *block(1, blocks[1])]
    theirs = with_arrays(equinox.gpt(5, 4, 2, 2, 8), pairs)
    np.testing.assert_allclose(jax.jit(jax.vmap(theirs))(IDS), jax.jit(model.apply)(params, IDS), rtol=1e-4, atol=1e-5)


@pytest.mark.in_turn
def test_a_char_rnn_with_our_parameters_gives_our_scores():
    model = models.char_rnn(5, 8)
    embed, lstm, head = params = model.init(jax.random.key(0))
    pairs = [(lambda m: m.tokens.weight, embed.table), (lambda m: m.cell.weight_ih, lstm.w.T)]
    pairs += [(lambda m: m.cell.weight_hh, lstm.u.T), (lambda m: m.cell.bias, lstm.b), *dense(lambda m: m.head, head)]
    theirs = with_arrays(equinox.char_rnn(5, 8), pairs)
    np.testing.assert_allclose(jax.jit(jax.vmap(theirs))(IDS), jax.jit(model.apply)(params, IDS), rtol=1e-4, atol=1e-5)
