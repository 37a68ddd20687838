"""`pytest --vjp-audit` in a throw-away project."""

import json
from functools import partial

import pytest

TESTS = """
import jax, jax.numpy as jnp, pytest

def sine(factor):
    @jax.custom_vjp
    def sine(x):
        return jnp.sin(x)
    sine.defvjp(lambda x: (jnp.sin(x), x), lambda x, ct: (factor * jnp.cos(x) * ct,))
    return sine

@jax.custom_jvp
def log(x):
    return jnp.log(x)
log.defjvp(lambda p, t: (log(*p), t[0] / p[0]))

@pytest.mark.parametrize("n", range(4))
def test_wrong_but_not_seen(n):
    assert jax.jit(jax.grad(lambda x: sine(1.01)(x).sum()))(jnp.ones(3 + n)).shape == (3 + n,)

def test_of_traced_values_alone():
    jax.jit(log)(jnp.ones(3))

def test_a_rule_that_closes_over_what_is_traced():
    def scaled(a):
        times = jax.custom_jvp(lambda x: x * a)
        times.defjvp(lambda p, t: (times(*p), a * t[0]))
        return times(jnp.ones(3))
    jax.jit(scaled)(2.0)

def test_an_argument_that_is_given_away():
    x = jnp.ones(4)
    jax.nn.relu(x)
    x.delete()
"""
PACKAGE = """
import jax, jax.numpy as jnp

@jax.custom_jvp
def seldom(x):
    return x
"""


@pytest.fixture
def project(run_tests_in, tmp_path):
    (tmp_path / "test_mine.py").write_text(TESTS)
    (tmp_path / "mine.py").write_text(PACKAGE)
    return partial(run_tests_in, tmp_path)


@pytest.mark.parametrize("workers", [pytest.param("0"), pytest.param("2", marks=pytest.mark.slow)])
@pytest.mark.in_turn
def test_a_suite_that_passes_ends_with_a_table_of_its_rules(project, tmp_path, workers):
    code, out = project("-n", workers, "--vjp-audit", "--vjp-audit-report", "found.json", "--vjp-audit-package", "mine")
    assert code == 0, out
    found = {rule["name"]: rule for rule in json.loads((tmp_path / "found.json").read_text())["rules"]}
    assert found["sine"]["calls"] == 4
    assert found["sine"]["verdict"].startswith("FAULT: x is scaled: larger by 1.01")
    assert found["log"]["verdict"] == "ok, on drawn values"
    assert found["<lambda>"]["verdict"].startswith("not checked: it closes over values that were being traced")
    assert found["relu"]["verdict"].startswith("ok")
    table = out.split("custom rules (nnjax)")[1]
    assert "sine (test_mine.py:8): 4 calls, FAULT" in table
    assert "seldom (mine.py:4): never reached" in table
    assert "4 rules checked in" in table
    assert "1 at fault, 1 not settled" in table


@pytest.mark.slow
@pytest.mark.in_turn
def test_a_suite_fails_only_with_the_strict_option(project):
    code, out = project("--vjp-audit", "--vjp-audit-strict", "-k", "wrong")
    assert code == 1, out
    assert "4 passed" in out


@pytest.mark.slow
@pytest.mark.in_turn
def test_options_of_the_audit_need_it_and_files_need_a_folder(project):
    for options, word in (
        (["--vjp-audit-strict"], "needs --vjp-audit"),
        (["--vjp-audit", "--vjp-audit-report", "no/such/folder.json"], "does not exist"),
    ):
        code, out = project(*options)
        assert code != 0
        assert word in out
        assert "Traceback" not in out
    code, out = project("--vjp-audit", "-k", "traced", "--vjp-audit-seconds", "0")
    assert code == 0
    assert "--vjp-audit-seconds" in out
