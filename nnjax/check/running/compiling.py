"""Let XLA optimise less: nearly all the time of a check goes into compiling, and no formula changes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import jax

# Without fusion emitters a CPU's compile time is half as long; with one part for each program it takes a tenth less again, and
# fewer of the maps that a process may have. XLA reads flags once, when a process first asks for its devices, and ends the
# process at one that it does not know: so each is passed only to the versions of JAX that are known to have it.
FLAGS = {
    "--xla_cpu_use_fusion_emitters=false": ("0.10.",),
    "--xla_cpu_parallel_codegen_split_count=1": ("0.10.", "0.12."),
}


@contextmanager
def compiled_lightly() -> Iterator[None]:
    """Within this context, and only in this process, XLA optimises less."""
    before, flags = jax.config.read("jax_disable_most_optimizations"), os.environ.get("XLA_FLAGS")
    jax.config.update("jax_disable_most_optimizations", True)
    known = [flag for flag, versions in FLAGS.items() if jax.__version__.startswith(versions)]
    added = [flag for flag in known if flag.partition("=")[0] not in (flags or "")]
    if added:
        os.environ["XLA_FLAGS"] = " ".join([*filter(None, [flags]), *added])
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", before)
        if flags is None:
            os.environ.pop("XLA_FLAGS", None)
        else:
            os.environ["XLA_FLAGS"] = flags
