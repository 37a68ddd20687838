"""The one table of layers, losses, models and inputs that check, bench and tests run over."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from . import layers
from .combinators import parallel, residual, scan_layers, serial
from .layer import Layer
from .layers import attend
from .leaf import leaf, outline, outlined
from .linear import broadcast
from .losses import fused as fused_loss
from .losses import means as losses
from .models.char_rnn import char_rnn
from .models.gpt import gpt
from .models.lenet import lenet
from .models.mlp import mlp

LEADS = ((), (0,), (1,), (7,), (2, 3))  # no leading axis, an empty batch, batch 1, batch 7, two leading axes


class Case(NamedTuple):
    """A layer and its inputs: inputs(rng, lead) -> x. keyed: whether the layer draws random numbers."""

    name: str
    layer: Layer
    inputs: Callable[[np.random.Generator, tuple[int, ...]], Any]
    keyed: bool = False

    def make(self, seed: int, lead: tuple[int, ...] = (7,)) -> tuple[Any, Any, Any]:
        """(params, x, key) drawn from this seed."""
        params = quickly(self.layer.init, jax.random.key(seed))
        x = self.inputs(np.random.default_rng(seed), lead)
        return params, x, jax.random.key(seed + 1) if self.keyed else None


def quickly(f: Callable[..., Any], *args: Any) -> Any:
    """f(*args) as one program, compiled with few optimisations: with all, one that draws random numbers takes seconds."""
    options = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    return jax.jit(f, compiler_options=options)(*args)


def hard(rng: np.random.Generator, shape: tuple[int, ...]) -> jax.Array:
    """Normal numbers, among them zeros, ties, and a few that saturate everything."""
    x = rng.standard_normal(shape).astype(np.float32)
    chance = rng.random(shape)
    x = np.where(chance < 0.1, np.float32(0), x)
    x = np.where((chance > 0.1) & (chance < 0.2), np.float32(0.5), x)
    x = np.where(chance > 0.95, 30 * x, x)
    return jnp.asarray(x.astype(np.float32))


def _features(n: int) -> Callable[..., Any]:
    return lambda rng, lead: hard(rng, (*lead, n))


def _targets(n: int, weighted: bool) -> Callable[..., Any]:
    def inputs(rng, lead):
        y, t = hard(rng, (*lead, n)), jnp.asarray(rng.integers(0, 3, (*lead, n)).astype(np.float32) / 2)
        if not weighted:
            return y, t
        weights = _weights(rng, lead)
        return _unseen(y, weights, jnp.nan), _unseen(t, weights, jnp.inf), weights

    return inputs


def _classes(n: int, weighted: bool, absent: bool = False, dtype: Any = np.int32) -> Callable[..., Any]:
    """absent: some classes that are not a label have the logit -inf."""

    def inputs(rng, lead):
        y, labels = hard(rng, (*lead, n)), jnp.asarray(rng.integers(0, n, lead).astype(dtype))
        if absent:
            own = np.asarray(labels)[..., None] == np.arange(n)
            y = jnp.where((rng.random(y.shape) < 0.2) & ~own, -jnp.inf, y)
        if not weighted:
            return y, labels
        weights = _weights(rng, lead)
        return _unseen(y, weights, jnp.nan), labels, weights

    return inputs


def _weights(rng, lead):
    """Weights, some of them 0 (always the first of several), whose sum over a batch is too large for float16."""
    weights = 16384 * rng.integers(0, 3, lead).astype(np.float32)
    if weights.size > 1:
        weights.flat[0] = 0
    return jnp.asarray(weights)


def _unseen(x, weights, value):
    """x with this value wherever the weight is 0."""
    return jnp.where(broadcast((weights == 0)[..., None], x.shape), jnp.full_like(x, value), x)


def _steps(*shape: int) -> Callable[..., Any]:
    return lambda rng, lead: hard(rng, (*lead, *shape))


def _ids(vocab: int, *shape: int) -> Callable[..., Any]:
    return lambda rng, lead: jnp.asarray(rng.integers(0, vocab, (*lead, *shape)).astype(np.int32))


def _with_state(steps: int, n_in: int, n_hidden: int, cell: bool = False) -> Callable[..., Any]:
    def inputs(rng, lead):
        h, c = (jnp.asarray(rng.standard_normal((*lead, n_hidden)).astype(np.float32)) for _ in range(2))
        return hard(rng, (*lead, steps, n_in)), layers.LSTMState(h, c) if cell else h

    return inputs


def _positions(s: int, n: int, masked: bool = False) -> Callable[..., Any]:
    def inputs(rng, lead):
        x = jnp.asarray(rng.standard_normal((*lead, s, n)).astype(np.float32))  # saturated scores would prove nothing
        return (x, jnp.asarray(rng.random((*lead, s)) < 0.4)) if masked else x

    return inputs


def _spoilt_attention() -> Layer:
    """Causal attention, with NaN and infinity in keys and values that are masked and in queries that see no key.

    x: (q, k, v, mask), (..., s, 2) each and (..., s).  The spoilt entries have no gradient.
    """

    def spoilt(x):
        *qkv, mask = x
        q, k, v = (a.reshape(math.prod(a.shape[:-2]), 1, *a.shape[-2:]) for a in qkv)
        keep = mask.reshape(q.shape[0], mask.shape[-1])
        sees = jnp.cumsum(keep, -1, dtype=jnp.int32) > 0
        bad = zip((q, k, v), (sees, keep, keep), (jnp.inf, jnp.nan, -jnp.inf))
        q, k, v = (jnp.where(broadcast(ok[:, None, :, None], a.shape), a, jnp.full_like(a, b)) for a, ok, b in bad)
        return q[:, :, None], k, v, keep

    def apply(params, x, *, key=None):
        return attend.attend_apply(*spoilt(x), causal=True).reshape(x[0].shape)

    def fwd(params, x, *, key=None, attend=attend.attend_fwd):
        y, residuals = attend(*spoilt(x), causal=True)
        return y.reshape(x[0].shape), (residuals, outline(x[0]))

    def bwd(residuals, ct_y, *, attend=attend.attend_bwd):
        residuals, _ = residuals
        cts = attend(residuals, ct_y.reshape(residuals[0].shape), causal=True)
        return (), (*(ct.reshape(ct_y.shape) for ct in cts), None)

    fast = partial(fwd, attend=attend.fast_fwd), partial(bwd, attend=attend.fast_bwd)
    return leaf("attend", lambda key: (), apply, fwd, bwd, lambda residuals: outlined(residuals[1]), fast=fast)


def _heads(s: int) -> Callable[..., Any]:
    def inputs(rng, lead):
        qkv = (jnp.asarray(rng.standard_normal((*lead, s, 2)).astype(np.float32)) for _ in range(3))
        return *qkv, jnp.asarray(rng.random((*lead, s)) < 0.6)

    return inputs


def jittered(layer: Layer) -> Layer:
    """The layer with an init that adds noise: a backward that forgets a scale of 1 or a bias of 0 would pass otherwise."""

    def init(key):
        leaves, treedef = jax.tree.flatten(layer.init(key))
        noise = [0.3 * jax.random.normal(k, p.shape, p.dtype) for k, p in zip(jax.random.split(key, len(leaves)), leaves)]
        return jax.tree.unflatten(treedef, [p + e for p, e in zip(leaves, noise)])

    return layer._replace(init=init)


def frozen(layer: Layer) -> Layer:
    """A batch_norm whose init also makes statistics."""

    def init(key):
        params = layer.init(key)
        return params._replace(mean=0.3 * params.scale, var=2 * params.scale)

    return layer._replace(init=init)


def _convolutions() -> list[Case]:
    grouped = layers.conv(4, 6, (2, 3), stride=(1, 2), padding=((1, 0), (2, 1)), dilation=(2, 1), groups=2)
    above = ((1, 0), (0, 1))
    return [
        Case("conv", jittered(layers.conv(2, 3, (3, 2))), _steps(4, 5, 2)),
        Case("conv, 1-D, strided", jittered(layers.conv(2, 3, 3, stride=2)), _steps(6, 2)),
        Case("conv, height 1, zeros above", jittered(layers.conv(2, 3, (1, 2), stride=(2, 1), padding=above)), _steps(1, 3, 2)),
        Case("conv, height 1, under a higher kernel", jittered(layers.conv(3, 2, (3, 2))), _steps(1, 3, 3)),
        Case("conv, grouped, dilated", jittered(grouped), _steps(3, 4, 4)),
        Case("conv, depthwise", jittered(layers.conv(3, 6, (2, 2), groups=3, padding="VALID")), _steps(3, 4, 3)),
        Case("max_pool", layers.max_pool((2, 2)), _steps(5, 4, 2)),
        Case("max_pool, overlapping", layers.max_pool((3, 2), (1, 1)), _steps(4, 4, 2)),
        Case("avg_pool", layers.avg_pool(2, 3), _steps(9, 2)),
        Case("avg_pool, overlapping", layers.avg_pool((3, 2), (2, 1)), _steps(5, 3, 2)),
        Case("global_avg_pool", layers.global_avg_pool(), _steps(3, 2, 2)),
        Case("flatten", layers.flatten(2), _steps(3, 2)),
    ]


def _recurrent() -> list[Case]:
    table = []
    for make, cell in ((layers.rnn, False), (layers.gru, False), (layers.lstm, True)):
        name = make.__name__
        table += [
            Case(name, jittered(make(3, 4)), _steps(3, 3)),
            Case(f"{name}, carry", jittered(make(3, 2, carry=True)), _with_state(2, 3, 2, cell)),
        ]
    return table


def _fused(vocab: int, n: int, weighted: bool) -> Callable[..., Any]:
    def inputs(rng, lead):
        h, w = jnp.asarray(rng.standard_normal((*lead, n)).astype(np.float32)), hard(rng, (vocab, n))
        labels = jnp.asarray(rng.integers(0, min(vocab, 256), lead).astype(np.uint8))
        if not weighted:
            return (h, w), labels
        weights = _weights(rng, lead)
        return (_unseen(h, weights, jnp.nan), w), labels, weights

    return inputs


def cases() -> tuple[Case, ...]:
    """Every layer, loss and model."""
    activations = [
        layers.sigmoid(), layers.tanh(), layers.relu(), layers.leaky_relu(0.1), layers.elu(), layers.gelu(),
        layers.gelu(approximate=True), layers.silu(), layers.softplus(), layers.softmax(), layers.log_softmax(),
    ]  # fmt: skip
    block = serial(layers.dense(5, 5), layers.tanh(), layers.dropout(0.25))
    targets = (losses.mean_squared_error(), losses.binary_cross_entropy())
    classes = (losses.softmax_cross_entropy(), losses.softmax_cross_entropy(label_smoothing=0.1))
    table = [
        Case("dense", layers.dense(5, 3), _features(5)),
        Case("dense without bias", layers.dense(3, 4, bias=False), _features(3)),
        *(Case(a.name, a, _features(6)) for a in activations),
        Case("dropout", layers.dropout(0.5), _features(6), keyed=True),
        Case("dropout without a key", layers.dropout(0.5), _features(6)),
    ]
    table += [
        Case("layer_norm", jittered(layers.layer_norm(6)), _features(6)),
        Case("layer_norm of width 2", jittered(layers.layer_norm(2)), _features(2)),
        Case("rms_norm", jittered(layers.rms_norm(5)), _features(5)),
        Case("group_norm", jittered(layers.group_norm(2, 6)), _steps(3, 2, 6)),
        Case("group_norm, a channel each", jittered(layers.group_norm(3, 3)), _steps(4, 3)),
        Case("batch_norm", jittered(layers.batch_norm(5)), _steps(3, 5)),
        Case("batch_norm, frozen", frozen(jittered(layers.batch_norm(5))), _steps(3, 5)),
        Case("embedding", layers.embedding(5, 3), _ids(5)),
        Case("learned_positions", layers.learned_positions(5, 3), _steps(4, 3)),
        *_recurrent(),
    ]
    for weighted, suffix in ((False, ""), (True, ", weighted")):
        table += [Case(loss.name + suffix, loss, _targets(4, weighted)) for loss in targets]
        plain, smoothed = classes
        narrow = _classes(256, True, dtype=np.uint8) if weighted else _classes(5, False, absent=True)
        table += [
            Case(plain.name + suffix, plain, narrow),
            Case(f"{smoothed.name}, smoothed{suffix}", smoothed, _classes(5, weighted)),
        ]
    table += [
        Case("residual", residual(serial(layers.dense(5, 5), layers.gelu())), _features(5)),
        Case("parallel", parallel(layers.dense(5, 3), layers.tanh(), layers.dense(5, 2)), _features(5)),
        Case("scan_layers", scan_layers(block, 3), _features(5), keyed=True),
        Case("scan_layers, remat", scan_layers(block, 3, remat=True), _features(5), keyed=True),
        Case("char_rnn", jittered(char_rnn(5, 3, cell="gru")), _ids(5, 3)),
        *_convolutions(),
        Case("attention", layers.attention(4, 2), _positions(5, 4)),
        Case("attention, blocks", layers.attention(2, 1, bias=False), _positions(70, 2)),
        Case("attention, not causal", layers.attention(6, 3, causal=False), _positions(3, 6)),
        Case(
            "attention, grouped, rope, masked",
            layers.attention(8, 4, kv_heads=2, rope=True, key_mask=True),
            _positions(4, 8, masked=True),
        ),
        Case("attention, nobody looks at NaN", _spoilt_attention(), _heads(4)),
        Case("unembedding", layers.unembedding(5, 3), _features(3)),
        Case("linear_cross_entropy", fused_loss.linear_cross_entropy(), _fused(7, 3, False)),
        Case("linear_cross_entropy, weighted", fused_loss.linear_cross_entropy(), _fused(7, 3, True)),
        Case("linear_cross_entropy, many classes", fused_loss.linear_cross_entropy(), _fused(257, 2, True)),
        Case("lenet", lenet(2, channels=(2,), hidden=3, activation=layers.tanh(), image=(6, 7, 1)), _steps(6, 7, 1)),
        Case("gpt", gpt(5, 4, 2, 2, 4, dropout=0.25), _ids(5, 3), keyed=True),
        Case("mlp", mlp([6, 5, 4, 3], layers.tanh()), _features(6)),
    ]
    return tuple(table)
