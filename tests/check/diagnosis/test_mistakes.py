import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax

X = np.random.default_rng(0).standard_normal((5, 7)).astype(np.float32)
SOME = {"dtypes": ["float64", "float32"], "transforms": ["jit", "second"]}


def rule(f, backward):
    """f with this backward: (x, *cts) -> ct_x."""
    g = jax.custom_vjp(f)
    g.defvjp(lambda x: (f(x), x), lambda x, ct: (backward(x, *(ct if isinstance(ct, tuple) else (ct,))),))
    return g


def kinds(report):
    return {row.diagnosis.kind for row in report.failures}


@pytest.mark.parametrize(
    ("f", "wrong", "right"),
    [
        (lambda x: jnp.cumsum(x, 1), lambda x, ct: jnp.cumsum(ct, 1), lambda x, ct: jnp.cumsum(ct[:, ::-1], 1)[:, ::-1]),
        (lambda x: jnp.roll(x, 1, 1), lambda x, ct: jnp.roll(ct, 1, 1), lambda x, ct: jnp.roll(ct, -1, 1)),
        (
            lambda x: x * jnp.roll(x, 2, 1),
            lambda x, ct: ct * jnp.roll(x, 2, 1) + x * jnp.roll(ct, 2, 1),
            lambda x, ct: ct * jnp.roll(x, 2, 1) + jnp.roll(ct * x, -2, 1),
        ),
    ],
)
@pytest.mark.repeats
@pytest.mark.in_turn
def test_the_jacobian_instead_of_its_transpose_is_named(f, wrong, right):
    nnjax.check_vjp(rule(f, right), X, **SOME).raise_if_failed()
    report = nnjax.check_vjp(rule(f, wrong), X, **SOME)
    assert kinds(report) == {"transposed"}, report
    assert "equals J ct, with the Jacobian J of x itself instead of its transpose" in str(report)


def two(x):
    return jnp.sin(x), jnp.sum(x * x, 1)


@pytest.mark.in_turn
def test_a_cotangent_that_is_left_out_is_named():
    nnjax.check_vjp(rule(two, lambda x, a, b: jnp.cos(x) * a + 2 * x * b[:, None]), X, **SOME).raise_if_failed()
    report = nnjax.check_vjp(rule(two, lambda x, a, b: jnp.cos(x) * a), X, **SOME)
    assert kinds(report) == {"partial"}, report
    assert "without the cotangent of output[1]: is it left out?" in str(report)
    report = nnjax.check_vjp(rule(two, lambda x, a, b: 2 * x * b[:, None]), X, **SOME)
    assert kinds(report) == {"partial"}, report
    assert "without the cotangent of output[0]: is it left out?" in str(report)


def test_where_the_definition_has_no_forward_mode_the_other_mistakes_are_tried():
    inner = rule(jnp.sin, lambda x, ct: jnp.cos(x) * ct)
    w = X[:, :5]
    report = nnjax.check_vjp(
        rule(lambda w: inner(w @ w.T), lambda w, ct: w * ct.sum()), w, transforms=["jit"], dtypes=["float64"]
    )
    assert kinds(report) == {"unknown"}, report
    assert "there is no forward mode" in str(report)


def test_a_second_derivative_is_wrong_by_itself_or_like_the_first():
    report = nnjax.check_vjp(rule(two, lambda x, a, b: jnp.cos(x) * a), X, witnesses=[], **SOME)
    assert kinds(report) == {"partial"}, report
    assert "wrong as its first derivative is: 35 of 35 entries wrong" in str(report)
    stopped = rule(jnp.sin, lambda x, ct: jax.lax.stop_gradient(jnp.cos(x)) * ct)
    report = nnjax.check_vjp(stopped, X, **SOME)
    assert {row.transform for row in report.failures} == {"second"}, report
    assert "first derivative" not in str(report)


def test_the_witnesses_name_the_kind_that_was_found():
    report = nnjax.check_vjp(rule(jnp.sin, lambda x, ct: 1.01 * jnp.cos(x) * ct), X, **SOME)
    assert {row.witness for row in report.failures} == {"reference", "adjoint", "taylor"}
    assert kinds(report) == {"scaled"}, report
