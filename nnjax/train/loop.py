"""The loop of every training run: an epoch is a few compiled scans, and the run can be saved between two of them.

The sizes alone decide where a scan ends; the key and the first step decide the order of an epoch. So a run that was
stopped, or killed, and resumed runs the same programs on the same rows as an uninterrupted one.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import expect_positive
from ..trees.products import product_flops
from .placement import ONE_DEVICE, Placement
from .run import Checkpoints, Epoch, Fit, OnEpoch, OnSteps, Progress, begin, held, keep
from .step import Step, TrainState, make_steps

DIVERGED = 1e4  # times the first loss: a scan whose mean is above this has diverged, even if it is finite
SMALL = 1e8  # flops of a step: below, four steps are unrolled, as the loop's overhead counts; above, that only compiles longer
MOST = 2**31 - 1  # steps, which are counted in int32
FLOPS = 1e11  # of one compiled scan, a second or two on a slow CPU: runs stop between two, and each call allocates memory


class GradientsApart(ArithmeticError):
    """Two gradients that are compared at every step differ by too much; raised by `where` of a run."""


class Batches(NamedTuple):
    """The training data.

    data: arrays on the device; take(data, row) -> (x, labels), the batch that a row of integers names; order(key, first step)
    -> the rows of an epoch, (per_epoch, batch size); feed(rows) -> what `take` takes for these rows, on the device.
    """

    data: Any
    take: Callable[[Any, jax.Array], tuple[Any, Any]]
    order: Callable[[jax.Array, Any], jax.Array]
    per_epoch: int
    feed: Callable[[np.ndarray], Any] = jnp.asarray


def expect_steps(epochs: int, per_epoch: int) -> None:
    """Raise ValueError for more steps than an int32 can count."""
    if epochs * per_epoch > MOST:
        raise ValueError(f"fit: a run must have at most {MOST} steps, got {epochs} epochs of {per_epoch}; pass fewer epochs.")


Score = Callable[[TrainState], tuple[float, float, dict[str, float]]]  # -> validation and test accuracy, and other scores


def loop(
    step: Step,
    state: TrainState,
    batches: Batches,
    epochs: int,
    score: Score,
    *,
    checkpoints: Checkpoints | None = None,
    on_epoch: OnEpoch | None = None,
    on_steps: OnSteps | None = None,
    patience: int | None = None,
    where: Callable[[Any, Any, Any, jax.Array], str] | None = None,
    skipping: bool = False,
    placement: Placement = ONE_DEVICE,
) -> Fit:
    """Run step(state, x, labels) -> (state, value) over every row of every epoch, and keep the record.

    where(params, x, labels, key): says where a number that is not finite first appears; skipping: continue after a loss that
    is not finite while the parameters are.  Raises FloatingPointError otherwise.
    on_steps: called once everything is compiled, and after every scan.  placement: where the state lies, before and after.
    """
    if checkpoints is not None and checkpoints.every is not None:
        expect_positive("checkpoints", every=checkpoints.every)
    if patience is not None:
        expect_positive("fit", patience=patience)
    expect_steps(epochs, batches.per_epoch)
    with held(checkpoints) as stopped:
        found, done = begin(checkpoints, placement.join(state))
        state = placement.put(found)
        step = jax.jit(placement.staying(step), inline=True)  # traced once for all its uses below
        located = where and (lambda params, *batch: where(placement.join(params), *batch))
        at = saved = int(state.step)
        per_epoch = batches.per_epoch
        every = per_epoch if checkpoints is None or checkpoints.every is None else checkpoints.every
        order = jax.jit(lambda key, first: batches.order(key, first).astype(jnp.int32), out_shardings=placement.whole)
        rows = np.asarray(order(state.key, at - at % per_epoch))
        work = _flops(step, state, batches, jax.tree.map(lambda r: r[0], batches.feed(rows[:1])))
        most = min(per_epoch, every, max(1, int(FLOPS / work)))
        unroll = 4 if work < SMALL else 1
        run = jax.jit(make_steps(step, unroll, batches.take), donate_argnums=() if where else 0)
        sizes = {most, per_epoch % most} - {0}
        runs = {n: run.lower(state, batches.data, batches.feed(rows[:n])).compile() for n in sizes}
        fed: dict[int, Any] = {}
        why = ""
        if on_steps:
            on_steps(at, float("nan"))
        while at < epochs * per_epoch and not why and not _idle(done.history, patience):
            epoch, offset = divmod(at, per_epoch)
            if offset == 0:
                rows = np.asarray(order(state.key, at))
            start = time.perf_counter()
            n = min(most, per_epoch - offset)
            now = fed.pop(at) if at in fed else batches.feed(rows[offset : offset + n])
            before, (state, values) = state, runs[n](state, batches.data, now)
            if offset + n < per_epoch:  # read the next batches while these steps run
                fed[at + n] = batches.feed(rows[offset + n : offset + n + min(most, per_epoch - offset - n)])
            values = np.asarray(values).astype(np.float64)  # NumPy would take the mean of bfloat16 in bfloat16
            seconds = done.seconds + time.perf_counter() - start
            done = done._replace(loss=done.loss + float(np.nansum(values, dtype=np.float64)), seconds=seconds)
            if not np.isfinite(values).all() and not (skipping and _finite(state.params)):
                found = _first(step, before, batches, now, n, located) or _parameter(state)
                raise FloatingPointError(
                    f"fit: the loss of epoch {epoch + 1} is {values[int(np.argmin(np.isfinite(values)))]}, so training has "
                    f"diverged{found}; lower the learning rate."
                )
            if done.first is None and np.isfinite(values[0]):
                done = done._replace(first=float(values[0]))
            _expect_no_growth(float(values.mean()), done.first, epoch + 1)
            at += n
            if on_steps:
                on_steps(at, float(values.mean()))
            if offset + n == per_epoch:
                validation, test, measured = score(state)
                record = Epoch(epoch + 1, done.loss / per_epoch, validation, test, done.seconds, measured)
                done = Progress((*done.history, record))
                if on_epoch:
                    on_epoch(record)
            why = stopped()
            last = at == epochs * per_epoch or _idle(done.history, patience)
            if checkpoints is not None and (why or last or at - saved >= every):
                keep(checkpoints, placement.join(state), at, done)
                saved = at
        if at == epochs * per_epoch:
            why = ""
        return Fit(state, done.history, why or ("patience" if at < epochs * per_epoch else ""))


def _expect_no_growth(loss: float, first: float | None, epoch: int) -> None:
    if first is not None and loss > DIVERGED * max(abs(first), 0.01):
        raise FloatingPointError(
            f"fit: the loss has grown from {first:.3g} to {loss:.3g} in epoch {epoch}, so training has diverged; lower the "
            "learning rate."
        )


def _idle(history: tuple[Epoch, ...], patience: int | None) -> bool:
    """Whether none of the last `patience` epochs was better than all before."""
    scores = [record.score for record in history]
    return patience is not None and len(scores) > patience and max(scores[-patience:]) <= max(scores[:-patience])


def _flops(step: Step, state: TrainState, batches: Batches, row: Any) -> float:
    """The flops of a step's products and convolutions; 1 if the program does not tell."""
    platform = next(iter(jax.tree.leaves(state.params)[0].devices())).platform
    work = product_flops(lambda state, data, row: step(state, *batches.take(data, row)), (state, batches.data, row), platform)
    return work if work > 1 else 1.0  # it may be NaN


def _finite(params: Any) -> bool:
    return all(bool(jnp.isfinite(p).all()) for p in jax.tree.leaves(params))


def _parameter(state: TrainState) -> str:
    bad = next((p for p, w in jax.tree_util.tree_leaves_with_path(state.params) if not bool(jnp.isfinite(w).all())), None)
    return "" if bad is None else f"; the first parameter that is not finite is params{jax.tree_util.keystr(bad)}"


def _first(step: Step, state: TrainState, batches: Batches, fed: Any, n: int, where: Callable[..., str] | None) -> str:
    """Where the first number that is not finite appears, as these steps run again one by one; "" if it does not recur."""
    if where is None:
        return ""
    one = jax.jit(step)
    for i in range(n):
        x, labels = batches.take(batches.data, jax.tree.map(lambda rows, i=i: rows[i], fed))
        before, (state, value) = state, one(state, x, labels)
        if not (bool(jnp.isfinite(value)) and _finite(state.params)):
            step_number = int(before.step) + 1
            try:
                found = where(before.params, x, labels, jax.random.fold_in(before.key, before.step))
            except GradientsApart as error:
                raise GradientsApart(f"at step {step_number} {error}") from None
            return f" at step {step_number}: {found}" if found else _parameter(state)
    return ""
