import sys

import pytest

from nnjax.check.auditing.named import function_named


@pytest.fixture
def module(tmp_path, monkeypatch):
    text = "def f():\n    return 7\n\ndef needs(x):\n    return x\n\nvalue = 3\n"
    tmp_path.joinpath("module_of_someone.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield "module_of_someone"
    sys.modules.pop("module_of_someone", None)


def test_a_function_is_found_where_the_command_runs(module):
    assert function_named("bench", f"{module}:f")() == 7


@pytest.mark.parametrize(
    ("rest", "said"),
    [
        (":g", "has no function 'g'"),
        (":value", "must be a function"),
        (":needs", "takes arguments"),
        ("", "expected module:function"),
    ],
)
def test_anything_but_a_function_without_arguments_is_refused(module, rest, said):
    with pytest.raises(ValueError, match=f"bench: .*{said}"):
        function_named("bench", f"{module}{rest}")


def test_a_module_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="run it where `import no_such_module` works"):
        function_named("audit", "no_such_module:f")
