"""Let XLA optimise less: nearly all the time of a check goes into compiling, and no formula changes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import jax

# It halves the compile time on the CPU. XLA reads it once, when a process first asks for its devices. JAX 0.12 has no such
# flag, and an unknown flag ends a process.
FLAG = "--xla_cpu_use_fusion_emitters=false"


@contextmanager
def compiled_lightly() -> Iterator[None]:
    """Within this context, and only in this process, XLA optimises less."""
    before, flags = jax.config.read("jax_disable_most_optimizations"), os.environ.get("XLA_FLAGS")
    jax.config.update("jax_disable_most_optimizations", True)
    if jax.__version__.startswith("0.10.") and "fusion_emitters" not in (flags or ""):
        os.environ["XLA_FLAGS"] = f"{flags or ''} {FLAG}".strip()
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", before)
        if flags is None:
            os.environ.pop("XLA_FLAGS", None)
        else:
            os.environ["XLA_FLAGS"] = flags
