"""Examples that do not fit on the device: threads of grain read them while earlier steps run."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np

from ..data.dataset import DataError
from .loop import Batches
from .placement import ONE_DEVICE, Placement
from .step import epoch_key, shuffled

DEVICE_BYTES = 2 << 30  # training examples up to this size are put on the device as a whole; more are streamed
THREADS = 4


class _Rows:
    """A data source for grain: entry i is the batch of rows[i]."""

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
    x: Any, labels: Any, batch_size: int, encode: Callable[..., Any] | None = None,
    placement: Placement = ONE_DEVICE,
) -> Batches:  # fmt: skip
    """Batches of x and labels, NumPy arrays or memory maps, in the order in which `fit` would take them.

    placement: of the devices that share a batch; a process reads only the examples for its own devices.
    """
    grain = _grain()
    examples, own = len(labels), placement.own(batch_size)
    put = partial(placement.steps, batch_size=batch_size)

    def order(key, first):
        return shuffled(epoch_key(key, first), examples, batch_size)

    def feed(rows: np.ndarray) -> tuple[jax.Array, jax.Array]:
        source = grain.MapDataset.source(_Rows(x, labels, rows[:, own], encode))
        options = grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=2 * THREADS)
        read = list(source.to_iter_dataset(options))
        return put(np.stack([a for a, _ in read])), put(np.stack([b for _, b in read]))

    def take(data, batch) -> tuple[Any, Any]:
        return batch

    return Batches((), take, order, examples // batch_size, feed)
