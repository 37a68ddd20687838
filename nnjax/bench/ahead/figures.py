"""The exact figures of a program that was compiled for a machine that is not here."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from .launches import launches_of
from .targets import Target

KERNEL = 'custom_call_target="tpu_custom_call"'  # a kernel of Pallas in a TPU's program


class Figures(NamedTuple):
    """launches: of kernels, only on GPUs, loops counted. flops and bytes (read and written): only on TPUs, where the body of a
    loop counts once. temp_bytes and argument_bytes: of memory. None if the compiler does not say, e.g. what a Pallas kernel
    reads."""

    launches: int | None
    temp_bytes: int
    argument_bytes: int
    flops: float | None
    bytes: float | None
    compile_seconds: float


def figures(at: Target, f: Callable[..., Any], args: Any) -> Figures:
    """The figures of f for arguments like these, compiled for one device of the target."""
    start = time.perf_counter()
    program = at.compile(f, args)
    took = time.perf_counter() - start
    memory, text = program.memory_analysis(), program.as_text()
    cost = {} if KERNEL in text else program.cost_analysis() or {}
    launches = launches_of(text) if at.platform == "cuda" else None
    return Figures(
        launches, memory.temp_size_in_bytes, memory.argument_size_in_bytes, cost.get("flops"), cost.get("bytes accessed"), took
    )
