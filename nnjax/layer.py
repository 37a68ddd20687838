"""A layer is a definition and its hand-written pair; and functions that look inside a composition of layers."""

from collections.abc import Callable, Generator
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol

import jax

from .errors import describe, expect_arrays, expect_key
from .trees.modes import in_both_modes
from .trees.varying import communicates, together

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    Y = TypeVar("Y", covariant=True, default=Any)  # what a layer returns: mostly an Array; Any: some pytree
else:
    from typing import TypeVar

    Y = TypeVar("Y", covariant=True)

Params = Any  # a pytree of arrays

Key = Any  # a key of jax.random, or None


class Met(NamedTuple):
    """A part of a composition, and what it meets there. name: its place, such as `1` in a serial or `head` in a tied."""

    name: str
    layer: "Layer"
    params: Params
    x: Any
    key: Key


Walk = Generator[Met, tuple[Params, Any], tuple[Params, Any]]


class Layer(NamedTuple, Generic[Y]):
    """Five functions and a name. Close over a Layer; never pass it through `jit`.

    init(key) -> params
    apply(params, x, *, key=None) -> y                the definition: what jax.grad differentiates
    fwd(params, x, *, key=None) -> (y, residuals)     the same value, keeping what bwd needs
    bwd(residuals, ct_y) -> (ct_params, ct_x)         the transposed Jacobian, applied to a cotangent
    parts                                             what a combinator combined, so that a check can name the layer inside
    walk(params, x, key)                              yields what each part meets (`Met`), receives (its params, its y), and
                                                      returns (params, y) of the whole: see `walked`
    remade(*parts)                                    the same composition of other parts
    plain                                             the layer with only its plain pair, if it has a faster one: `plain`
    draws                                             whether it draws random numbers from its key, and so differs without one
    cuts                                              whether its definition cuts the gradient on purpose, so that values
                                                      differ, or the names of the inputs it takes as fixed: ("x[1]",)
    counts                                            of a loss: counts(labels, dtype) is how much each example counts in its
                                                      mean, or None for 1, which is what a loss without it does

    The name is for people: nothing is decided by it. Your own layer needs neither `parts` nor the fields after it.

    >>> double = nnjax.Layer(
    ...     "double",
    ...     init=lambda key: (),
    ...     apply=lambda params, x, *, key=None: 2 * x,
    ...     fwd=lambda params, x, *, key=None: (2 * x, ()),
    ...     bwd=lambda residuals, ct_y: ((), 2 * ct_y),
    ... )
    >>> nnjax.check_layer(double, (), jnp.ones(3), dtypes=["float32"], transforms=["jit"]).ok
    True
    """

    name: str
    init: Callable[[Key], Params]
    apply: Callable[..., Y]
    fwd: Callable[..., tuple[Y, Any]]
    bwd: Callable[[Any, Any], tuple[Any, Any]]
    parts: tuple["Layer", ...] = ()
    walk: Callable[[Params, Any, Key], Walk] | None = None
    remade: Callable[..., "Layer"] | None = None
    plain: "Layer[Y] | None" = None
    draws: bool = False
    cuts: bool | tuple[str, ...] = False
    counts: Callable[[Any, Any], Any] | None = None


def expect_layer(who: str, layer: Any) -> None:
    """Raise TypeError unless `layer` is a Layer. A common mistake is a factory that was not called."""
    if not isinstance(layer, Layer):
        name = getattr(layer, "__name__", None)
        remedy = f"call the factory, as in {name}(...)" if name else "make one with a factory such as nnjax.dense(4, 3)"
        raise TypeError(f"{who}: expected a Layer, got {name or describe(layer)}; {remedy}.")


def split_key(key: Key, n: int) -> Any:
    """n keys from one, or n times None. Raises TypeError for a seed, or anything else that is not a key."""
    if key is not None:
        expect_key("layer", key)
    return (None,) * n if key is None else jax.random.split(key, n)


def add_cotangents(a: Any, b: Any) -> Any:
    """The transpose of a copy is a sum: cotangents of one value used twice add, None adding nothing."""
    if a is None or b is None:
        return b if a is None else a
    return jax.tree.map(
        lambda u, v: add_cotangents(u, v) if u is None or v is None else u + v, a, b, is_leaf=lambda u: u is None
    )


class Function(Protocol[Y]):
    """f(params, x, key=None) -> y."""

    __name__: str

    def __call__(self, params: Any, x: Any, key: Key = None) -> Y: ...


def as_custom_vjp(layer: Layer[Y]) -> Function[Y]:
    """f(params, x, key=None) -> y whose gradient, under anyone's `jax.grad`, is the layer's own `bwd`.

    Usable inside Flax, Equinox or plain JAX, under `jit`, `vmap` and `scan`. Forward mode (`jax.jvp`, `jax.jacfwd`) runs the
    transpose of `bwd`, which is the derivative again, and raises TypeError where JAX cannot transpose it. Inside
    `jax.shard_map` an argument may be the same on all devices while another varies between some: its gradient is summed over
    those devices, as in JAX.

    >>> f = nnjax.as_custom_vjp(nnjax.tanh())
    >>> jax.grad(lambda x: f((), x).sum())(jnp.zeros(2)).tolist()
    [1.0, 1.0]
    """
    expect_layer("as_custom_vjp", layer)

    def call(params, x, key):
        return layer.apply(params, x, key=key)

    call.__name__ = call.__qualname__ = layer.name  # what `audit` and tracebacks call it
    call = jax.custom_vjp(call)

    def fwd(params, x, key):
        return layer.fwd(params, x, key=key)

    def bwd(residuals, ct_y):
        ct_params, ct_x = layer.bwd(residuals, ct_y)
        return ct_params, ct_x, None  # a key has no cotangent

    call.defvjp(fwd, bwd)
    both = in_both_modes(call, fwd, bwd, layer.name)

    def f(params, x, key=None):
        for what, tree in (("params", params), ("x", x)):
            expect_arrays(f.__name__, what, tree)
        if key is not None:
            expect_key(f.__name__, key)
        if communicates(partial(layer.fwd, key=key), layer.bwd, params, x):
            return both(params, x, key)
        return both(*together((params, x, key)))

    f.__name__ = f.__qualname__ = f"as_custom_vjp({layer.name})"
    return f


Visit = Callable[[Met], tuple[Any, Any]]


def walked(layer: Layer, params: Any, x: Any, key: Any, visit: Visit) -> tuple[Any, Any]:
    """(params, y) of a composition, assembled from visit(met) -> (params, y) of each part, in the order in which they act.

    Raises ValueError for a layer that does not say what its parts meet.
    """
    if layer.walk is None:
        raise ValueError(f"{layer.name}: it must say what its parts meet, as nnjax.serial, residual, parallel, scan_layers "
                         "and tied do; compose it of these.")  # fmt: skip
    walk = layer.walk(params, x, key)
    try:
        part = next(walk)
        while True:
            part = walk.send(visit(part))
    except StopIteration as end:
        return end.value


def met(layer: Layer, params: Any, x: Any, key: Any = None) -> list[Met]:
    """What every part meets, in the order in which they act; [] for a layer that is not a composition."""
    found: list[Met] = []

    def visit(part):
        found.append(part)
        return part.params, part.layer.apply(part.params, part.x, key=part.key)

    if layer.walk is not None:
        walked(layer, params, x, key, visit)
    return found


def is_chain(layer: Layer, params: Any, x: Any, key: Any = None) -> bool:
    """Whether each part's input is the output of the one before, no two share parameters, and y is the last output.

    This holds for a `serial`, whatever its name, and for `scan_layers`.
    """
    if layer.walk is None:
        return False
    chain = True

    def run(params, x, key):
        nonlocal chain
        now, seen = x, set()

        def visit(part):
            nonlocal chain, now
            own = {id(p) for p in jax.tree.leaves(part.params)}
            chain = chain and part.x is now and not own & seen
            seen.update(own)
            now = part.layer.apply(part.params, part.x, key=part.key)
            return part.params, now

        y = walked(layer, params, x, key, visit)[1]
        chain = chain and y is now

    jax.eval_shape(run, params, x, key)
    return chain


def with_part(layer: Layer[Y], i: int, part: Layer) -> Layer[Y]:
    """The composition with fwd and bwd of a different i-th part; the definition stays that of the original.

    Raises ValueError for a layer that cannot be composed again of other parts.
    """
    if layer.remade is None:
        raise ValueError(f"{layer.name}: it cannot be composed again of other parts, as nnjax.serial, residual, parallel, "
                         "scan_layers and tied can; compose it of these.")  # fmt: skip
    made = layer.remade(*layer.parts[:i], part, *layer.parts[i + 1 :])
    return layer._replace(fwd=made.fwd, bwd=made.bwd, parts=made.parts, walk=made.walk, remade=made.remade)


def cuts_gradient(layer: Layer) -> bool:
    """Whether the definition of the layer, or of a part of it, cuts the gradient on purpose, other than of whole inputs."""
    return layer.cuts is True or any(part.cuts or cuts_gradient(part) for part in layer.parts)


def fixed_inputs(layer: Layer) -> tuple[str, ...]:
    """The names of the inputs that the definition takes as fixed."""
    return layer.cuts if isinstance(layer.cuts, tuple) else ()


def plain(layer: Layer[Y]) -> Layer[Y]:
    """The layer, and every layer inside it, with only the plain pair: the backward under its definition.

    On some platforms a layer runs a faster spelling of that pair; `check` compares the two. A layer that has only the plain
    pair is returned as it is.
    Raises TypeError for what is no Layer.

    >>> layer = nnjax.max_pool(2)
    >>> layer.bwd is nnjax.plain(layer).bwd
    False
    """
    expect_layer("plain", layer)
    if layer.plain is not None:
        return layer.plain
    if layer.remade is None or all(plain(part) is part for part in layer.parts):
        return layer
    made = layer.remade(*map(plain, layer.parts))
    return layer._replace(fwd=made.fwd, bwd=made.bwd, parts=made.parts, walk=made.walk, remade=made.remade)
