"""Running statistics of batch_norm: an explicit state beside the parameters, averaged over the batches of training."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ...errors import describe, expect_array, expect_arrays, expect_float, real_number
from ...layer import Layer, Met, expect_layer, walked
from ...linear import broadcast, widened
from ..batch_norm import BatchNormParams


class Statistics(NamedTuple):
    """mean, var: (n,), of one batch_norm. See `running_statistics`."""

    mean: Array
    var: Array


class RunningState(NamedTuple):
    """count: int32 (), the number of batches so far; statistics: a tree like the parameters, with `Statistics` in place of each
    BatchNormParams and None elsewhere. See `running_statistics`."""

    count: Array
    statistics: Any


class Running(NamedTuple):
    """Three pure functions of the statistics of batch norms.

    init(params) -> RunningState                       mean 0, var 1
    update(state, params, x, *, key=None) -> state     averaged with the statistics of the batch x, at these parameters
    frozen(params, state) -> params                    with the running mean and var in place: for evaluation

    See `running_statistics`.
    """

    init: Callable[[Any], RunningState]
    update: Callable[..., RunningState]
    frozen: Callable[[Any, RunningState], Any]


def _is_norm(tree: Any) -> bool:
    return isinstance(tree, BatchNormParams)


def _each_norm(f: Callable[..., Any], params: Any) -> Any:
    """f of every BatchNormParams in the tree, and None for every other leaf."""
    return jax.tree.map(lambda p: f(p) if _is_norm(p) else None, params, is_leaf=_is_norm)


def batch_norm_statistics(model: Layer, params: Any, x: Any, *, key: Any = None) -> Any:
    """What every batch_norm in the model sees of this batch, as `Statistics` in a tree like params, with None elsewhere.

    mean over all axes but the last, and var with 1/(n - 1), the unbiased one, of the layer's input, when all of them use the
    statistics of the batch. Inside a `jit` with the gradient of the same batch, XLA computes the forward pass once, but for
    blocks in a scan.
    Raises ValueError for a composition that does not say what its parts meet, and for a batch without entries.

    >>> model = nnjax.serial(nnjax.dense(4, 3), nnjax.batch_norm(3))
    >>> found = nnjax.batch_norm_statistics(model, model.init(jax.random.key(0)), jnp.ones((8, 4)))
    >>> found[1].mean.shape, found[0].w is None
    ((3,), True)
    """
    expect_layer("batch_norm_statistics", model)
    bare = _without(params)
    found, _ = _seen(Met("", model, bare, x, key))
    return _each_norm(lambda p: Statistics(p.mean, p.var), found)


def _without(params):
    """The parameters with no frozen statistics, as in training."""
    return jax.tree.map(lambda p: p._replace(mean=None, var=None) if _is_norm(p) else p, params, is_leaf=_is_norm)


def _seen(part: Met) -> tuple[Any, Any]:
    """(the parameters with the statistics of the batch filled in, the output)."""
    layer, params, x = part.layer, part.params, part.x
    if _is_norm(params):
        y, _ = layer.fwd(params, x, key=part.key)
        return params._replace(**_of_batch(x, params.scale.dtype)._asdict()), y
    if any(map(_is_norm, jax.tree.leaves(params, is_leaf=_is_norm))):
        return walked(layer, params, x, part.key, _seen)
    return params, layer.fwd(params, x, key=part.key)[0]  # fwd, as in the gradient, so that XLA merges the two


def _of_batch(x: Array, dtype: Any) -> Statistics:
    expect_float("batch_norm_statistics", "x", x)
    n = x.size // max(x.shape[-1], 1)
    if not n:
        raise ValueError(f"batch_norm_statistics: the batch must hold entries, got {describe(x)}; pass some inputs.")
    x, over = widened(x), tuple(range(x.ndim - 1))
    mean = x.mean(over)
    centred = x - broadcast(mean, x.shape)
    return Statistics(mean.astype(dtype), ((centred * centred).sum(over) / max(n - 1, 1)).astype(dtype))


def _start(params: BatchNormParams) -> Statistics:
    expect_float("running_statistics", "scale", params.scale)
    return Statistics(jnp.zeros_like(params.scale), jnp.ones_like(params.scale))


def _expect_state(state: Any, params: Any) -> None:
    """Raise TypeError or ValueError unless state is one of these parameters."""
    if not isinstance(state, RunningState):
        raise TypeError(f"running_statistics: state must be a RunningState, got {describe(state)}; make it with init(params).")
    expect_array("running_statistics", "count", state.count)
    expect_arrays("running_statistics", "statistics", state.statistics)

    def shaped(p):
        shape: Any = getattr(p.scale, "shape", None)
        return Statistics(shape, shape)

    wanted, came = _each_norm(shaped, params), jax.tree.map(jnp.shape, state.statistics)
    if wanted != came:
        raise ValueError(
            f"running_statistics: state must have a mean and a var for each batch norm of params, {wanted}, got {came}; "
            "make it with init(params)."
        )


def running_statistics(model: Layer, *, momentum: float | None = 0.1) -> Running:
    """Exponential averages of what every batch_norm in the model sees: running = (1 - momentum) running + momentum batch.

    The state is yours to carry, beside that of the optimizer: `init` makes it, `update` belongs into the step of training, and
    `frozen` gives the parameters to evaluate with. It has no part in the gradient: there the statistics are those of the batch.
    The start is mean 0 and var 1, var is the unbiased one, and momentum is the share of the new batch, as in PyTorch; None
    gives all batches the same weight. `train.fit(running=...)` carries it in `TrainState.running`.
    Raises ValueError for a momentum outside 0 ... 1.

    >>> model = nnjax.serial(nnjax.dense(4, 3), nnjax.batch_norm(3))
    >>> running, params = nnjax.running_statistics(model), model.init(jax.random.key(0))
    >>> state = running.update(running.init(params), params, jnp.ones((8, 4)))
    >>> model.apply(running.frozen(params, state), jnp.ones((1, 4))).shape
    (1, 3)
    """
    expect_layer("running_statistics", model)
    share = None if momentum is None else real_number(momentum)
    if momentum is not None and (share is None or not 0 <= share <= 1):
        raise ValueError(f"running_statistics: momentum must lie in 0 ... 1, got {momentum!r}; 0.1 is usual, None weighs all "
                         "batches alike.")  # fmt: skip

    def init(params):
        return RunningState(jnp.zeros((), jnp.int32), _each_norm(_start, params))

    def update(state, params, x, *, key=None):
        _expect_state(state, params)
        batch = batch_norm_statistics(model, params, x, key=key)
        count = state.count + 1

        def averaged(old, new):
            m = 1 / count.astype(old.dtype) if share is None else jnp.asarray(share, old.dtype)
            return old + broadcast(m, old.shape) * (new.astype(old.dtype) - old)

        return RunningState(count, jax.tree.map(averaged, state.statistics, batch))

    def frozen(params, state):
        _expect_state(state, params)

        def filled(p, s):
            return p._replace(mean=s.mean, var=s.var) if _is_norm(p) else p

        return jax.tree.map(filled, params, state.statistics, is_leaf=_is_norm)

    return Running(init, update, frozen)
