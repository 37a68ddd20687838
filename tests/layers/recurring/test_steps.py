import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax.layers.recurring.steps import at_end, at_end_t, one_earlier, one_later, over_time, past, without

Y = jnp.arange(1.0, 13.0).reshape(3, 4, 1)
FIRST = jnp.array([[-1.0], [-2.0], [-3.0]])


def test_one_earlier_and_one_later_shift_by_a_step_whatever_the_time():
    assert one_earlier(Y, FIRST)[:, :, 0].tolist() == [[-1, 1, 2, 3], [-2, 5, 6, 7], [-3, 9, 10, 11]]
    assert one_later(Y, FIRST)[:, :, 0].tolist() == [[2, 3, 4, -1], [6, 7, 8, -2], [10, 11, 12, -3]]
    for shifted in (one_earlier, one_later):
        assert shifted(Y[:, :0], FIRST).shape == (3, 0, 1)


def test_the_end_is_the_last_real_step_or_the_state_before_the_first():
    lengths = jnp.array([0, 2, 4])
    assert at_end(Y, FIRST, lengths)[:, 0].tolist() == [-1, 6, 12]
    assert at_end(Y[:, :0], FIRST, 0 * lengths)[:, 0].tolist() == [-1, -2, -3]


def test_at_end_t_is_its_transpose():
    lengths, ct = jnp.array([0, 2, 4]), jnp.array([[2.0], [3.0], [5.0]])
    found = at_end_t(ct, lengths, 4)
    right = jax.linear_transpose(lambda y, first: at_end(y, first, lengths), Y, FIRST)(ct)
    jax.tree.map(np.testing.assert_array_equal, found, right)


def test_padding_becomes_zero_be_it_nan():
    padding = past(jnp.array([1, 3, 4]), 4)
    x = without(jnp.where(padding[..., None], jnp.nan, Y), padding)
    assert x[:, :, 0].tolist() == [[1, 0, 0, 0], [5, 6, 7, 0], [9, 10, 11, 12]]
    assert without(Y, None) is Y


def summed(x, state, **how):
    def step(h, x_t):
        return h + x_t, h + x_t

    return over_time(step, x, state, **how)


def test_over_time_stops_at_the_length():
    y, last = summed(Y, jnp.zeros((3, 1)), lengths=jnp.array([0, 2, 4]))
    assert y[:, :, 0].tolist() == [[0, 0, 0, 0], [5, 11, 0, 0], [9, 19, 30, 42]]
    assert last[:, 0].tolist() == [0, 11, 42]


@pytest.mark.parametrize(("lengths", "right"), [(None, [0, 0, 1, 1]), ([4, 3, 2], [1, 1, 1, 0])])
def test_a_cut_is_at_the_multiples_and_only_at_real_steps(lengths, right):
    """The last state is the sum of all steps; the derivative of one sequence's shows how far it goes back."""
    lengths = None if lengths is None else jnp.array(lengths)
    row = 0 if lengths is None else 1
    grad = jax.grad(lambda x: summed(x, jnp.zeros((3, 1)), lengths=lengths, truncate=2 if row == 0 else 3)[1][row, 0])(Y)
    assert grad[row, :, 0].tolist() == right
    assert float(jnp.abs(grad).sum()) == sum(right)
