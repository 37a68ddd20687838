"""A mark before a hand-written backward: forward mode raises an error that says what to use in its place.

JAX has a message of its own there, which names neither the function nor a remedy.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.interpreters import ad, batching, mlir

Primitive = type(jax.lax.add_p)  # importing it from jax.extend would import Pallas as well


def reverse_only(words: str, tree: Any) -> Any:
    """The tree itself; its tangents raise TypeError with these words when they are computed, not when they are transposed.

    words: what has no forward mode, and what to use for it.
    """
    leaves, treedef = jax.tree.flatten(tree)
    smooth = [i for i, leaf in enumerate(leaves) if jnp.issubdtype(getattr(leaf, "dtype", bool), jnp.inexact)]
    for i, leaf in zip(smooth, _marked.bind(*(leaves[i] for i in smooth), words=words) if smooth else ()):
        leaves[i] = leaf
    return jax.tree.unflatten(treedef, leaves)


def _primitive(name: str) -> Any:
    made = Primitive(name)
    made.multiple_results = True
    made.def_abstract_eval(lambda *avals, words: avals)
    batching.primitive_batchers[made] = lambda args, dims, words: (made.bind(*args, words=words), dims)
    return made


def _identity(*args: Any, words: str) -> list[Any]:
    return list(args)


def _refused(*args: Any, words: str) -> Any:
    raise TypeError(words)


def _pushed(primals: Any, tangents: Any, *, words: str) -> tuple[Any, Any]:
    """The primals as they are, so that forward mode over reverse mode meets no mark."""
    there = [i for i, t in enumerate(tangents) if not isinstance(t, ad.Zero)]
    pushed = dict(zip(there, _tangents.bind(*(tangents[i] for i in there), words=words)))
    return list(primals), [pushed.get(i, t) for i, t in enumerate(tangents)]


_marked, _tangents = _primitive("reverse_only"), _primitive("reverse_only_tangents")
_marked.def_impl(_identity)
ad.primitive_jvps[_marked] = _pushed
mlir.register_lowering(_marked, mlir.lower_fun(_identity, multiple_results=True))
_tangents.def_impl(_refused)
ad.primitive_jvps[_tangents] = lambda primals, tangents, words: _refused(words=words)
ad.primitive_transposes[_tangents] = lambda cts, *tangents, words: list(cts)
mlir.register_lowering(_tangents, mlir.lower_fun(_refused, multiple_results=True))
