"""How a function under test is called: which of its arguments are static, and the names of the others."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import describe
from .auditing.rules import rule_of, static_numbers
from .subject import is_float


def argument_names(f: Callable[..., Any], n: int | None = None) -> tuple[str, ...]:
    """The names of the first n positional parameters of f, or of all, as far as it has a signature."""
    try:
        parameters = inspect.signature(f).parameters.values()
    except (TypeError, ValueError):
        return ()
    plain = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return tuple(plain[:n])


def expect_arguments(who: str, f: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raise TypeError if f has a signature and cannot be called with these arguments."""
    try:
        signature = inspect.signature(f)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        came = ", ".join([*map(describe, args), *(f"{name}={describe(x)}" for name, x in kwargs.items())])
        raise TypeError(
            f"{who}: {getattr(f, '__name__', type(f).__name__)}{signature} cannot be called with ({came}): {error}; pass "
            "the arguments that it takes."
        ) from None


def positional(f: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The same call with every argument by position that f takes by position, as JAX calls a rule and its fwd. Defaults are
    filled in only before other arguments."""
    if not kwargs:
        return args, kwargs
    try:
        bound = inspect.signature(f).bind(*args, **kwargs)
    except (TypeError, ValueError):
        return args, kwargs
    if bound.kwargs:
        bound.apply_defaults()
    return bound.args, {name: v for name, v in bound.kwargs.items() if name in kwargs}


class Call(NamedTuple):
    """Functions of the non-static arguments, these arguments, and the names of the positional ones."""

    functions: tuple[Callable[..., Any], ...]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    names: tuple[str, ...]


def bound(f: Callable[..., Any], definition: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    """The call of f and its definition, closed over what `nondiff_argnums` names, passed by position or by keyword.

    Complex arrays become pairs of real ones.
    """
    return _of_reals(_free(f, definition, args, kwargs))


class Complex(NamedTuple):
    """A complex array as two real ones."""

    real: Any
    imag: Any

    def whole(self) -> Any:
        """The complex array."""
        return jax.lax.complex(self.real, self.imag)


def _of_reals(call: Call) -> Call:
    """The same functions from real to real arrays, so that both follow JAX's convention for complex cotangents.

    For f(x + iy) = u + iv a cotangent c is pulled back as that of (x, y) -> (u, v) at (Re c, -Im c).
    """

    def parts(tree):
        def one(v):
            array = isinstance(v, (complex, jax.Array, np.ndarray, np.generic)) and jnp.iscomplexobj(v)
            if not array:
                return v
            v = v if hasattr(v, "dtype") else np.complex64(v)
            return Complex(jnp.real(v), jnp.imag(v)) if isinstance(v, jax.Array) else Complex(np.real(v), np.imag(v))

        return jax.tree.map(one, tree)

    def wholes(tree):
        return jax.tree.map(
            lambda v: v.whole() if isinstance(v, Complex) else v, tree, is_leaf=lambda v: isinstance(v, Complex)
        )

    def real(g):
        @functools.wraps(g)
        def of_reals(*args, **kwargs):
            args, kwargs = wholes((args, kwargs))
            return parts(g(*args, **kwargs))

        return of_reals

    args, kwargs = parts((call.args, call.kwargs))
    return Call(tuple(map(real, call.functions)), args, kwargs, call.names)


def in_own_precision(call: Call) -> tuple[Call, str]:
    """The call and "". If its definition runs at these arguments but not in float64: functions that first cast float64 to the
    precision of the arguments, and the name of that precision."""
    leaves, treedef = jax.tree.flatten((call.args, call.kwargs))
    own = [v.dtype if is_float(v) else None for v in leaves]

    def wide(v):
        return np.asarray(v).astype(np.float64) if is_float(v) else v

    def runs(leaves):
        arrays = [i for i, v in enumerate(leaves) if isinstance(v, (jax.Array, np.ndarray))]

        def definition(moving):
            whole = list(leaves)
            for i, v in zip(arrays, moving):
                whole[i] = v
            args, kwargs = jax.tree.unflatten(treedef, whole)
            return [y for y in jax.tree.leaves(call.functions[1](*args, **kwargs)) if isinstance(y, jax.Array)]

        try:
            found = jax.eval_shape(definition, [leaves[i] for i in arrays])
        except Exception:
            return False
        given = {v.dtype for v in leaves if is_float(v)}  # an argument that is always narrow does not become float64 either
        return given != {np.dtype(np.float64)} or all(
            y.dtype == np.float64 for y in found if jnp.issubdtype(y.dtype, jnp.floating)
        )

    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        with jax.enable_x64(True):
            if not any(own) or runs([wide(v) for v in leaves]):
                return call, ""
        if not runs(leaves):
            return call, ""

    def narrow(g):
        @functools.wraps(g)
        def in_own(*args, **kwargs):
            leaves = jax.tree.leaves((args, kwargs))
            lowered = [v.astype(d) if d is not None and v.dtype == np.float64 else v for v, d in zip(leaves, own)]
            if all(a is b for a, b in zip(leaves, lowered)):
                return g(*args, **kwargs)
            args, kwargs = jax.tree.unflatten(treedef, lowered)
            return jax.tree.map(lambda y: y.astype(np.float64) if is_float(y) else y, g(*args, **kwargs))

        return in_own

    narrowest = max((d for d in own if d is not None), key=lambda d: float(jnp.finfo(d).eps))
    return call._replace(functions=tuple(map(narrow, call.functions))), np.dtype(narrowest).name


def _free(f: Callable[..., Any], definition: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    """The call, closed over what `nondiff_argnums` names."""
    rule = rule_of(f)
    names = argument_names(f)
    numbers = () if rule is None else static_numbers(rule)
    numbers = {i % max(len(names), len(args)) for i in numbers}
    fixed = {names[i]: kwargs[names[i]] for i in numbers if i < len(names) and names[i] in kwargs}
    free = [i for i in range(len(args)) if i not in numbers]
    named = tuple(names[i] if i < len(names) else f"args[{i}]" for i in free)
    if not fixed and len(free) == len(args):
        return Call((f, definition), args, kwargs, named)

    def without(g):
        def call(*rest, **kwargs):
            filled = list(args)
            for i, v in zip(free, rest):
                filled[i] = v
            return g(*filled, **fixed, **kwargs)

        return call

    moving = {name: v for name, v in kwargs.items() if name not in fixed}
    return Call((without(f), without(definition)), tuple(args[i] for i in free), moving, named)
