"""Nothing ends a check: an error is a row, a note or an omission, and numbers that are not finite prove nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax


def raising(error, when=lambda x: True, factor=1):
    """sin, with a rule that raises this if `when` holds for its residual."""
    f = jax.custom_vjp(jnp.sin)

    def bwd(x, ct):
        if when(x):
            raise error
        return (factor * ct * jnp.cos(x),)

    f.defvjp(lambda x: (jnp.sin(x), x), bwd)
    return f


@pytest.mark.parametrize(
    "error",
    [NotImplementedError("no such kernel"), KeyError("bfloat16"), RuntimeError(""), AssertionError("never"), StopIteration(),
     RecursionError("deep"), jax.errors.JaxRuntimeError("INTERNAL: it broke\nsecond line"), AttributeError("no inv")],
    ids=lambda e: type(e).__name__,
)  # fmt: skip
@pytest.mark.repeats
@pytest.mark.in_turn
def test_whatever_a_rule_raises_in_a_dtype_is_a_row(error):
    rule = raising(error, lambda x: x.dtype == jnp.bfloat16)
    report = nnjax.check_vjp(rule, jnp.linspace(-1.0, 1.0, 5))
    assert {(row.dtype, row.leaf, row.diagnosis.kind) for row in report.failures} == {("bfloat16", "cotangents", "unknown")}
    assert {row.dtype for row in report.rows if row.ok} == {"float64", "float32", "float16"}
    assert type(error).__name__ in str(report)
    assert str(report).count("\n    unknown: JAX cannot run it") == 1
    assert not report.missing


@pytest.mark.parametrize("word", ["Batch", "JVP"])
def test_whatever_a_rule_raises_under_a_transform_is_a_row(word):
    rule = raising(NotImplementedError("not here"), lambda x: word in type(x).__name__)
    report = nnjax.check_vjp(rule, jnp.linspace(-1.0, 1.0, 5), dtypes=["float64", "float32"])
    assert {row.transform for row in report.failures} == {{"Batch": "vmap", "JVP": "second"}[word]}
    assert {row.witness for row in report.rows if row.ok} == {"reference", "adjoint", "taylor"}
    assert "NotImplementedError: not here" in str(report)


@pytest.mark.in_turn
def test_an_inverse_only_in_the_rule_fails_where_its_body_runs():
    f = jax.custom_vjp(lambda x: x @ x)
    f.defvjp(lambda x: (x @ x, x), lambda x, g: (g @ jnp.linalg.inv(jnp.linalg.inv(x)).T + x.T @ g,))
    report = nnjax.check_vjp(f, jax.random.normal(jax.random.key(0), (4, 4)) + 4 * jnp.eye(4), transforms=["eager", "jit"])
    assert {row.dtype for row in report.failures} == {"bfloat16", "float16"}
    assert all("bfloat16" in row.diagnosis.detail or "float16" in row.diagnosis.detail for row in report.failures)


@pytest.mark.parametrize("factor", [1.0, 1.01])
def test_a_transform_that_the_definition_does_not_support_is_a_note(factor):
    def body(x):
        return jnp.sin(x) * jax.pure_callback(np.ones_like, jax.ShapeDtypeStruct(x.shape, x.dtype), jax.lax.stop_gradient(x))

    f = jax.custom_vjp(body)
    f.defvjp(lambda x: (body(x), x), lambda x, ct: (factor * ct * jnp.cos(x),))
    report = nnjax.check_vjp(f, jnp.linspace(-1.0, 1.0, 5), dtypes=["float32"], transforms=["jit", "vmap"])
    assert report.ok == (factor == 1), report
    assert {row.transform for row in report.rows} == {"jit"}
    assert any("not compared under vmap in float32, as its definition cannot run there" in note for note in report.notes)
    alone = nnjax.check_vjp(f, jnp.linspace(-1.0, 1.0, 5), dtypes=["float32"], transforms=["vmap"])
    assert not alone.ok
    assert "any leaf, as its definition runs under none of the transforms" in str(alone)


def test_a_definition_that_runs_nowhere_ends_in_a_report():
    def body(x):
        raise ZeroDivisionError("never")

    f = raising(KeyError("a"))
    report = nnjax.check_vjp(f, jnp.ones(3), reference=body)
    assert not report.ok
    assert report.rows == ()
    assert [line.partition(": ")[2] for line in report.missing] == [
        f"{d}, in which the definition does not run: ZeroDivisionError: never" for d in ("float64", "float32")
    ]


@pytest.mark.parametrize("at", [1e6, -1e6])
@pytest.mark.parametrize("factor", [5.0, 1.0])
def test_a_rule_that_was_compared_with_nothing_finite_is_not_ok(at, factor):
    f = jax.custom_vjp(lambda x: jnp.exp(jnp.abs(x)))
    f.defvjp(lambda x: (jnp.exp(jnp.abs(x)), x), lambda x, ct: (ct * factor,))
    report = nnjax.check_vjp(f, jnp.full(4, at), transforms=["jit"])
    assert not report.ok
    assert "x in 4 of 4 entries, where the reference is not finite and proves nothing" in str(report)
    assert {row.status for row in report.rows if row.leaf == "x" and row.witness == "reference"} == {"vacuous"}
    assert {row.skipped for row in report.rows if row.leaf == "output"} == {0}  # infinite, as the definition says


def test_entries_that_are_not_finite_only_in_a_narrow_dtype_are_compared_in_a_wider_one():
    f = jax.custom_vjp(lambda x: jnp.exp(x))
    f.defvjp(lambda x: (jnp.exp(x), jnp.exp(x)), lambda y, ct: (ct * y,))
    x = jnp.array([0.5, 1.0, 100.0])
    report = nnjax.check_vjp(f, x, transforms=["jit"]).raise_if_failed()
    assert {row.dtype: row.skipped for row in report.rows if row.leaf == "x" and row.witness == "reference"} == {
        "float64": 0, "float32": 1, "bfloat16": 1, "float16": 1,
    }  # fmt: skip
    narrow = nnjax.check_vjp(f, x, transforms=["jit"], dtypes=["float32"])
    assert not narrow.ok
    assert "x in 1 of 3 entries" in str(narrow)


@pytest.mark.in_turn
def test_the_gradient_of_a_norm_at_zero_proves_nothing():
    def norm(x):
        return jnp.sqrt(jnp.sum(x * x))

    f = jax.custom_vjp(norm)
    f.defvjp(lambda x: (norm(x), x), lambda x, ct: (jnp.full_like(x, 17.0) * ct,))
    report = nnjax.check_vjp(f, jnp.zeros(3), witnesses=())
    assert not report.ok
    assert "x in 3 of 3 entries" in str(report)


def test_a_value_that_is_nan_by_definition_is_compared():
    def mean(x):
        return jnp.sum(x) / jnp.asarray(x.size, x.dtype) + 0 * jnp.asarray(jnp.nan, x.dtype)

    for value, ok in ((mean, True), (lambda x: jnp.sum(x), False)):
        report = nnjax.check_pair(lambda x, f=value: (f(x), x), lambda x, ct: (ct / 3 * jnp.ones_like(x),), jnp.ones(3),
                                  reference=mean, transforms=["jit"], witnesses=())  # fmt: skip
        assert report.ok == ok, report
    assert "output in 1 of 1 entries" in str(report)
