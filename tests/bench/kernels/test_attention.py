import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax.bench.kernels.attention import attends, others, plain


@pytest.mark.slow
@pytest.mark.in_turn
def test_every_reference_gives_what_the_hand_written_one_gives():
    hand, references, args = attends(16, 2, 2, 4)()
    assert set(references) == {"jax.grad", "checkpoint", "jax.nn"}
    expected = jax.tree.leaves(hand(*args))
    for f in references.values():
        for a, b in zip(jax.tree.leaves(f(*args)), expected, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)


def test_the_definition_sees_no_later_position():
    q, k, v = jnp.ones((3, 1, 4, 1, 2))
    assert jnp.array_equal(plain(q, k, v.at[0, 2:].set(7.0))[0, :2], v[0, :2])


@pytest.mark.parametrize(("platform", "names"), [("cuda", 2), ("tpu", 1), ("cpu", 0)])
def test_other_kernels_are_there_only_for_their_platform(platform, names):
    assert len(others(platform)) == names
    _, references, _ = attends(16, kernels_of=platform)()
    assert set(others(platform)) <= set(references)
    assert "no kernels" in references
