"""Into a composition: what each of its parts meets, and the same composition of other parts.

Every combinator supplies both beside its own definition (`Layer.walk`, `Layer.remade`), so that whoever has to look inside a
layer, to name the wrong part or to exchange one, need not know which combinator made it.
"""

from collections.abc import Callable
from typing import Any

import jax

from .layer import Layer, Met

Visit = Callable[[Met], tuple[Any, Any]]


def walked(layer: Layer, params: Any, x: Any, key: Any, visit: Visit) -> tuple[Any, Any]:
    """(params, y) of a composition, put together of visit(met) -> (params, y) of each part, in the order in which they act.

    Raises ValueError for a layer that does not say what its parts meet.
    """
    if layer.walk is None:
        raise ValueError(f"{layer.name}: it does not say what its parts meet, as nnjax.serial, residual, parallel, scan_layers "
                         "and tied do; compose it of these.")  # fmt: skip
    walk = layer.walk(params, x, key)
    try:
        part = next(walk)
        while True:
            part = walk.send(visit(part))
    except StopIteration as end:
        return end.value


def met(layer: Layer, params: Any, x: Any, key: Any = None) -> list[Met]:
    """What every part meets, in the order in which they act; [] for a layer that is no composition."""
    found: list[Met] = []

    def visit(part):
        found.append(part)
        return part.params, part.layer.apply(part.params, part.x, key=part.key)

    if layer.walk is not None:
        walked(layer, params, x, key, visit)
    return found


def is_chain(layer: Layer, params: Any, x: Any, key: Any = None) -> bool:
    """Whether each part takes what the one before gives, none shares parameters with another, and y is what the last one gives.

    So it is in a `serial`, under whatever name, and in `scan_layers`.
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


def with_part(layer: Layer, i: int, part: Layer) -> Layer:
    """The composition with fwd and bwd of another i-th part; the definition stays that of the right one.

    Raises ValueError for a layer that cannot be made again of other parts.
    """
    if layer.remade is None:
        raise ValueError(f"{layer.name}: it cannot be made again of other parts, as nnjax.serial, residual, parallel, "
                         "scan_layers and tied can; compose it of these.")  # fmt: skip
    made = layer.remade(*layer.parts[:i], part, *layer.parts[i + 1 :])
    return layer._replace(fwd=made.fwd, bwd=made.bwd, parts=made.parts, walk=made.walk, remade=made.remade)
