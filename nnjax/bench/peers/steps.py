"""One step of plain gradient descent, and the ratio of our time to that of other libraries."""

import importlib.util
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ..measure import interleaved, median_ratio, pairs_within, seconds

RATE = 0.01
WARM = 3  # steps: the first compiles, and a library may compile again at the second
SETTLE = 0.02  # seconds after which the threads of the previous program, which wait for work without sleeping, have stopped
Run = Callable[[], Any]
Builder = Callable[[], Run | None]


class Unavailable(Exception):
    """A peer does not work here; the message says why, in one line."""


def ratios(ours: Run, builders: dict[str, Builder], budget_seconds: float) -> dict[str, float]:
    """Time of our step over that of each peer whose library is installed, by interleaved pairs.

    All are built and compiled before the first pair is timed. A builder returns None if its library cannot use the device;
    one that raises `Unavailable` is left out with a line that says why.
    """
    theirs = {}
    for name, build in builders.items():
        if importlib.util.find_spec(name.partition(".")[0]) is None:
            continue
        try:
            run = build()
        except Unavailable as why:
            print(f"{name} is left out: {why}", flush=True)
            continue
        if run is not None:
            theirs[name] = run
    for run in (ours, *theirs.values()):
        for _ in range(WARM):
            seconds(run)
    return {
        name: median_ratio(*interleaved(ours, run, pairs_within(partial(settled, run), budget_seconds), settled))
        for name, run in theirs.items()
    }


def settled(run: Run) -> float:
    """The median time of a call over SETTLE seconds of calls, after as many seconds of warm-up calls. This is as in a training
    loop, where no threads of another library are awake."""
    _repeated(run)
    return float(np.median(_repeated(run)))


def _repeated(run: Run) -> list[float]:
    """The times of one call after another for SETTLE seconds, at least one."""
    end, times = time.perf_counter() + SETTLE, []
    while not times or time.perf_counter() < end:
        times.append(seconds(run))
    return times


def descent(gradient: Callable[..., Any], params: Any, *batch: Any) -> Run:
    """run() for a JAX library: gradient(params, *batch) -> (value, grads), then optax.sgd, jitted with donated parameters.
    run() -> (params, value)."""
    optimizer = optax.sgd(RATE)

    @partial(jax.jit, donate_argnums=0)
    def step(state, *batch):
        params, opt_state = state
        value, grads = gradient(params, *batch)
        with jax.numpy_dtype_promotion("standard"):
            updates, opt_state = optimizer.update(grads, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), value

    params = jax.tree.map(lambda p: jnp.array(p, copy=True), params)
    state = [(params, optimizer.init(params))]

    def run():
        state[0], value = step(state[0], *batch)
        return state[0], value

    return run


def cross_entropy(scores: Any, labels: Any) -> Any:
    """Mean over examples, or tokens; scores: (..., classes), labels: integers (...)."""
    return optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()
