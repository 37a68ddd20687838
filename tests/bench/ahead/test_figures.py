import jax
import jax.numpy as jnp

from nnjax.bench.ahead.figures import figures
from nnjax.bench.ahead.targets import Target

HERE = Target("here", "cpu", tuple(jax.devices("cpu")[:1]))


def test_the_figures_are_those_of_the_compiled_program():
    found = figures(HERE, lambda x: jnp.tanh(x @ x).sum(), (jnp.ones((16, 16)),))
    assert found.argument_bytes == 4 * 16 * 16
    assert found.temp_bytes >= 4 * 16 * 16
    assert found.flops is not None
    assert found.flops >= 2 * 16**3
    assert found.launches is None  # only on a GPU
    assert found.compile_seconds > 0


def test_what_a_kernel_reads_is_unknown(monkeypatch):
    known = Target.compile

    class Program:
        def __init__(self, program):
            self.program = program

        def __getattr__(self, name):
            return getattr(self.program, name)

        def as_text(self):
            return self.program.as_text() + ' custom_call_target="tpu_custom_call"'

    monkeypatch.setattr(Target, "compile", lambda self, f, args: Program(known(self, f, args)))
    found = figures(HERE, jnp.sin, (jnp.ones(4),))
    assert (found.flops, found.bytes) == (None, None)
    assert found.argument_bytes == 16


def test_a_gpus_launches_are_counted(monkeypatch):
    class Program:
        def as_text(self):
            return "HloModule m\n\nENTRY %main (x: f32[4]) -> f32[4] {\n  ROOT %f = f32[4]{0} fusion(%x), calls=%g\n}\n"

        def memory_analysis(self):
            return type("Memory", (), {"temp_size_in_bytes": 3, "argument_size_in_bytes": 4})

        def cost_analysis(self):
            return None

    monkeypatch.setattr(Target, "compile", lambda self, f, args: Program())
    found = figures(Target("h100", "cuda", ()), None, ())
    assert found[:5] == (1, 3, 4, None, None)
