"""The custom rules that a package defines, read from its sources, including those that a function makes when it is called."""

import ast
import importlib
import pkgutil
import tokenize
from collections.abc import Collection, Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from typing import NamedTuple

MAKERS = ("custom_vjp", "custom_jvp", "custom_gradient", "filter_custom_vjp", "filter_custom_jvp")


class Defined(NamedTuple):
    """A rule: the name of the function that has it, and file and line of that function."""

    name: str
    defined: str


def rules_in(package: str) -> tuple[list[Defined], list[str]]:
    """The rules of a package and its modules, and the modules that cannot be imported, with the reason.

    Raises ValueError if there is no such package.
    """
    try:
        whole = _quietly(package)
    except ModuleNotFoundError as error:
        raise ValueError(f"audit: {error}; install the package, or run it where `import {package}` works.") from None
    except (Exception, SystemExit) as error:  # a package can raise anything when it is imported
        said = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        raise ValueError(f"audit: {package} cannot be imported here: {said}; fix that first.") from None
    files, failed = {_file(whole)}, []

    def broken(name):
        failed.append(name)

    for module in pkgutil.walk_packages(getattr(whole, "__path__", ()), f"{package}.", broken):
        if module.name.rpartition(".")[2] == "__main__":
            continue
        try:
            files.add(_file(_quietly(module.name)))
        except BaseException as error:  # a module can raise anything when it is imported
            if isinstance(error, KeyboardInterrupt):
                raise
            failed.append(f"{module.name}: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
    found = [rule for file in sorted(filter(None, files)) for rule in _rules_of_file(file)]
    return found, failed


def never_reached(package: str, reached: Collection[str]) -> list[Defined]:
    """The rules of a package that are not in `reached`, a collection of files and lines of functions."""
    return [rule for rule in rules_in(package)[0] if rule.defined not in reached]


def _quietly(name: str):
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        return importlib.import_module(name)


def _file(module) -> str:
    file = getattr(module, "__file__", None) or ""
    return file if file.endswith(".py") else ""


def _rules_of_file(file: str) -> Iterator[Defined]:
    with tokenize.open(file) as source:  # with the encoding that it declares
        tree = ast.parse(source.read(), file)
    functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and any(_makes(d) for d in node.decorator_list):
            yield Defined(node.name, f"{file}:{_first_line(node)}")
        elif isinstance(node, ast.Call) and _makes(node.func) and node.args:
            what = node.args[0]
            if isinstance(what, ast.Lambda):
                yield Defined("<lambda>", f"{file}:{what.lineno}")
            elif isinstance(what, ast.Name) and what.id in functions:
                yield Defined(what.id, f"{file}:{_first_line(functions[what.id])}")
            elif not isinstance(what, (ast.Name, ast.Constant)) or what is None:
                yield Defined(ast.unparse(what), f"{file}:{node.lineno}")


def _makes(node: ast.expr) -> bool:
    """Whether an expression is a decorator of JAX or Equinox that makes rules, perhaps with options."""
    if isinstance(node, ast.Attribute):
        return node.attr in MAKERS
    if isinstance(node, ast.Name):
        return node.id in MAKERS
    if isinstance(node, ast.Call):
        return _makes(node.func) or any(_makes(a) for a in node.args[:1])
    return False


def _first_line(node: ast.FunctionDef) -> int:
    return min([node.lineno, *(d.lineno for d in node.decorator_list)])
