import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from nnjax.fast.cpu import conv as cpu
from nnjax.fast.cpu.conv import COLUMNS, CONVOLUTION, TAPS, Plane, input_cotangent, spelling, weight_cotangent

ROW = ((0, 0), (0, 0))


def conv(x, w, plane):
    return lax.conv_general_dilated(
        x, w, plane.stride, plane.amounts, rhs_dilation=plane.dilation, dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=plane.groups,
    )  # fmt: skip


# Every spelling that the shape allows: one axis strided, one dilated, uneven padding, groups.
WAYS = [
    (COLUMNS, (5, 4, 2), (3, 2, 2, 3), Plane((1, 1), ((1, 0), (0, 2)), (1, 2), 1)),
    (CONVOLUTION, (5, 4, 2), (3, 2, 2, 3), Plane((1, 1), ((1, 0), (0, 2)), (1, 2), 1)),
    (CONVOLUTION, (8, 5, 2), (3, 2, 2, 3), Plane((3, 2), ((1, 0), (0, 2)), (1, 2), 1)),
    (CONVOLUTION, (5, 4, 2), (1, 1, 2, 3), Plane((2, 3), ROW, (1, 1), 1)),
    (TAPS, (5, 4, 3), (3, 2, 1, 6), Plane((2, 1), ((1, 3), (0, 2)), (1, 2), 3)),
    (TAPS, (5, 4, 3), (2, 2, 1, 3), Plane((1, 1), ROW, (1, 1), 3)),
]


@pytest.mark.parametrize("chunk", [1, 100, 1 << 20])
@pytest.mark.parametrize(("way", "image", "kernel", "plane"), WAYS, ids=str)
@pytest.mark.repeats
def test_each_spelling_is_the_transpose_that_jax_finds(way, image, kernel, plane, chunk, monkeypatch):
    monkeypatch.setattr(cpu, "spelling", lambda *shapes: (way, way))
    monkeypatch.setattr(cpu, "CHUNK", chunk)
    rng = np.random.default_rng(0)
    x, w = (jnp.asarray(rng.standard_normal(shape).astype(np.float32)) for shape in ((4, *image), kernel))
    y, of_w = jax.vjp(lambda w: conv(x, w, plane), w)
    ct_y = jnp.asarray(rng.standard_normal(y.shape).astype(np.float32))
    (expected,) = jax.linear_transpose(lambda x: conv(x, w, plane), x)(ct_y)
    np.testing.assert_allclose(input_cotangent(w, ct_y, x.shape, plane), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(weight_cotangent(x, ct_y, kernel, plane), of_w(ct_y)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 3])
def test_an_empty_batch_has_a_zero_cotangent(groups):
    plane = Plane((1, 1), ROW, (1, 1), groups)
    x, w = jnp.zeros((0, 4, 4, 3)), jnp.ones((2, 2, 3 // groups, 3))
    ct_y = jnp.zeros((0, 3, 3, 3))
    assert input_cotangent(w, ct_y, x.shape, plane).shape == x.shape
    assert not weight_cotangent(x, ct_y, w.shape, plane).any()


def test_the_spelling_goes_by_shape():
    one = Plane((1, 1), ROW, (1, 1), 1)
    assert spelling((5, 5, 3, 16), (8, 32, 32, 3), (8, 28, 28, 16), one)[0] == COLUMNS
    assert spelling((3, 3, 64, 64), (8, 32, 32, 64), (8, 30, 30, 64), one) == (CONVOLUTION, CONVOLUTION)
    assert spelling((3, 3, 1, 8), (8, 9, 9, 8), (8, 7, 7, 8), one._replace(groups=8)) == (TAPS, TAPS)
    assert spelling((1, 1, 8, 8), (8, 9, 9, 8), (8, 9, 9, 8), one) == (COLUMNS, COLUMNS)
    assert spelling((3, 3, 8, 8), (8, 9, 9, 8), (8, 4, 4, 8), one._replace(stride=(2, 2))) == (CONVOLUTION, CONVOLUTION)
