import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.linear import (
    broadcast,
    broadcast_t,
    crop,
    fold,
    fold_t,
    leading,
    leading_t,
    pad,
    rotate,
    rotate_t,
    scatter_add,
    shift,
    shift_t,
    take,
    tiles,
    tiles_t,
    turned,
    windows,
    windows_t,
)


@pytest.mark.parametrize(
    ("shape", "target"),
    [
        ((), (2, 3)),
        ((3,), (3,)),
        ((3,), (4, 3)),
        ((1, 3), (4, 3)),
        ((4, 1), (2, 4, 3)),
        ((1, 1), (1, 1)),
        ((3,), (0, 3)),
        ((1,), (1,)),
    ],
)
def test_broadcast_t_is_the_transpose_that_jax_finds(shape, target):
    rng = np.random.default_rng(0)
    ct = jnp.asarray(rng.standard_normal(target), jnp.float32)
    (expected,) = jax.linear_transpose(lambda x: broadcast(x, target), jnp.zeros(shape, jnp.float32))(ct)
    found = broadcast_t(ct, shape)
    assert found.shape == shape
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_broadcast_refuses_a_shape_that_does_not_fit():
    with pytest.raises(ValueError, match="broadcast"):
        broadcast(jnp.zeros(3), (4, 2))


@pytest.mark.parametrize("shape", [(3,), (2, 3), (0, 3), (2, 4, 3)])
def test_fold_keeps_rows_and_its_transpose_restores_the_shape(shape):
    x = jnp.asarray(np.random.default_rng(1).standard_normal(shape), jnp.float32)
    rows = fold(x)
    assert rows.shape == (x.size // 3, 3)
    np.testing.assert_array_equal(fold_t(rows, shape), x)


@pytest.mark.parametrize("ids", [[[0, 2, 2], [2, 0, 3]], [], 1], ids=str)
@pytest.mark.repeats
@pytest.mark.in_turn
def test_scatter_add_is_the_transpose_of_take(ids):
    ids = jnp.asarray(ids, jnp.int32)
    rng = np.random.default_rng(2)
    table = jnp.asarray(rng.standard_normal((4, 3)), jnp.float32)
    ct = jnp.asarray(rng.standard_normal((*ids.shape, 3)), jnp.float32)
    np.testing.assert_array_equal(take(table, ids), np.asarray(table)[ids])
    nnjax.check_transpose(lambda t: take(t, ids), lambda ct: scatter_add(ct, ids, 4), table, ct).raise_if_failed()


def test_an_id_outside_is_a_row_of_nan_and_adds_nothing():
    table = jnp.arange(6.0).reshape(3, 2)
    for ids in ([-1, 1, 3], [-(2**31), 1, 2**31 - 1]):
        np.testing.assert_array_equal(take(table, jnp.array(ids))[1], table[1])
        assert jnp.isnan(take(table, jnp.array(ids))[jnp.array([0, 2])]).all()
        np.testing.assert_array_equal(scatter_add(jnp.ones((3, 2)), jnp.array(ids), 3), [[0, 0], [1, 1], [0, 0]])


def test_many_halves_are_added_in_float32():
    ids = jnp.zeros(1000, jnp.int32)
    assert scatter_add(jnp.ones((1000, 1), jnp.bfloat16), ids, 2)[0, 0] == 1000


@pytest.mark.parametrize("rows", [0, 2, 4])
def test_leading_t_is_the_transpose_of_leading(rows):
    rng = np.random.default_rng(3)
    x, ct = (jnp.asarray(rng.standard_normal((n, 3)), jnp.float32) for n in (4, rows))
    np.testing.assert_array_equal(leading(x, rows), np.asarray(x)[:rows])
    np.testing.assert_allclose(jnp.vdot(ct, leading(x, rows)), jnp.vdot(leading_t(ct, 4), x), rtol=1e-5)
    assert leading_t(ct, 4).shape == (4, 3)


def inner(a, b):
    return float(jnp.vdot(a, b))


@pytest.mark.parametrize(
    ("shape", "widths"), [((3, 4), ((0, 2), (1, 0))), ((2, 3), ((0, 0), (0, 0))), ((0, 3), ((1, 1), (0, 2)))]
)
def test_crop_is_the_transpose_of_pad(shape, widths):
    rng = np.random.default_rng(2)
    x = jnp.asarray(rng.standard_normal(shape), jnp.float32)
    padded = pad(x, widths)
    y = jnp.asarray(rng.standard_normal(padded.shape), jnp.float32)
    assert inner(y, padded) == pytest.approx(inner(crop(y, widths), x), rel=1e-5)
    np.testing.assert_array_equal(crop(padded, widths), x)


def test_a_rotation_is_transposed_by_turning_back():
    rng = np.random.default_rng(3)
    x, y = (jnp.asarray(rng.standard_normal((5, 6)), jnp.float32) for _ in range(2))
    angle = jnp.asarray(rng.standard_normal((5, 3)), jnp.float32)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    assert inner(y, rotate(x, cos, sin)) == pytest.approx(inner(rotate_t(y, cos, sin), x), rel=1e-5)
    np.testing.assert_allclose(rotate_t(rotate(x, cos, sin), cos, sin), x, atol=1e-6)
    assert inner(x[0], x[0]) == pytest.approx(inner(*(rotate(x, cos, sin)[0],) * 2), rel=1e-5)


@pytest.mark.parametrize(("start", "n", "step"), [(0, 5, 1), (1, 2, 2), (2, 1, 3), (0, 2, 4)])
def test_shift_t_is_the_transpose_of_shift(start, n, step):
    rng = np.random.default_rng(4)
    x, y = (jnp.asarray(rng.standard_normal((2, m, 3)), jnp.float32) for m in (5, n))
    np.testing.assert_array_equal(shift(x, 1, start, n, step), np.asarray(x)[:, start : start + (n - 1) * step + 1 : step])
    assert inner(y, shift(x, 1, start, n, step)) == pytest.approx(inner(shift_t(y, 1, start, 5, step), x), rel=1e-5)


@pytest.mark.parametrize(("k", "dilation"), [(1, 1), (3, 1), (2, 3), (5, 1)])
def test_windows_t_is_the_transpose_of_windows(k, dilation):
    rng = np.random.default_rng(5)
    x = jnp.asarray(rng.standard_normal((2, 5, 3)), jnp.float32)
    seen = windows(x, 1, k, dilation)
    assert seen.shape == (k, 2, 5 - (k - 1) * dilation, 3)
    np.testing.assert_array_equal(seen[-1, :, 0], x[:, (k - 1) * dilation])
    y = jnp.asarray(rng.standard_normal(seen.shape), jnp.float32)
    assert inner(y, seen) == pytest.approx(inner(windows_t(y, 1, dilation), x), rel=1e-5)


@pytest.mark.parametrize(
    ("shape", "window"), [((2, 5, 4, 3), (2, 2)), ((7, 3), (3,)), ((0, 4, 4, 1), (2, 3)), ((2, 2, 1), (2, 2))]
)
@pytest.mark.repeats
def test_tiles_t_is_the_transpose_of_tiles(shape, window):
    rng = np.random.default_rng(6)
    x = jnp.asarray(rng.standard_normal(shape), jnp.float32)
    cut = tiles(x, window)
    assert cut.size <= x.size
    y = jnp.asarray(rng.standard_normal(cut.shape), jnp.float32)
    assert inner(y, cut) == pytest.approx(inner(tiles_t(y, shape), x), rel=1e-5)
    if window == (2, 2):
        np.testing.assert_array_equal(cut[..., 0, 1, 0, 0, :], x[..., 1, 0, :])


@pytest.mark.parametrize("lengths", [None, [0, 3, 4], [9, -2, 1]])
@pytest.mark.in_turn
def test_turned_is_its_own_transpose_and_its_own_inverse(lengths):
    x, ct = (jnp.asarray(np.random.default_rng(s).standard_normal((3, 4, 2)), jnp.float32) for s in (0, 1))
    n = None if lengths is None else jnp.array(lengths)
    for found, row, own in zip(turned(x, n), x, [4, 4, 4] if lengths is None else np.clip(lengths, 0, 4)):
        np.testing.assert_array_equal(found, np.concatenate([row[:own][::-1], row[own:]]))
    np.testing.assert_array_equal(turned(turned(x, n), n), x)
    nnjax.check_transpose(lambda x: turned(x, n), lambda ct: turned(ct, n), x, ct).raise_if_failed()
