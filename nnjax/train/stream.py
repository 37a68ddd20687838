"""Examples that do not fit on the device: read from where they lie, by grain's threads, while the steps before them run."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..data.dataset import DataError
from .loop import Batches
from .placement import Placement
from .step import epoch_key, shuffled

DEVICE_BYTES = 2 << 30  # of training examples that are put on the device as a whole; more are streamed
THREADS = 4


class _Rows:
    """A source of grain: entry i is the batch that rows[i] names."""

    def __init__(self, x: Any, labels: Any, rows: np.ndarray, encode: Callable[..., Any] | None):
        self.x, self.labels, self.rows, self.encode = x, labels, rows, encode

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        sorted_rows = np.sort(self.rows[i])  # a file is read in order
        back = np.searchsorted(sorted_rows, self.rows[i])
        x, labels = np.asarray(self.x[sorted_rows])[back], np.asarray(self.labels[sorted_rows])[back]
        return x, labels if self.encode is None else self.encode(labels)


def _grain() -> Any:
    try:
        import grain
    except ImportError:
        raise DataError("streaming needs the train extra: python -m pip install 'nnjax[train]'.") from None
    return grain


def streamed(
    x: Any, labels: Any, batch_size: int, encode: Callable[..., Any] | None = None, shard: tuple[int, int] = (0, 1),
    placement: Placement | None = None,
) -> Batches:  # fmt: skip
    """Batches of x and labels, NumPy arrays or memory maps, in the order that `fit` would take them in.

    shard: (i, n): of every n examples the i-th alone, shuffled among themselves; the same key and shard, the same batches.
    placement: of the devices that share a batch; a process reads those examples that lie on devices of its own.
    Raises ValueError for a shard that there is not, or with too few examples for a batch.
    """
    index, count = shard
    if not 0 <= index < count:
        raise ValueError(f"shard must be (i, n) with i from 0 to n - 1, got {shard}; number the n processes from 0.")
    examples = len(range(index, len(labels), count))
    if examples < batch_size:
        raise ValueError(f"a shard of {examples} examples is less than a batch of {batch_size}; take fewer shards.")
    grain = _grain()
    own = slice(None) if placement is None else placement.own(batch_size)
    put = jnp.asarray if placement is None else partial(placement.steps, batch_size=batch_size)

    def order(key, first):
        return shuffled(epoch_key(key, first), examples, batch_size) * count + index

    def feed(rows: np.ndarray) -> tuple[jax.Array, jax.Array]:
        source = grain.MapDataset.source(_Rows(x, labels, rows[:, own], encode))
        options = grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=2 * THREADS)
        read = list(source.to_iter_dataset(options))
        return put(np.stack([a for a, _ in read])), put(np.stack([b for _, b in read]))

    def take(data, batch) -> tuple[Any, Any]:
        return batch

    return Batches((), take, order, examples // batch_size, feed)
