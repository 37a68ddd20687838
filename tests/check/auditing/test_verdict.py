import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.check.auditing.listening import Title
from nnjax.check.auditing.verdict import VERDICTS, Case, fault, verdict_on

X = jnp.array([0.5, 1.0, 2.0])
TITLE = Title("cube", "here:1", "here:1")


def cube(factor, body=lambda x: x**3):
    f = jax.custom_vjp(body)
    f.defvjp(lambda x: (body(x), x), lambda x, ct: (factor * x**2 * ct,))
    return f


def case(rule, x=X):
    return Case(rule, rule.fun, (x,), {}, 0, None, False)


def refusing(residuals, ct):
    raise ZeroDivisionError("never")


@pytest.mark.in_turn
def test_every_verdict_is_known_by_its_first_words():
    refuses = jax.custom_vjp(jnp.sin)
    refuses.defvjp(lambda x: (jnp.sin(x), x), refusing)
    whole = jax.custom_vjp(lambda x: x + 1)
    whole.defvjp(lambda x: (x + 1, None), lambda _, ct: (None,))
    for rule, x, waived, begins in (
        (cube(3.0), X, None, "ok"),
        (cube(3.1), X, None, "FAULT: x is scaled: larger by 1.03333"),
        (cube(3.1), X, "on purpose", "intended"),
        (refuses, X, None, "not checked: JAX cannot run it: ZeroDivisionError: never"),
        (whole, jnp.arange(3), None, "no derivative"),
    ):
        report, verdict = verdict_on(case(rule, x), TITLE, waived)
        assert verdict.startswith(begins), verdict
        assert verdict.startswith(VERDICTS)
        assert report.ok == begins.startswith(("ok", "intended"))


@pytest.mark.in_turn
def test_a_fault_is_its_finding_without_the_name():
    report = nnjax.check_vjp(cube(3.1), X)
    assert fault(report).startswith("FAULT: x is scaled")


@pytest.mark.parametrize("factor", [1.0, -2.0])
@pytest.mark.in_turn
def test_a_body_without_reverse_mode_is_compared_in_value_and_in_every_dtype(factor):
    def body(x):
        return jax.lax.while_loop(lambda c: c[0] < 2, lambda c: (c[0] + 1, jnp.sin(c[1])), (0, x))[1]

    def slope(x):
        return jnp.cos(x) * jnp.cos(jnp.sin(x))

    value, narrow = jax.custom_vjp(body), jax.custom_vjp(body)
    value.defvjp(lambda x: (factor * body(x), x), lambda x, ct: (ct * slope(x),))
    narrow.defvjp(lambda x: (body(x), x), lambda x, ct: (ct * slope(x) * (1 if x.dtype == jnp.float64 else factor),))
    for rule in (value, narrow):
        assert nnjax.audit(rule, X).ok == (factor == 1)
        assert nnjax.check_vjp(rule, X).ok == (factor == 1)


@pytest.mark.in_turn
def test_kinks_that_move_together_are_tested_one_by_one():
    def body(x):
        return jax.pure_callback(lambda x: np.maximum(x, 0), jax.ShapeDtypeStruct(x.shape, x.dtype), x)

    x = jnp.array([0.0, 0.0, 0.0, 1.0, 2.0, -1.0])
    for above, right in ((1.0, True), (1.5, False)):
        relu = jax.custom_vjp(body)
        relu.defvjp(lambda x: (body(x), x), lambda x, ct, above=above: (jnp.where(x > 0, above * ct, 0 * ct),))
        assert nnjax.audit(relu, x).ok == right


@pytest.mark.parametrize("wrong", [None, 0, 77, 149])
def test_one_wrong_entry_is_found_beside_a_kink_and_many_others(wrong):
    def body(x):
        return jax.pure_callback(lambda x: np.maximum(x, 0), jax.ShapeDtypeStruct(x.shape, x.dtype), x)

    x = jnp.linspace(1.0, 2.0, 150).at[jnp.array([40, 90])].set(0.0)
    factor = jnp.ones(150) if wrong is None else jnp.ones(150).at[wrong].set(1.02)
    relu = jax.custom_vjp(body)
    relu.defvjp(lambda x: (body(x), x), lambda x, ct: (jnp.where(x > 0, factor.astype(ct.dtype) * ct, 0 * ct),))
    report = nnjax.audit(relu, x)
    assert report.ok == (wrong is None), report


@pytest.mark.parametrize("pull", [lambda ct: ct * ct / ct, lambda ct: jnp.clip(ct, -16, 16)], ids=["nan at 0", "clipped at 16"])
@pytest.mark.in_turn
def test_a_rule_that_is_linear_only_near_1_is_a_fault(pull):
    rule = jax.custom_vjp(jnp.sin)
    rule.defvjp(lambda x: (jnp.sin(x), x), lambda x, ct: (jnp.cos(x) * pull(ct),))
    report = nnjax.check_vjp(rule, X)
    assert {row.diagnosis.kind for row in report.failures if row.transform == "jit"} == {"not_linear"}
    assert "FAULT" in nnjax.audit(rule, X).notes[0]


def test_an_audit_of_empty_arguments_proves_nothing():
    report = nnjax.audit(cube(3.0), jnp.zeros((0, 3)))
    assert not report.ok
    assert "not proved" in report.notes[0]


def test_what_does_not_run_without_jit_is_audited_with_it():
    rule = cube(3.0)
    (note,) = nnjax.audit(lambda x: jax.lax.scan(lambda c, y: (rule(c), y), x, jnp.zeros((0, 3)))[0], X).notes
    assert "ok, on drawn values" in note


@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
@pytest.mark.in_turn
def test_a_kink_is_a_convention_whatever_the_argument_is_called_and_complex_too(dtype):
    def body(output):
        return jnp.maximum(output.real, 0) + jnp.maximum(output.imag, 0)

    def bwd(output, ct):
        right, up = jnp.where(output.real > 0, ct, 0 * ct), jnp.where(output.imag > 0, ct, 0 * ct)
        return (jax.lax.complex(right, -up) if dtype == np.complex64 else right,)

    relu = jax.custom_vjp(body)
    relu.defvjp(lambda output: (body(output), output), bwd)
    (note,) = nnjax.audit(relu, np.array([0.0, 1.0, -1.0], dtype)).notes
    assert "convention" in note


@pytest.mark.slow
@pytest.mark.in_turn
def test_a_rule_for_positive_numbers_is_not_blamed_for_others_that_were_drawn():
    log = jax.custom_vjp(lambda x: jnp.log(jnp.maximum(x, 1e-6)))
    log.defvjp(lambda x: (jnp.log(jnp.maximum(x, 1e-6)), x), lambda x, ct: (ct / x,))
    (note,) = nnjax.audit(lambda x: jax.make_jaxpr(log)(x), X).notes
    assert "ok, on drawn values" in note
    negated = jax.custom_vjp(jnp.log)
    negated.defvjp(lambda x: (jnp.log(x), x), lambda x, ct: (-ct / x,))
    (note,) = nnjax.audit(lambda x: jax.make_jaxpr(negated)(x), X).notes
    assert "FAULT" in note
    assert note.endswith("on drawn values")


@pytest.mark.in_turn
def test_a_rule_that_is_wrong_only_under_vmap_is_found_there():
    def sums(ct):
        return np.cumsum(ct[::-1])[::-1].reshape(ct.shape)

    rule = jax.custom_vjp(lambda x: jnp.cumsum(x))
    rule.defvjp(lambda x: (jnp.cumsum(x), None), lambda _, ct: (jax.pure_callback(sums, ct, ct, vmap_method="broadcast_all"),))
    assert nnjax.audit(rule, X).ok
    assert "FAULT" in nnjax.audit(jax.vmap(rule), jnp.stack([X, 2 * X])).notes[0]
