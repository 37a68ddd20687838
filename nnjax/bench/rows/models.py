"""The rows of whole models: one step of each."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax

from ... import losses, models, nielsen
from ...cases import quickly
from ...layer import Layer
from .. import peers
from .entry import Entry
from .making import batched, beside, ids, keys, normal, scanned, step


def plain_mlp(sizes: list[int], batch: int) -> Entry:
    make = step(models.mlp(sizes), losses.softmax_cross_entropy(), batched(normal(batch, sizes[0]), ids(sizes[-1], batch)))
    named = f"{len(sizes) - 1} x {sizes[0]}" if len(set(sizes)) == 1 else str(sizes)
    return Entry(f"mlp {named}, batch {batch}", make, peers=beside(make, lambda x, y: peers.mlp(sizes, x, y)))


def book_network(sizes: list[int], batch: int) -> Entry:
    def make():
        k = keys(3)
        x, labels = normal(batch, sizes[0])(k[1]), ids(sizes[-1], batch)(k[2])
        args = (quickly(lambda key: nielsen.init(key, sizes), k[0]), x, jax.nn.one_hot(labels, sizes[-1]))
        return nielsen.value_and_grad(), {"jax.grad": jax.value_and_grad(nielsen.objective())}, args

    return Entry(f"nielsen {sizes}, batch {batch}", make)


def _lenet(batch: int) -> Callable[..., Any]:
    return step(models.lenet(), losses.softmax_cross_entropy(), batched(normal(batch, 28, 28, 1), ids(10, batch)))


def _resnet(batch: int) -> Callable[..., Any]:
    model = models.resnet(channels=(16, 32, 64), blocks=1, image=(32, 32, 3))
    return step(model, losses.softmax_cross_entropy(), batched(normal(batch, 32, 32, 3), ids(10, batch)))


VOCAB, CONTEXT, DEPTH, HEADS, WIDTH = 65, 256, 4, 4, 128


def _unstacked(params: Any) -> Any:
    *before, blocks, last = params.body
    return params._replace(body=(*before, tuple(jax.tree.map(lambda p, i=i: p[i], blocks) for i in range(DEPTH)), last))


def _step_of(make: Callable[..., Layer], microbatches: int = 1) -> Callable[..., Any]:
    """The blocks run in a scan; for jax.grad in a row, which is faster for it."""
    model, row = (make(VOCAB, CONTEXT, DEPTH, HEADS, WIDTH, scan=scan) for scan in (True, False))
    plain = model._replace(apply=lambda params, x, *, key=None: row.apply(_unstacked(params), x, key=key))
    batch = batched(ids(VOCAB, 8, CONTEXT), ids(VOCAB, 8, CONTEXT))
    return step(model, losses.softmax_cross_entropy(), batch, plain, microbatches)


def whole_models() -> list[Entry]:
    ten, many, gpt, parts = _lenet(10), _lenet(128), _step_of(models.gpt), _step_of(models.gpt, 4)
    chars = batched(ids(65, 16, 128), ids(65, 16, 128))
    rnn = step(models.char_rnn(65, 128, cell="lstm"), losses.softmax_cross_entropy(), chars)

    def gpts(x, y):
        return peers.gpt(VOCAB, CONTEXT, DEPTH, HEADS, WIDTH, x, y)

    return [
        plain_mlp([784, 30, 10], 10),
        book_network([784, 30, 10], 10),
        plain_mlp([1024] * 10, 256),
        Entry("lenet, batch 128", many, 0.42, 0.20, beside(many, lambda x, y: peers.lenet(x, y, (20, 40), 100))),
        Entry("lenet, batch 10", ten, 0.65, 0.75, beside(ten, lambda x, y: peers.lenet(x, y, (20, 40), 100))),
        Entry("lenet, batch 128, 4 steps in a scan", scanned(many, 4), 0.10, 0.40),
        Entry("resnet 16 32 64, batch 32", _resnet(32)),
        Entry("char_rnn lstm 128, T = 128, batch 16", rnn, peers=beside(rnn, lambda x, y: peers.char_rnn(65, 128, x, y))),
        Entry("gpt 4 x 128, T = 256, batch 8", gpt, 0.52, 0.40, beside(gpt, gpts)),
        Entry("gpt 4 x 128, T = 256, 4 microbatches of 2", parts, 0.52, 0.15, beside(parts, gpts)),
        Entry("llama 4 x 128, T = 256, batch 8", _step_of(partial(models.llama, tie=True)), 0.75, 0.40),
    ]  # fmt: skip
