"""Which parameters are weights, in every layer and model, plain and stacked."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax import feedback, nielsen
from nnjax.cases import cases
from nnjax.distributed import gpt_by_heads
from nnjax.trees.parameters import is_weight, weights_in

KEY = jax.random.key(0)
BLOCKS = {
    "dense": (nnjax.dense(2, 2), [True, False]),
    "dense without bias": (nnjax.dense(2, 2, bias=False), [True]),
    "mirrored": (nnjax.dense(2, 2, feedback=feedback.mirror), [True, False, True]),
    "conv": (nnjax.conv(2, 2, 3), [True, False]),
    "layer_norm": (nnjax.layer_norm(2), [False, False]),
    "rms_norm": (nnjax.rms_norm(2), [False]),
    "group_norm": (nnjax.group_norm(1, 2), [False, False]),
    "batch_norm": (nnjax.batch_norm(2), [False, False]),
    "rnn": (nnjax.rnn(2, 2), [True, True, False]),
    "lstm": (nnjax.lstm(2, 2), [True, True, False]),
    "gru": (nnjax.gru(2, 2), [True, True, False, False]),
    "rg_lru": (nnjax.rg_lru(2, 2), [True, False, False]),
    "gru both ways": (nnjax.gru(2, 2, bidirectional=True), [True, True, False, False] * 2),
    "attention": (nnjax.attention(2, 1), [True, False, True, False]),
    "embedding": (nnjax.embedding(3, 2), [True]),
    "learned_positions": (nnjax.learned_positions(3, 2), [True]),
    "residual": (nnjax.residual(nnjax.serial(nnjax.layer_norm(2), nnjax.dense(2, 2))), [False, False, True, False]),
}  # fmt: skip


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.repeats
@pytest.mark.in_turn
def test_stacked_once_and_twice_they_are_what_they_were(name):
    block, right = BLOCKS[name]
    for layer in (block, nnjax.scan_layers(block, 2), nnjax.scan_layers(nnjax.scan_layers(block, 2), 3)):
        params = layer.init(KEY)
        assert jax.tree.leaves(is_weight(params)) == right
        assert jax.tree.structure(is_weight(params)) == jax.tree.structure(params)
        assert [w.shape for w in weights_in(params)] == [p.shape for p, w in zip(jax.tree.leaves(params), right) if w]


@pytest.mark.slow
@pytest.mark.in_turn
def test_where_nothing_is_stacked_the_weights_are_what_has_two_axes():
    stacked = 0
    for case in cases():
        params = case.make(0)[0]
        if any("scan_layers" in name for name in _names(case.layer)):
            stacked += 1
        else:
            assert jax.tree.leaves(is_weight(params)) == [p.ndim >= 2 for p in jax.tree.leaves(params)], case.name
    assert stacked > 0


def _names(layer):
    return [layer.name, *(name for part in layer.parts for name in _names(part))]


@pytest.mark.in_turn
def test_a_gpt_decays_alike_whether_its_blocks_are_stacked_or_in_a_row():
    sizes = {"vocab": 5, "context": 3, "layers": 2, "heads": 1, "width": 2}
    stacked, apart = (nnjax.gpt(**sizes, scan=scan).init(KEY) for scan in (True, False))
    assert sum(p.size for p in weights_in(stacked)) == sum(p.size for p in weights_in(apart))
    assert [p.shape for p in weights_in(stacked)] == [(5, 2), (3, 2), (2, 2, 6), (2, 2, 2), (2, 2, 8), (2, 8, 2)]
    assert sum(p.size for p in weights_in(gpt_by_heads(stacked))) == sum(p.size for p in weights_in(stacked))


def test_statistics_are_not_weights():
    model = nnjax.serial(nnjax.dense(2, 2), nnjax.batch_norm(2))
    frozen = nnjax.calibrate(model, model.init(KEY), [jnp.ones((3, 2))])
    assert jax.tree.leaves(is_weight(frozen)) == [True, *[False] * 5]
    assert jax.tree.leaves(is_weight(jax.tree.map(lambda p: jnp.stack([p, p]), frozen))) == [True, *[False] * 5]


def test_the_book():
    params = nielsen.init(KEY, [3, 2, 1])
    assert is_weight(params) == nielsen.Params((True, True), (False, False))


class Own(NamedTuple):
    m: jax.Array
    bias: jax.Array
    inner: dict

    WEIGHTS = ("bias",)


def test_other_trees_go_by_their_axes_and_our_own_say_it():
    tree = {"kernel": np.ones((2, 2)), "bias": np.ones(2), "inside": [nnjax.dense(2, 1).init(KEY), None, 3.0]}
    assert is_weight(tree) == {"kernel": True, "bias": False, "inside": [nnjax.layers.DenseParams(True, False), None, False]}
    own = Own(jnp.ones((2, 2)), jnp.ones(2), {"x": jnp.ones((2, 2)), "dense": nnjax.dense(2, 1).init(KEY)})
    assert is_weight(own) == Own(False, True, {"x": False, "dense": nnjax.layers.DenseParams(True, False)})
    assert is_weight(()) == ()
    assert jax.tree.leaves(is_weight(jax.eval_shape(nnjax.scan_layers(nnjax.dense(2, 2), 3).init, KEY))) == [True, False]
