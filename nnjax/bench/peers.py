"""The same models in PyTorch (eager), Flax and Equinox: each builder returns run(), one step of plain gradient descent.

Only what is installed is built, and PyTorch is in no extra. Parameters are the library's own random ones: time does not
depend on their values.
"""

# pyright: reportMissingImports=false

import importlib.util
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from .measure import interleaved, median_ratio, pairs_within

RATE = 0.01
Run = Callable[[], Any]
Builder = Callable[[], Run | None]


def ratios(ours: Run, builders: dict[str, Builder], budget_seconds: float) -> dict[str, float]:
    """Time of our step over that of each library that is installed, by interleaved pairs."""
    found = {}
    for library, build in builders.items():
        if importlib.util.find_spec(library) is None:
            continue
        theirs = build()
        if theirs is None:
            continue
        pairs = pairs_within(theirs, budget_seconds)
        found[library] = median_ratio(*interleaved(ours, theirs, pairs))
    return found


def descent(gradient: Callable[..., Any], params: Any, *batch: Any) -> Run:
    """run() for a JAX library: gradient(params, *batch) -> (value, grads), then optax.sgd, jitted with donated parameters."""
    optimizer = optax.sgd(RATE)

    @partial(jax.jit, donate_argnums=0)
    def step(state, *batch):
        params, opt_state = state
        value, grads = gradient(params, *batch)
        with jax.numpy_dtype_promotion("standard"):
            updates, opt_state = optimizer.update(grads, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), value

    params = jax.tree.map(lambda p: jnp.array(p, copy=True), params)
    state = [(params, optimizer.init(params))]

    def run():
        state[0], value = step(state[0], *batch)
        return state[0], value

    return run


def _nll(scores, labels):
    return optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()


def _torch(model: Any, x: np.ndarray, labels: Any) -> Run | None:
    """None where PyTorch cannot use the device that the labels are on."""
    import torch

    where = _torch_device(labels)
    if where is None:
        return None
    if where == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32, as JAX does by default
    model = model.to(where)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    inputs, targets = torch.from_numpy(np.array(x)).to(where), torch.from_numpy(np.array(labels)).long().to(where)

    def run():
        optimizer.zero_grad(set_to_none=True)
        scores = model(inputs)
        loss = torch.nn.functional.cross_entropy(scores.reshape(-1, scores.shape[-1]), targets.reshape(-1))
        loss.backward()
        optimizer.step()
        if where == "cuda":
            torch.cuda.synchronize()  # JAX does not wait for what it did not begin

    return run


def _torch_device(like: Any) -> str | None:
    """PyTorch's name of the device that an array of JAX is on; None where PyTorch cannot use it."""
    import torch

    platform = next(iter(like.devices())).platform
    if platform == "cpu":
        return "cpu"
    return "cuda" if platform == "gpu" and torch.cuda.is_available() else None


def _flax(module: Any, x: Any, labels: Any) -> Run:
    params = module.init(jax.random.key(0), x)
    return descent(jax.value_and_grad(lambda p, x, labels: _nll(module.apply(p, x), labels)), params, x, labels)


def _equinox(model: Any, x: Any, labels: Any) -> Run:
    import equinox as eqx

    params, static = eqx.partition(model, eqx.is_array)
    gradient = jax.value_and_grad(lambda p, x, labels: _nll(jax.vmap(eqx.combine(p, static))(x), labels))
    return descent(gradient, params, x, labels)


def mlp(sizes: Sequence[int], x: Any, labels: Any) -> dict[str, Builder]:
    """Dense layers with sigmoids between."""

    def torch():
        from torch import nn

        layers: list[Any] = []
        for a, b in zip(sizes, sizes[1:]):
            layers += [nn.Linear(a, b), nn.Sigmoid()]
        return _torch(nn.Sequential(*layers[:-1]), x, labels)

    def flax():
        from flax import linen as nn

        layers: list[Any] = []
        for n in sizes[1:]:
            layers += [nn.Dense(n), nn.sigmoid]
        return _flax(nn.Sequential(layers[:-1]), x, labels)

    def equinox():
        from equinox import nn

        layers: list[Any] = []
        for a, b in zip(sizes, sizes[1:]):
            layers += [nn.Linear(a, b, key=jax.random.key(a)), nn.Lambda(jax.nn.sigmoid)]
        return _equinox(nn.Sequential(layers[:-1]), x, labels)

    return {"torch": torch, "flax": flax, "equinox": equinox}


def lenet(x: Any, labels: Any, channels: tuple[int, int], hidden: int) -> dict[str, Builder]:
    """Convolution 5x5, ReLU and max-pool 2x2 twice, then two dense layers. x: (batch, 28, 28, 1)."""
    c1, c2 = channels

    def torch():
        from torch import nn

        model = nn.Sequential(
            nn.Conv2d(1, c1, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(c1, c2, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(16 * c2, hidden), nn.ReLU(), nn.Linear(hidden, 10),
        )  # fmt: skip
        return _torch(model, np.moveaxis(np.asarray(x), -1, 1), labels)

    def flax():
        from flax import linen as nn

        pool = partial(nn.max_pool, window_shape=(2, 2), strides=(2, 2))
        model = nn.Sequential([
            nn.Conv(c1, (5, 5), padding="VALID"), nn.relu, pool, nn.Conv(c2, (5, 5), padding="VALID"), nn.relu, pool,
            lambda y: y.reshape(len(y), -1), nn.Dense(hidden), nn.relu, nn.Dense(10),
        ])  # fmt: skip
        return _flax(model, x, labels)

    def equinox():
        from equinox import nn

        keys = jax.random.split(jax.random.key(0), 4)
        relu, pool = nn.Lambda(jax.nn.relu), nn.MaxPool2d(2, 2)
        model = nn.Sequential([
            nn.Conv2d(1, c1, 5, key=keys[0]), relu, pool, nn.Conv2d(c1, c2, 5, key=keys[1]), relu, pool,
            nn.Lambda(jnp.ravel), nn.Linear(16 * c2, hidden, key=keys[2]), relu, nn.Linear(hidden, 10, key=keys[3]),
        ])  # fmt: skip
        return _equinox(model, jnp.moveaxis(x, -1, 1), labels)

    return {"torch": torch, "flax": flax, "equinox": equinox}


def torch_gpt(vocab: int, context: int, layers: int, heads: int, width: int) -> Any:
    """GPT-2's architecture as a module of PyTorch."""
    import torch as t
    from torch import nn

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width))

        def forward(self, h):
            q, k, v = self.qkv(self.first(h)).unflatten(-1, (3, heads, width // heads)).permute(2, 0, 3, 1, 4)
            mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            h = h + self.out(mixed.transpose(1, 2).flatten(-2))
            return h + self.mlp(self.second(h))

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens, self.positions = nn.Embedding(vocab, width), nn.Parameter(t.randn(context, width) * 0.02)
            self.blocks, self.last = nn.Sequential(*[Block() for _ in range(layers)]), nn.LayerNorm(width)

        def forward(self, ids):
            h = self.tokens(ids) + self.positions[: ids.shape[1]]
            return self.last(self.blocks(h)) @ self.tokens.weight.T

    return Model()


def gpt(vocab: int, context: int, layers: int, heads: int, width: int, x: Any, labels: Any) -> dict[str, Builder]:
    """GPT-2's architecture without dropout, its embedding tied to the output."""

    def torch():
        return _torch(torch_gpt(vocab, context, layers, heads, width), np.asarray(x).astype(np.int64), labels)

    def flax():
        from flax import linen as nn

        class Model(nn.Module):
            @nn.compact
            def __call__(self, ids):
                tokens = nn.Embed(vocab, width)
                h = tokens(ids) + self.param("positions", nn.initializers.normal(0.02), (context, width))[None, : ids.shape[1]]
                mask = nn.make_causal_mask(ids)
                for _ in range(layers):
                    h = h + nn.MultiHeadDotProductAttention(heads)(nn.LayerNorm()(h), mask=mask)
                    h = h + nn.Dense(width)(nn.gelu(nn.Dense(4 * width)(nn.LayerNorm()(h))))
                return tokens.attend(nn.LayerNorm()(h))

        return _flax(Model(), x, labels)

    return {"torch": torch, "flax": flax}
