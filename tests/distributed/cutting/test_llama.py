"""A llama on every mesh against jax.grad on one device: value and every gradient within the error budget."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.check.vjp import compare_gradients
from nnjax.distributed import (
    llama,
    llama_by_groups,
    llama_by_groups_t,
    make_mesh,
    mean_over,
    on_mesh,
    vocabulary_cross_entropy,
)

KEY = jax.random.key(0)
LLAMA = {"vocab": 16, "context": 12, "layers": 2, "heads": 8, "width": 16, "kv_heads": 4, "hidden": 8}
FORMS = {"tied": {"tie": True}, "biased, windowed": {"qkv_bias": True, "sliding_window": 4, "full_layers": 1}}
MESHES = {
    "8x1": ({"data": 8}, {"data": "data"}),
    "2x4": ({"data": 2, "model": 4}, {"data": "data", "model": "model"}),
    "2x2x2": ({"data": 2, "shard": 2, "model": 2}, {"data": "data", "shard": "shard", "model": "model"}),
    "fully sharded": ({"shard": 8}, {"data": None, "shard": "shard"}),
}  # fmt: skip


def llama_on(name, **options):
    """value_and_grad on the mesh, for the parameters of one device; and the Sharded."""
    sizes, how = MESHES[name]
    mesh = make_mesh(**sizes)
    sharded = llama(**LLAMA, mesh=mesh, **how, **options)
    axes = tuple(how[k] for k in ("data", "shard") if how.get(k))
    loss = vocabulary_cross_entropy() if "model" in how else nnjax.linear_cross_entropy()
    f = on_mesh(nnjax.value_and_grad(sharded.layer, mean_over(loss, axes)), sharded, mesh, axes)
    if "model" not in how:
        return f, sharded

    def by_groups(params, x, labels, **more):
        value, grads = f(llama_by_groups(params, sizes["model"]), x, labels, **more)
        return value, llama_by_groups_t(grads, sizes["model"])

    return by_groups, sharded


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", MESHES)
@pytest.mark.slow
@pytest.mark.in_turn
def test_gradients_on_every_mesh_are_those_of_one_device(name, form):
    f, _ = llama_on(name, **FORMS[form])
    one = nnjax.llama(**LLAMA, **FORMS[form], fused=True)
    x, labels = (jax.random.randint(jax.random.key(i), (8, 12), 0, 16, jnp.int32) for i in (1, 2))
    params = one.init(KEY)
    reference = nnjax.reference_value_and_grad(one, nnjax.linear_cross_entropy())
    found = compare_gradients(f, reference, params, x, labels)
    assert len(found) == 1 + len(jax.tree.leaves(params))
    assert all(d.ok for d in found), [d for d in found if not d.ok]


@pytest.mark.in_turn
def test_initial_parameters_are_those_of_one_device():
    _, sharded = llama_on("2x4", **FORMS["biased, windowed"])
    theirs = nnjax.llama(**LLAMA, **FORMS["biased, windowed"]).init(KEY)
    jax.tree.map(np.testing.assert_array_equal, llama_by_groups_t(sharded.layer.init(KEY), 4), theirs)


def test_sizes_and_ids_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"kv_heads must be a multiple of 8, .*got 4"):
        llama(**LLAMA, mesh=make_mesh(model=8), data=None, model="model")
    sharded = llama(**LLAMA, mesh=make_mesh(data=1), data=None)
    with pytest.raises(ValueError, match=r"llama: ids must have at most 12 positions"):
        sharded.layer.apply(sharded.layer.init(KEY), jnp.zeros((1, 13), jnp.int32))
