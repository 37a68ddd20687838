"""Split a model of one device over the devices of a mesh, to train it there."""

from functools import partial
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ..errors import unknown_name
from ..grad import reference_value_and_grad, value_and_grad
from ..layer import Layer
from ..models.llama import LlamaOptions
from ..train.placement import OnMesh
from ..train.recipe import Gpt, Gradients, Made, Mlp, Moe
from .cutting.llama import llama, llama_by_groups, llama_by_groups_t
from .loss import mean_over
from .mesh import on_mesh
from .models import gpt, gpt_by_heads, gpt_by_heads_t, gpt_stacked, gpt_stacked_t, mlp, moe
from .sharded import Sharded, fully_sharded, lifted, replicated
from .vocabulary import vocabulary_cross_entropy

AXES = ("data", "shard", "model", "expert")
BATCH = ("data", "shard", "expert")  # their devices have examples of their own


def gradients(model: Layer, loss: Layer, mesh: Mesh, made: Made | None = None) -> Gradients:
    """The gradients of a model of one device and its loss, on a mesh of the axes data, shard (parameters fully sharded),
    model and expert.

    The devices of data, shard and expert share a batch. made: the description that the model was made from, if it is an mlp, a
    gpt or a llama (with `fused` loss), which are also split over model, or a moe, whose experts are split over expert.
    Raises ValueError for another axis, for any other model on an axis model or expert, and for sizes that it does not divide.
    """
    for name in mesh.axis_names:
        if name not in AXES:
            raise unknown_name("axis of a mesh to train on", name, AXES)
    cut = "model" if "model" in mesh.axis_names else None
    data, shard = ("data" in mesh.axis_names, "shard" if "shard" in mesh.axis_names else None)
    if "expert" in mesh.axis_names and not isinstance(made, Moe):
        raise ValueError(f"train: the mesh axis expert needs a moe, got {model.name}; use data and shard.")
    if isinstance(made, (Gpt, LlamaOptions)):
        sharded, loss, placed = _transformer(made, loss, mesh, cut, shard, data)
    elif isinstance(made, Moe) and cut is None:
        sharded, placed = _moe(made, mesh, shard, data), _stacked(made)
    else:
        placed = {}
        if cut is None:
            sharded = lifted("train", model)
        elif isinstance(made, Mlp):
            sharded = mlp(made.sizes, mesh, made.activation, data=())
        else:
            raise ValueError(
                f"train: the mesh axis model needs an mlp, a gpt or a llama, got {model.name}; use data and shard."
            )
        sharded = fully_sharded(sharded, mesh, shard) if shard else sharded
        sharded = replicated(sharded, "data") if data else sharded
    axes = tuple(name for name in BATCH if name in mesh.axis_names)
    mean = mean_over(loss, axes) if axes else loss
    found = (f(sharded.layer, mean) for f in (value_and_grad, reference_value_and_grad))
    hand, reference = (on_mesh(f, sharded, mesh, axes) for f in found)
    shardings = jax.tree.map(lambda s: NamedSharding(mesh, s), sharded.specs, is_leaf=lambda s: isinstance(s, P))
    return Gradients(hand, reference, OnMesh(shardings, NamedSharding(mesh, P(axes)), **placed))


def _transformer(made: Gpt | LlamaOptions, loss, mesh, cut, shard, data) -> tuple[Sharded, Layer, dict[str, Any]]:
    uneven = cut is not None and made.vocab % mesh.shape[cut] != 0
    how = {"data": "data" if data else None, "model": cut, "shard": shard, "whole_table": uneven}
    there, back = ([], []) if made.scan else ([gpt_stacked], [gpt_stacked_t])  # a llama's blocks lie as a gpt's
    if isinstance(made, Gpt):
        sizes = made.vocab, made.context, made.layers, made.heads, made.width
        sharded, apart, joined = gpt(*sizes, mesh, **how, dropout=made.dropout), gpt_by_heads, gpt_by_heads_t
    else:
        sharded, devices = llama(**made._asdict(), mesh=mesh, **how), 1 if cut is None else mesh.shape[cut]
        apart, joined = partial(llama_by_groups, devices=devices), partial(llama_by_groups_t, devices=devices)
    if cut is not None:
        there, back = [*there, apart], [joined, *back]
    loss = vocabulary_cross_entropy(cut) if cut is not None and not uneven else loss
    return sharded, loss, {"cut": partial(_through, there), "back": partial(_through, back)}


def _moe(made: Moe, mesh, shard, data) -> Sharded:
    options = {name: value for name, value in made._asdict().items() if name != "scan"}
    expert = "expert" if "expert" in mesh.axis_names else None
    return moe(**options, mesh=mesh, data="data" if data else None, expert=expert, shard=shard)


def _stacked(made: Moe) -> dict[str, Any]:
    return {} if made.scan else {"cut": gpt_stacked, "back": gpt_stacked_t}


def _through(changes, tree):
    for change in changes:
        tree = change(tree)
    return tree
