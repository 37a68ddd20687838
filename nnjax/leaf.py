"""The checks around the functions of every layer that is not a composition, so that these hold only mathematics.

NumPy arrays become JAX arrays on entry. `init` refuses what is not a key, and `bwd` a cotangent that is not like the output.
Shapes and dtypes are known while a program is traced: under `jit` the checks cost nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .errors import describe, expect_array, expect_float, expect_key
from .layer import Layer, Y


@dataclass(frozen=True)
class Like:
    """Shape and dtype of an output. dtype: None if the residuals do not show it."""

    shape: tuple[int, ...]
    dtype: Any = None


def outline(x: Any) -> Any:
    """An empty array, (0, *shape), that carries the shape and dtype of x among the residuals at no cost."""
    return jnp.zeros((0, *x.shape), x.dtype)


def outlined(kept: Any) -> Like:
    """Shape and dtype of the x whose `outline` was kept."""
    return Like(kept.shape[1:], kept.dtype)


def entered(tree: Any) -> Any:
    """The tree with its NumPy arrays as JAX arrays, which have `.at` and JAX's promotion; anything else as it is."""

    def one(leaf):
        known = isinstance(leaf, (np.ndarray, np.generic)) and (leaf.dtype == bool or jnp.issubdtype(leaf.dtype, jnp.number))
        return jnp.asarray(leaf) if known else leaf

    return jax.tree.map(one, tree)


def expect_cotangent(who: str, what: str, ct: Any, like: Any) -> None:
    """Raise unless ct has the shape and dtype of `like`: an array, a `Like`, or a tuple of them; None if it is not known."""
    if like is None:
        return
    if isinstance(like, tuple):
        if not isinstance(ct, type(like)) or len(ct) != len(like):
            came = f"{len(ct)} entries" if type(ct) is tuple else describe(ct)
            wanted = "a tuple" if type(like) is tuple else type(like).__name__
            raise TypeError(f"{who}: {what} must be {wanted} of {len(like)} cotangents, one for each output, got {came}; "
                            "pass it as the output is.")  # fmt: skip
        for i, (c, l) in enumerate(zip(ct, like)):
            expect_cotangent(who, f"{what}[{i}]", c, l)
        return
    expect_array(who, what, ct)
    if tuple(ct.shape) != tuple(like.shape):
        raise ValueError(f"{who}: {what} must have the shape of the output, {tuple(like.shape)}, got {describe(ct)}; "
                         "a cotangent has an entry for each entry of y.")  # fmt: skip
    if like.dtype is None:
        expect_float(who, what, ct)
    elif ct.dtype != like.dtype:
        raise TypeError(f"{who}: {what} must have the dtype of the output, {like.dtype}, got {describe(ct)}; "
                        f"convert it with {what}.astype({like.dtype}).")  # fmt: skip


def refusing(who: str, bwd: Callable[..., Any], output: Callable[[Any], Any]) -> Callable[..., Any]:
    """bwd(residuals, ct_y), which raises for residuals that are not from this layer's `fwd`, and for a ct_y unlike the output.

    output(residuals) -> what `expect_cotangent` compares with.
    """

    def checked(residuals, ct_y):
        try:
            like = output(residuals)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            raise TypeError(f"{who}: residuals must come from fwd of this layer, got {describe(residuals)}; "
                            "call bwd(residuals, ct_y), in this order.") from None  # fmt: skip
        ct_y = entered(ct_y)
        expect_cotangent(who, "ct_y", ct_y, like)
        return bwd(residuals, ct_y)

    return checked


def leaf(
    name: str,
    init: Callable[[Any], Any],
    apply: Callable[..., Y],
    fwd: Callable[..., tuple[Y, Any]],
    bwd: Callable[[Any, Any], tuple[Any, Any]],
    output: Callable[[Any], Any],
    *,
    fast: Sequence[Callable[..., Any]] | None = None,
) -> Layer[Y]:
    """The Layer of these functions, with the checks that every layer has. output: as in `refusing`.

    fast: (fwd, bwd) with the same results and residuals, spelled for the platform. It is then the layer's pair, and
    `nnjax.plain` gives the plain one.
    """

    def checked_init(key):
        expect_key(f"{name}.init", key)
        return init(key)

    def entering(f):
        return lambda params, x, *, key=None: f(entered(params), entered(x), key=key)

    plain: Layer[Y] = Layer(name, checked_init, entering(apply), entering(fwd), refusing(name, bwd, output))
    if fast is None:
        return plain
    return plain._replace(fwd=entering(fast[0]), bwd=refusing(name, fast[1], output), plain=plain)
