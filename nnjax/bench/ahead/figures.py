"""What is exact about a program that was compiled for a machine that is not here."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from .launches import launches_of
from .targets import Target


class Figures(NamedTuple):
    """launches: of kernels, on GPUs alone, loops counted. flops and bytes (read and written): on TPUs alone, where the body of
    a loop counts once. temp_bytes and argument_bytes: of memory. None where the compiler does not say."""

    launches: int | None
    temp_bytes: int
    argument_bytes: int
    flops: float | None
    bytes: float | None
    compile_seconds: float


def figures(at: Target, f: Callable[..., Any], args: Any) -> Figures:
    """Those of f for arguments like these, compiled for one device of the target."""
    start = time.perf_counter()
    program = at.compile(f, args)
    took = time.perf_counter() - start
    memory, cost = program.memory_analysis(), program.cost_analysis() or {}
    launches = launches_of(program.as_text()) if at.platform == "cuda" else None
    return Figures(
        launches, memory.temp_size_in_bytes, memory.argument_size_in_bytes, cost.get("flops"), cost.get("bytes accessed"), took
    )
