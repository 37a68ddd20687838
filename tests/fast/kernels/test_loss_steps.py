import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl

from nnjax.fast.kernels import loss_steps as steps
from nnjax.fast.kernels.loss_plan import Grid, Plan

PLAN = Plan("cuda", 5, 7, 3, 4, 4, 2, interpret=True)


def run(body, x, shape):
    return pl.pallas_call(body, out_shape=jax.ShapeDtypeStruct(shape, x.dtype), interpret=True)(x)


def test_blocks_at_the_edge_are_read_as_zeros_and_written_as_far_as_there_is_a_place():
    x = jnp.arange(1, 16, dtype=jnp.float32).reshape(5, 3)
    padded = np.pad(x, ((0, 3), (0, 1)))
    for i in range(2):
        for f in range(2):

            def body(ref, out, i=i, f=f):
                out[...] = steps.featured(ref, jnp.int32(i), 4, 5, PLAN)(jnp.int32(f))

            np.testing.assert_array_equal(run(body, x, (4, 2)), padded[4 * i : 4 * i + 4, 2 * f : 2 * f + 2])

    def copy(ref, out):
        out[...] = jnp.zeros_like(out)
        steps.write(out, jnp.ones((4, 2)), jnp.int32(1), (jnp.int32(4), jnp.int32(2)), PLAN)

    found = run(copy, x, (2, 5, 3))
    assert (float(found.sum()), float(found[1, 4, 2])) == (1, 1)


def test_on_a_tpu_what_lies_beyond_the_edge_becomes_zero():
    plan, x = PLAN._replace(platform="tpu", width=3), jnp.full((4, 3), jnp.nan).at[0].set(1)
    np.testing.assert_array_equal(steps.read(x, (4, 0), (4, 3), plan, (5, 3)), [[1] * 3, *[[0] * 3] * 3])
    np.testing.assert_array_equal(steps.read(x, (0, 0), (4, 3), plan, (8, 3)), x)


def test_numbers_stand_either_way():
    x = jnp.arange(1, 6, dtype=jnp.float32)

    def body(ref, out, across):
        out[...] = steps.numbers(ref, jnp.int32(1), PLAN, across)

    np.testing.assert_array_equal(run(lambda *refs: body(*refs, False), x[:, None], (4, 1)), [[5], [0], [0], [0]])
    np.testing.assert_array_equal(run(lambda *refs: body(*refs, True), x[None], (1, 4)), [[5, 0, 0, 0]])


def test_pieces():
    assert steps.inside((8, 3), (0, 0), (4, 3)) is None
    np.testing.assert_array_equal(steps.inside((5, 3), (4, 0), (2, 3)), [[True] * 3, [False] * 3])
    np.testing.assert_array_equal(steps.below(4, 6, (1, 4), 1), [[True, True, False, False]])
    labels = jnp.array([[4], [0]], jnp.int32)
    np.testing.assert_array_equal(steps.hits(labels, 1, (2, 4), PLAN), [[True] + [False] * 3, [False] * 4])
    np.testing.assert_array_equal(steps.hits(labels.T, 1, (4, 2), PLAN, 0)[0], [True, False])


def test_the_cotangent_of_scores_is_share_times_probabilities_less_the_label():
    s, share = jnp.asarray(np.random.default_rng(0).standard_normal((2, 3)), jnp.float32), jnp.array([[2.0], [0.5]])
    hit = jnp.array([[True, False, False], [False, False, True]])
    found = steps.ct_scores(s, jax.nn.logsumexp(s, -1, keepdims=True), share, hit)
    right = (jax.nn.softmax(s) - hit.astype(jnp.float32)) * jnp.broadcast_to(share, s.shape)
    np.testing.assert_allclose(found, right, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("width", [2, 3])
def test_scores_sum_over_all_blocks_of_features(width):
    a, b = (jnp.asarray(np.random.default_rng(i).standard_normal((4, 4)), jnp.float32).at[:, 3].set(0) for i in range(2))
    plan = PLAN._replace(width=width)

    def of(x):
        return lambda f: jax.lax.dynamic_slice(x, (0, f * width), (4, width))

    np.testing.assert_allclose(steps.products("rd,cd->rc", of(a), of(b), (4, 4), plan), a @ b.T, rtol=1e-5, atol=1e-6)


def test_programs_of_a_gpu_stand_in_one_row():
    grid = Grid(4, 2, 3, 2, 2)

    def body(ref, out):
        out[...] = jnp.stack(steps.placed(grid, PLAN))

    found = pl.pallas_call(
        body, grid=(16,), interpret=True, out_shape=jax.ShapeDtypeStruct((16, 3), jnp.int32),
        in_specs=[pl.BlockSpec((1,), lambda p: (0,))], out_specs=pl.BlockSpec((None, 3), lambda p: (p, 0)),
    )(jnp.zeros(1))  # fmt: skip
    assert [tuple(map(int, row)) for row in found] == [(part, f, i) for part in range(2) for f in range(2) for i in range(4)]
