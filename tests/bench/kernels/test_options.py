import jax
import numpy as np
import pytest

from nnjax.bench.kernels.options import OPTIONS, attends_with


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_computes_the_same_by_hand_and_by_definition(name):
    hand, references, args = attends_with(name, 136 if "window" in name else 9, 2, 2, 4)()
    ours = jax.jit(hand)(*args)
    assert ("jax.nn" in references) == OPTIONS[name].own
    for reference in references.values():
        with jax.numpy_rank_promotion("allow"):
            theirs = jax.jit(reference)(*args)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), ours, theirs)


@pytest.mark.slow
@pytest.mark.in_turn
def test_every_option_changes_the_output():
    hand, _, (q, k, v, arrays, ct) = attends_with("bias", 200, 1, 2, 4)()
    outputs = [hand(q, k, v, arrays, ct)[0]]
    for name in OPTIONS:
        hand, _, args = attends_with(name, 200, 1, 2, 4)()
        outputs.append(hand(*args)[0])
    for i, a in enumerate(outputs[1:]):
        assert all(not np.allclose(a, b, atol=1e-4) for b in outputs[i + 2 :])
