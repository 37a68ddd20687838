"""The programs that `--compile-for` compiles: cases of bench and check, and the rules that a function runs through."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ...cases import cases
from ...check.auditing.listening import Heard, listening
from ...check.auditing.named import function_named
from ...check.auditing.rules import body_of
from ..rule import sides
from ..table import entries

Programs = dict[str, tuple[Callable[..., Any], Any]]  # {label: (function, arguments)}
DTYPES = ("float32", "bfloat16", "float16")


def of_bench(platform: str, case: str) -> Programs:
    """The hand-written program of a case of `nnjax bench`, and each of its references."""
    hand, references, args = next(entry for entry in entries(platform) if entry.name == case).make()
    return {"hand": (hand, args), **{name: (f, args) for name, f in references.items()}}


def of_check(platform: str, case: str, *dtypes: str) -> Programs:
    """Programs for value and hand-written cotangents of a case of `nnjax check`, in each dtype."""
    found = next(c for c in cases() if c.name == case)
    params, x, key = found.make(0)

    def pair(params, x, key):
        y, residuals = found.layer.fwd(params, x, key=key)
        return y, found.layer.bwd(residuals, y)

    return {dtype: (pair, (*_as((params, x), dtype), key)) for dtype in dtypes}


def _as(tree: Any, dtype: str) -> Any:
    return jax.tree.map(lambda a: a.astype(dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a, tree)


def of_function(platform: str, name: str) -> Programs:
    """Each custom rule that module:function runs through, labelled "NUMBER NAME: rule", and its definition, "...: definition".

    If there is no program (a rule without a derivative, a definition without autodiff), it is a function that raises.
    """
    heard: list[Heard] = []
    with listening(heard):
        function_named("bench", name)()
    programs: Programs = {}
    for i, entry in enumerate(heard, 1):
        args, kwargs = next(entry.samples[0].filled(0))
        title = f"{i} {entry.title.name}"
        try:
            definition = body_of(entry.rule)
            if definition is None:
                raise TypeError("it has no definition")
            rule, definition, values = sides(entry.rule, definition, args, kwargs)
        except Exception as error:
            programs[f"{title}: rule"] = (_raising(error), ())
            continue
        programs[f"{title}: rule"], programs[f"{title}: definition"] = (rule, values), (definition, values)
    return programs


def _raising(error: Exception) -> Callable[[], Any]:
    def run():
        raise error

    return run


# Each takes the platform, then its arguments.
KINDS: Mapping[str, Callable[..., Programs]] = {"bench": of_bench, "check": of_check, "function": of_function}
