"""What the processes of a run tell each other, besides the numbers of the steps. A single process talks to itself.

All processes must call these functions in the same order, as with any computation on devices of several processes.
"""

import json
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from ..data.dataset import digest

T = TypeVar("T")
SHORTEST = 1024  # bytes: shorter texts are padded to this, so that few programs are compiled


def is_first() -> bool:
    """Whether this is the process that prints, and writes the files that only one may write."""
    return jax.process_index() == 0


def gathered(value: Any) -> list[Any]:
    """The value of each process, as JSON carries it, in the order of the processes."""
    if jax.process_count() == 1:
        return [value]
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = np.ravel(multihost_utils.process_allgather(np.int32(len(text))))
    sent = np.zeros(max(SHORTEST, 1 << int(sizes.max() - 1).bit_length()), np.uint8)
    sent[: len(text)] = text
    rows = np.asarray(multihost_utils.process_allgather(sent))
    return [json.loads(bytes(row[:n])) for row, n in zip(rows, sizes)]


def expect_same_data(data: Any) -> None:
    """Raise ValueError, in every process, unless all have read the same data."""
    if jax.process_count() == 1:
        return
    found = gathered(digest(data))
    for index, there in enumerate(found):
        if there != found[0]:
            raise ValueError(f"train: all processes must read the same data, but {index} and 0 differ; give all the same file.")


def by_first(make: Callable[[], T], error: type[Exception]) -> T:
    """make(), called only in the first process, for all of them, and sent as JSON.  If it raises `error`, all raise it."""
    if jax.process_count() == 1:
        return make()
    said: tuple[Any, str | None] = (None, None)
    if is_first():
        try:
            said = make(), None
        except error as problem:
            said = None, str(problem)
    value, problem = gathered(said)[0]
    if problem is not None:
        raise error(problem)
    return value
