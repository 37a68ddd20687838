"""The settings of each peer: its version, and what its speed depends on."""

import importlib.metadata
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax

SHORT = {"scaled_dot_product_attention": "SDPA", "jax.nn.": "", "eqx.": ""}


class Flags(NamedTuple):
    """threads: None if the library does not tell; XLA takes as many as there are CPUs, for all libraries that run in it."""

    version: str
    run: str
    threads: int | None
    matmul_precision: str
    attention: str
    optimizer: str

    def line(self, name: str) -> str:
        """The settings as one line; for a way to run a library (torch.compile) the version is in the line of the library."""
        attention = self.attention
        for long, short in SHORT.items():
            attention = attention.replace(long, short)
        whose = name if "." in name else f"{name} {self.version}"
        threads = [] if self.threads is None else [f"{self.threads} thread{'s' * (self.threads != 1)}"]
        return f"{whose}: {', '.join([self.run, *threads, f'matmul {self.matmul_precision}', attention, self.optimizer])}"


def flags(names: Iterable[str]) -> dict[str, Flags]:
    """The settings of each known peer, as they are now: call it after the peer has run."""
    return {name: _flags(name) for name in names if name in ("torch", "torch.compile", "flax", "equinox")}


def _flags(name: str) -> Flags:
    if name.startswith("torch"):
        return _of_torch("eager" if name == "torch" else "inductor")
    attention = {"flax": "jax.nn.dot_product_attention is_causal", "equinox": "eqx.nn.MultiheadAttention mask"}[name]
    config: Any = jax.config
    precision = config.jax_default_matmul_precision or "default"
    return Flags(importlib.metadata.version(name), "jit", None, precision, attention, "optax.sgd")


def _of_torch(run: str) -> Flags:
    import torch  # pyright: ignore[reportMissingImports]

    attention, precision = "scaled_dot_product_attention is_causal", torch.get_float32_matmul_precision()
    return Flags(torch.__version__, run, torch.get_num_threads(), precision, attention, "SGD fused")
