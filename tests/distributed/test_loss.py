import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import nnjax
from nnjax.distributed import make_mesh, mean_over

KEY = jax.random.key(0)
Y = jax.random.normal(KEY, (8, 3, 5))
LABELS = jax.random.randint(KEY, (8, 3), 0, 5, jnp.int32)
WEIGHTS = jax.random.uniform(jax.random.key(1), (8, 3)).at[2:4].set(0)  # one device has no weight


IGNORED = LABELS.at[0].set(-100).at[4:6, 1].set(-100)
CLASSES = nnjax.softmax_cross_entropy(class_weights=[0.5, 2.0, 1.0, 3.0, 0.25])
MEANS = {"plain": (nnjax.softmax_cross_entropy(), LABELS), "ignored, class weights": (CLASSES, IGNORED)}


@pytest.mark.parametrize("weights", [(), (WEIGHTS,)], ids=["plain", "weighted"])
@pytest.mark.parametrize("axes", [{"data": 4}, {"data": 2, "shard": 2}])
@pytest.mark.parametrize("name", MEANS)
@pytest.mark.repeats
@pytest.mark.in_turn
def test_it_is_the_mean_of_all_examples_not_of_the_devices_means(weights, axes, name):
    one, labels = MEANS[name]
    loss = mean_over(one, tuple(axes))
    batch = P(tuple(axes))

    def run(*x):
        value, residuals = loss.fwd((), x)
        ct = loss.bwd(residuals, jnp.full_like(value, 3))[1]
        return value, loss.apply((), x), ct[0], *ct[2:]

    out = (P(), P(), batch, *(batch for _ in weights))
    specs = {"in_specs": (batch,) * (2 + len(weights)), "out_specs": out}
    found = jax.jit(jax.shard_map(run, mesh=make_mesh(**axes), **specs))(Y, labels, *weights)
    value, residuals = one.fwd((), (Y, labels, *weights))
    ct = one.bwd(residuals, jnp.full_like(value, 3))[1]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), found, (value, value, ct[0], *ct[2:]))


def test_anything_but_a_loss_is_refused():
    with pytest.raises(TypeError, match=r"mean_over: expected a Layer, got softmax_cross_entropy; call the factory"):
        mean_over(nnjax.softmax_cross_entropy, "data")


@pytest.mark.in_turn
def test_what_is_no_mean_is_refused():
    loss = mean_over(nnjax.softmax_cross_entropy(reduction="sum"), "data")
    run = jax.shard_map(lambda *x: loss.apply((), x), mesh=make_mesh(data=2), in_specs=P("data"), out_specs=P())
    with pytest.raises(ValueError, match="reduction is 'sum'"):
        run(Y, LABELS)
