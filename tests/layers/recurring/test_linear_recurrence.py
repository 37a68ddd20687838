import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.fast.cpu.recurrence import recur as in_a_row
from nnjax.layers.recurring.linear_recurrence import by_pairs

LONG = 4096


def loop(a, b, h, reverse=False):
    """The recurrence in NumPy, in float64, step by step."""
    a, b, h = (np.asarray(v, np.float64) for v in (a, b, h))
    y = np.zeros_like(b)
    for t in reversed(range(a.shape[1])) if reverse else range(a.shape[1]):
        h = a[:, t] * h + b[:, t]
        y[:, t] = h
    return y


def loop_bwd(a, h, y, ct, reverse=False):
    """Its three cotangents, step by step from the other end."""
    a, h, y, ct = (np.asarray(v, np.float64) for v in (a, h, y, ct))
    ct_a, ct_b, carried = np.zeros_like(a), np.zeros_like(a), np.zeros_like(h)
    order = range(a.shape[1]) if reverse else list(reversed(range(a.shape[1])))
    for t in order:
        before = t + 1 if reverse else t - 1
        carried = ct[:, t] + carried
        ct_b[:, t] = carried
        ct_a[:, t] = carried * (y[:, before] if 0 <= before < a.shape[1] else h)
        carried = a[:, t] * carried
    return ct_a, ct_b, carried


def drawn(batch, time, n, kind="any", seed=0):
    rng = np.random.default_rng(seed)
    a = {
        "any": lambda s: rng.uniform(-1, 1, s),
        "near 0": lambda s: 1e-30 * rng.standard_normal(s),
        "near 1": lambda s: 1 - 1e-7 * rng.random(s),
        "zeros": lambda s: np.where(rng.random(s) < 0.3, 0.0, rng.uniform(0, 1, s)),
    }[kind]((batch, time, n))
    return a, rng.standard_normal((batch, time, n)), rng.standard_normal((batch, n)), rng.standard_normal((batch, time, n))


SIZES = [(2, 1, 3), (2, 0, 3), (0, 4, 2), (2, 67, 2), (1, LONG, 2)]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.repeats
def test_value_and_cotangents_are_those_of_a_loop(sizes, reverse, x64):
    layer = nnjax.linear_recurrence(reverse=reverse)

    @jax.jit
    def both(x, ct):
        pulled = []
        for own in (layer, nnjax.plain(layer)):
            y, residuals = own.fwd((), x)
            pulled.append((y, *own.bwd(residuals, ct)[1]))
        return pulled

    for kind in ("any", "near 0", "near 1", "zeros") if sizes[1] > 2 else ("any",):
        *x, ct = map(jnp.asarray, drawn(*sizes, kind))
        y = loop(*x, reverse)
        right = y, *loop_bwd(x[0], x[2], y, ct, reverse)
        for found in both(tuple(x), ct):
            for ours, theirs in zip(found, right, strict=True):
                np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-11 * np.abs(theirs).max(initial=1))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("kind", ["near 1", "zeros"])
@pytest.mark.repeats
def test_in_low_precision_the_state_takes_in_what_is_small_beside_it(dtype, kind):
    """A sum of a thousand ones stays at 256 if it is kept in bfloat16."""
    a, b, h, _ = drawn(2, 1000, 3, kind)
    a, b, h = (jnp.asarray(v, dtype) for v in (a, np.abs(b) / 8, h))
    right = loop(*(np.asarray(v, np.float64) for v in (a, b, h)))
    eps = float(jnp.finfo(dtype).eps)
    for recur in map(jax.jit, (in_a_row, by_pairs)):
        y = np.asarray(recur(a, b, h), np.float64)
        assert np.abs(y - right).max() <= 1000 * 2.0**-24 * np.abs(right).max()
    y = np.asarray(nnjax.linear_recurrence().apply((), (a, b, h)), np.float64)
    assert np.abs(y - right).max() <= max(eps, 1000 * 2.0**-24) * np.abs(right).max()


def test_without_a_state_it_starts_from_zero_and_the_state_has_no_cotangent():
    layer = nnjax.linear_recurrence()
    a, b, h, ct = (jnp.asarray(v, jnp.float32) for v in drawn(2, 5, 3))
    y, residuals = layer.fwd((), (a, b))
    np.testing.assert_allclose(y, loop(a, b, 0 * h), rtol=1e-5, atol=1e-6)
    assert len(layer.bwd(residuals, ct)[1]) == 2


def test_where_a_is_zero_nothing_older_has_an_effect():
    a = jnp.ones((1, 4, 1)).at[0, 2].set(0)
    grad = jax.grad(lambda b: nnjax.as_custom_vjp(nnjax.linear_recurrence())((), (a, b))[0, 3, 0])(jnp.ones((1, 4, 1)))
    assert grad[0, :, 0].tolist() == [0, 0, 1, 1]


def test_a_backward_that_forgets_the_shift_of_a_is_rejected():
    layer = nnjax.plain(nnjax.linear_recurrence())
    x = tuple(jnp.asarray(v, jnp.float32) for v in drawn(2, 4, 2)[:2])
    only = {"dtypes": ["float32"], "transforms": ["jit"], "witnesses": ()}
    nnjax.check_layer(layer, (), x, **only).raise_if_failed()

    def wrong(residuals, ct_y):
        (a, h, y), *rest = residuals
        return layer.bwd(((jnp.roll(a, -1, 1), h, y), *rest), ct_y)

    assert nnjax.check_layer(layer._replace(bwd=wrong), (), x, **only).failures


@pytest.mark.slow
@pytest.mark.in_turn
def test_everything_passes_forwards_and_from_the_end():
    for reverse in (False, True):
        x = tuple(jnp.asarray(v, jnp.float32) for v in drawn(2, 37, 2, "zeros")[:3])
        nnjax.check_layer(nnjax.linear_recurrence(reverse=reverse), (), x).raise_if_failed()


def test_what_does_not_fit_is_named():
    layer, x = nnjax.linear_recurrence(), jnp.ones((2, 3, 4))
    for wrong, error, words in (
        (x, TypeError, r"tuple \(a, b\)"),
        ((x,), TypeError, r"tuple \(a, b\)"),
        ((x, x[:1]), ValueError, r"b must have shape \(2, 3, 4\)"),
        ((x, x.astype(jnp.bfloat16)), TypeError, "b and a .*same dtype"),
        ((x, x, x), ValueError, r"h must have shape \(2, 4\)"),
        ((x[0, 0], x[0, 0]), ValueError, r"a must have shape \(\.\.\., time, n\)"),
        ((x.astype(jnp.complex64), x), TypeError, "a must be real floating point"),
    ):
        with pytest.raises(error, match=f"linear_recurrence: .*{words}"):
            layer.apply((), wrong)
    with pytest.raises(TypeError, match="reverse must be True or False"):
        nnjax.linear_recurrence(reverse="yes")
