import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax.fast.cpu.windows import (  # fmt: skip
    LONG,
    LONG_WINDOW,
    SMALL_BATCH,
    WINDOW,
    accumulated,
    accumulators,
    before,
    keep,
    kept_at,
    over_windows,
    weights_t,
    window,
    window_length,
    window_t,
)
from nnjax.linear import affine

X = jnp.asarray(np.random.default_rng(0).standard_normal((2, 7, 3)), jnp.float32)


@pytest.mark.parametrize("steps", [0, 1, WINDOW - 1, WINDOW, WINDOW + 1, 3 * WINDOW, 3 * WINDOW + 5, LONG, LONG + 5])
@pytest.mark.parametrize("batch", [1, SMALL_BATCH + 1])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.repeats
def test_every_step_lies_in_one_window_and_the_windows_come_in_order(steps, batch, reverse):
    def body(carry, start, length):
        number, seen = carry
        at = jnp.arange(length, dtype=jnp.int32) + start
        return number + 1, seen.at[at].set(number)

    count, seen = over_windows(body, (jnp.int32(0), jnp.full(steps, -1, jnp.int32)), batch, steps, reverse=reverse)
    each = window_length(batch, steps)
    assert each == (LONG_WINDOW if batch == 1 and steps >= LONG else WINDOW)
    order = np.arange(steps) // each
    assert count == -(-steps // each)
    np.testing.assert_array_equal(seen, int(count) - 1 - order if reverse else order)


def test_window_t_is_the_transpose_of_window():
    for start in (0, 3):
        ct = jnp.asarray(np.random.default_rng(1).standard_normal((4, 2, 3)), jnp.float32)
        np.testing.assert_array_equal(window(X, start, 4), np.swapaxes(X[:, start : start + 4], 0, 1))
        ct_x = window_t(jnp.zeros_like(X), ct, start)
        np.testing.assert_allclose(jnp.vdot(ct, window(X, start, 4)), jnp.vdot(ct_x, X), rtol=1e-5)


@pytest.mark.parametrize("start", [0, 1, 5])
def test_before_is_one_step_earlier_and_starts_with_the_state(start):
    first = jnp.full((2, 3), 9.0)
    whole = jnp.concatenate([first[:, None], X], 1)
    found = jax.jit(lambda start: before(X, first, start, window(X, start, 2)))(start)
    np.testing.assert_array_equal(found, window(whole, start, 2))


def test_weights_t_is_the_transpose_of_affine_in_its_parameters():
    w, b, ct = jnp.ones((3, 2)), jnp.ones(2), jnp.arange(28.0).reshape(2, 7, 2)
    _, pull = jax.vjp(lambda w, b: affine(X, w, b), w, b)
    for found, expected in zip(weights_t(X, ct, jnp.float32), pull(ct), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_what_is_kept_is_found_again():
    kept = keep((jnp.zeros((5, 2, 1)),), (jnp.ones((2, 2, 1)),), 3)
    np.testing.assert_array_equal(kept_at(kept, 3, 2)[0], jnp.ones((2, 2, 1)))
    assert not kept_at(kept, 0, 3)[0].any()


@pytest.mark.parametrize(("dtype", "wide"), [("bfloat16", "float32"), ("float16", "float32"), ("float32", "float32")])
def test_sums_are_taken_in_float32_at_least(dtype, wide):
    params = (jnp.ones((2, 3), dtype),)
    assert accumulators(params)[0].dtype == wide
    assert accumulated(accumulators(params), params)[0].dtype == dtype
