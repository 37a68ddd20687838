import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax import auxiliary
from nnjax.models.moe import moe_hidden

SIZES = (5, 4, 2, 2, 4, 3, 2)
IDS, LABELS = jnp.array([[1, 4, 2], [0, 0, 3]]), jnp.array([[4, 2, 1], [0, 3, 3]])


def drawn(model, by=4):
    return jax.tree.map(lambda p: by * p, model.init(jax.random.key(0)))


def test_its_parameters_are_those_of_a_gpt_but_for_the_experts():
    shapes = jax.eval_shape(nnjax.moe(65, 64, 4, 4, 128, 8, 2).init, jax.random.key(0))
    gpt = jax.eval_shape(nnjax.gpt(65, 64, 4, 4, 128).init, jax.random.key(0))
    assert jax.tree.structure(shapes.body[1][0]) == jax.tree.structure(gpt.body[1][0])
    mixture = shapes.body[1][1][1]
    assert moe_hidden(128) == 344
    assert (mixture.router.shape, mixture.up.shape, mixture.down.shape) == ((4, 128, 8), (4, 8, 128, 688), (4, 8, 344, 128))


@pytest.mark.slow
@pytest.mark.in_turn
def test_the_forms_of_moe_agree():
    labels, loss = LABELS, auxiliary.to_loss(nnjax.softmax_cross_entropy())
    model = nnjax.moe(*SIZES, auxiliary=True)
    params = drawn(model)
    rows = tuple(jax.tree.map(lambda p, i=i: p[i], params.body[1]) for i in range(2))
    in_a_row = params._replace(body=(params.body[0], rows, params.body[2]))
    value, grads = jax.jit(nnjax.value_and_grad(model, loss))(params, IDS, labels)
    expected, theirs = jax.jit(nnjax.reference_value_and_grad(model, loss))(params, IDS, labels)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), grads, theirs)
    for form, given, own in (
        ({"remat": True}, params, loss),
        ({"fused": True}, params, auxiliary.to_loss(nnjax.linear_cross_entropy())),
        ({"scan": False}, in_a_row, loss),
    ):
        again, others = jax.jit(nnjax.value_and_grad(nnjax.moe(*SIZES, auxiliary=True, **form), own))(given, IDS, labels)
        np.testing.assert_allclose(again, value, rtol=1e-5)
        np.testing.assert_allclose(others.table.table, grads.table.table, atol=1e-5)


@pytest.mark.in_turn
def test_without_the_losses_of_its_routers_it_has_the_same_parameters_and_logits():
    with_losses, without = nnjax.moe(*SIZES, auxiliary=True, balance=1.0, z=0.0), nnjax.moe(*SIZES)
    params = drawn(with_losses)
    assert jax.tree.structure(params) == jax.tree.structure(without.init(jax.random.key(0)))
    logits, losses = with_losses.apply(params, IDS)
    np.testing.assert_allclose(logits, without.apply(params, IDS), rtol=1e-6)
    assert 1 < float(losses) < 6  # two layers, from 1 where the experts are evenly busy


@pytest.mark.in_turn
def test_it_learns_and_its_experts_stay_busy():
    model, loss = nnjax.moe(5, 4, 1, 2, 8, 4, 2, hidden=8, auxiliary=True), auxiliary.to_loss(nnjax.softmax_cross_entropy())
    f, params = nnjax.value_and_grad(model, loss), drawn(model)
    ids = jax.random.randint(jax.random.key(1), (16, 4), 0, 5, jnp.int32)

    def step(params, _):
        value, grads = f(params, ids, (ids + 1) % 5)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads), value

    _, values = jax.jit(lambda p: jax.lax.scan(step, p, None, 100))(params)
    assert values[-1] < 0.3 * values[0]


def test_unsupported_options_are_refused():
    with pytest.raises(ValueError, match=r"moe: remat needs the scan"):
        nnjax.moe(*SIZES, remat=True, scan=False)
    with pytest.raises(ValueError, match=r"top_k.*3.*4"):
        nnjax.moe(5, 4, 2, 2, 4, 3, 4)
    with pytest.raises(ValueError, match=r"balance"):
        nnjax.moe(*SIZES, auxiliary=True, balance=-1.0)
