"""The order of the floors: no file imports upward or in a circle; and files with a `bwd` have no automatic differentiation."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import nnjax

ROOT = Path(nnjax.__file__).parent
FLOORS = [
    {"errors", "nielsen", "linear"},
    {"trees", "feedback", "draw", "data"},
    {"layer", "fast"},
    {"auxiliary", "combinators", "leaf"},
    {"chunks", "layers"},
    {"losses"},
    {"models", "ops"},
    {"grad", "cases"},
    {"direct"},
    {"check"},
    {"train", "exercises"},
    {"distributed"},
    {"bench"},
    {"reproduce"},
    {"commands"},
    {"cli"},
]
AUTODIFF = {
    "grad",
    "value_and_grad",
    "vjp",
    "jvp",
    "linearize",
    "linear_transpose",
    "jacobian",
    "jacfwd",
    "jacrev",
    "hessian",
}
MOST_FILES, MOST_LINES = 16, 300


def floor(name: str) -> int:
    return next(i for i, names in enumerate(FLOORS) if name in names)


FILES = sorted(ROOT.rglob("*.py"))


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def imported(path: Path, inside_functions: bool = True) -> set[str]:
    """Everything of nnjax that a file imports, as `layers.dense`, with names inside a module appended."""
    package = path.relative_to(ROOT).parent.parts
    found = set()
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree) if inside_functions else tree.body:
        if isinstance(node, ast.ImportFrom):
            if node.level:
                target = [*package[: len(package) - (node.level - 1)], *(node.module or "").split(".")]
            elif (node.module or "").split(".")[0] == "nnjax":
                target = (node.module or "").split(".")[1:]
            else:
                continue
            base = ".".join(t for t in target if t)
            found |= {f"{base}.{alias.name}".strip(".") for alias in node.names}
    return found


def first_names(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(path)}


@pytest.mark.parametrize("path", [p for p in FILES if p.parent != ROOT or p.name != "__init__.py"], ids=named)
def test_no_file_imports_upward(path):
    own = path.relative_to(ROOT).parts[0].removesuffix(".py")
    for name in first_names(path):
        assert floor(name) < floor(own) or name == own, f"{path} imports {name}"


def circles(edges: dict[str, set[str]]) -> list[str]:
    """The modules that reach themselves."""
    reached = {}
    for start in edges:
        seen, todo = set(), list(edges[start])
        while todo:
            at = todo.pop()
            if at not in seen:
                seen.add(at)
                todo += edges.get(at, ())
        reached[start] = seen
    return sorted(m for m in edges if m in reached[m])


def test_no_two_files_import_each_other():
    modules = {module(p) for p in FILES}
    edges = {}
    for path in FILES:
        if path.name != "__init__.py":
            parents = {n.rsplit(".", 1)[0] for n in imported(path, inside_functions=False)}
            edges[module(path)] = (imported(path, inside_functions=False) | parents) & modules
    assert circles(edges) == []
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]


def has_a_bwd(path: Path) -> bool:
    """Whether a file defines a backward, or composes layers that do."""
    own = path.relative_to(ROOT).parts[0].removesuffix(".py")
    defined = [node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
    by_hand = any(name == "bwd" or name.endswith(("_bwd", "_t")) for name in defined)
    return own in ("nielsen", "models") or (by_hand and own != "check")


HAND_WRITTEN = [p for p in FILES if has_a_bwd(p)]


def test_the_hand_written_files_are_found():
    found = {named(p) for p in HAND_WRITTEN}
    assert {"linear.py", "combinators/compose.py", "layers/dense.py", "losses/fused.py", "distributed/collectives.py"} <= found


@pytest.mark.parametrize("path", HAND_WRITTEN, ids=named)
def test_hand_written_files_contain_no_autodiff(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            assert not (node.attr in AUTODIFF and isinstance(node.value, ast.Name) and node.value.id in ("jax", "api")), (
                node.attr
            )
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "jax":
            assert not AUTODIFF & {alias.name for alias in node.names}


def test_the_test_of_imports_sees_an_upward_import():
    assert "grad" in first_names(ROOT / "train" / "step.py")
    assert "layer" in first_names(ROOT / "layers" / "dense.py")


def test_no_folder_is_too_full_and_no_file_too_long():
    for folder in {p.parent for p in FILES}:
        assert len(list(folder.iterdir())) - (folder / "__pycache__").exists() <= MOST_FILES + sum(
            p.is_dir() and p.name != "__pycache__" for p in folder.iterdir()
        ), folder
    long = {named(p): n for p in FILES if (n := len(p.read_text().splitlines())) > MOST_LINES}
    assert set(long) <= {"nielsen.py", "layers/activation.py"}, long


def test_importing_initialises_no_backend_sets_no_flag_and_stays_light():
    code = (
        "import jax, sys; before = dict(jax.config.values); import nnjax; "
        "assert dict(jax.config.values) == before, 'a flag was set'; "
        "from jax._src import xla_bridge; assert not xla_bridge.backends_are_initialized(), 'a backend started'; "
        "heavy = {'rich', 'tyro', 'pooch', 'matplotlib', 'pytest'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT.parent)


def test_every_module_has_a_test_of_its_own_name():
    tests = Path(__file__).parent
    for path in FILES:
        if path.name not in ("__init__.py", "__main__.py", "pytest_plugin.py"):
            relative = path.relative_to(ROOT)
            assert (tests / relative.parent / f"test_{relative.name}").exists(), f"{relative} has no test"


def resolves(name: str) -> bool:
    """Whether a dotted name is a module, or an attribute of one."""
    parts = name.split(".")
    for n in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:n]))
        except ImportError:
            continue
        for part in parts[n:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


REPOSITORY = Path(__file__).parent.parent
TESTS = sorted(p for p in Path(__file__).parent.rglob("*.py") if p != Path(__file__))  # some run programs that they write
NOTEBOOKS = REPOSITORY / "notebooks"
WORDS = [*FILES, *TESTS, REPOSITORY / "README.md", *sorted(NOTEBOOKS.glob("*.ipynb")), *sorted(NOTEBOOKS.rglob("*.md"))]


@pytest.mark.parametrize("path", WORDS, ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_every_name_of_nnjax_that_is_written_down_is_there(path):
    text = path.read_text()
    names = set(re.findall(r"(?<![\w./-])nnjax(?:\.[A-Za-z_]\w*)+", text))
    names |= {f"{m}.{n}" for m, n in re.findall(r"from (nnjax(?:\.\w+)*) import (\w+)", text)}
    assert [name for name in sorted(names) if not resolves(name)] == []


def test_a_name_that_has_moved_is_seen():
    assert resolves("nnjax.layers.dense.dense_bwd")
    assert not resolves("nnjax.check.oracle")


def generators_called_for_nothing(text: str) -> list[str]:
    """Functions with a yield that are called as statements: they never run, so such a test cannot fail."""

    def yields(function: ast.FunctionDef) -> bool:
        todo: list[ast.AST] = list(function.body)
        while todo:
            node = todo.pop()
            if isinstance(node, ast.Yield | ast.YieldFrom):
                return True
            if not isinstance(node, ast.FunctionDef | ast.Lambda):
                todo += ast.iter_child_nodes(node)
        return False

    tree = ast.parse(text)
    found = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and yields(node)}
    calls = [node.value for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)]
    return [call.func.id for call in calls if isinstance(call.func, ast.Name) and call.func.id in found]


def test_no_check_is_a_generator_that_never_runs():
    assert generators_called_for_nothing("def held():\n    yield 1\n\nheld()\n") == ["held"]
    assert {str(p): found for p in [*FILES, *TESTS] if (found := generators_called_for_nothing(p.read_text()))} == {}
