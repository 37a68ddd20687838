"""The order of the floors: no file imports upward, and the hand-written files contain no automatic differentiation."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import nnjax

ROOT = Path(nnjax.__file__).parent
FLOORS = [
    {"errors", "nielsen", "linear", "parameters"},
    {"files", "feedback", "draw", "residuals", "varying"},
    {"layer", "weights"},
    {"leaf", "walk"},
    {"layers", "losses"},
    {"fused_loss", "gpt2", "chunks"},
    {"models", "ops"},
    {"grad", "cases", "generate"},
    {"decode", "direct"},
    {"check"},
    {"train"},
    {"parallel"},
    {"bench"},
    {"reproduce", "explain"},
    {"cli"},
]
HAND_WRITTEN = [
    "nielsen.py",
    "linear.py",
    "layer.py",
    "losses.py",
    "fused_loss.py",
    "feedback.py",
    "direct.py",
    "models.py",
    "layers",
    "parallel",
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


def floor(name: str) -> int:
    return next(i for i, names in enumerate(FLOORS) if name in names)


def files(*names: str):
    for name in names:
        path = ROOT / name
        yield from sorted(path.rglob("*.py")) if path.is_dir() else ([path] if path.exists() else [])


def imported(path: Path) -> set[str]:
    """The first names under nnjax of everything that a file imports."""
    package = path.relative_to(ROOT).parent.parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            if node.level:
                base = package[: len(package) - (node.level - 1)]
                target = [*base, *(node.module or "").split(".")]
                names = [t for t in target if t]
                found |= {names[0]} if names else {alias.name for alias in node.names}
            elif (node.module or "").split(".")[0] == "nnjax":
                found.add((node.module or "").split(".")[1])
    return found


@pytest.mark.parametrize("path", [p for p in files(".") if p.name != "__init__.py"], ids=lambda p: str(p.relative_to(ROOT)))
def test_no_file_imports_upward(path):
    own = path.relative_to(ROOT).parts[0].removesuffix(".py")
    for name in imported(path):
        assert floor(name) < floor(own) or name == own, f"{path} imports {name}"


@pytest.mark.parametrize("path", list(files(*HAND_WRITTEN)), ids=lambda p: str(p.relative_to(ROOT)))
def test_hand_written_files_contain_no_autodiff(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            assert not (node.attr in AUTODIFF and isinstance(node.value, ast.Name) and node.value.id in ("jax", "api")), (
                node.attr
            )
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "jax":
            assert not AUTODIFF & {alias.name for alias in node.names}


def test_the_test_of_imports_sees_an_upward_import(tmp_path):
    assert "grad" in imported(ROOT / "train" / "step.py")
    assert "layer" in imported(ROOT / "layers" / "dense.py")


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
    for path in files("."):
        if path.name not in ("__init__.py", "__main__.py", "pytest_plugin.py"):
            relative = path.relative_to(ROOT)
            assert (tests / relative.parent / f"test_{relative.name}").exists(), f"{relative} has no test"
