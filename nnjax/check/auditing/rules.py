"""Look inside a custom_vjp or custom_jvp rule: its body, the program's function behind it, and whether two are the same."""

import importlib
import inspect
import os
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

MAKERS = (
    "jax/_src/custom_derivatives.py",
    "jax/_src/hijax.py",
    "jax/_src/api.py",
    "equinox/_ad.py",
)  # packages that wrap a program's functions into a rule
PARTS = ("fun", "f", "fwd", "bwd", "jvp")  # attributes of a rule that are functions
SIMPLE = (int, float, complex, str, bytes, bool, type(None), type)


def classes() -> tuple[type, ...]:
    """The classes of rules, also those that JAX uses while `jax_custom_vjp3` or `jax_custom_jvp3` is on, and that of
    `jax.experimental.hijax`, if this JAX has it."""
    made = (type(make(lambda x: x)) for make in (jax.custom_vjp, jax.custom_jvp))
    return tuple(dict.fromkeys((jax.custom_vjp, jax.custom_jvp, *made, *_hijax())))


@cache
def _hijax() -> tuple[type, ...]:
    with suppress(ImportError):
        found = importlib.import_module("jax.experimental.hijax")
        return tuple(getattr(found, name) for name in ("HiPrim", "VJPHiPrimitive") if hasattr(found, name))[:1]
    return ()


def is_own(rule: Any) -> bool:
    """Whether a rule belongs to a program: JAX also makes hijax primitives for its own use."""
    return not (isinstance(rule, _hijax()) and type(rule).__module__.startswith("jax._src"))


def rule_of(f: Any) -> Any:
    """The custom_vjp or custom_jvp object behind f, also under `jit`, or None."""
    known = classes()
    while f is not None and not isinstance(f, known):
        # Do not unwrap every wrapper: `jax.vmap` of a rule is not the same function as its body.
        f = None if inspect.isfunction(f) else getattr(f, "__wrapped__", None)
    return f


def body_of(f: Any) -> Callable[..., Any] | None:
    """The undecorated body of a custom_vjp or custom_jvp function."""
    rule = rule_of(f)
    if isinstance(rule, _hijax()):
        return partial(_expanded, rule)
    return None if rule is None else getattr(rule, "fun", None) or rule.f


def _expanded(primitive: Any, *args: Any) -> Any:
    """The body of a hijax primitive, which exists only for the dtypes that it was made for."""
    made_for = [aval.dtype for aval in primitive.in_avals_flat]
    if [v.dtype for v in jax.tree.leaves(args)] != made_for:
        raise TypeError(f"{type(primitive).__name__} is made for {', '.join(map(str, made_for))}")
    return primitive.expand(*args)


def static_numbers(rule: Any) -> tuple[int, ...]:
    """The arguments that `nondiff_argnums` names."""
    if isinstance(rule, _hijax()):
        return ()
    found = getattr(rule, "nondiff_argnums", None)
    return tuple(rule.static_argnums if found is None else found)


def source(rule: Any) -> tuple[str, str]:
    """The name of the function with the rule, and file and line of the rule."""
    if isinstance(rule, _hijax()):
        own = next((g for g in (getattr(type(rule), n) for n in ("vjp_bwd_retval", "vjp_bwd")) if _written(g)), rule.expand)
        return type(rule).__name__, f"{own.__code__.co_filename}:{own.__code__.co_firstlineno}"
    body = body_of(rule)
    own = _programs(body, "fn")
    derivative = _programs(next((g for g in (getattr(rule, n, None) for n in ("bwd", "jvp")) if g is not None), None), "fn_bwd")
    code = next((g.__code__ for g in (derivative, own) if g is not None), None)
    where = f"{code.co_filename}:{code.co_firstlineno}" if code else "source unknown"
    wrapped = own is not None and inspect.unwrap(body or own) is not own  # then the rule has the name of the wrapper
    name = None if wrapped else getattr(rule, "__name__", None)
    return name or getattr(own or body, "__name__", "rule"), where


def _written(method: Any) -> bool:
    return not method.__code__.co_filename.replace("\\", "/").endswith(MAKERS)


def _programs(f: Any, role: str, deep: int = 4) -> Any:
    """The program's function inside a wrapper of JAX or Equinox, or None; role: its name in Equinox's wrapper."""
    if isinstance(f, partial):
        return _programs(f.func, role, deep)
    if f is None or deep == 0:
        return None
    f = inspect.unwrap(f) if callable(f) else f
    if isinstance(f, (tuple, list)):
        return next((found for g in f if (found := _programs(g, role, deep - 1)) is not None), None)
    code = getattr(f, "__code__", None)
    if code is None:
        return _programs(getattr(f, role, None), role, deep - 1) if hasattr(f, role) else None
    if not code.co_filename.replace("\\", "/").endswith(MAKERS):
        return f
    return _programs(_cells(f), role, deep - 1)


def _cells(f: Any) -> list[Any]:
    """The values that a function closes over, as far as they exist already."""
    found = []
    for cell in f.__closure__ or ():
        with suppress(ValueError):
            found.append(cell.cell_contents)
    return [v for v in found if v is not None]


def defined_at(rule: Any) -> str:
    """File and line of the function with the rule."""
    body = rule.expand if isinstance(rule, _hijax()) else body_of(rule)
    own = _programs(body, "fn") or body
    code = getattr(own, "__code__", None)
    if not code:
        return "source unknown"
    return f"{os.path.realpath(code.co_filename)}:{code.co_firstlineno}"  # one name, whatever path it was imported by


def holds_tracers(x: Any, deep: int = 5) -> bool:
    """Whether x is, or a function closes over, a traced value, which must not be kept."""
    if isinstance(x, Tracer):
        return True
    if deep == 0 or x is None or isinstance(x, (*SIMPLE, np.ndarray, jax.Array)):
        return False
    if isinstance(x, classes()):
        inner: list[Any] = [getattr(x, name, None) for name in PARTS]
    elif inspect.isfunction(x):
        inner = [*_cells(x), *(x.__defaults__ or ())]
    elif isinstance(x, partial):
        inner = [x.func, *x.args, *x.keywords.values()]
    else:
        inner = [v for v in jax.tree.leaves(x) if v is not x]
    return any(holds_tracers(v, deep - 1) for v in inner)


def same_rule(a: Any, b: Any) -> bool:
    """Whether two rules have the same code and close over the same values: one rule, made again at each call."""
    if isinstance(a, _hijax()):
        return type(a) is type(b) and a == b
    return type(a) is type(b) and all(_same(getattr(a, name, None), getattr(b, name, None), 6) for name in PARTS)


def _same(a: Any, b: Any, deep: int) -> bool:
    if a is b:
        return True
    if type(a) is not type(b) or deep == 0:
        return False
    if isinstance(a, SIMPLE):
        return a == b
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(_same(x, y, deep) for x, y in zip(a, b))
    if isinstance(a, partial):
        kept = [(f.func, f.args, tuple(sorted(f.keywords.items()))) for f in (a, b)]
        return _same(kept[0], kept[1], deep - 1)
    if isinstance(a, classes()):  # e.g. a rule that calls its own function
        return _same(body_of(a), body_of(b), deep - 1)
    if not inspect.isfunction(a) or a.__code__ != b.__code__:
        return False
    return _same((a.__defaults__, _cells(a)), (b.__defaults__, _cells(b)), deep - 1)
