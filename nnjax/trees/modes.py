"""A hand-written backward in both modes: reverse mode runs it, and forward mode its transpose, as J = (Jᵀ)ᵀ.

The rule of forward mode is that of `jax.custom_jvp`, with a primitive in it for the tangents: where it is transposed, which is
what reverse mode does, it is the backward itself; where it is computed, JAX transposes the backward. It takes the residuals of
the pair and no more, so that reverse mode keeps what it keeps without it.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.interpreters import ad, batching, mlir

from ..errors import describe
from .varying import varying_as

Primitive = type(jax.lax.add_p)  # importing it from jax.extend would import Pallas as well


def in_both_modes(rule: Any, fwd: Callable[..., Any], bwd: Callable[..., Any], name: str) -> Any:
    """The function behind rule, a `jax.custom_vjp` of this pair, with the pair in reverse mode, and forward mode too.

    bwd: linear in the cotangents, as a backward is.  Where JAX cannot transpose it, forward mode raises TypeError and names
    `name`.
    """
    both = jax.custom_jvp(rule.__wrapped__)

    def jvp(primals, tangents):
        y, residuals = fwd(*primals)
        return y, _pushed(y, residuals, primals, tangents, bwd, name)

    both.defjvp(jvp, symbolic_zeros=True)
    setattr(both, "pair_of", rule)  # noqa: B010  (what an audit checks in its place)
    return both


def _smooth(x: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(x), jnp.inexact)


def _pushed(y: Any, residuals: Any, primals: Any, tangents: Any, bwd: Callable[..., Any], name: str) -> Any:
    """The tangent of y."""
    ys, y_tree = jax.tree.flatten(y)
    rows, residual_tree = jax.tree.flatten(residuals)
    dots = jax.tree.leaves(tangents, is_leaf=lambda t: isinstance(t, SymbolicZero))
    given = [i for i, t in enumerate(dots) if not isinstance(t, SymbolicZero) and _smooth(t)]
    smooth = [i for i, leaf in enumerate(ys) if _smooth(leaf)]
    likes = jax.tree.map(lambda p: jax.ShapeDtypeStruct(jnp.shape(p), jnp.result_type(p)), primals)
    shapes = [jnp.shape(leaf) for leaf in ys]

    def back(rows, cts):
        """The cotangents of the inputs that have a tangent."""
        full: list[Any] = [np.zeros(shape, jax.dtypes.float0) for shape in shapes]
        for i, ct in zip(smooth, cts):
            full[i] = ct
        found = bwd(jax.tree.unflatten(residual_tree, rows), jax.tree.unflatten(y_tree, full))
        none = lambda ct: ct is None  # noqa: E731
        try:
            found = jax.tree.map(lambda ct, like: jax.tree.map(_zeros, like) if ct is None else ct, found, likes, is_leaf=none)
        except ValueError as error:
            raise TypeError(f"{name}: the backward must return a cotangent for each input, or None: {error}") from error
        leaves, expected = jax.tree.leaves(found), jax.tree.leaves(likes)
        for i in given:
            if len(leaves) != len(expected) or (leaves[i].shape, leaves[i].dtype) != (expected[i].shape, expected[i].dtype):
                raise TypeError(
                    f"{name}: the backward must return a cotangent for each input, of its shape and dtype, expected "
                    f"{describe(expected[i])}, got {describe(leaves[i]) if i < len(leaves) else 'none'}."
                )
        return [leaves[i] for i in given]

    zeros = [SymbolicZero(jax.typeof(leaf).to_tangent_aval()) for leaf in ys]
    if given and smooth:
        outs = tuple(zeros[i].aval for i in smooth)
        made = _transposed.bind(*rows, *(dots[i] for i in given), back=back, outs=outs, kept=len(rows), name=name)
        for i, dot in zip(smooth, made):
            zeros[i] = dot
    return jax.tree.unflatten(y_tree, zeros)


def _zeros(like: Any) -> Any:
    return jnp.zeros(like.shape, like.dtype if jnp.issubdtype(like.dtype, jnp.inexact) else jnp.float32)


def _computed(*args: Any, back: Callable[..., Any], outs: Any, kept: int, name: str) -> list[Any]:
    """Forward mode: the backward, which takes cotangents to cotangents, transposed."""

    try:
        _, pull = jax.vjp(lambda *cts: back(args[:kept], cts), *(varying_as(jnp.ones(a.shape, a.dtype), a) for a in outs))
        return list(map(varying_as, pull(list(args[kept:])), outs))
    except Exception as error:
        raise TypeError(
            f"{name}: forward-mode differentiation (jax.jvp, jax.jacfwd, jax.hessian) transposes the hand-written backward, "
            f"which JAX could not: {error} Use the definition, such as the layer's apply, or jax.jacrev."
        ) from error


def _transpose(cts: Any, *args: Any, back: Callable[..., Any], outs: Any, kept: int, name: str) -> list[Any]:
    """Reverse mode: the backward."""
    found = back(args[:kept], [ad.instantiate_zeros(ct) for ct in cts])
    dots = args[kept:]
    return [None] * kept + [varying_as(ct, d.aval) if ad.is_undefined_primal(d) else None for d, ct in zip(dots, found)]


def _jvp(primals: Any, tangents: Any, **how: Any) -> Any:
    """Forward mode over forward mode."""
    return jax.jvp(partial(_computed, **how), primals, tuple(map(ad.instantiate_zeros, tangents)))


def _batched(axis: Any, args: Any, dims: Any, *, back: Callable[..., Any], outs: Any, kept: int, name: str) -> Any:
    def to_front(dot, dim):  # one tangent for all examples is copied to each: the transpose of a copy is a sum
        return lax.broadcast(dot, (axis.size,)) if dim is None else jnp.moveaxis(dot, dim, 0)

    def back_of_all(rows, cts):
        over = {"axis_name": axis.name, "axis_size": axis.size, "spmd_axis_name": axis.spmd_name}
        f = jax.vmap(lambda rows, cts: back(list(rows), list(cts)), in_axes=(tuple(dims[:kept]), 0), **over)
        return f(tuple(rows), tuple(cts))

    wider = jax.make_jaxpr(lambda *x: [lax.broadcast(a, (axis.size,)) for a in x])(*outs).out_avals
    made = _transposed.bind(
        *args[:kept], *map(to_front, args[kept:], dims[kept:]), back=back_of_all, outs=tuple(wider), kept=kept, name=name
    )
    return made, [0] * len(made)


_transposed = Primitive("transposed_backward")
_transposed.multiple_results = True
_transposed.def_impl(_computed)
_transposed.def_abstract_eval(lambda *avals, outs, **_: list(outs))
ad.primitive_jvps[_transposed] = _jvp
ad.primitive_transposes[_transposed] = _transpose
batching.fancy_primitive_batchers[_transposed] = _batched
mlir.register_lowering(_transposed, mlir.lower_fun(_computed, multiple_results=True))
