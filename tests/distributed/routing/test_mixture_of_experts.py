"""Experts on four devices against one device, values and all gradients; no token is dropped, whoever chooses what."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import nnjax
from nnjax.bench.text.cost import collectives_of
from nnjax.distributed import make_mesh, mixture_of_experts, on_mesh, replicated
from nnjax.distributed.loss import mean_over

LOSSES = {"balance": 0.5, "z": 0.3}


def mean_square():
    return nnjax.auxiliary.to_loss(nnjax.mean_squared_error())


def drawn(layer, favourite=None):
    params = jax.tree.map(lambda p: 2 * p, layer.init(jax.random.key(0)))
    if favourite is not None:
        params = params._replace(router=params.router.at[:, favourite].set(0).at[0, favourite].set(50))
    x, t = jax.random.normal(jax.random.key(1), (2, 8, 3, 4))
    return params, x.at[..., 0].set(jnp.abs(x[..., 0]) + 1), t


@pytest.mark.parametrize("axes", [{"expert": 4}, pytest.param({"data": 2, "expert": 2}, marks=pytest.mark.slow)], ids=str)
@pytest.mark.parametrize(("top_k", "favourite"), [(2, None), (1, 5)], ids=["any", "one gets all"])
@pytest.mark.repeats
@pytest.mark.in_turn
def test_value_and_gradients_are_those_of_one_device(axes, top_k, favourite):
    mesh, batch, one = make_mesh(**axes), tuple(axes), nnjax.mixture_of_experts(4, 3, 8, top_k, **LOSSES)
    cut = replicated(mixture_of_experts(4, 3, 8, top_k, mesh, batch=batch, **LOSSES), batch)
    params, x, t = drawn(one, favourite)
    right = jax.jit(nnjax.value_and_grad(one, mean_square()))(params, x, t)
    for f in (nnjax.value_and_grad, nnjax.reference_value_and_grad):
        found = jax.jit(on_mesh(f(cut.layer, mean_over(mean_square(), batch)), cut, mesh, batch))(params, x, t)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5), found, right)


@pytest.mark.in_turn
def test_its_own_experts_lie_on_a_device_and_each_step_has_the_exchanges_that_it_says():
    mesh = make_mesh(expert=4)
    found = mixture_of_experts(4, 3, 8, 2, mesh)
    assert found.specs.up == P("expert", None, None)
    assert found.summed.router == frozenset()
    cut = replicated(found, "expert")
    params, x, t = drawn(cut.layer)

    def counted(f):
        run = jax.shard_map(f, mesh=mesh, in_specs=(cut.specs, P("expert")), out_specs=P("expert"))
        text = jax.jit(run).lower(params, x).compile().as_text()
        return [m.kind for m in collectives_of(text)].count("all-to-all")

    assert counted(lambda p, x: cut.layer.fwd(p, x)[0]) == 3
    assert counted(lambda p, x: jax.tree.leaves(cut.layer.bwd(*cut.layer.fwd(p, x)[::-1]))[-1]) == 3 + 4


@pytest.mark.in_turn
def test_without_an_axis_of_experts_only_their_load_is_counted_over_all_devices():
    mesh, one = make_mesh(data=4), nnjax.mixture_of_experts(4, 3, 3, 2, **LOSSES)
    whole = replicated(mixture_of_experts(4, 3, 3, 2, mesh, None, batch="data", **LOSSES), "data")
    params, x, t = drawn(one)
    right = jax.jit(nnjax.value_and_grad(one, mean_square()))(params, x, t)
    found = jax.jit(on_mesh(nnjax.value_and_grad(whole.layer, mean_over(mean_square(), "data")), whole, mesh))(params, x, t)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5), found, right)


def test_experts_that_devices_cannot_share_are_refused():
    with pytest.raises(ValueError, match="experts must be a multiple of 4"):
        mixture_of_experts(4, 3, 6, 2, make_mesh(expert=4))
    with pytest.raises(ValueError, match=r"axis.*expert"):
        mixture_of_experts(4, 3, 6, 2, make_mesh(data=4))
