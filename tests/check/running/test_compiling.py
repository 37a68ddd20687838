import os
import subprocess
import sys

import jax
import pytest

from nnjax.check.running.compiling import FLAGS, compiled_lightly


def passed(flag: str) -> int:
    """How often the flag is among those that XLA will read."""
    return os.environ.get("XLA_FLAGS", "").count(flag)


@pytest.mark.parametrize("before", [None, "--xla_cpu_enable_fast_math=false"])
def test_settings_and_flags_are_left_as_they_were(monkeypatch, before):
    jax.config.update("jax_disable_most_optimizations", False)
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    if before:
        monkeypatch.setenv("XLA_FLAGS", before)
    with compiled_lightly():
        assert jax.config.read("jax_disable_most_optimizations")
        once = {flag: passed(flag) for flag in FLAGS}
        assert once == {flag: int(jax.__version__.startswith(versions)) for flag, versions in FLAGS.items()}
        assert (before or "") in os.environ.get("XLA_FLAGS", "")
        with compiled_lightly():
            assert {flag: passed(flag) for flag in FLAGS} == once
    assert os.environ.get("XLA_FLAGS") == before
    assert not jax.config.read("jax_disable_most_optimizations")


def test_a_flag_of_the_users_own_stays(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_parallel_codegen_split_count=4")
    with compiled_lightly():
        assert passed("codegen_split_count") == passed("codegen_split_count=4") == 1


@pytest.mark.in_turn
def test_a_fresh_process_takes_the_flags_and_computes():
    program = """
from nnjax.check.running.compiling import compiled_lightly
with compiled_lightly():
    import jax
    print(float(jax.jit(lambda x: jax.numpy.tanh(x).sum() + x.sum())(jax.numpy.ones(3))))
"""
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    assert float(done.stdout) == pytest.approx(5.28478, abs=1e-4)
