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
    out = capsys.readouterr().out
    assert "relu" in out
    assert "--search" in out.splitlines()[-1]  # a rule that is right here may be wrong elsewhere
    assert json.loads((tmp_path / "audit.json").read_text())["ok"]
    assert Audit("a_program:nothing").run() == 1
    for target, message in (
        ("a_program:", "expected module:function, got 'a_program:'"),
        ("a_program:jax", "a_program:jax must be a function .* got module"),
        (
            "a_program:wants",
            r"a_program:wants takes arguments \(missing a required argument: 'x'\); name a function that calls",
        ),
        ("a_program:wrong", "module a_program has no function 'wrong'"),
        ("no_program", "No module named 'no_program'"),
        ("no_program:f", "No module named 'no_program'"),
    ):
        with pytest.raises(ValueError, match=message):
            Audit(target).run()


def test_audit_lists_the_rules_of_a_package_and_which_were_never_reached(capsys, monkeypatch, tmp_path):
    text = "import jax\n\n@jax.custom_jvp\ndef one(x):\n    return x\n\nother = jax.custom_vjp(lambda x: x)\n"
    (tmp_path / "a_package.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert Audit("a_package").run() == 0
    said = capsys.readouterr().out
    assert "one (a_package.py:3)\n" in said
    assert "2 custom rules in a_package\n" in said
    report = tmp_path / "found.json"
    report.write_text(json.dumps({"rules": [{"defined": f"{tmp_path}/a_package.py:3", "verdict": "FAULT: x is wrong"}]}))
    assert Audit("a_package", tmp_path / "listed.json", report).run() == 1
    said = capsys.readouterr().out
    assert "one (a_package.py:3): FAULT: x is wrong\n" in said
    assert "<lambda> (a_package.py:7): never reached\n" in said
    assert "2 custom rules in a_package, 1 FAULT, 1 never reached\n" in said
    assert len(json.loads((tmp_path / "listed.json").read_text())["rules"]) == 2
    report.write_text("[]")
    with pytest.raises(ValueError, match="not the report of a test suite"):
        Audit("a_package", None, report).run()
    with pytest.raises(ValueError, match="--reached is for a package"):
        Audit("a_package:one", None, report).run()


def test_a_module_that_cannot_be_imported_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, text in (
        ("a_syntax", "def f(:\n"),
        ("an_exit", "import sys\nsys.exit(3)\n"),
        ("a_lack", "import jax\njax.nope\n"),
    ):
        (tmp_path / f"{name}.py").write_text(text)
    for target, message in (
        ("./a_syntax.py:f", "expected module:function"),
        ("a_syntax:f", "a_syntax cannot be imported here: SyntaxError"),
        ("an_exit:f", "an_exit cannot be imported here: SystemExit"),
        ("an_exit", "an_exit cannot be imported here: SystemExit"),
        ("a_lack:f", "a_lack cannot be imported here: AttributeError.*nope"),
    ):
        with pytest.raises(ValueError, match=message):
            Audit(target).run()


def test_a_source_is_read_in_the_encoding_that_it_declares(capsys, monkeypatch, tmp_path):
    text = "# -*- coding: latin-1 -*-\nimport jax\n\n@jax.custom_jvp\ndef caf\xe9(x):\n    return x\n"
    (tmp_path / "a_latin.py").write_bytes(text.encode("latin-1"))
    monkeypatch.syspath_prepend(str(tmp_path))
    assert Audit("a_latin").run() == 0
    assert "caf\xe9 (" in capsys.readouterr().out
