"""`nnjax bench`."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp

from .. import layers, losses, nielsen
from ..errors import expect_folder, unknown_name
from ..grad import reference_value_and_grad, value_and_grad
from ..models import mlp
from .book import epoch_seconds
from .measure import Comparison, compare


def _mlp(sizes, batch) -> Callable[[str], Comparison]:
    def run(case: str) -> Comparison:
        model, loss = mlp(sizes, layers.sigmoid()), losses.softmax_cross_entropy()
        keys = jax.random.split(jax.random.key(0), 3)
        x = jax.random.normal(keys[1], (batch, sizes[0]))
        labels = jax.random.randint(keys[2], (batch,), 0, sizes[-1], jnp.int32)
        hand, reference = value_and_grad(model, loss), reference_value_and_grad(model, loss)
        return compare(case, hand, reference, (model.init(keys[0]), x, labels))

    return run


def _nielsen(sizes, batch) -> Callable[[str], Comparison]:
    def run(case: str) -> Comparison:
        keys = jax.random.split(jax.random.key(0), 3)
        x = jax.random.uniform(keys[1], (batch, sizes[0]))
        y = jax.nn.one_hot(jax.random.randint(keys[2], (batch,), 0, sizes[-1]), sizes[-1])
        objective = nielsen.objective()
        hand, reference = nielsen.value_and_grad(), jax.value_and_grad(objective)
        return compare(case, hand, reference, (nielsen.init(keys[0], sizes), x, y))

    return run


CASES: dict[str, Callable[[str], Comparison]] = {
    "mlp [784, 30, 10], batch 10": _mlp([784, 30, 10], 10),
    "nielsen [784, 30, 10], batch 10": _nielsen([784, 30, 10], 10),
    "mlp 9 x 1024, batch 256": _mlp([1024] * 10, 256),
}
BOOK = "book"


@dataclass
class Bench:
    """The hand-written backward against jax.grad: time, floating-point work and temporary memory."""

    only: str | None = None
    """Cases whose name contains this."""
    json: Path | None = None
    """Write the figures to this file."""

    def run(self) -> int:
        """Print a line for each case; below it, the book's epoch against a NumPy loop."""
        names = [name for name in (*CASES, BOOK) if self.only is None or self.only in name]
        if not names:
            raise unknown_name("bench case", self.only or "", (*CASES, BOOK))
        expect_folder(self.json)
        found = {}
        print(
            f"JAX {jax.__version__} on {jax.devices()[0].device_kind}; ratios are hand / jax.grad, medians of interleaved pairs"
        )
        print(f"{'case':34} {'ms':>8} {'time':>6} {'self 5-95 %':>13} {'flops':>7} {'temp':>6}")
        for name in (n for n in names if n in CASES):
            c = CASES[name](name)
            found[name] = c._asdict()
            spread = f"{c.spread[0]:.3f}-{c.spread[1]:.3f}"
            print(f"{name:34} {c.milliseconds:8.3f} {c.time_ratio:6.3f} {spread:>13} {c.flops_ratio:7.4f} {c.temp_ratio:6.3f}",
                  flush=True)  # fmt: skip
        if BOOK in names:
            ours, loop = epoch_seconds([784, 30, 10], 50_000, 3.0, 10)
            found[BOOK] = {"seconds": ours, "numpy_loop_seconds": loop, "ratio": ours / loop}
            print(f"book: an epoch of [784, 30, 10], minibatch 10, 50,000 images takes {ours:.3f} s, the NumPy loop "
                  f"{loop:.3f} s: {ours / loop:.3f} of it")  # fmt: skip
        if self.json:
            head = {"jax": jax.__version__, "device": jax.devices()[0].device_kind, "date": time.strftime("%Y-%m-%d")}
            self.json.write_text(json.dumps({**head, "cases": found}, indent=1) + "\n")
        return 0
