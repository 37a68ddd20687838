"""Rows about bits: two runs of one program, and a row in batches of several sizes."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax

RNG = np.random.default_rng(0)
X, W = (RNG.standard_normal(shape).astype(np.float32) for shape in ((8, 5), (5, 8)))
ONCE = {"dtypes": ["float32"], "transforms": ["jit"]}


def found(report, witness):
    return {row.leaf: row.ok for row in report.rows if row.witness == witness}


def rule(body, bwd):
    f = jax.custom_vjp(body)
    f.defvjp(lambda *args: (body(*args), args), bwd)
    return f


def test_a_rule_that_draws_by_itself_is_not_repeatable():
    count = itertools.count(1)

    def noise(ct):
        return jax.pure_callback(
            lambda ct: ct * np.float32(1 + 1e-7 * next(count)), jax.ShapeDtypeStruct(ct.shape, ct.dtype), ct
        )

    for right in (True, False):
        f = rule(jnp.sin, lambda args, ct, right=right: (jnp.cos(args[0]) * (ct if right else noise(ct)),))
        report = nnjax.check_vjp(f, X, **ONCE, witnesses=["repeat"])
        assert found(report, "repeat") == {"output": True, "x": right}
    assert {row.diagnosis.kind for row in report.failures} == {"not_repeatable"}


def test_a_row_that_depends_on_its_batch_is_found_and_arrays_with_a_batch_are_known():
    def scaled(x):
        return jnp.sin(x)

    def bwd(args, ct):
        (x,) = args
        return (jnp.cos(x) * ct * (1 + 1e-7 * jnp.float32(x.shape[0])),)

    for f, right in ((rule(scaled, lambda args, ct: (jnp.cos(args[0]) * ct,)), True), (rule(scaled, bwd), False)):
        report = nnjax.check_vjp(f, X, **ONCE, witnesses=["batch_invariant"])
        assert found(report, "batch_invariant") == {"output": True, "x": right}
    assert {row.diagnosis.kind for row in report.failures} == {"batch_dependent"}
    assert "in a batch of 1 and in one of 8" in str(report)


@pytest.mark.in_turn
def test_parameters_have_no_batch_even_where_they_are_as_long():
    def by_rows(x, w):
        return (jnp.expand_dims(x, -1) * w).sum(1)

    def bwd(args, ct):
        x, w = args
        return (jnp.expand_dims(ct, 1) * w).sum(-1), jnp.einsum("bi,bo->io", x, ct)

    square = RNG.standard_normal((8, 8)).astype(np.float32)
    with jax.numpy_rank_promotion("allow"):
        report = nnjax.check_vjp(rule(by_rows, bwd), square, square, **ONCE, witnesses=["batch_invariant"])
    assert set(found(report, "batch_invariant")) == {"output", "x"}
    layer = nnjax.dense(5, 8)
    report = nnjax.check_layer(layer, layer.init(jax.random.key(0)), X, **ONCE, witnesses=["batch_invariant", "repeat"])
    assert set(found(report, "batch_invariant")) == {"output", "x"}
    assert all(found(report, "repeat").values())


def test_what_was_asked_for_and_cannot_be_compared_is_missing():
    f = rule(lambda x: (x * x).sum(), lambda args, ct: (2 * args[0] * ct,))
    report = nnjax.check_vjp(f, X, **ONCE, witnesses=["batch_invariant"])
    assert not report.ok
    assert "any leaf, by batch_invariant" in str(report)
    assert nnjax.check_vjp(f, X, **ONCE).ok


def test_these_witnesses_run_only_if_named():
    report = nnjax.check_vjp(rule(jnp.sin, lambda args, ct: (jnp.cos(args[0]) * ct,)), X)
    assert not {row.witness for row in report.rows} & {"repeat", "batch_invariant"}
    with pytest.raises(ValueError, match=r"repeat.*did you mean"):
        nnjax.check_vjp(jnp.sin, X, reference=jnp.sin, witnesses=["repeats"])
