from functools import partial

import pytest

TESTS = """
import jax, jax.numpy as jnp

def sine(factor):
    @jax.custom_vjp
    def f(x):
        return jnp.sin(x)
    f.defvjp(lambda x: (jnp.sin(x), x), lambda x, ct: (factor * jnp.cos(x) * ct,))
    return f

def test_right(assert_vjp):
    report = assert_vjp(sine(1.0), jnp.linspace(-1.0, 1.0, 7))
    print("dtypes", sorted({row.dtype for row in report.rows}))

def test_wrong(assert_vjp):
    assert_vjp(sine(1.01), jnp.linspace(-1.0, 1.0, 7))
"""


@pytest.fixture
def project(run_tests_in, tmp_path):
    """A temporary project: one test file, and only an installed nnjax."""
    (tmp_path / "test_mine.py").write_text(TESTS)
    return partial(run_tests_in, tmp_path, "-s")


@pytest.mark.in_turn
def test_a_right_rule_passes_a_wrong_one_fails_with_the_whole_report(project):
    code, out = project("--vjp-dtypes", "float64,float32", "--vjp-devices", "cpu", "--vjp-seed", "3")
    assert code == 1
    assert "1 failed, 1 passed" in out
    assert "dtypes ['float32', 'float64']" in out
    assert "f: x [float64 eager cpu, reference]" in out
    told = out.split("short test summary")[0]  # which repeats the whole message if CI is set
    assert told.count("scaled: larger by 1.01\n") == 1
    assert "likewise: float64 jit vmap scan checkpoint second, float32 eager jit vmap scan checkpoint second\n" in out
    assert "pytest_plugin.py" not in out.split("FAILURES")[1]


@pytest.mark.slow
@pytest.mark.in_turn
def test_bad_options_are_refused(project):
    code, out = project("--vjp-dtypes", "float23")
    assert code != 0
    assert "did you mean 'float32'?" in out
    code, out = project("--vjp-devices", "tpu", "-k", "right")
    assert code != 0
    assert "--vjp-devices" in out
