"""Every model on every mesh against jax.grad on one device: value and every gradient within the error budget."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.check.vjp import compare_gradients
from nnjax.distributed import (
    fully_sharded,
    gpt,
    gpt_by_heads,
    gpt_by_heads_t,
    make_mesh,
    mean_over,
    mlp,
    on_mesh,
    replicated,
    vocabulary_cross_entropy,
)
from nnjax.distributed.sharded import lifted

KEY = jax.random.key(0)
LOSS = nnjax.softmax_cross_entropy()


def labels_of(n, classes):
    return jax.random.randint(jax.random.key(2), n, 0, classes, jnp.int32)


def held(f, model, loss, params, x, labels):
    """f, on the mesh, against jax.grad of model and loss on one device."""
    reference = nnjax.reference_value_and_grad(model, loss)
    found = compare_gradients(f, reference, params, x, labels)
    assert len(found) == 1 + len(jax.tree.leaves(params))
    assert all(d.ok for d in found), [d for d in found if not d.ok]


MODELS = {
    "mlp": (nnjax.mlp([6, 16, 4], nnjax.tanh()), (16, 6), 4),
    "lenet": (nnjax.lenet(4, channels=(2,), hidden=8, activation=nnjax.tanh(), image=(6, 6, 1)), (16, 6, 6, 1), 4),
    "lstm": (nnjax.serial(nnjax.lstm(3, 8), nnjax.dense(8, 4)), (16, 5, 3), 4),
}


@pytest.mark.parametrize("how", ["copies", "fully sharded", "both"])
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.slow
@pytest.mark.in_turn
def test_any_model_by_copies_and_fully_sharded(name, how):
    model, shape, classes = MODELS[name]
    mesh = make_mesh(data=2, shard=4) if how == "both" else make_mesh(data=8)
    axes = ("data", "shard") if how == "both" else ("data",)
    sharded = lifted("test", model)
    if how != "copies":
        sharded = fully_sharded(sharded, mesh, axes[-1])
    if how != "fully sharded":
        sharded = replicated(sharded, axes[0])
    f = on_mesh(nnjax.value_and_grad(sharded.layer, mean_over(LOSS, axes)), sharded, mesh, axes)
    x = jax.random.normal(jax.random.key(1), shape)
    held(f, model, LOSS, model.init(KEY), x, labels_of(shape[:-1] if name == "lstm" else shape[:1], classes))


@pytest.mark.parametrize("axes", [{"data": 1, "model": 8}, {"data": 4, "model": 2}])
@pytest.mark.parametrize("sizes", [[6, 16, 4], [6, 16, 8, 4], [6, 4]])
@pytest.mark.repeats
@pytest.mark.in_turn
def test_mlp_by_columns_and_rows(sizes, axes):
    mesh = make_mesh(**axes)
    sharded = mlp(sizes, mesh, nnjax.tanh())
    f = on_mesh(nnjax.value_and_grad(sharded.layer, mean_over(LOSS, "data")), sharded, mesh)
    one = nnjax.mlp(sizes, nnjax.tanh())
    held(f, one, LOSS, one.init(KEY), jax.random.normal(jax.random.key(1), (8, 6)), labels_of((8,), 4))


GPT = {"vocab": 16, "context": 12, "layers": 2, "heads": 8, "width": 16}
MESHES = {
    "8x1": ({"data": 8}, {"data": "data"}),
    "1x8": ({"model": 8}, {"data": None, "model": "model"}),
    "4x2": ({"data": 4, "model": 2}, {"data": "data", "model": "model"}),
    "2x2x2": ({"data": 2, "shard": 2, "model": 2}, {"data": "data", "shard": "shard", "model": "model"}),
    "fully sharded": ({"shard": 8}, {"data": None, "shard": "shard"}),
}  # fmt: skip


def gpt_on(name, **options):
    """(value_and_grad on the mesh, for the parameters of one device; the Sharded; the mesh)."""
    sizes, how = MESHES[name]
    mesh = make_mesh(**sizes)
    sharded = gpt(**GPT, mesh=mesh, **how, **options)
    axes = tuple(how[k] for k in ("data", "shard") if how.get(k))
    loss = vocabulary_cross_entropy() if "model" in how else nnjax.linear_cross_entropy()
    f = nnjax.value_and_grad(sharded.layer, mean_over(loss, axes) if axes else loss)
    f = on_mesh(f, sharded, mesh, axes)
    if "model" not in how:
        return f, sharded, mesh

    def by_heads(params, x, labels, **more):
        value, grads = f(gpt_by_heads(params), x, labels, **more)
        return value, gpt_by_heads_t(grads)

    return by_heads, sharded, mesh


@pytest.mark.parametrize("name", MESHES)
@pytest.mark.slow
@pytest.mark.in_turn
def test_gpt_on_every_mesh(name):
    f, _, _ = gpt_on(name)
    one = nnjax.gpt(**GPT, fused=True)
    ids = jax.random.randint(jax.random.key(1), (8, 12), 0, 16, jnp.int32)
    held(f, one, nnjax.linear_cross_entropy(), one.init(KEY), ids, labels_of((8, 12), 16))


@pytest.mark.slow
@pytest.mark.in_turn
def test_gpt_with_weights_that_are_zero_on_whole_devices_and_remat():
    f, _, _ = gpt_on("2x2x2", remat=True)
    one, loss = nnjax.gpt(**GPT, fused=True), nnjax.linear_cross_entropy()
    ids, labels = jax.random.randint(jax.random.key(1), (8, 12), 0, 16, jnp.int32), labels_of((8, 12), 16)
    weights = jax.random.uniform(jax.random.key(3), (8, 12)).at[:3].set(0)
    params = one.init(KEY)
    found = jax.jit(f)(params, ids, labels, weights=weights)
    right = jax.jit(nnjax.reference_value_and_grad(one, loss))(params, ids, labels, weights=weights)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), found, right)


@pytest.mark.slow
@pytest.mark.in_turn
def test_initial_parameters_are_those_of_one_device():
    _, sharded, _ = gpt_on("4x2")
    ours, theirs = gpt_by_heads_t(sharded.layer.init(KEY)), nnjax.gpt(**GPT, fused=True).init(KEY)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    shapes = jax.tree.map(lambda s, p: len(s) <= p.ndim, sharded.specs, gpt_by_heads(theirs),
                          is_leaf=lambda s: isinstance(s, jax.sharding.PartitionSpec))  # fmt: skip
    assert all(jax.tree.leaves(shapes))


@pytest.mark.parametrize("name", ["8x1", "4x2", "2x2x2", "fully sharded"])
@pytest.mark.slow
@pytest.mark.in_turn
def test_a_hundred_steps_have_the_losses_of_one_device(name):
    f, _, _ = gpt_on(name)
    one = nnjax.gpt(**GPT, fused=True)
    reference = nnjax.reference_value_and_grad(one, nnjax.linear_cross_entropy())
    batches = jax.random.randint(jax.random.key(5), (100, 8, 13), 0, 16, jnp.int32)

    def run(g):
        def step(params, batch):
            value, grads = g(params, batch[:, :-1], batch[:, 1:])
            return jax.tree.map(lambda p, d: p - 0.3 * d, params, grads), value

        return jax.jit(lambda params, batches: jax.lax.scan(step, params, batches)[1])(one.init(KEY), batches)

    np.testing.assert_allclose(run(f), run(reference), atol=1e-5)
