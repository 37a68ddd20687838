import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax

X = jnp.asarray(np.random.default_rng(0).standard_normal((6, 5)), jnp.float32)


def rule(bwd):
    @jax.custom_vjp
    def f(x):
        return jnp.sin(x)

    f.defvjp(lambda x: (jnp.sin(x), x), lambda x, ct: (bwd(x, ct),))
    return f


def rows(f, reference=jnp.sin, seed=0):
    report = nnjax.check_vjp(
        f, X, reference=reference, witnesses=["adjoint"], transforms=["jit"], dtypes=["float64"], seed=seed
    )
    return report, [row for row in report.rows if row.witness == "adjoint"]


@pytest.mark.in_turn
def test_the_identity_holds_for_a_right_rule_and_not_for_a_wrong_one():
    for seed in range(3):
        assert all(row.ok for row in rows(rule(lambda x, ct: jnp.cos(x) * ct), seed=seed)[1])
        for wrong in (lambda x, ct: -jnp.cos(x) * ct, lambda x, ct: 1.001 * jnp.cos(x) * ct, lambda x, ct: ct):
            (row,) = rows(rule(wrong), seed=seed)[1]
            assert not row.ok
            assert row.diagnosis is not None
            assert "<ct, J v>" in row.diagnosis.detail


def test_a_definition_without_forward_mode_is_noted_and_not_a_failure():
    f = rule(lambda x, ct: jnp.cos(x) * ct)
    report, found = rows(f, reference=lambda x: f(x))
    assert found == []
    assert any("there is no forward mode" in note for note in report.notes)
    assert report.ok
