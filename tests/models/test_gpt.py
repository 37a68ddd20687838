import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax


def test_gpt_has_the_parameters_of_gpt_2_and_its_tables_are_tied():
    shapes = jax.eval_shape(nnjax.gpt(50257, 1024, 12, 12, 768).init, jax.random.key(0))
    assert sum(p.size for p in jax.tree.leaves(shapes)) == 124_439_808
    assert shapes.table.table.shape == (50257, 768)


@pytest.mark.in_turn
def test_a_deeper_gpt_is_no_larger_program():
    def text(layers):
        step = nnjax.value_and_grad(nnjax.gpt(65, 32, layers, 2, 16, remat=True), nnjax.softmax_cross_entropy())
        params = jax.eval_shape(nnjax.gpt(65, 32, layers, 2, 16).init, jax.random.key(0))
        ids = jax.ShapeDtypeStruct((2, 32), jnp.int32)
        return jax.jit(step).lower(params, ids, ids).as_text()

    assert len(text(24).splitlines()) == len(text(4).splitlines())


@pytest.mark.slow
@pytest.mark.in_turn
def test_a_step_of_gpt_2s_own_size_is_the_references():
    model, loss = nnjax.gpt(50257, 1024, 12, 12, 768), nnjax.softmax_cross_entropy()
    params = jax.jit(model.init)(jax.random.key(0))
    ids = jax.random.randint(jax.random.key(1), (1, 65), 0, 50257, jnp.int32)
    value, grads = jax.jit(nnjax.value_and_grad(model, loss))(params, ids[:, :-1], ids[:, 1:])
    expected, theirs = jax.jit(nnjax.reference_value_and_grad(model, loss))(params, ids[:, :-1], ids[:, 1:])
    assert float(value) == pytest.approx(float(expected), rel=1e-5)
    for ours, reference in zip(jax.tree.leaves(grads), jax.tree.leaves(theirs), strict=True):
        apart, size = np.linalg.norm(ours - reference), np.linalg.norm(reference)
        assert apart <= 1e-3 * size


@pytest.mark.slow
@pytest.mark.in_turn
def test_the_forms_of_gpt_agree():
    ids = jnp.array([[1, 4, 2], [0, 0, 3]])
    labels = jnp.array([[4, 2, 1], [0, 3, 3]])
    model = nnjax.gpt(5, 4, 2, 2, 4)
    params = jax.tree.map(lambda p: 4 * p, model.init(jax.random.key(0)))
    rows = tuple(jax.tree.map(lambda p, i=i: p[i], params.body[1]) for i in range(2))
    in_a_row = params._replace(body=(params.body[0], rows, params.body[2]))
    value, grads = jax.jit(nnjax.value_and_grad(model, nnjax.softmax_cross_entropy()))(params, ids, labels)
    for form, given, loss in (
        ({"remat": True}, params, nnjax.softmax_cross_entropy()),
        ({"fused": True}, params, nnjax.linear_cross_entropy()),
        ({"scan": False}, in_a_row, nnjax.softmax_cross_entropy()),
    ):
        again, others = jax.jit(nnjax.value_and_grad(nnjax.gpt(5, 4, 2, 2, 4, **form), loss))(given, ids, labels)
        np.testing.assert_allclose(again, value, rtol=1e-5)
        np.testing.assert_allclose(others.table.table, grads.table.table, atol=1e-5)
        np.testing.assert_allclose(others.body[0].table, grads.body[0].table, atol=1e-5)


@pytest.mark.in_turn
def test_no_position_of_gpt_sees_a_later_one():
    model = nnjax.gpt(5, 4, 2, 2, 4)
    params = jax.tree.map(lambda p: 4 * p, model.init(jax.random.key(0)))
    a, b = (model.apply(params, jnp.array(ids)) for ids in ([1, 4, 2], [1, 4, 3]))
    np.testing.assert_array_equal(a[:2], b[:2])
    assert (a[2] != b[2]).any()


def test_gpt_refuses_unsupported_options():
    with pytest.raises(ValueError, match=r"gpt: remat needs the scan, .*got scan=False"):
        nnjax.gpt(5, 4, 2, 2, 4, remat=True, scan=False)
    with pytest.raises(ValueError, match=r"gpt: layers must be a positive int, got 0"):
        nnjax.gpt(5, 4, 0, 2, 4)
    with pytest.raises(ValueError, match=r"attention: heads must divide n, got n=4, heads=3"):
        nnjax.gpt(5, 4, 1, 3, 4)
    model = nnjax.gpt(5, 4, 1, 2, 4)
    params = model.init(jax.random.key(0))
    with pytest.raises(ValueError, match=r"learned_positions: x must have at most 4 steps"):
        model.apply(params, jnp.zeros(5, jnp.int32))
    with pytest.raises(ValueError, match=r"embedding: ids must lie in 0 ... 4"):
        model.apply(params, jnp.full(3, 5, jnp.int32))


@pytest.mark.slow
@pytest.mark.in_turn
def test_gpt_of_other_options_has_the_gradients_of_its_definition():
    ids, labels = jnp.array([[1, 4, 2], [0, 0, 3]], jnp.int32), jnp.array([[4, 2, 1], [0, 3, 3]], jnp.int32)
    for form in ({"activation": nnjax.relu(), "eps": 0.1, "hidden": 3}, {"tie": False}, {"tie": False, "scan": False}):
        model = nnjax.gpt(5, 4, 2, 2, 4, **form)
        params = jax.tree.map(lambda p: 4 * p, model.init(jax.random.key(0)))
        assert model.name == "gpt"
        loss = nnjax.softmax_cross_entropy()
        value, grads = jax.jit(nnjax.value_and_grad(model, loss))(params, ids, labels)
        expected, theirs = jax.jit(nnjax.reference_value_and_grad(model, loss))(params, ids, labels)
        np.testing.assert_allclose(value, expected, rtol=1e-5)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), grads, theirs)
        fused = jax.jit(nnjax.value_and_grad(nnjax.gpt(5, 4, 2, 2, 4, fused=True, **form), nnjax.linear_cross_entropy()))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), fused(params, ids, labels)[1], grads)


@pytest.mark.in_turn
def test_an_untied_head_starts_like_a_table_and_is_not_a_copy():
    embed, _, head = nnjax.gpt(50, 4, 1, 2, 16, tie=False).init(jax.random.key(0))
    assert embed.table.shape == head.table.shape == (50, 16)
    assert not (embed.table == head.table).any()
    assert 0.015 < float(head.table.std()) < 0.025


def test_gpt_refuses_invalid_options():
    with pytest.raises(ValueError, match=r"gpt: hidden must be a positive int, got 0"):
        nnjax.gpt(5, 4, 1, 2, 4, hidden=0)
    with pytest.raises(TypeError, match=r"gpt: expected a Layer, got relu; call the factory"):
        nnjax.gpt(5, 4, 1, 2, 4, activation=nnjax.relu)
    with pytest.raises(ValueError, match=r"layer_norm: eps must be at least 0, got -1"):
        nnjax.gpt(5, 4, 1, 2, 4, eps=-1)
