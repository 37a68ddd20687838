"""A network described by names and numbers, as a file can hold it, and the layer that it describes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from ... import feedback as back
from ... import layers
from ...errors import unknown_name
from ...layer import Layer
from ...models.book import book
from ...models.char_rnn import char_rnn
from ...models.gpt import gpt
from ...models.lenet import lenet
from ...models.llama import llama
from ...models.mlp import mlp
from ...models.moe import moe
from ...models.resnet import resnet

ACTIVATIONS: dict[str, Callable[[], Layer]] = {
    name: getattr(layers, name) for name in ("sigmoid", "tanh", "relu", "leaky_relu", "elu", "gelu", "silu", "softplus")
}
KINDS: dict[str, Callable[..., Layer]] = {
    "mlp": mlp, "lenet": lenet, "resnet": resnet, "nielsen": book, "gpt": gpt, "llama": llama, "moe": moe,
    "char_rnn": char_rnn,
}  # fmt: skip


class Network(NamedTuple):
    """kind: a name of `KINDS`; options: its arguments by name, an activation by its own name."""

    kind: str
    options: Mapping[str, Any]


def named(what: str, name: str, table: Any) -> Any:
    """table[name]. Raises ValueError, which suggests the nearest entry, for an unknown name."""
    if name not in table:
        raise unknown_name(what, name, table)
    return table[name] if isinstance(table, dict) else name


def layer_of(network: Network, **others: Any) -> Layer:
    """The layer; others: arguments that are not saved, such as feedback.

    Raises ValueError for unknown names and for sizes that do not fit.
    """
    options = dict(network.options)
    if "activation" in options:
        options["activation"] = named("activation", options["activation"], ACTIVATIONS)()
    return named("model", network.kind, KINDS)(**options, **others)


def operators(feedback: str | Sequence[back.Operator], key: jax.Array, n: int) -> tuple[back.Operator, ...]:
    """What carries the error back through the n layers with weights after the first; direct feedback bypasses them."""
    if not isinstance(feedback, str):
        return back.for_layers("make_recipe", feedback, n)
    local = "transpose" if feedback == "direct" else feedback
    return back.named(local, jax.random.fold_in(key, 1), n) if n else ()


def layers_after_the_first(network: Network) -> int:
    """How many layers of an mlp or a lenet send an error back."""
    options = network.options
    return len(options["sizes"]) - 2 if network.kind == "mlp" else len(options["channels"]) + len(options["hidden"])
