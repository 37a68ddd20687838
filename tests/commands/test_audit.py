import json

import pytest

from nnjax.commands.audit import Audit

PROGRAM = """
import jax, jax.numpy as jnp

def right():
    return jax.nn.relu(jnp.array([-1.0, 2.0]))

def nothing():
    return jnp.ones(3)

def wants(x):
    return x
"""


def test_audit_runs_a_function_by_name(capsys, monkeypatch, tmp_path):
    (tmp_path / "a_program.py").write_text(PROGRAM)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert Audit("a_program:right", tmp_path / "audit.json").run() == 0
    assert "relu" in capsys.readouterr().out
    assert json.loads((tmp_path / "audit.json").read_text())["ok"]
    assert Audit("a_program:nothing").run() == 1
    for target, message in (
        ("a_program", "expected module:function, got 'a_program'"),
        ("a_program:jax", "a_program:jax is no function but module"),
        (
            "a_program:wants",
            r"a_program:wants takes arguments \(missing a required argument: 'x'\); name a function that calls",
        ),
        ("a_program:wrong", "module a_program has no function 'wrong'"),
        ("no_program:f", "No module named 'no_program'"),
    ):
        with pytest.raises(ValueError, match=message):
            Audit(target).run()
