import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax import ops
from nnjax.ops.remembered import remembered

X, W, LABELS = jnp.ones((5, 4)), jnp.ones((6, 4)), jnp.zeros(5, jnp.int32)
ROUTER, UP, DOWN = jnp.ones((4, 3)), jnp.ones((3, 4, 16)), jnp.ones((3, 8, 4))
PAIRS = jnp.ones((2, 2, 3, 4)), W, jnp.zeros((2, 2, 3), jnp.int32), jnp.zeros((2, 2))


def mixed(**options):
    return lambda bad: ops.mixture_of_experts(X, ROUTER, UP, DOWN, top_k=2, **dict.fromkeys(options, bad))


def test_it_is_made_once_for_the_same_options():
    made = remembered(lambda *args, **how: object())
    assert made(1, a=2) is made(1, a=2)
    assert made(1, a=2) is not made(1, a=3)
    assert made([1]) is not made([1])


@pytest.mark.parametrize("bad", [{}, [], np.ones(2), jnp.ones(2)], ids=["dict", "list", "NumPy", "JAX"])
@pytest.mark.parametrize(
    ("call", "words"),
    [
        (mixed(balance=0), "balance must be at least 0"),
        (mixed(activation=0), "unknown activation"),
        (mixed(over=0), "unknown softmax"),
        (lambda bad: ops.layer_norm(X, jnp.ones(4), jnp.ones(4), eps=bad), "eps must be at least 0"),
        (lambda bad: ops.linear_dpo(*PAIRS, beta=bad), "beta must be a number above 0"),
        (lambda bad: ops.linear_cross_entropy(X, W, LABELS, softcap=bad), "softcap must be a number"),
        (lambda bad: ops.softmax_cross_entropy(X, LABELS, reduction=bad), "reduction must be"),
        (lambda bad: ops.rotary(jnp.ones((3, 2, 4)), scaling={"rope_type": bad, "factor": 2.0}), "unknown rope_type"),
        (lambda bad: nnjax.in_chunks(nnjax.tanh(), 2, axes=1, on=bad), "in_chunks"),
    ],
    ids=["balance", "activation", "over", "eps", "beta", "softcap", "reduction", "rope_type", "on"],
)
def test_an_option_that_cannot_be_hashed_is_named(call, words, bad):
    with pytest.raises(ValueError, match=words):
        call(bad)
