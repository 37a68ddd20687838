import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.bench.rule import costs

X = np.random.default_rng(0).standard_normal((64, 32)).astype(np.float32)


def kept(*arrays):
    """sum(sin(x)) with a rule that keeps these many arrays of the size of x."""
    f = jax.custom_vjp(lambda x: jnp.sin(x).sum())
    f.defvjp(lambda x: (jnp.sin(x).sum(), [jnp.cos(x) * n for n in arrays]), lambda residuals, ct: (ct * residuals[0],))
    return f


def test_bytes_of_residuals_are_those_that_are_kept():
    for n in (1, 3):
        found = nnjax.cost(kept(*range(1, n + 1)), X, budget_seconds=0.05)
        assert found.rule.residual_bytes == n * X.nbytes
    assert found.definition is not None
    assert found.definition.residual_bytes == X.nbytes  # the cosine
    assert found.rule.flops > 0
    assert found.rule.milliseconds > 0
    assert found.time_ratio > 0


def test_an_argument_that_is_kept_does_not_count_as_a_residual():
    f = jax.custom_vjp(lambda x: jnp.sin(x).sum())
    f.defvjp(lambda x: (jnp.sin(x).sum(), (x, x)), lambda residuals, ct: (ct * jnp.cos(residuals[0]),))
    found = nnjax.cost(f, X, budget_seconds=0.05)
    assert found.rule.residual_bytes == 0
    assert nnjax.cost(lambda x: f(x), X, reference=lambda x: jnp.sin(x).sum(), budget_seconds=0.05).rule.residual_bytes == 0


def test_a_figure_for_each_side_and_their_ratio_is_printed():
    lines = str(nnjax.cost(kept(1, 2), X, budget_seconds=0.05)).splitlines()
    assert lines[0].split() == ["<lambda>", "rule", "definition", "ratio"]
    assert lines[1].split() == ["residual", "bytes", "16,384", "8,192", "2.000"]
    assert [line.split()[0] for line in lines[2:]] == ["temporary", "flops", "milliseconds"]


def test_a_definition_without_reverse_mode_is_reported():
    def newton(a):
        return jax.lax.while_loop(lambda x: jnp.abs(x * x - a) > 1e-6 * a, lambda x: 0.5 * (x + a / x), a)

    f = jax.custom_jvp(newton)
    f.defjvp(lambda p, t: (f(*p), t[0] / (2 * f(*p))))
    found = nnjax.cost(f, jnp.float32(2.0), budget_seconds=0.05)
    assert found.definition is None
    assert "Reverse-mode" in str(found)
    assert found.to_dict()["definition"] is None


def test_static_arguments_are_not_measured():
    f = jax.custom_vjp(lambda x, n: x**n, nondiff_argnums=(1,))
    f.defvjp(lambda x, n: (x**n, x), lambda n, x, ct: (ct * n * x ** (n - 1),))
    assert nnjax.cost(f, X, 3, budget_seconds=0.05).rule.residual_bytes == 0


def test_every_rule_of_a_program_is_measured():
    found = {}
    x = jnp.asarray(X)
    assert costs(lambda: jax.jit(kept(1))(jax.nn.relu(x)), 0.05, lambda title, cost: found.update({title.name: cost})) == 2
    assert set(found) == {"relu", "<lambda>"}
    assert all(isinstance(cost, nnjax.Cost) for cost in found.values())


def test_what_cannot_be_measured_is_refused():
    for call, kind, word in (
        (lambda: nnjax.cost(3, X), TypeError, "rule must be a function"),
        (lambda: nnjax.cost(jnp.sin, X), TypeError, "pass reference="),
        (lambda: nnjax.cost(kept(1)), TypeError, "cannot be called"),
        (lambda: nnjax.cost(kept(1), X, budget_seconds=0), ValueError, "must be positive"),
        (lambda: nnjax.cost(kept(1), np.int32([1])), TypeError, "floating point"),
    ):
        with pytest.raises(kind, match=word):
            call()
