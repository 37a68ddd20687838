import jax
import jax.numpy as jnp

from nnjax.trees.residuals import with_parameters, without_parameters

P, Q = (jnp.ones(2), jnp.zeros(3)), (jnp.full(2, 5.0),)


def test_what_is_a_parameter_is_not_kept_and_comes_back():
    other = jnp.arange(4)
    kept = without_parameters({"a": P[1], "b": (other, P[0])}, P)
    assert jax.tree.leaves(kept) == [other]
    back = with_parameters(kept, P)
    assert back["a"] is P[1]
    assert back["b"][1] is P[0]


def test_an_equal_array_that_is_not_a_parameter_is_kept():
    copy = jnp.array(P[0])
    assert jax.tree.leaves(without_parameters([copy], P))[0] is copy


def test_layers_within_layers_each_get_their_own():
    kept = without_parameters([without_parameters([P[0]], P), Q[0]], Q)
    assert not jax.tree.leaves(kept)
    inner, outer = with_parameters(kept, Q)
    assert outer is Q[0]
    assert with_parameters(inner, P)[0] is P[0]
