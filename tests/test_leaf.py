import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.cases import cases
from nnjax.leaf import Like, expect_cotangent, outline, outlined

CASES = {c.name: c for c in cases()}


FEW = ("dense", "max_pool", "layer_norm", "embedding", "softmax_cross_entropy", "serial")


@pytest.mark.parametrize("some", [lambda c: c.name in FEW, pytest.param(lambda c: True, marks=pytest.mark.slow)])
@pytest.mark.in_turn
def test_numpy_arrays_are_accepted_wherever_arrays_are(some):
    for case in filter(some, CASES.values()):
        params, x, key = case.make(0)
        p, v = jax.tree.map(np.asarray, (params, x))
        y, residuals = case.layer.fwd(p, v, key=key)
        wanted, wanted_residuals = case.layer.fwd(params, x, key=key)
        ct = jax.tree.map(lambda a: np.full(a.shape, 0.5, a.dtype), wanted)
        found = (case.layer.apply(p, v, key=key), y, case.layer.bwd(residuals, ct))
        should = (case.layer.apply(params, x, key=key), wanted, case.layer.bwd(wanted_residuals, jax.tree.map(jnp.asarray, ct)))
        jax.tree.map(lambda a, b, name=case.name: np.testing.assert_array_equal(a, b, name), found, should)
        assert all(isinstance(a, jax.Array) for a in jax.tree.leaves(found)), case.name


def test_numpy_arrays_of_float64_are_taken_in_the_dtype_of_jax():
    layer = nnjax.dense(3, 2)
    params = layer.init(jax.random.key(0))
    x = np.random.default_rng(0).standard_normal((4, 3))
    assert x.dtype == np.float64
    y, residuals = layer.fwd(params, x)
    np.testing.assert_allclose(y, x @ np.asarray(params.w, np.float64), rtol=1e-5, atol=1e-6)
    assert layer.bwd(residuals, np.ones((4, 2)))[1].dtype == jnp.float32


# A dropout without a key keeps no residuals, so the shape is unknown.
@pytest.mark.parametrize("name", sorted(CASES.keys() - {"dropout without a key"}))
@pytest.mark.repeats
def test_bwd_refuses_a_cotangent_that_is_not_like_the_output(name):
    """Another shape, another dtype, not an array: the error names the layer and what was expected, also under jit."""
    case = CASES[name]
    x, key = case.inputs(np.random.default_rng(0), (7,)), jax.random.key(0)

    def refused(params):
        y, residuals = case.layer.fwd(params, x, key=key)
        leaves, tree = jax.tree.flatten(y)
        for i, leaf in enumerate(leaves):
            wrong = (np.ones((*leaf.shape, 2), leaf.dtype), np.ones(leaf.shape, np.int32), "1", 1.0)
            too_short = (np.ones((leaf.shape[0] - 1, *leaf.shape[1:]), leaf.dtype),) if leaf.ndim else ()
            for ct in (*wrong, *too_short):
                with pytest.raises((ValueError, TypeError), match=r"cotangent|ct_y") as refusal:
                    case.layer.bwd(residuals, jax.tree.unflatten(tree, [*leaves[:i], ct, *leaves[i + 1 :]]))
            if too_short:
                assert f"must have the shape of the output, ({leaf.shape[0]}," in str(refusal.value)

    jax.eval_shape(lambda: refused(case.layer.init(key)))  # nothing is computed
    if name in FEW:
        refused(jax.jit(case.layer.init)(key))


def test_bwd_refuses_a_cotangent_of_another_dtype():
    layer = nnjax.dense(3, 2)
    _, residuals = layer.fwd(layer.init(jax.random.key(0)), jnp.ones((4, 3)))
    with pytest.raises(
        TypeError, match=r"dense\(3, 2\): ct_y must have the dtype of the output, float32, got bfloat16 \(4, 2\)"
    ):
        layer.bwd(residuals, jnp.ones((4, 2), jnp.bfloat16))


@pytest.mark.parametrize("feedback", [nnjax.feedback.mirror, nnjax.feedback.sign_symmetric()])
def test_bwd_of_another_feedback_refuses_too(feedback):
    layer = nnjax.dense(3, 2, feedback=feedback)
    _, residuals = layer.fwd(layer.init(jax.random.key(0)), jnp.ones((4, 3)))
    with pytest.raises(
        ValueError, match=r"dense\(3, 2\): ct_y must have the shape of the output, \(4, 2\), got float32 \(2, 4\)"
    ):
        layer.bwd(residuals, jnp.ones((2, 4)))


def test_bwd_refuses_residuals_that_are_not_from_fwd():
    layer = nnjax.dense(3, 2)
    _, residuals = layer.fwd(layer.init(jax.random.key(0)), jnp.ones((4, 3)))
    for wrong in (jnp.ones((4, 2)), None, (), (jnp.ones(3),)):
        with pytest.raises(TypeError, match=r"dense\(3, 2\): residuals must come from fwd .*, got"):
            layer.bwd(wrong, residuals)


def test_a_seed_is_not_a_key():
    for layer in (
        nnjax.dense(3, 2),
        nnjax.lstm(2, 2),
        nnjax.serial(nnjax.dense(3, 2)),
        nnjax.mlp([3, 2]),
        nnjax.gpt(5, 4, 1, 1, 2),
    ):
        for seed in (0, np.int32(7), None, "0", jax.random.split(jax.random.key(0), 3)):
            with pytest.raises(TypeError, match=r"key must be .*key of jax.random, got"):
                layer.init(seed)


def test_a_cotangent_is_compared_part_by_part():
    like = (jnp.ones((2, 3)), Like((4,)), None)
    expect_cotangent("f", "ct", (jnp.ones((2, 3)), jnp.ones(4, jnp.bfloat16), "anything"), like)
    with pytest.raises(ValueError, match=r"f: ct\[1\] must have the shape of the output, \(4,\), got float32 \(5,\)"):
        expect_cotangent("f", "ct", (jnp.ones((2, 3)), jnp.ones(5), None), like)
    with pytest.raises(TypeError, match=r"f: ct must be a tuple of 3 cotangents, one for each output, got 1 entries"):
        expect_cotangent("f", "ct", (jnp.ones((2, 3)),), like)
    with pytest.raises(TypeError, match=r"f: ct must be LSTMState of 2 cotangents, one for each output, got 2 entries"):
        expect_cotangent("f", "ct", (jnp.ones(2), jnp.ones(2)), nnjax.LSTMState(jnp.ones(2), jnp.ones(2)))


def test_an_outline_carries_shape_and_dtype_at_no_cost():
    kept = outline(jnp.ones((2, 0, 3), jnp.bfloat16))
    assert kept.size == 0
    assert outlined(kept) == Like((2, 0, 3), jnp.bfloat16)
