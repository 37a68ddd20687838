import importlib

import pytest

from nnjax.check.auditing.package import never_reached, rules_in
from nnjax.check.auditing.rules import defined_at

SOURCES = {
    "__init__": "import jax\n",
    "decorated": """
import functools
import jax
from jax import custom_jvp

@jax.custom_vjp
def plain(x):
    return x

@functools.partial(custom_jvp, nondiff_argnums=(1,))
@functools.partial(jax.jit)
def partly(x, n):
    return x

def made(x):
    @jax.custom_gradient
    def inside(x):
        return x, lambda ct: ct
    return inside(x)
""",
    "called": """
import jax

def body(x):
    return x

rule = jax.custom_vjp(body)
other = jax.custom_jvp(lambda x: x)
names = [jax.custom_vjp]
""",
    "broken": "import no_such_module\n",
    "__main__": "raise SystemExit\n",
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    (tmp_path / "some_rules").mkdir()
    for name, text in SOURCES.items():
        (tmp_path / "some_rules" / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "some_rules"


def test_every_rule_of_a_package_is_listed_where_its_function_stands(package):
    found, failed = rules_in("some_rules")
    at = [(rule.name, rule.defined.removeprefix(f"{package}/")) for rule in found]
    assert at == [
        ("body", "called.py:4"), ("<lambda>", "called.py:8"), ("plain", "decorated.py:6"), ("partly", "decorated.py:10"),
        ("inside", "decorated.py:16"),
    ]  # fmt: skip
    assert len(failed) == 1
    assert failed[0].startswith("some_rules.broken: ModuleNotFoundError")
    assert [rule.name for rule in never_reached("some_rules", {rule.defined for rule in found[1:]})] == ["body"]


def test_a_place_is_the_one_that_an_audit_gives(package):
    decorated, called = (importlib.import_module(f"some_rules.{name}") for name in ("decorated", "called"))
    listed = {rule.defined for rule in rules_in("some_rules")[0]}
    for rule in (decorated.plain, decorated.partly, called.rule, called.other):
        assert defined_at(rule) in listed


def test_what_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"no_such_package.*install"):
        rules_in("no_such_package")


def test_a_package_that_cannot_be_imported_is_a_sentence(package):
    with pytest.raises(ValueError, match=r"no_such_module"):
        rules_in("some_rules.broken")
    (package.parent / "worse_rules.py").write_text("1 / 0\n")
    importlib.invalidate_caches()
    with pytest.raises(ValueError, match=r"worse_rules cannot be imported here: ZeroDivisionError"):
        rules_in("worse_rules")


def test_a_rule_has_one_place_whatever_path_its_module_was_imported_by(tmp_path):
    (tmp_path / "suite").mkdir()
    found = []
    for path in (tmp_path / "own.py", tmp_path / "suite" / ".." / "own.py"):
        namespace: dict = {}
        exec(compile("import jax\nrule = jax.custom_vjp(lambda x: x)\n", str(path), "exec"), namespace)
        found.append(defined_at(namespace["rule"]))
    assert found[0] == found[1] == f"{(tmp_path / 'own.py').resolve()}:2"
