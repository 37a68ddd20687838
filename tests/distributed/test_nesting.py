"""Random models with parts that are replicated, fully sharded and split, also nested, over sizes that the axes do not divide:
each has the value and the gradients of one device, or is refused with a sentence."""

import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax import distributed as parallel
from nnjax.distributed import (
    column_dense,
    fully_sharded,
    gpt,
    gpt_by_heads,
    gpt_by_heads_t,
    make_mesh,
    mean_over,
    mlp,
    on_mesh,
    replicated,
    row_dense,
    vocabulary_cross_entropy,
)
from nnjax.distributed.sharded import lifted

KEY, CONTEXT, CLASSES = jax.random.key(0), 3, 5
MESHES = [{"data": 2}, {"shard": 3}, {"shard": 4}, {"data": 2, "shard": 2}, {"shard": 2, "model": 2},
          {"data": 2, "shard": 3}, {"data": 2, "shard": 2, "model": 2}]  # fmt: skip


def wrappings(rng, axes):
    """The wrappers around a part, at most two: (replicated, axes) or (fully_sharded, axis)."""
    found = []
    for _ in range(rng.choice([0, 1, 1, 2])):
        if rng.random() < 0.4:
            found.append((replicated, tuple(rng.sample(axes, rng.randint(1, len(axes))))))
        else:
            found.append((fully_sharded, rng.choice(axes)))
    return found


def wrapped(found, around, mesh):
    for wrap, axis in around:
        found = wrap(found, mesh, axis) if wrap is fully_sharded else wrap(found, axis)
    return found


def pair(rng, mesh, axes, width, depth=0):
    """(a part over the mesh, the same on one device), from `width` features to as many."""
    kinds = ["dense", "norm", "conv", "serial", "residual", "scan", "scan"] if depth < 2 else ["dense", "norm"]
    kind = rng.choice([*kinds, *(["columns and rows"] if "model" in mesh.shape else [])])
    inside = [pair(rng, mesh, axes, width, depth + 1) for _ in range(2)] if kind == "serial" else []
    if kind in ("residual", "scan"):
        inside = [pair(rng, mesh, axes, width, depth + 1)]
    if kind == "dense":
        many = one = nnjax.serial(nnjax.dense(width, width), nnjax.tanh())
    elif kind == "norm":
        many = one = nnjax.layer_norm(width)
    elif kind == "conv":
        many = one = nnjax.conv(width, width, 2)
    elif kind == "serial":
        many, one = parallel.serial(*(m for m, _ in inside)), nnjax.serial(*(o for _, o in inside))
    elif kind == "residual":
        many, one = parallel.residual(inside[0][0]), nnjax.residual(inside[0][1])
    elif kind == "scan":
        n, remat = rng.choice([2, 3]), rng.random() < 0.5
        many, one = parallel.scan_layers(inside[0][0], n, remat=remat), nnjax.scan_layers(inside[0][1], n)
    else:
        middle = mesh.shape["model"] * rng.choice([1, 3])
        cut = column_dense(width, middle, mesh), nnjax.tanh(), row_dense(middle, width, mesh)
        many, one = parallel.serial(*cut), nnjax.mlp([width, middle, width], nnjax.tanh())
    return wrapped(many, wrappings(rng, axes), mesh), one


def chain(rng, mesh, axes):
    width = rng.choice([3, 4, 5, 6])
    first, last = (nnjax.dense(4, width), nnjax.dense(width, CLASSES))
    (many, one), (more, same) = (pair(rng, mesh, axes, width) for _ in range(2))
    parts = wrapped(first, wrappings(rng, axes), mesh), many, more, wrapped(last, wrappings(rng, axes), mesh)
    return parallel.serial(*parts), nnjax.serial(first, one, same, last), nnjax.softmax_cross_entropy(), None


def tied(rng, mesh, axes):
    width, vocab = rng.choice([3, 4, 5]), rng.choice([4, 5, 6])
    embed, head = nnjax.embedding(vocab, width), nnjax.unembedding(vocab, width)
    many, one = pair(rng, mesh, axes, width)
    around = wrappings(rng, axes)
    both = wrapped(embed, around, mesh), many, wrapped(head, around, mesh) if rng.random() < 0.8 else head
    return parallel.tied(*both), nnjax.tied(embed, one, head), nnjax.softmax_cross_entropy(), vocab


def whole_gpt(rng, mesh, axes):
    model = "model" if "model" in mesh.shape else None
    heads = mesh.shape.get("model", 1)
    sizes = {"vocab": rng.choice([4, 5, 6]), "context": CONTEXT, "layers": rng.choice([2, 3]), "heads": heads,
             "width": heads * rng.choice([2, 3, 5])}  # fmt: skip
    uneven = model is not None and sizes["vocab"] % mesh.shape["model"] != 0
    how = {"shard": rng.choice([None, *axes]), "data": rng.choice([None, *axes]), "remat": rng.random() < 0.5}
    many = gpt(**sizes, mesh=mesh, model=model, whole_table=uneven, **how)
    loss = vocabulary_cross_entropy() if model and not uneven else nnjax.linear_cross_entropy()
    return many, nnjax.gpt(**sizes, fused=True), loss, sizes["vocab"]


def whole_mlp(rng, mesh, axes):
    middle = mesh.shape.get("model", 1) * rng.choice([1, 3, 4])
    sizes = [4, middle, rng.choice([3, 5]), middle, CLASSES, CLASSES][: rng.choice([3, 5, 6])]
    sizes[-1] = CLASSES
    one = nnjax.mlp(sizes, nnjax.tanh())
    many = mlp(sizes, mesh, nnjax.tanh(), data=tuple(axes[:1])) if "model" in mesh.shape else lifted("test", one)
    return many, one, nnjax.softmax_cross_entropy(), None


def configuration(seed):
    """(mesh, axes of the batch, the model over the mesh, the one on one device, loss, vocabulary) for this seed."""
    rng = random.Random(seed)
    mesh = make_mesh(**MESHES[seed % len(MESHES)])
    axes = [name for name in mesh.shape if name != "model"]
    make = (chain, tied, whole_gpt, whole_mlp, chain)[seed // len(MESHES) % 5]
    many, one, loss, vocab = make(rng, mesh, axes)
    for axis in rng.sample(axes, len(axes)):  # what has not been summed yet is summed at the end
        many = wrapped(many, rng.choice([[(replicated, axis)], [(fully_sharded, axis)], [(fully_sharded, axis)] * 2]), mesh)
    return mesh, axes, wrapped(many, wrappings(rng, axes), mesh), one, loss, vocab


def run(seed):
    """Compare the configuration of this seed with one device, in float64. Returns whether it was refused."""
    try:
        mesh, axes, many, one, loss, vocab = configuration(seed)
    except ValueError as error:
        if not str(error).startswith("distributed.tied: embed and head share one table"):
            raise
        return True
    numbers = np.random.default_rng(seed)
    n = mesh.size
    params = jax.tree.map(lambda p: jnp.asarray(np.asarray(p) + 0.3 * numbers.standard_normal(p.shape)), one.init(KEY))
    x = numbers.standard_normal((n, CONTEXT, 4)) if vocab is None else numbers.integers(0, vocab, (n, CONTEXT), np.int32)
    labels = numbers.integers(0, vocab or CLASSES, (n, CONTEXT), np.int32)
    there, back = (gpt_by_heads, gpt_by_heads_t) if "model" in mesh.shape else (lambda p: p, lambda p: p)
    of_one = nnjax.linear_cross_entropy() if loss.name == "vocabulary_cross_entropy" else loss
    right = jax.jit(nnjax.reference_value_and_grad(one, of_one))(params, x, labels)
    makers = [nnjax.value_and_grad] if seed % 4 else [nnjax.value_and_grad, nnjax.reference_value_and_grad]
    for make in makers:
        f = on_mesh(make(many.layer, mean_over(loss, tuple(axes))), many, mesh, tuple(axes))
        value, grads = jax.jit(lambda p, x, labels, f=f: f(there(p), x, labels))(params, x, labels)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), (value, back(grads)), right)
    return False


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.repeats
@pytest.mark.in_turn
def test_some_configurations(seed, x64):
    run(seed)


@pytest.mark.slow
@pytest.mark.parametrize("start", range(6, 230, 28))
@pytest.mark.in_turn
def test_two_hundred_configurations(start, x64):
    refused = sum(run(seed) for seed in range(start, start + 28))
    assert refused <= 3
