import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.cases import cases
from nnjax.check.mutation.mutant_kinds import on_cotangents
from nnjax.layer import is_chain, met, walked, with_part
from nnjax.train import first_not_finite

CASES = {case.name: case for case in cases()}
COMPOSED = [case.name for case in cases() if case.layer.parts]
GPT, CHARS = nnjax.gpt(5, 8, 2, 2, 8), nnjax.char_rnn(5, 3, cell="gru", layers=2)
REMAT = nnjax.gpt(5, 8, 2, 2, 8, remat=True)
IDS = jnp.array([[0, 1, 2, 3, 2, 1, 0, 4]])


def wrong(layer, factor=1.5):
    """The layer with too large cotangents of its parameters, or of x if it has none."""

    def change(right, residuals, ct_y):
        ct_params, ct_x = right
        if not jax.tree.leaves(ct_params):
            return ct_params, ct_x * factor
        return jax.tree.map(lambda g: g * factor, ct_params), ct_x

    return on_cotangents(layer, change)


def exchanged(layer, path, change):
    """The composition with the part at this path (numbers of parts) changed."""
    i, *rest = path
    part = layer.parts[i]
    return with_part(layer, i, exchanged(part, rest, change) if rest else change(part))


@pytest.mark.parametrize("name", COMPOSED)
@pytest.mark.repeats
@pytest.mark.in_turn
def test_a_walk_gives_the_parameters_and_the_value_of_the_definition(name):
    layer = CASES[name].layer
    params, x, key = CASES[name].make(0, (2,))
    found, y = walked(layer, params, x, key, lambda at: (at.params, at.layer.apply(at.params, at.x, key=at.key)))
    jax.tree.map(np.testing.assert_array_equal, found, params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), y, layer.apply(params, x, key=key))


@pytest.mark.parametrize("name", COMPOSED)
@pytest.mark.repeats
def test_a_composition_made_again_from_its_own_parts_is_the_same(name):
    layer = CASES[name].layer
    params, x, key = CASES[name].make(0, (2,))
    made = layer.remade(*layer.parts)

    def pulled(layer):
        y, kept = layer.fwd(params, x, key=key)
        return y, layer.bwd(kept, y)

    jax.tree.map(np.testing.assert_array_equal, *jax.jit(lambda: (pulled(layer), pulled(made)))())


@pytest.mark.parametrize(
    ("model", "path", "where"),
    [
        (GPT, (2,), "head:unembedding(5, 8)"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                (GPT, (1, 1, 0, 0, 0, 1), "body/1/scan_layers[1]/0/residual/1:attention(8, 2)"),
                (CHARS, (1,), "1:gru(3, 3)"),
                (GPT, (0,), "embed:embedding(5, 8)"),
                (GPT, (1, 2), "body/2:layer_norm(8)"),
                (nnjax.gpt(5, 8, 2, 2, 8, scan=False), (1, 1, 0, 0, 0, 1), "body/1/0/0/residual/1:attention(8, 2)"),
                (REMAT, (1, 1, 0, 1, 0, 2, 1), "body/1/scan_layers[1]/1/residual/2/1:dense(32, 8)"),
                (CHARS, (3,), "3:dense(3, 5)"),
            )
        ),
    ],
)  # fmt: skip
@pytest.mark.in_turn
def test_a_wrong_part_of_a_model_is_named(model, path, where):
    bad = exchanged(model, path, wrong)
    report = nnjax.check_layer(
        bad, model.init(jax.random.key(0)), IDS, dtypes=["float32"], transforms=["jit"], witnesses=["adjoint"]
    )
    assert {row.layer for row in report.failures} == {where}
    assert "every part alone is right" not in str(report)


@pytest.mark.in_turn
def test_a_wrong_convolution_inside_a_lenet_is_named():
    model = nnjax.lenet(3, channels=(2,), hidden=4, image=(8, 9, 1))
    bad = exchanged(model, (0, 0), wrong)
    x = jax.random.normal(jax.random.key(1), (9, 8, 9, 1))  # 9 images run in chunks
    report = nnjax.check_layer(bad, model.init(jax.random.key(0)), x, dtypes=["float32"], transforms=["jit"], witnesses=())
    assert {row.layer for row in report.failures} == {"0/0:conv(1, 2, (5, 5))"}


@pytest.mark.slow
@pytest.mark.in_turn
def test_a_wrong_cell_of_a_char_rnn_that_carries_its_state_is_named():
    model = nnjax.char_rnn(5, 3, cell="lstm", layers=2, carry=True)
    bad = exchanged(model, (2,), wrong)
    report = nnjax.check_layer(
        bad, model.init(jax.random.key(0)), (IDS, None), dtypes=["float32"], transforms=["jit"], witnesses=()
    )
    assert {row.layer for row in report.failures} == {"2:lstm(3, 3)"}


def test_a_name_decides_nothing():
    model = nnjax.tied(*nnjax.gpt(5, 8, 2, 2, 8).parts)._replace(name="serial")
    params = model.init(jax.random.key(0))
    assert [at.name for at in met(model, params, IDS)] == ["embed", "body", "head"]
    assert not is_chain(model, params, IDS)
    mlp = nnjax.mlp([3, 4, 2])._replace(name="tied")
    assert is_chain(mlp, mlp.init(jax.random.key(0)), jnp.ones((2, 3)))


def test_what_is_a_chain():
    x = jnp.ones((2, 3))
    dense = nnjax.dense(3, 3)
    for layer, chain in (
        (nnjax.serial(dense, nnjax.residual(dense)), True),
        (nnjax.scan_layers(dense, 2), True),
        (nnjax.residual(dense), False),
        (nnjax.parallel(dense), False),
        (nnjax.parallel(dense, dense), False),
        (nnjax.tied(dense, nnjax.tanh(), dense), False),  # a chain except for the table that two of them share
        (dense, False),
    ):
        assert is_chain(layer, layer.init(jax.random.key(0)), x) is chain


@pytest.mark.parametrize("factor", [jnp.inf, jnp.nan])
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.slow
@pytest.mark.in_turn
def test_the_first_that_is_not_finite_is_named_inside_a_gpt(fused, factor):
    loss = nnjax.linear_cross_entropy() if fused else nnjax.softmax_cross_entropy()
    model = nnjax.gpt(5, 8, 2, 2, 8, fused=fused)
    params = model.init(jax.random.key(0))
    assert first_not_finite(model, loss, params, IDS, IDS) == ""
    bad = exchanged(model, (1, 1, 0, 1, 0, 1), lambda part: wrong(part, factor))
    found = first_not_finite(bad, loss, params, IDS, IDS)
    assert found == "a cotangent of body/1/scan_layers[1]/1/residual/1:dense(8, 32) is the first that is not finite"


@pytest.mark.slow
@pytest.mark.in_turn
def test_the_first_that_is_not_finite_is_named_in_a_lenet_that_goes_in_chunks():
    model = nnjax.lenet(3, channels=(2,), hidden=4, image=(8, 9, 1))
    bad = exchanged(model, (0, 0), lambda part: wrong(part, jnp.nan))
    x, labels = jax.random.normal(jax.random.key(1), (9, 8, 9, 1)), jnp.zeros(9, jnp.int32)
    found = first_not_finite(bad, nnjax.softmax_cross_entropy(), model.init(jax.random.key(0)), x, labels)
    assert found == "a cotangent of 0/0:conv(1, 2, (5, 5)) is the first that is not finite"


@pytest.mark.in_turn
def test_direct_feedback_enters_between_blocks_that_are_scanned_as_between_the_same_in_a_row():
    block = nnjax.serial(nnjax.dense(4, 4), nnjax.tanh())
    scanned = nnjax.serial(nnjax.dense(4, 4), nnjax.scan_layers(block, 2), nnjax.dense(4, 3))
    in_a_row = nnjax.serial(nnjax.dense(4, 4), block, block, nnjax.dense(4, 3))
    params = scanned.init(jax.random.key(0))
    rows = (params[0], *(jax.tree.map(lambda p, i=i: p[i], params[1]) for i in range(2)), params[2])
    x, labels = jax.random.normal(jax.random.key(1), (5, 4)), jnp.array([0, 1, 2, 0, 1])
    loss, key = nnjax.softmax_cross_entropy(), jax.random.key(2)
    _, found = jax.jit(nnjax.direct_value_and_grad(scanned, loss, key))(params, x, labels)
    _, same = jax.jit(nnjax.direct_value_and_grad(in_a_row, loss, key))(rows, x, labels)
    stacked = jax.tree.map(lambda *ps: jnp.stack(ps), same[1], same[2])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, (same[0], stacked, same[3]))


def test_a_layer_that_is_not_a_composition_is_not_walked():
    dense = nnjax.dense(3, 3)
    params = dense.init(jax.random.key(0))
    assert met(dense, params, jnp.ones(3)) == []
    with pytest.raises(ValueError, match=r"dense\(3, 3\): .*what its parts meet"):
        walked(dense, params, jnp.ones(3), None, lambda at: (at.params, at.x))
    with pytest.raises(ValueError, match=r"dense\(3, 3\): .*composed again of other parts"):
        with_part(dense, 0, dense)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
@pytest.mark.in_turn
def test_as_custom_vjp_serves_anyones_grad(wrap):
    model = nnjax.mlp([4, 5, 3], nnjax.tanh())
    params, x = model.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (6, 4))
    f = nnjax.as_custom_vjp(model)
    ours = wrap(jax.grad(lambda p: jnp.square(f(p, x)).sum()))(params)
    theirs = jax.grad(lambda p: jnp.square(model.apply(p, x)).sum())(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), ours, theirs)
    per_example = jax.vmap(jax.grad(lambda p, x: f(p, x).sum()), (None, 0))(params, x)
    assert per_example[0].w.shape == (6, 4, 5)


@pytest.mark.in_turn
def test_as_custom_vjp_takes_keys_and_integer_labels():
    loss = nnjax.as_custom_vjp(nnjax.softmax_cross_entropy())
    y, labels = jax.random.normal(jax.random.key(0), (4, 3)), jnp.array([0, 1, 2, 0])
    theirs = jax.grad(lambda y: nnjax.softmax_cross_entropy().apply((), (y, labels)))(y)
    np.testing.assert_allclose(jax.grad(lambda y: loss((), (y, labels)))(y), theirs, atol=1e-6)
    drop = nnjax.as_custom_vjp(nnjax.dropout(0.5))
    key = jax.random.key(1)
    np.testing.assert_array_equal(
        jax.grad(lambda x: drop((), x, key).sum())(y), nnjax.dropout(0.5).apply((), jnp.ones_like(y), key=key)
    )
