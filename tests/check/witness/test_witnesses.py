import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.check.report import Diagnosis, Row
from nnjax.check.witness.witnesses import in_kind

JIT = {"transforms": ["jit"], "dtypes": ["float64"]}
X = jnp.linspace(0.2, 1.0, 5)


def called(f, x):
    """f on the host, by a callback, which may raise for some values."""
    return jax.pure_callback(f, jax.ShapeDtypeStruct(x.shape, x.dtype), x, vmap_method="sequential")


def rule(body, bwd):
    f = jax.custom_vjp(body)
    f.defvjp(lambda x: (body(x), x), bwd)
    return f


def at_the_points_only(bad):
    """Raises where the check moves away from the given points (the Taylor remainder), and the identity elsewhere."""

    def f(x):
        if np.abs(np.asarray(x, np.float64) - np.asarray(X, np.float64)).max() > 1e-5:
            raise RuntimeError("out of its domain")
        return np.asarray(x) * bad

    return f


def test_a_rule_that_raises_at_the_points_of_a_witness_has_failed_there():
    def bwd(x, ct):
        return (ct * jnp.cos(called(at_the_points_only(1), x)),)

    report = nnjax.check_vjp(rule(jnp.sin, bwd), X, **JIT)
    assert {(row.witness, row.leaf) for row in report.failures} == {("taylor", "cotangents")}, report
    assert "the rule cannot be run for the taylor witness" in str(report)
    assert {row.witness for row in report.rows if row.ok} == {"reference", "adjoint"}


def test_a_definition_that_raises_at_the_points_of_a_witness_is_a_note():
    def body(x):
        return jnp.sin(x) + called(at_the_points_only(0), jax.lax.stop_gradient(x))

    for factor, right in ((1.0, True), (1.01, False)):
        report = nnjax.check_vjp(rule(body, lambda x, ct, k=factor: (k * ct * jnp.cos(x),)), X, **JIT)
        assert report.ok == right, report
        assert any("taylor witness was not checked, as the definition raises" in note for note in report.notes)


def test_a_definition_without_forward_mode_is_a_note():
    inner = rule(jnp.sin, lambda x, ct: (ct * jnp.cos(x),))
    report = nnjax.check_vjp(rule(lambda x: inner(x) * 2, lambda x, ct: (2 * ct * jnp.cos(x),)), X, **JIT).raise_if_failed()
    assert any("adjoint identity was not checked, as there is no forward mode" in note for note in report.notes)


@pytest.mark.in_turn
def test_a_rule_that_runs_nowhere_is_reported_once():
    def bwd(x, ct):
        raise ZeroDivisionError("never")

    report = nnjax.check_vjp(rule(jnp.sin, bwd), X)
    assert {row.leaf for row in report.failures} == {"cotangents"}
    assert {row.witness for row in report.failures} == {"reference"}
    assert str(report).count("\n    unknown: JAX cannot run it: ZeroDivisionError: never") == 1


def test_a_row_takes_its_kind_from_the_first_derivative():
    first = Row("f", "x", "float64", "jit", "cpu", 1.0, 0.0, False, Diagnosis("scaled", "larger"), "failed")
    unknown = first._replace(diagnosis=Diagnosis("unknown", "differs"))
    second, taylor = unknown._replace(transform="second"), unknown._replace(witness="taylor")
    assert in_kind(second, [first, second]).diagnosis == Diagnosis("scaled", "wrong as its first derivative is: differs")
    assert in_kind(taylor, [first, taylor]).diagnosis == Diagnosis("scaled", "differs")
    assert in_kind(taylor, [taylor]) == taylor
    assert in_kind(first, [first]) == first


def test_a_layer_that_cuts_its_gradient_on_purpose_is_not_asked_for_a_remainder_and_one_that_does_not_say_so_is():
    def apply(params, x, *, key=None):
        return jax.lax.stop_gradient(x) * x

    def fwd(params, x, *, key=None):
        return apply(params, x), jax.lax.stop_gradient(x)

    layer = nnjax.Layer("half", lambda key: (), apply, fwd, lambda x, ct_y: ((), ct_y * x), cuts=True)
    report = nnjax.check_layer(layer, (), X, **JIT)
    assert report.ok, report
    assert any("taylor" in note for note in report.notes)
    inside = nnjax.check_layer(nnjax.serial(layer, nnjax.tanh()), ((), ()), X, **JIT)
    assert inside.ok, inside
    silent = nnjax.check_layer(layer._replace(cuts=False), (), X, **JIT)
    assert {row.witness for row in silent.failures} == {"taylor"}


def test_an_input_that_the_definition_takes_as_fixed_has_no_remainder():
    def apply(params, x, *, key=None):
        return x[0] * jax.lax.stop_gradient(x[1])

    def fwd(params, x, *, key=None):
        return apply(params, x), x[1]

    def check(factor, cuts):
        layer = nnjax.Layer("by", lambda key: (), apply, fwd, lambda b, ct_y: ((), (factor * ct_y * b, None)), cuts=cuts)
        return nnjax.check_layer(layer, (), (X, X), **JIT)

    right = check(1, ("x[1]",))
    assert right.ok, right
    assert {row.leaf for row in right.rows if row.witness == "taylor"} == {"x[0]"}
    assert any("no taylor remainder of x[1]" in note for note in right.notes)
    assert {row.leaf for row in check(1, False).failures} == {"x[1]"}
    assert {row.witness for row in check(2, ("x[1]",)).failures if row.leaf == "x[0]"} >= {"reference", "taylor"}
