import jax
import jax.numpy as jnp
import pytest

import nnjax
from nnjax.check.layers import check_layer
from nnjax.check.mutation.mutant_kinds import on_cotangents

RIGHT = nnjax.dense(3, 3)
WRONG = on_cotangents(RIGHT, lambda right, residuals, ct_y: (right[0]._replace(w=right[0].w * 1.1), right[1]))
X = jax.random.normal(jax.random.key(1), (6, 3))


def named(model):
    report = check_layer(model, model.init(jax.random.key(0)), X, dtypes=["float32"], transforms=["jit"], witnesses=())
    return {row.layer for row in report.failures}, str(report)


@pytest.mark.parametrize(
    ("model", "path"),
    [
        (nnjax.serial(RIGHT, WRONG, RIGHT), "1:dense(3, 3)"),
        (nnjax.serial(RIGHT, nnjax.residual(nnjax.serial(nnjax.tanh(), WRONG))), "1/residual/1:dense(3, 3)"),
        (nnjax.parallel(RIGHT, WRONG), "1:dense(3, 3)"),
        (nnjax.scan_layers(nnjax.serial(WRONG, nnjax.tanh()), 2), "scan_layers[1]/0:dense(3, 3)"),
        (nnjax.tied(RIGHT, nnjax.serial(nnjax.tanh(), WRONG), RIGHT), "body/1:dense(3, 3)"),
    ],
    ids=["serial", "residual", "parallel", "scan_layers", "tied"],
)
@pytest.mark.repeats
def test_the_wrong_layer_is_named(model, path):
    layers, text = named(model)
    assert layers == {path}
    assert f"walking backwards, the cotangents first differ at {path}, in its weight" in text
    assert "larger by 1.1" in text


def test_of_two_wrong_layers_the_last_is_found_first():
    assert named(nnjax.serial(WRONG, nnjax.tanh(), WRONG))[0] == {"2:dense(3, 3)"}


@pytest.mark.in_turn
def test_right_parts_that_are_combined_wrongly_are_recognised():
    model = nnjax.serial(RIGHT, nnjax.tanh())
    joined = model._replace(bwd=lambda residuals, ct_y: (model.bwd(residuals, ct_y)[0], ct_y))
    report = check_layer(joined, model.init(jax.random.key(0)), X)
    assert {row.leaf for row in report.failures} == {"x"}
    assert any("every part alone is right; their combination is wrong" in note for note in report.notes)


def test_the_tensor_is_named():
    def no_bias(right, residuals, ct_y):
        return right[0]._replace(b=jnp.zeros_like(right[0].b)), right[1]

    def sends_back_too_much(right, residuals, ct_y):
        return right[0], 2 * right[1]

    for change, tensor in ((no_bias, "bias"), (sends_back_too_much, "delta")):
        assert f"in its {tensor}" in named(nnjax.serial(RIGHT, on_cotangents(RIGHT, change)))[1]
