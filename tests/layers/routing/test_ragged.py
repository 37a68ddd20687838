"""The ragged product and its two transposes, each spelling against a loop over the rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax.layers.routing.ragged import FAST, PLAIN

SIZES = [[3, 0, 4], [0, 0, 7], [7, 0, 0], [1, 5, 1], [2, 2, 0]]  # the last leaves rows that are in no group


def drawn(sizes, rows=7, k=3, n=2):
    rng = np.random.default_rng(0)
    return rng.standard_normal((rows, k)), rng.standard_normal((len(sizes), k, n)), rng.standard_normal((rows, n))


def by_rows(x, w, ct, sizes):
    """(y, ct_x, ct_w), row by row."""
    of = np.repeat(np.arange(len(sizes)), sizes)
    y, ct_x, ct_w = np.zeros_like(ct), np.zeros_like(x), np.zeros_like(w)
    for r, e in enumerate(of):
        y[r], ct_x[r] = x[r] @ w[e], ct[r] @ w[e].T
        ct_w[e] += np.outer(x[r], ct[r])
    return y, ct_x, ct_w


def all_three(by, x, w, ct, sizes):
    return by.dot(x, w, sizes), by.dot_t(ct, w, sizes), by.outer(x, ct, sizes)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("by", [PLAIN, FAST], ids=["plain", "fast"])
def test_each_row_meets_the_matrix_of_its_group(by, sizes):
    x, w, ct = drawn(sizes)
    with jax.enable_x64(True):
        found = jax.jit(lambda *a: all_three(by, *a))(x, w, ct, jnp.array(sizes, jnp.int32))
    for a, b in zip(found, by_rows(x, w, ct, sizes)):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("by", [PLAIN, FAST], ids=["plain", "fast"])
def test_what_is_not_finite_stays_in_its_group(by):
    x, w, ct = drawn([3, 4])
    x[1], ct[1] = np.nan, np.inf
    if by is FAST:  # what JAX makes of it on a CPU multiplies every row with every matrix
        w[0] = np.inf
    found = jax.jit(lambda *a: all_three(by, *a))(x, w, ct, jnp.array([3, 4], jnp.int32))
    right = by_rows(x[3:], w[1:], ct[3:], [4])
    for a, b, own in zip(found, right, (slice(3, 7), slice(3, 7), slice(1, 2))):
        np.testing.assert_allclose(a[own], b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("by", [PLAIN, FAST], ids=["plain", "fast"])
def test_vmap_takes_any_of_the_arguments_and_twice(by):
    sizes = np.array([3, 4], np.int32)
    x, w, ct = (a.astype(np.float32) for a in drawn([3, 4]))
    xs, all_sizes = np.stack([x, 2 * x]), np.stack([sizes, [2, 1]]).astype(np.int32)

    def near(a, b):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)

    @jax.jit
    def many(x, w, ct, sizes, xs, all_sizes):
        twice = jax.vmap(lambda s: jax.vmap(lambda x: by.dot(x, w, s))(xs))(all_sizes)
        outer = jax.vmap(lambda x: by.outer(x, ct, sizes))(xs)
        return twice, outer, jax.vmap(lambda s: by.dot_t(ct, w, s))(all_sizes)

    twice, outer, dot_t = many(x, w, ct, sizes, xs, all_sizes)
    for i in range(2):
        near(outer[i], by_rows(xs[i], w, ct, sizes)[2])
        near(dot_t[i], by_rows(x, w, ct, all_sizes[i])[1])
        for j in range(2):
            near(twice[i, j], by_rows(xs[j], w, ct, all_sizes[i])[0])


@pytest.mark.parametrize("by", [PLAIN, FAST], ids=["plain", "fast"])
def test_transposes_keep_inner_products(by):
    sizes, (x, w, ct) = jnp.array([2, 0, 5], jnp.int32), drawn([2, 0, 5])
    with jax.enable_x64(True):
        y, ct_x, ct_w = jax.jit(lambda *a: all_three(by, *a))(x, w, ct, sizes)
        for a, b in (((x, ct_x), (y, ct)), ((w, ct_w), (y, ct))):
            np.testing.assert_allclose((a[0] * a[1]).sum(), (b[0] * b[1]).sum(), rtol=1e-12)


def test_no_rows():
    for by in (PLAIN, FAST):
        found = all_three(by, jnp.zeros((0, 3)), jnp.ones((2, 3, 2)), jnp.zeros((0, 2)), jnp.zeros(2, jnp.int32))
        assert [a.shape for a in found] == [(0, 2), (0, 3), (2, 3, 2)]
        assert not found[2].any()
