import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax

X = jnp.asarray(np.random.default_rng(0).standard_normal((6, 5)), jnp.float32)


def rows(f, *args, reference, **options):
    report = nnjax.check_vjp(
        f, *args, reference=reference, witnesses=["taylor"], transforms=["jit"], dtypes=["float64"], **options
    )
    return {row.leaf: row for row in report.rows if row.witness == "taylor"}


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x @ x.T,
        lambda x: 3 * x,
        jnp.sin,
        lambda x: jnp.where(x > 0, x, 0),
        lambda x: x**3,
        lambda x: jnp.exp(3 * x),
        lambda x: jnp.sort(x.ravel()),
        lambda x: jnp.log(jnp.abs(x) + 1e-3),
        jax.nn.softmax,
        lambda x: jnp.zeros_like(x) + x.sum() * 0,
    ],
)
@pytest.mark.repeats
@pytest.mark.in_turn
def test_right_gradients_pass_at_kinks_zeros_and_saturation_too(f):
    for x in (X, jnp.zeros((6, 5)), 30 * X, 1e-6 * X):
        for seed in range(2):
            assert rows(f, x, reference=f, seed=seed)["x"].ok


@pytest.mark.parametrize("factor", [1.0001, 0.999, -1.0, 0.0, 2.0])
def test_wrong_gradients_fail(factor):
    @jax.custom_jvp
    def f(x):
        return jnp.sin(x)

    f.defjvp(lambda x, dx: (jnp.sin(x[0]), factor * jnp.cos(x[0]) * dx[0]))
    assert not rows(f, X, reference=jnp.sin)["x"].ok


@pytest.mark.in_turn
def test_a_wrong_reference_is_caught_though_the_rule_agrees_with_it():
    @jax.custom_jvp
    def f(x):
        return jnp.sin(x)

    f.defjvp(lambda x, dx: (jnp.sin(x[0]), 1.01 * jnp.cos(x[0]) * dx[0]))
    report = nnjax.check_vjp(f, X, reference=f)
    assert {row.witness for row in report.failures} == {"taylor"}
    assert "is not the derivative of the value" in str(report)
