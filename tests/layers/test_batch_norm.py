import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

import nnjax
from nnjax.cases import frozen, hard, jittered
from nnjax.check.mutation.mutants import hunt

X = jax.random.normal(jax.random.key(0), (5, 3, 4)) * 2 + 1
TRAINING, FROZEN = jittered(nnjax.batch_norm(4)), frozen(jittered(nnjax.batch_norm(4)))


@pytest.mark.parametrize("layer", [TRAINING, FROZEN], ids=["training", "frozen"])
def test_values_are_those_of_flax(layer):
    params = layer.init(jax.random.key(1))
    theirs = linen.BatchNorm(use_running_average=params.mean is not None, epsilon=1e-5)
    stats = {"mean": jnp.zeros(4), "var": jnp.ones(4)} if params.mean is None else {"mean": params.mean, "var": params.var}
    variables = {"params": {"scale": params.scale, "bias": params.offset}, "batch_stats": stats}
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        expected, _ = theirs.apply(variables, X, mutable=["batch_stats"])
    np.testing.assert_allclose(layer.apply(params, X), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(layer.fwd(params, X)[0], layer.apply(params, X))


@pytest.mark.slow
@pytest.mark.parametrize("layer", [TRAINING, FROZEN], ids=["training", "frozen"])
@pytest.mark.in_turn
def test_both_modes_pass_and_every_mutant_is_killed(layer):
    params, x = layer.init(jax.random.key(0)), hard(np.random.default_rng(0), (7, 4))
    nnjax.check_layer(layer, params, x, dtypes=["float64", "float32"]).raise_if_failed()
    assert not [o.mutant for o in hunt(layer, params, x) if o.status == "survived"]


@pytest.mark.parametrize("layer", [TRAINING, FROZEN], ids=["training", "frozen"])
@pytest.mark.parametrize("shape", [(0, 4), (1, 4), (2, 0, 4)], ids=str)
def test_an_empty_batch_and_a_batch_of_one(layer, shape):
    only = {"dtypes": ["float32"], "transforms": ["jit"], "witnesses": ()}
    x = hard(np.random.default_rng(0), shape)
    assert not nnjax.check_layer(layer, layer.init(jax.random.key(0)), x, **only).failures


def test_frozen_statistics_have_cotangents_and_batch_statistics_none():
    for layer, has in ((TRAINING, False), (FROZEN, True)):
        params = layer.init(jax.random.key(0))
        ct_params, _ = layer.bwd(layer.fwd(params, X)[1], jnp.ones_like(X))
        assert (ct_params.mean is not None) == has
        assert (ct_params.var is not None) == has


def test_a_backward_that_treats_the_statistics_as_constants_is_rejected():
    params = TRAINING.init(jax.random.key(0))

    def bwd(residuals, ct_y):
        params, x, _, one_over_s = residuals
        slope = params.scale * one_over_s.reshape(params.scale.shape)
        return TRAINING.bwd(residuals, ct_y)[0], jnp.broadcast_to(slope, x.shape) * ct_y

    report = nnjax.check_layer(TRAINING._replace(bwd=bwd), params, X, transforms=["jit"], dtypes=["float32"])
    assert {row.leaf for row in report.failures} == {"x"}


def test_calibrate_gives_the_statistics_of_all_batches_together():
    layer = nnjax.batch_norm(4)
    params = nnjax.calibrate(layer, layer.init(jax.random.key(0)), [X[:2], X[2:]])
    np.testing.assert_allclose(params.mean, X.mean((0, 1)), rtol=1e-5)
    np.testing.assert_allclose(params.var, X.var((0, 1)), rtol=1e-5)
    whole = layer.apply(params._replace(mean=None, var=None), X)
    np.testing.assert_allclose(layer.apply(params, X), whole, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(nnjax.calibrate(layer, params, [2 * X]).mean, 2 * params.mean, rtol=1e-5)


def composed():
    block = nnjax.residual(nnjax.serial(nnjax.dense(4, 4), nnjax.batch_norm(4), nnjax.tanh()))
    both = nnjax.parallel(nnjax.batch_norm(4), nnjax.serial(nnjax.dropout(0.5), nnjax.batch_norm(4)))
    return nnjax.serial(nnjax.dense(4, 4), nnjax.batch_norm(4), nnjax.scan_layers(block, 3), both)


@pytest.mark.in_turn
def test_calibrate_reaches_every_batch_norm_of_a_composition():
    model = composed()
    params = model.init(jax.random.key(0))
    filled = nnjax.calibrate(model, params, [X])
    for out, again in zip(model.apply(filled, X), model.apply(params, X), strict=True):
        # With one batch, frozen statistics equal those of the batch in every layer, and so does the output.
        np.testing.assert_allclose(out, again, rtol=1e-3, atol=1e-4)
    assert filled[2][1].mean.shape == (3, 4)
    assert jax.tree.structure(jax.tree.map(lambda p: p, params)) != jax.tree.structure(filled)
    assert all(p.var is not None for p in (filled[1], filled[2][1], filled[3][0], filled[3][1][1]))
    one_by_one = model.apply(filled, X[:1])
    np.testing.assert_allclose(one_by_one[0], model.apply(filled, X)[0][:1], rtol=1e-5, atol=1e-6)


def test_calibrate_goes_through_tied_layers_and_renamed_models():
    head = nnjax.dense(4, 4)
    model = nnjax.tied(nnjax.dense(4, 4), nnjax.serial(nnjax.batch_norm(4))._replace(name="a model"), head)
    filled = nnjax.calibrate(model, model.init(jax.random.key(0)), [X])
    np.testing.assert_allclose(filled.body[0].mean, (X @ filled.table.w).mean((0, 1)), rtol=1e-4, atol=1e-5)


def test_calibrate_leaves_a_model_without_batch_norm_alone():
    model = nnjax.mlp([4, 3, 2])
    params = model.init(jax.random.key(0))
    assert jax.tree.all(jax.tree.map(jnp.array_equal, nnjax.calibrate(model, params, [X]), params))


def test_calibrate_refuses_no_batches():
    layer = nnjax.batch_norm(4)
    params = layer.init(jax.random.key(0))
    with pytest.raises(ValueError, match="calibrate: expected at least one batch, got none"):
        nnjax.calibrate(layer, params, [])
    with pytest.raises(ValueError, match="calibrate: the batches must hold examples"):
        nnjax.calibrate(layer, params, [X[:0]])
    odd = nnjax.serial(layer)._replace(name="odd", walk=None)
    with pytest.raises(ValueError, match=r"calibrate: odd .*compose the model of nnjax\.serial"):
        nnjax.calibrate(odd, (params,), [X])


def test_bad_input_is_refused():
    layer = nnjax.batch_norm(4)
    params = layer.init(jax.random.key(0))
    with pytest.raises(ValueError, match=r"batch_norm: mean and var must both be given or both be None, got only mean"):
        layer.apply(params._replace(mean=jnp.zeros(4)), X)
    with pytest.raises(ValueError, match=r"batch_norm: var must have shape \(4,\), got float32 \(3,\)"):
        layer.fwd(params._replace(mean=jnp.zeros(4), var=jnp.ones(3)), X)
    with pytest.raises(ValueError, match=r"batch_norm: x must have shape \(batch, \.\.\., 4\), got float32 \(4,\)"):
        layer.apply(params, X[0, 0])
