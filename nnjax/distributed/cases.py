"""The table of layers, losses and models over a mesh, each with its reference on one device."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from .. import auxiliary, layers, losses, models, ops
from ..cases import hard, jittered
from ..combinators import scan_layers as scan
from ..combinators import serial as in_a_row
from ..errors import unknown_name
from ..layer import Layer
from ..losses.fused import linear_cross_entropy
from .attention import by_heads_t, head_attention
from .cutting.llama import llama, llama_by_groups_t
from .cutting.summed import by_groups_t, cut_swiglu, grouped_attention
from .dense import column_dense, row_dense
from .loss import mean_over
from .models import gpt, gpt_by_heads_t, mlp, moe
from .routing.mixture_of_experts import mixture_of_experts
from .sharded import Sharded, fully_sharded, lifted, replicated, scan_layers, serial
from .training import AXES, BATCH
from .vocabulary import vocabulary_cross_entropy, vocabulary_embedding


class Case(NamedTuple):
    """A layer over a mesh, its reference on one device, the specs of whole arrays (params, x, y), and inputs(rng) -> x.

    A layer without a reference draws random numbers; every device of data and shard must draw its own.
    """

    name: str
    layer: Layer
    reference: Layer | None
    specs: tuple[Any, Any, Any]
    inputs: Callable[[np.random.Generator], Any]

    def make(self, seed: int) -> tuple[Any, Any]:
        """(params, x) drawn from this seed."""
        return jittered(self.layer).init(jax.random.key(seed)), self.inputs(np.random.default_rng(seed))


def scored(model: Layer, loss: Layer) -> Layer:
    """value = loss(model(inputs), labels), as one layer.  x: (inputs, labels)."""

    def apply(params, x, *, key=None):
        inputs, labels = x
        return loss.apply((), (model.apply(params, inputs, key=key), labels))

    def fwd(params, x, *, key=None):
        inputs, labels = x
        y, of_model = model.fwd(params, inputs, key=key)
        value, of_loss = loss.fwd((), (y, labels))
        return value, (of_model, of_loss)

    def bwd(residuals, ct_value):
        of_model, of_loss = residuals
        _, (ct_y, *_) = loss.bwd(of_loss, ct_value)
        ct_params, ct_inputs = model.bwd(of_model, ct_y)
        return ct_params, (ct_inputs, None)

    return Layer(f"{loss.name} of {model.name}", model.init, apply, fwd, bwd)


def _of(change: Callable[[Any], Any], layer: Layer) -> Layer:
    """The layer on one device, for parameters in the layout of a mesh."""
    return layer._replace(apply=lambda params, x, *, key=None: layer.apply(change(params), x, key=key))


def _normal(*shape: int) -> Callable[..., Any]:
    return lambda rng: jnp.asarray(rng.standard_normal(shape).astype(np.float32))


def _hard(*shape: int) -> Callable[..., Any]:
    return lambda rng: hard(rng, shape)


def _ids(below: int, *shape: int) -> Callable[..., Any]:
    return lambda rng: jnp.asarray(rng.integers(0, below, shape).astype(np.int32))


def _weights(*shape: int) -> Callable[[np.random.Generator], Array]:
    return lambda rng: jnp.asarray(rng.integers(0, 3, shape).astype(np.float32)) + 1


def _all(*inputs: Callable[..., Any]) -> Callable[..., Any]:
    return lambda rng: tuple(f(rng) for f in inputs)


def cases(mesh: Mesh) -> list[Case]:
    """Every layer, loss and model that fits a mesh of axes data, shard, model and expert.

    Mesh axes divide the sizes that they split; some fully sharded sizes are divisible, some are not.

    Raises ValueError for another axis.
    """
    for name in mesh.axis_names:
        if name not in AXES:
            raise unknown_name("axis of a mesh", name, AXES)
    batch = tuple(name for name in BATCH if name in mesh.axis_names)
    examples = 2 * math.prod(mesh.shape[name] for name in batch)
    table = _cut_layers(mesh, batch, examples) if "model" in mesh.axis_names else []
    if batch:
        table += _models(mesh, batch, examples)
        mean, x_specs = mean_over(losses.softmax_cross_entropy(), batch), (P(batch), P(batch), P(batch))
        inputs = _all(_hard(examples, 3), _ids(3, examples), _weights(examples))
        table.append(Case("mean_over", mean, losses.softmax_cross_entropy(), (P(), x_specs, P()), inputs))
        table.append(_ops(batch, examples))
        drop = replicated(layers.dropout(0.5), batch)
        table.append(Case("dropout", drop.layer, None, (drop.specs, P(batch), P(batch)), lambda rng: jnp.ones(64)))
    if "expert" in mesh.axis_names:
        return [*table, *_mixtures(mesh, batch, examples)]
    return [*table, _gpt(mesh, batch, examples), _llama(mesh, batch, examples)]


def _ops(batch: tuple[str, ...], n: int) -> Case:
    """The definition by `nnjax.ops`, as in a user's own jax.grad: weights that are the same on all devices, data that vary."""
    model = in_a_row(layers.conv(2, 3, (2, 2)), layers.max_pool((2, 2)))

    def apply(params, x, *, key=None):
        return ops.max_pool(ops.conv(x, *params[0]), (2, 2))

    found = replicated(model, batch)
    layer = found.layer._replace(name="ops", apply=apply)
    return Case("ops", layer, model, (found.specs, P(batch), P(batch)), _normal(n, 4, 4, 2))


def _cut_layers(mesh: Mesh, batch: tuple[str, ...], n: int) -> list[Case]:
    m, rows = mesh.shape["model"], P(batch)

    def case(name, found: Sharded, one: Layer, x_spec, y_spec, inputs):
        return Case(name, replicated(found, batch).layer, one, (found.specs, x_spec, y_spec), inputs)

    vocab, heads = 2 * m, m
    attend, one_attend = head_attention(2 * m, heads, mesh), _of(by_heads_t, layers.attention(2 * m, heads))
    how = {"kv_heads": m, "rope": True, "out_bias": False}
    grouped = grouped_attention(8 * m, 2 * m, mesh, kv_heads=m, rope=True, bias=True)
    one_grouped = _of(lambda params: by_groups_t(params, m), layers.attention(8 * m, 2 * m, **how))
    loss, lies = vocabulary_cross_entropy(), ((P(), P("model")), P(), P())
    scores = (_all(_normal(n, 3), _hard(vocab, 3)), _ids(vocab, n), _weights(n))
    cut_mlp = mlp([3, 2 * m, 4, 2 * m, 3, 2], mesh, layers.tanh(), data=batch)
    return [
        case("column_dense", column_dense(3, 2 * m, mesh), layers.dense(3, 2 * m), rows, P(batch, "model"), _hard(n, 3)),
        case("row_dense", row_dense(2 * m, 3, mesh), layers.dense(2 * m, 3), P(batch, "model"), rows, _hard(n, 2 * m)),
        case("head_attention", attend, one_attend, rows, rows, _normal(n, 3, 2 * m)),
        case("grouped_attention", grouped, one_grouped, rows, rows, _normal(n, 3, 8 * m)),
        case("cut_swiglu", cut_swiglu(3, 2 * m, mesh), layers.swiglu(3, 2 * m), rows, rows, _normal(n, 3)),
        case("vocabulary_embedding", vocabulary_embedding(vocab, 3, mesh), layers.embedding(vocab, 3), rows, rows,
             _ids(vocab, n, 2)),
        Case("vocabulary_cross_entropy", loss, linear_cross_entropy(), (P(), lies[:2], P()), _all(*scores[:2])),
        Case("vocabulary_cross_entropy, weighted", loss, linear_cross_entropy(), (P(), lies, P()), _all(*scores)),
        Case("mlp by columns and rows", cut_mlp.layer, models.mlp([3, 2 * m, 4, 2 * m, 3, 2], layers.tanh()),
             (cut_mlp.specs, rows, rows), _normal(n, 3)),
    ]  # fmt: skip


def _mixtures(mesh: Mesh, batch: tuple[str, ...], n: int) -> list[Case]:
    """Experts on several devices, without their losses and with them in the loss of a whole model."""
    experts, shard = 2 * mesh.shape["expert"], "shard" if "shard" in mesh.axis_names else None
    cut = replicated(mixture_of_experts(4, 3, experts, 2, mesh, batch=batch), batch)
    one, specs = layers.mixture_of_experts(4, 3, experts, 2), (cut.specs, P(batch), P(batch))
    mixture = Case("mixture_of_experts", cut.layer, one, specs, _normal(n, 3, 4))
    sizes = {"vocab": 5, "context": 3, "layers": 2, "heads": 2, "width": 4, "experts": experts, "top_k": 2, "hidden": 3}
    how: dict[str, Any] = {**sizes, "balance": 0.5, "z": 0.5}
    found = moe(**how, mesh=mesh, data=tuple(name for name in ("data",) if name in batch), expert="expert",
                shard=shard)  # fmt: skip
    loss = auxiliary.to_loss(linear_cross_entropy())
    one = scored(models.moe(**how, fused=True, auxiliary=True), loss)
    layer = scored(found.layer, mean_over(loss, batch))
    inputs = _all(_ids(5, n, 3), _ids(5, n, 3))
    return [mixture, Case("moe with its loss", layer, one, (found.specs, (P(batch), P(batch)), P()), inputs)]


def _models(mesh: Mesh, batch: tuple[str, ...], n: int) -> list[Case]:
    size = mesh.shape[batch[-1]]
    whole = {
        "mlp": (models.mlp([3, 2 * size, 2], layers.tanh()), _normal(n, 3)),
        "lenet": (models.lenet(2, channels=(size,), hidden=size, activation=layers.tanh(), image=(6, 6, 1)), _hard(n, 6, 6, 1)),
        "lstm": (in_a_row(layers.lstm(3, size), layers.dense(size, 2)), _hard(n, 3, 3)),
    }
    table = []
    for name, (model, inputs) in whole.items():
        fully = fully_sharded(lifted("check", model), mesh, batch[-1])
        for how, found in (("replicated", replicated(model, batch)), ("fully_sharded", replicated(fully, batch[:-1]))):
            table.append(Case(f"{how} {name}", found.layer, model, (found.specs, P(batch), P(batch)), inputs))
    odd, block = 2 * size + 1, in_a_row(layers.dense(3, 3), layers.tanh())
    one = in_a_row(layers.dense(3, odd), layers.tanh(), layers.dense(odd, 3), scan(block, 2), layers.dense(3, size))
    *before, _, last = (lifted("check", part) for part in one.parts)
    inner = scan_layers(fully_sharded(block, mesh, batch[-1]), 2)
    found = replicated(fully_sharded(serial(*before, inner, last), mesh, batch[-1]), batch)
    table.append(Case("fully_sharded inside fully_sharded", found.layer, one, (found.specs, P(batch), P(batch)), _normal(n, 3)))
    return table


def _gpt(mesh: Mesh, batch: tuple[str, ...], n: int) -> Case:
    m, size = mesh.shape.get("model", 1), mesh.shape.get("shard", 1)
    # Without an axis model: table, positions, norms and matrices are whole, or split along shard.
    vocab = 2 * m if m > 1 else 2 * size + 1
    sizes = {"vocab": vocab, "context": 3 * size, "layers": 2, "heads": m, "width": m * (size + 1)}
    data, shard, model = (name if name in mesh.axis_names else None for name in ("data", "shard", "model"))
    loss = vocabulary_cross_entropy() if model else linear_cross_entropy()
    found = gpt(**sizes, mesh=mesh, data=data, shard=shard, model=model)
    one = scored(models.gpt(**sizes, fused=True), linear_cross_entropy())
    layer = scored(found.layer, mean_over(loss, batch) if batch else loss)
    reference = _of(gpt_by_heads_t, one) if model else one
    inputs = _all(_ids(vocab, n, 3), _ids(vocab, n, 3))
    return Case("gpt with its loss", layer, reference, (found.specs, (P(batch), P(batch)), P()), inputs)


def _llama(mesh: Mesh, batch: tuple[str, ...], n: int) -> Case:
    m, size = mesh.shape.get("model", 1), mesh.shape.get("shard", 1)
    vocab = 2 * m if m > 1 else 2 * size + 1
    sizes = {"vocab": vocab, "context": 3, "layers": 2, "heads": 2 * m, "width": 4 * m, "kv_heads": m, "hidden": m * size}
    data, shard, model = (name if name in mesh.axis_names else None for name in ("data", "shard", "model"))
    loss = vocabulary_cross_entropy() if model else linear_cross_entropy()
    found = llama(**sizes, mesh=mesh, data=data, shard=shard, model=model)
    one = scored(models.llama(**sizes, fused=True), linear_cross_entropy())
    layer = scored(found.layer, mean_over(loss, batch) if batch else loss)
    reference = _of(lambda params: llama_by_groups_t(params, m), one) if model else one
    inputs = _all(_ids(vocab, n, 3), _ids(vocab, n, 3))
    return Case("llama with its loss", layer, reference, (found.specs, (P(batch), P(batch)), P()), inputs)
