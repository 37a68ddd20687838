"""A training step of a GPT over a mesh, compiled, and the minimum that it has to send."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ..distributed.loss import mean_over
from ..distributed.mesh import on_mesh
from ..distributed.models import gpt
from ..distributed.vocabulary import vocabulary_cross_entropy
from ..grad import value_and_grad
from ..losses.fused import linear_cross_entropy
from ..train.step import init_state, make_step
from .ahead.targets import Target
from .text.cost import Message, axes_of


class Sizes(NamedTuple):
    """The sizes of a `gpt`, and the number of sequences of `context` tokens in a batch, on all devices together."""

    vocab: int
    context: int
    layers: int
    heads: int
    width: int
    batch: int


class Need(NamedTuple):
    """`times` messages of these bytes (as in `cost.Message`) among the devices along these axes of the mesh."""

    what: str
    kind: str
    bytes: int
    times: int
    axes: tuple[str, ...]


def block_numbers(width: int, model: int = 1) -> int:
    """Parameters of one block on a device: 12 n^2 + 7 n over the axis model, and 6 n whole (norms, biases after a sum)."""
    return (12 * width**2 + 7 * width) // model + 6 * width


def end_numbers(sizes: Sizes, model: int = 1) -> int:
    """Parameters outside the blocks: the vocabulary's table, split over the axis model; positions and the last norm, whole."""
    return sizes.vocab * sizes.width // model + sizes.context * sizes.width + 2 * sizes.width


def minimum(sizes: Sizes, mesh: Mapping[str, int], itemsize: int = 4) -> list[Need]:
    """The minimum that a step sends, by axis of the mesh: data, shard, model.  itemsize: bytes of a number.

    data: one all-reduce of the gradients (for its cost see Thakur et al. 2005), or of a device's share of them if shard
    splits them.
    model: for each block two all-reduces of the activations in each direction (Shoeybi et al. 2019, figure 4); for the
    vocabulary, one of the embeddings, one of ct_h, one of each row's largest score and one of two sums.
    shard: for the parameters of each block an all-gather forward, one backward, and a reduce-scatter of the gradients
    (Rajbhandari et al. 2020, section 7); for the other parameters an all-gather for both directions, and a reduce-scatter.
    The loss: one all-reduce of two numbers, the weighted sum and the weight.
    It assumes that every parameter can be split: axes divide width and vocab; data and shard together divide batch.
    """
    data, shard, model = (mesh.get(axis, 1) for axis in ("data", "shard", "model"))
    rows = sizes.batch * sizes.context // (data * shard)
    block, ends = (itemsize * n for n in (block_numbers(sizes.width, model), end_numbers(sizes, model)))
    activations, L = itemsize * rows * sizes.width, sizes.layers
    batch = tuple(axis for axis in ("data", "shard") if mesh.get(axis, 1) > 1)
    needs = [
        Need("blocks, forward", "all-reduce", activations, 2 * L, ("model",)),
        Need("blocks, backward", "all-reduce", activations, 2 * L, ("model",)),
        Need("embedding; ct of its rows at the head", "all-reduce", activations, 2, ("model",)),
        Need("largest score of a row", "all-reduce", itemsize * rows, 1, ("model",)),
        Need("sums of a row's scores", "all-reduce", 2 * itemsize * rows, 1, ("model",)),
        Need("blocks, forward", "all-gather", block, L, ("shard",)),
        Need("blocks, backward", "all-gather", block, L, ("shard",)),
        Need("blocks, gradients", "reduce-scatter", block, L, ("shard",)),
        Need("table, positions, last norm", "all-gather", ends, 1, ("shard",)),
        Need("their gradients", "reduce-scatter", ends, 1, ("shard",)),
        Need("gradients", "all-reduce", (L * block + ends) // shard, 1, ("data",)),
    ]
    loss = [Need("loss and its weight", "all-reduce", 2 * itemsize, 1, batch)] if batch else []
    return [need for need in needs if mesh.get(need.axes[0], 1) > 1] + loss


Counts = dict[tuple[tuple[str, ...], str, int], int]  # {(axes, kind, bytes): how many messages}


def counted(messages: Sequence[Message | Need], mesh: Mapping[str, int]) -> Counts:
    """The number of messages of a program or of the minimum along each axis, of each kind and size."""
    found: Counts = {}
    for m in messages:
        key = (m.axes if isinstance(m, Need) else axes_of(m, mesh), m.kind, m.bytes)
        found[key] = found.get(key, 0) + m.times
    return dict(sorted(found.items()))


def summed(counts: Counts) -> dict[tuple[tuple[str, ...], str], tuple[int, int]]:
    """{(axes, kind): (messages, bytes of all)}: the bytes stay the same if XLA merges or splits messages."""
    found: dict[tuple[tuple[str, ...], str], tuple[int, int]] = {}
    for (axes, kind, size), times in counts.items():
        messages, total = found.get((axes, kind), (0, 0))
        found[axes, kind] = messages + times, total + times * size
    return found


def compiled_step(sizes: Sizes, mesh: Mesh, chips: Target | None = None) -> Any:
    """`step_on`, compiled for the mesh; nothing is run.  chips: the target of the mesh, if its devices are not here."""
    step, args = step_on(sizes, mesh)
    if chips:
        return chips.compile_laid_out(step, args, {})  # with the compiler's full effort, as we read its choices
    return step.lower(*args).compile()


def step_on(sizes: Sizes, mesh: Mesh) -> tuple[Any, tuple[Any, ...]]:
    """One step of Adam on a `gpt` over the axes data, shard and model of this mesh, and the shapes of its arguments.

    The arguments are (parameters, first moments, second moments, ids, labels).
    Raises ValueError, like the layers, for sizes that the mesh does not divide.
    """
    data, shard, model = (axis if axis in mesh.shape else None for axis in ("data", "shard", "model"))
    sharded = gpt(*sizes[:5], mesh, data=data, shard=shard, model=model)
    axes = tuple(axis for axis in (data, shard) if axis)
    loss = vocabulary_cross_entropy() if model else linear_cross_entropy()
    f = on_mesh(value_and_grad(sharded.layer, mean_over(loss, axes) if axes else loss), sharded, mesh, axes)
    optimizer = optax.adam(1e-3)
    step = make_step(f, optimizer)

    def run(params, mu, nu, ids, labels):
        state = init_state(params, optimizer, jax.random.key(0))
        adam, *rest = state.opt_state  # the given moments replace those that init_state makes
        after, value = step(state._replace(opt_state=(adam._replace(mu=mu, nu=nu), *rest)), ids, labels)
        return after.params, after.opt_state[0].mu, after.opt_state[0].nu, value

    def lies(a, spec):
        return jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=NamedSharding(mesh, spec))

    params = jax.tree.map(lies, jax.eval_shape(sharded.layer.init, jax.random.key(0)), sharded.specs)
    ids = jax.ShapeDtypeStruct((sizes.batch, sizes.context), jnp.int32, sharding=NamedSharding(mesh, P(axes)))
    return jax.jit(run), (params, params, params, ids, ids)
