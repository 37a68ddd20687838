"""The cases of `nnjax bench`, each with its targets: time and temporary memory, hand-written over jax.grad."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .. import layers, models, nielsen
from ..cases import quickly
from ..grad import accumulate, reference_value_and_grad, value_and_grad
from ..layer import Layer
from ..losses import means as losses
from . import peers
from .kernels.attention import attends
from .kernels.projection import projects
from .measure import Comparison

SMALL = 8 << 20  # bytes: smaller temporaries do not count
SHORT = 1.0  # ms: for shorter times, a ratio within the spread of jax.grad to itself meets the target


class Entry(NamedTuple):
    """make() -> (hand, {name: reference}, args), the plain definition first; peers(seconds) -> {library: time ratio}."""

    name: str
    make: Callable[[], tuple[Callable[..., Any], dict[str, Callable[..., Any]], tuple[Any, ...]]]
    time: float = 1.02
    temp: float = 1.0
    peers: Callable[[float], dict[str, float]] | None = None

    def met(self, c: Comparison) -> bool:
        """Whether time and temporary memory meet the targets."""
        time = c.time_ratio <= self.time or (c.milliseconds < SHORT and c.time_ratio <= c.spread[1])
        return time and (c.temp_ratio <= self.temp or c.temp_bytes["hand"] < SMALL)


def keys(n: int) -> Any:
    """n keys, the same in every run."""
    return jax.random.split(jax.random.key(0), n)


def _pulled(apply: Callable[..., Any], value: bool) -> Callable[..., Any]:
    def run(params, x, ct_y):
        if jnp.issubdtype(jax.tree.leaves(x)[0].dtype, jnp.integer):
            y, pull = jax.vjp(lambda p: apply(p, x), params)
        else:
            y, pull = jax.vjp(apply, params, x)
        return (y, pull(ct_y)) if value else pull(ct_y)

    return run


def backward(
    layer: Layer, inputs: Callable[[Any], Any], others: dict[str, Callable[..., Any]] | None = None, value: bool = False
) -> Callable[..., Any]:
    """A layer's cotangents for a random one, forward and backward; with `value` its output is returned as well."""

    def make():
        k = keys(3)
        params, x = quickly(layer.init, k[0]), inputs(k[1])
        y = jax.eval_shape(layer.apply, params, x)
        ct_y = jax.tree.map(lambda v: _normal(*v.shape, dtype=v.dtype)(k[2]), y)

        def hand(params, x, ct_y):
            y, residuals = layer.fwd(params, x)
            return (y, layer.bwd(residuals, ct_y)) if value else layer.bwd(residuals, ct_y)

        definitions = {"jax.grad": layer.apply, "checkpoint": jax.checkpoint(layer.apply), **(others or {})}
        references = {name: _pulled(apply, value) for name, apply in definitions.items()}
        return hand, references, (params, x, ct_y)

    return make


def _remat(model: Layer) -> Layer:
    return model._replace(apply=jax.checkpoint(model.apply))


def step(
    model: Layer, loss: Layer, batch: Callable[..., Any], plain: Layer | None = None, microbatches: int = 1
) -> Callable[..., Any]:
    """A model's value and gradient. plain: a model of the same parameters whose definition is fastest under jax.grad."""

    def make():
        k = keys(3)
        args = (quickly(model.init, k[0]), *batch(k[1], k[2]))
        hand = value_and_grad(model, loss)
        if microbatches > 1:
            hand = accumulate(hand, microbatches)
        references = {"jax.grad": reference_value_and_grad(plain or model, loss)}
        references["checkpoint"] = reference_value_and_grad(_remat(plain or model), loss)
        if microbatches > 1:
            references["microbatches"] = accumulate(reference_value_and_grad(plain or model, loss), microbatches)
        return hand, references, args

    return make


def scanned(make: Callable[..., Any], steps: int) -> Callable[..., Any]:
    """`steps` steps of gradient descent on the same batch inside one lax.scan."""

    def several(f):
        def run(params, *batch):
            def one(params, _):
                value, grads = f(params, *batch)
                return jax.tree.map(lambda p, g: p - 0.01 * g, params, grads), value

            return jax.lax.scan(one, params, None, steps)

        return run

    def make_scanned():
        hand, references, args = make()
        return several(hand), {name: several(f) for name, f in references.items()}, args

    return make_scanned


def beside(make: Callable[..., Any], builders: Callable[..., Any]) -> Callable[[float], dict[str, float]]:
    """Compare our step with optax.sgd with the libraries that `builders(x, labels)` makes."""

    def run(budget: float) -> dict[str, float]:
        hand, _, (params, x, labels) = make()
        ours = peers.descent(hand, params, x, labels)
        return peers.ratios(ours, builders(x, labels), budget)

    return run


def _normal(*shape: int, dtype: Any = jnp.float32) -> Callable[[Any], Any]:
    return lambda key: quickly(lambda key: jax.random.normal(key, shape, dtype), key)


def _ids(n: int, *shape: int) -> Callable[[Any], Any]:
    return lambda key: quickly(lambda key: jax.random.randint(key, shape, 0, n, jnp.int32), key)


def _batch(x: Callable[..., Any], labels: Callable[..., Any]) -> Callable[..., Any]:
    return lambda k, l: (x(k), labels(l))


def _mlp(sizes: list[int], batch: int) -> Entry:
    make = step(models.mlp(sizes), losses.softmax_cross_entropy(), _batch(_normal(batch, sizes[0]), _ids(sizes[-1], batch)))
    named = f"{len(sizes) - 1} x {sizes[0]}" if len(set(sizes)) == 1 else str(sizes)
    return Entry(f"mlp {named}, batch {batch}", make, peers=beside(make, lambda x, y: peers.mlp(sizes, x, y)))


def _nielsen(sizes: list[int], batch: int) -> Entry:
    def make():
        k = keys(3)
        x, labels = _normal(batch, sizes[0])(k[1]), _ids(sizes[-1], batch)(k[2])
        args = (quickly(lambda key: nielsen.init(key, sizes), k[0]), x, jax.nn.one_hot(labels, sizes[-1]))
        return nielsen.value_and_grad(), {"jax.grad": jax.value_and_grad(nielsen.objective())}, args

    return Entry(f"nielsen {sizes}, batch {batch}", make)


def _layers() -> list[Entry]:
    wide, tall = _normal(256, 1024), _normal(4096, 768)
    return [
        Entry("dense 1024 -> 1024, batch 256", backward(layers.dense(1024, 1024), wide)),
        Entry("dense 16 -> 8, batch 1", backward(layers.dense(16, 8), _normal(1, 16))),
        *(Entry(f"{a.name} 4096 x 768", backward(a, tall)) for a in (layers.relu(), layers.gelu(approximate=True))),
        Entry("softmax 4096 x 768", backward(layers.softmax(), tall)),
        Entry("layer_norm 4096 x 768", backward(layers.layer_norm(768), tall)),
        Entry("rms_norm 4096 x 768", backward(layers.rms_norm(768), tall)),
        Entry("group_norm 8 of 64, 32x16x16x64", backward(layers.group_norm(8, 64), _normal(32, 16, 16, 64))),
        Entry("batch_norm 32x16x16x64", backward(layers.batch_norm(64), _normal(32, 16, 16, 64))),
        Entry("embedding 50257 x 256, 4096 ids", backward(layers.embedding(50257, 256), _ids(50257, 4096))),
        Entry("embedding 65 x 128, 4096 ids", backward(layers.embedding(65, 128), _ids(65, 4096))),
    ]


def _images() -> list[Entry]:
    conv, pool = layers.conv, layers.max_pool

    def by_reshape(params, x, *, key=None):
        b, h, w, c = x.shape
        return x.reshape(b, h // 2, 2, w // 2, 2, c).max((2, 4))

    def shifted(layer):
        def apply(params, x, *, key=None):  # a depthwise 3x3 convolution as nine shifted products
            padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
            h, w = x.shape[1:3]
            products = [
                padded[:, i : i + h, j : j + w] * jnp.broadcast_to(params.w[i, j, 0], x.shape)
                for i in range(3)
                for j in range(3)
            ]
            return sum(products[1:], products[0]) + jnp.broadcast_to(params.b, x.shape)

        return {"shifts": apply}

    depthwise = conv(64, 64, (3, 3), groups=64)
    return [
        Entry(
            "max_pool 2x2, 64x28x28x32", backward(pool((2, 2)), _normal(64, 28, 28, 32), {"reshape": by_reshape}), 0.08, 0.10
        ),
        Entry("max_pool 3x3 stride 2, 32x27x27x32", backward(pool((3, 3), (2, 2)), _normal(32, 27, 27, 32))),
        Entry("avg_pool 2x2, 64x28x28x32", backward(layers.avg_pool((2, 2)), _normal(64, 28, 28, 32))),
        Entry("conv 5x5, 3 -> 16, 64x32x32", backward(conv(3, 16, (5, 5)), _normal(64, 32, 32, 3)), 0.50),
        Entry("conv 5x5, 16 -> 32, 64x16x16", backward(conv(16, 32, (5, 5)), _normal(64, 16, 16, 16)), 0.50),
        Entry("conv 3x3, 64 -> 64, 16x32x32", backward(conv(64, 64, (3, 3)), _normal(16, 32, 32, 64))),
        Entry("conv 1x1, 64 -> 128, 16x16x16", backward(conv(64, 128, (1, 1)), _normal(16, 16, 16, 64))),
        Entry("conv 3x3, 8 -> 8, batch 1, 16x16", backward(conv(8, 8, (3, 3)), _normal(1, 16, 16, 8))),
        Entry("conv 1-D 5, 64 -> 64, 16x256", backward(conv(64, 64, 5), _normal(16, 256, 64))),
        Entry("depthwise 3x3, 64, 16x56x56", backward(depthwise, _normal(16, 56, 56, 64), shifted(depthwise)), 0.25, 1.7),
    ]


def _sequences() -> list[Entry]:
    def recurs(layer: Layer, batch: int, steps: int, n: int) -> Callable[..., Any]:
        # The output is a residual too: if it were not returned, it would count as temporary, 0.2 to 0.26 of jax.grad's alone.
        return backward(layer, _normal(batch, steps, n), value=True)

    rnn, lstm, gru = layers.rnn(128, 128), layers.lstm(128, 128), layers.gru(128, 128)
    return [
        Entry("attention, S = 64, batch 8", attends(64, 8)),
        Entry("attention, S = 256, batch 8", attends(256, 8)),
        Entry("attention, S = 1024", attends(1024)),
        Entry("attention, S = 2048", attends(2048), 0.45, 0.10),
        Entry("attention, S = 4096", attends(4096, 1, 2), 0.45, 0.12),
        Entry("linear_cross_entropy, V = 65, N = 2048", projects(2048, 65)),
        Entry("linear_cross_entropy, V = 32768, N = 2048", projects(2048, 32768), 0.92, 0.12),
        Entry("linear_cross_entropy, V = 50257, N = 512", projects(512, 50257)),
        *(
            Entry(f"tanh rnn, T = 800, batch {b}", recurs(rnn, b, 800, 128), t, 0.20)
            for b, t in ((4, 0.45), (16, 0.66), (64, 0.80))
        ),
        *(Entry(f"lstm, T = 128, batch {b}", recurs(lstm, b, 128, 128), t, 0.55) for b, t in ((16, 0.75), (64, 0.95))),
        Entry("gru, T = 128, batch 16", recurs(gru, 16, 128, 128)),
    ]


def _lenet(batch: int) -> Callable[..., Any]:
    return step(models.lenet(), losses.softmax_cross_entropy(), _batch(_normal(batch, 28, 28, 1), _ids(10, batch)))


VOCAB, CONTEXT, DEPTH, HEADS, WIDTH = 65, 256, 4, 4, 128


def _unstacked(params: Any) -> Any:
    *before, blocks, last = params.body
    return params._replace(body=(*before, tuple(jax.tree.map(lambda p, i=i: p[i], blocks) for i in range(DEPTH)), last))


def _gpt(microbatches: int = 1) -> Callable[..., Any]:
    """The blocks run in a scan; for jax.grad in a row, which is faster for it."""
    model, row = (models.gpt(VOCAB, CONTEXT, DEPTH, HEADS, WIDTH, scan=scan) for scan in (True, False))
    plain = model._replace(apply=lambda params, x, *, key=None: row.apply(_unstacked(params), x, key=key))
    batch = _batch(_ids(VOCAB, 8, CONTEXT), _ids(VOCAB, 8, CONTEXT))
    return step(model, losses.softmax_cross_entropy(), batch, plain, microbatches)


def _models() -> list[Entry]:
    ten, many, gpt, parts = _lenet(10), _lenet(128), _gpt(), _gpt(4)
    chars = _batch(_ids(65, 16, 128), _ids(65, 16, 128))
    rnn = step(models.char_rnn(65, 128, cell="lstm"), losses.softmax_cross_entropy(), chars)

    def gpts(x, y):
        return peers.gpt(VOCAB, CONTEXT, DEPTH, HEADS, WIDTH, x, y)

    return [
        _mlp([784, 30, 10], 10),
        _nielsen([784, 30, 10], 10),
        _mlp([1024] * 10, 256),
        Entry("lenet, batch 128", many, 0.42, 0.20, beside(many, lambda x, y: peers.lenet(x, y, (20, 40), 100))),
        Entry("lenet, batch 10", ten, 0.65, 0.75, beside(ten, lambda x, y: peers.lenet(x, y, (20, 40), 100))),
        Entry("lenet, batch 128, 4 steps in a scan", scanned(many, 4), 0.10, 0.40),
        Entry("char_rnn lstm 128, T = 128, batch 16", rnn, peers=beside(rnn, lambda x, y: peers.char_rnn(65, 128, x, y))),
        Entry("gpt 4 x 128, T = 256, batch 8", gpt, 0.52, 0.40, beside(gpt, gpts)),
        Entry("gpt 4 x 128, T = 256, 4 microbatches of 2", parts, 0.52, 0.15, beside(parts, gpts)),
    ]  # fmt: skip


def _kernels(platform: str) -> list[Entry]:
    attention = [
        Entry(f"attention, S = {s}, in kernels", attends(s, 1, heads, kernels_of=platform), 1.05, 0.02)
        for s, heads in ((1024, 4), (4096, 2))
    ]
    # Scores that are never kept are formed three times: five products, while jax.grad takes three.
    loss = projects(2048, 32768, kernel=True)
    return [*attention, Entry("linear_cross_entropy, V = 32768, N = 2048, in kernels", loss, 1.67, 0.02)]


def entries(platform: str = "cpu") -> list[Entry]:
    """The whole table.  platform: the name that JAX uses in lowering; an accelerator adds the cases with its own kernels."""
    return [*_models(), *_images(), *_sequences(), *_layers(), *(_kernels(platform) if platform in ("cuda", "tpu") else [])]
