"""Models in PyTorch, and their steps: eager, or with torch.compile."""

# pyright: reportMissingImports=false

import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from .steps import RATE, Run, Unavailable


def run(model: Any, x: Any, labels: Any, how: Callable[[Any], Any] = lambda loss: loss) -> Run | None:
    """run() -> (None, value).  None if PyTorch cannot use the device of the labels.  how: applied to the loss function, such as
    torch.compile.

    Images are in channels-last memory format, the fastest for convolutions.
    """
    import torch

    where = _device(labels)
    if where is None:
        return None
    if where == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32, as JAX does by default
    inputs, targets = torch.from_numpy(np.array(x)).to(where), torch.from_numpy(np.array(labels)).long().to(where)
    model = model.to(where)
    if inputs.ndim == 4:
        model, inputs = (a.to(memory_format=torch.channels_last) for a in (model, inputs))
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, fused=True)

    def loss(inputs, targets):
        scores = model(inputs)
        return torch.nn.functional.cross_entropy(scores.reshape(-1, scores.shape[-1]), targets.reshape(-1))

    loss = how(loss)

    def step():
        optimizer.zero_grad(set_to_none=True)
        value = loss(inputs, targets)
        value.backward()
        optimizer.step()
        if where == "cuda":
            torch.cuda.synchronize()  # JAX does not wait for work of PyTorch
        return None, value.detach()

    return step


def compiled(model: Any, x: Any, labels: Any) -> Run | None:
    """`run` with torch.compile, already compiled. Raises Unavailable, with the reason, if that does not work."""
    import torch

    where = _device(labels)
    if where is None:
        return None
    trouble = compile_trouble(where)
    if trouble:
        raise Unavailable(trouble)
    torch.compiler.reset()  # drop earlier programs: beyond eight for one function it silently runs eagerly
    step = run(model, x, labels, torch.compile)
    trouble = _trouble(step)
    if trouble:
        raise Unavailable(trouble)
    return step


@cache
def compile_trouble(where: str) -> str | None:
    """Why torch.compile does not work on this device, in one line; None if a trial program and its backward compile."""
    import torch

    compiler = os.environ.get("CXX") or {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    if where == "cpu" and shutil.which(compiler) is None:  # programs from its cache would run without one
        return f"it needs a C++ compiler, and {compiler} is not found; install it, or name another as CXX"
    x = torch.ones(8, device=where, requires_grad=True)
    return _trouble(lambda: torch.compile(lambda x: (x.sin() * x).sum())(x).backward())


def _trouble(call: Any) -> str | None:
    """The error of a call, in one line."""
    try:
        call()
    except Exception as error:  # compilers raise several kinds; it is reported, and the bench continues
        return textwrap.shorten(f"{type(error).__name__}: {error}", 200)
    return None


def _device(like: Any) -> str | None:
    """PyTorch's name of the device of a JAX array; None if PyTorch cannot use it."""
    import torch

    platform = next(iter(like.devices())).platform
    if platform == "cpu":
        return "cpu"
    return "cuda" if platform == "gpu" and torch.cuda.is_available() else None


def mlp(sizes: Sequence[int]) -> Any:
    """Dense layers with sigmoids between."""
    from torch import nn

    layers: list[Any] = []
    for a, b in zip(sizes, sizes[1:]):
        layers += [nn.Linear(a, b), nn.Sigmoid()]
    return nn.Sequential(*layers[:-1])


def lenet(channels: tuple[int, int], hidden: int) -> Any:
    """Convolution 5x5, ReLU and max-pool 2x2 twice, then two dense layers.  x: (batch, 1, 28, 28)."""
    from torch import nn

    c1, c2 = channels
    return nn.Sequential(
        nn.Conv2d(1, c1, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(c1, c2, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(16 * c2, hidden), nn.ReLU(), nn.Linear(hidden, 10),
    )  # fmt: skip


def char_rnn(vocab: int, width: int) -> Any:
    """Embedding, LSTM, dense. Its LSTM adds two biases, 4 width parameters more than ours; torch.compile
    leaves it unchanged and compiles the rest."""
    from torch import nn

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens, self.lstm = nn.Embedding(vocab, width), nn.LSTM(width, width, batch_first=True)
            self.head = nn.Linear(width, vocab)

        def forward(self, ids):
            return self.head(self.lstm(self.tokens(ids))[0])

    return Model()


def gpt(vocab: int, context: int, layers: int, heads: int, width: int) -> Any:
    """GPT-2's architecture, without dropout, its embedding tied to the output."""
    import torch
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
            self.tokens, self.positions = nn.Embedding(vocab, width), nn.Parameter(torch.randn(context, width) * 0.02)
            self.blocks, self.last = nn.Sequential(*[Block() for _ in range(layers)]), nn.LayerNorm(width)

        def forward(self, ids):
            h = self.tokens(ids) + self.positions[: ids.shape[1]]
            return self.last(self.blocks(h)) @ self.tokens.weight.T

    return Model()
