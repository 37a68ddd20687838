"""The optimizers and schedules of optax by name, with clipping, decay and averaging around them."""

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ..errors import describe, expect_positive, real_number, unknown_name, whole_number
from ..linear import wide
from ..trees.parameters import is_weight

OPTIMIZERS = tuple(
    name
    for name in ("sgd", "adam", "adamw", "adagrad", "rmsprop", "nadam", "lamb", "lion", "radam", "yogi", "adabelief", "adamax",
                 "adamaxw", "adadelta", "adan", "amsgrad", "fromage", "lars", "nadamw", "novograd", "rprop", "sm3")
    if hasattr(optax, name)
)  # fmt: skip
SCHEDULES = tuple(
    name
    for name in dir(optax.schedules)
    if name.endswith(("_schedule", "_decay")) and not name.startswith(("_", "sgdr", "piecewise_interpolate"))
)  # without the two whose arguments are not numbers
STEPS = ("decay_steps", "transition_steps")  # arguments of schedules that default to the steps of the whole run
RATES = ("init_value", "peak_value", "value")  # arguments of schedules: the last one is the learning rate


def _made(what: str, function: Callable[..., Any], arguments: Mapping[str, Any], **ours: Any) -> Any:
    """function(**ours, **arguments), with those of `ours` that it takes. Raises ValueError for unknown or missing arguments."""
    known = inspect.signature(function).parameters
    for name in arguments:
        if name not in known:
            raise unknown_name(f"argument of {what}", name, known)
    try:
        return function(**{**{k: v for k, v in ours.items() if k in known}, **arguments})
    except TypeError as error:
        raise ValueError(f"{what}: {error}; pass the arguments that it needs.") from None


def _number(x: Any) -> float:
    """x as a Python float; NaN, which fails every comparison, if it is not a number."""
    found = real_number(x)
    return math.nan if found is None else found


def _expect_named(what: str, arguments: Any) -> None:
    if not isinstance(arguments, Mapping) or not all(isinstance(name, str) for name in arguments):
        raise TypeError(f"{what} must be a dictionary of numbers by name, got {describe(arguments)}; pass e.g. {{'b1': 0.9}}.")


def make_schedule(name: str | None, learning_rate: float, steps: int, arguments: Mapping[str, float] = {}) -> Any:
    """The schedule of optax with this name, over `steps` steps; without a name, the learning rate itself.

    An argument of a piecewise schedule is a step and the scale from there on: {"1000": 0.1}.
    """
    rate_given, learning_rate = learning_rate, _number(learning_rate)
    if not 0 < learning_rate < math.inf:
        raise ValueError(f"learning rate must be positive, got {rate_given!r}; 0.001 suits adam, 0.1 sgd.")
    (steps,) = expect_positive("make_schedule", steps=steps)
    _expect_named("the schedule's arguments", arguments)
    if name is None:
        if arguments:
            raise ValueError(f"schedule arguments {', '.join(arguments)} need a schedule, got none; name one.")
        return learning_rate
    if not isinstance(name, str) or name not in SCHEDULES:
        raise unknown_name("schedule", name, SCHEDULES)
    known = inspect.signature(getattr(optax.schedules, name)).parameters
    rate = next(rate for rate in reversed(RATES) if rate in known)
    ours = {rate: learning_rate, **dict.fromkeys(STEPS, steps)}
    if rate == "peak_value":  # a warm-up begins at 0
        ours |= {"init_value": 0.0, "warmup_steps": max(1, steps // 20)}
    whole: dict[str, Any] = {
        k: int(v) if k.endswith(("steps", "begin")) else v for k, v in arguments.items() if not k.isdigit()
    }
    if "boundaries_and_scales" in known:
        whole["boundaries_and_scales"] = {int(k): v for k, v in arguments.items() if k.isdigit()}
    elif len(whole) < len(arguments):
        raise ValueError(
            f"the schedule {name} takes named arguments, got {', '.join(arguments)}; pass some of {', '.join(known)}."
        )
    return _made(f"the schedule {name}", getattr(optax.schedules, name), whole, **ours)


class Averaged(NamedTuple):
    """The state of `average_parameters`."""

    average: Any


def average_parameters(decay: float) -> optax.GradientTransformation:
    """Keeps the exponential moving average of the parameters: average <- decay average + (1 - decay) parameters.

    Put it last in a chain, where the updates are what is added to the parameters. `averaged` finds the average in the
    optimizer's state. It is kept in float32 at least: bfloat16 is too coarse for a step of one part in a thousand.
    """
    given, decay = decay, _number(decay)
    if not 0 < decay < 1:
        raise ValueError(f"the decay of the moving average must lie between 0 and 1, got {given!r}; 0.999 is usual.")

    def update(updates, state, params=None):
        if params is None:
            raise ValueError("average_parameters: update needs the parameters; pass params.")
        new = jax.tree.map(_widened, optax.apply_updates(params, updates))
        return updates, Averaged(optax.incremental_update(new, state.average, 1 - decay))

    return optax.GradientTransformation(lambda params: Averaged(jax.tree.map(_widened, params)), update)


def _widened(p: Any) -> jax.Array:
    p = jnp.asarray(p)
    return p.astype(wide(p)) if jnp.issubdtype(p.dtype, jnp.floating) else p


def averaged(opt_state: Any, params: Any) -> Any:
    """The average that `average_parameters` keeps in this state, in the dtypes of params; params itself if there is none."""
    found = [s for s in jax.tree.leaves(opt_state, is_leaf=lambda s: isinstance(s, Averaged)) if isinstance(s, Averaged)]
    return jax.tree.map(lambda a, p: a.astype(p.dtype), found[0].average, params) if found else params


def make_optimizer(
    name: str,
    learning_rate: float,
    steps: int = 1,
    *,
    arguments: Mapping[str, float] = {},
    schedule: str | None = None,
    schedule_arguments: Mapping[str, float] = {},
    clip: float | None = None,
    weight_decay: float = 0.0,
    average: float | None = None,
    skip: int = 0,
) -> optax.GradientTransformation:
    """The optimizer of optax with this name and these arguments.

    schedule: of the learning rate, over `steps` steps; clip: the largest 2-norm of the gradient; weight_decay: each step also
    shrinks the weights (`nnjax.trees.parameters.is_weight`), not biases and norms, by learning rate x weight_decay (decoupled:
    Loshchilov and Hutter 2019); average: see `average_parameters`; skip: how many gradients in a row that are not finite are
    skipped before one is applied anyway.
    Raises ValueError for unknown names and arguments, and for numbers out of range.
    """
    if not isinstance(name, str) or name not in OPTIMIZERS:
        raise unknown_name("optimizer", name, OPTIMIZERS)
    rate = make_schedule(schedule, learning_rate, steps, schedule_arguments)
    if clip is not None and not _number(clip) > 0:
        raise ValueError(f"clip must be positive, got {clip!r}; 1 is usual.")
    if not 0 <= _number(weight_decay) < math.inf:
        raise ValueError(f"weight decay must be at least 0, got {weight_decay!r}; 0 turns it off.")
    if whole_number(skip) is None or skip < 0:
        raise ValueError(f"skip must be at least 0, got {skip!r}; 0 stops at the first gradient that is not finite.")
    _expect_named("the optimizer's arguments", arguments)
    made = _made(f"the optimizer {name}", getattr(optax, name), arguments, learning_rate=rate)
    parts = [*([optax.clip_by_global_norm(clip)] if clip else []), made]
    if weight_decay:
        decay = optax.inject_hyperparams(optax.add_decayed_weights, static_args="mask")
        at: Any = rate if callable(rate) else optax.constant_schedule(rate)
        parts.append(decay(weight_decay=lambda n: -weight_decay * at(n), mask=is_weight))
    if average is not None:
        parts.append(average_parameters(average))
    whole = optax.chain(*parts) if len(parts) > 1 else made
    return optax.apply_if_finite(whole, skip) if skip else whole
