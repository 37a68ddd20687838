"""A recurrent layer in one direction: the checks of its arguments, its state, lengths and cuts, around its mathematics."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ...errors import describe, expect_array, expect_float, expect_params, expect_same_dtype, expect_shape
from ...fast.choose import by_platform
from ...layer import Layer
from ...leaf import Like, expect_cotangent, leaf, outline, outlined
from .steps import at_end, at_end_t, past, without
from .truncated import h_of, truncated, with_h


class How(NamedTuple):
    """carry: x comes with a state, and y too; lengths: with a length for each sequence; truncate: the steps between cuts."""

    carry: bool = False
    lengths: bool = False
    truncate: int | None = None


def fast_pair(
    fwd: Callable[..., Any], bwd: Callable[..., Any], cpu_fwd: Callable[..., Any], cpu_bwd: Callable[..., Any]
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """(fwd, bwd), spelled for the platform, for residuals (params, x, state, y, kept).

    cpu_fwd(params, x, state, *padding) -> (y, last, kept), the new arrays in the result of fwd.
    """

    def new(params, x, state, *padding):
        (y, last), (*_, kept) = fwd(params, x, state, *padding)
        return y, last, kept

    def fast_fwd(params, x, state, *padding):
        y, last, kept = by_platform(params, x, state, *padding, plain=new, cpu=cpu_fwd)
        return (y, last), (params, x, state, y, kept)

    return fast_fwd, lambda residuals, cts: by_platform(residuals, cts, plain=bwd, cpu=cpu_bwd)


def expect_lengths(who: str, lengths: Any, lead: tuple[int, ...], time: int) -> None:
    """Raise unless lengths are integers of this shape, from 0 to time as far as they are known."""
    expect_array(who, "lengths", lengths)
    if not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise TypeError(f"{who}: lengths must be integers, got {describe(lengths)}; convert them with .astype(jnp.int32).")
    expect_shape(who, "lengths", lengths, lead)
    if isinstance(lengths, Tracer) or not lengths.size:
        return
    known = np.asarray(lengths)  # inside a jit the minimum of a JAX array would be traced
    least, most = int(known.min()), int(known.max())
    if least < 0 or most > time:
        raise ValueError(f"{who}: lengths must be from 0 to {time}, the number of steps, got {least} to {most}; pad x to the "
                         "longest.")  # fmt: skip


def given(who: str, how: How, x: Any) -> tuple[Any, Any, Any]:
    """(x, state, lengths) of what the layer takes as x; None for what it does not take. Raises TypeError for another tuple."""
    names = ["x", *(["state"] if how.carry else []), *(["lengths"] if how.lengths else [])]
    if len(names) == 1:
        return x, None, None
    if not isinstance(x, tuple) or len(x) != len(names):
        asked = " and ".join(f"{name}=True" for name, asked in (("carry", how.carry), ("lengths", how.lengths)) if asked)
        remedy = "pass state=None in it to start from zero" if how.carry else "pass both"
        raise TypeError(f"{who}: with {asked} x must be the tuple ({', '.join(names)}), got {describe(x)}; {remedy}.")
    found = dict(zip(names, x))
    return found["x"], found.get("state"), found.get("lengths")


def cotangents(how: How, ct_x: Any, ct_state: Any) -> Any:
    """The cotangents of what the layer took as x. Lengths are integers, which have none."""
    found = (ct_x, *((ct_state,) if how.carry else ()), *((None,) if how.lengths else ()))
    return found if len(found) > 1 else ct_x


def one_way(
    name: str, n_in: int, n_hidden: int, how: How, kind: type, shapes: dict[str, tuple[int, ...]], state_type: Any,
    init: Callable[..., Any], apply: Callable[..., Any], fwd: Callable[..., Any], bwd: Callable[..., Any],
    fast: tuple[Callable[..., Any], Callable[..., Any]],
) -> Layer:  # fmt: skip
    """The Layer of apply(params, x, state, lengths=, truncate=) -> (y, state), its fwd -> ((y, state), residuals), and its
    bwd(residuals, (ct_y, ct_state)) -> (ct_params, ct_x, ct_state), all three on one batch axis.

    kind: the NamedTuple of the parameters; shapes: of the parameters, by name; state_type: the NamedTuple of a state of
    several arrays, or None. One with several has a part that is not in y: its fwd takes the padding, and keeps that part there.
    """
    parts = state_type._fields if state_type else ("state",)
    k = how.truncate

    def entered(params, x):
        """(params, x with one batch axis, the state and the lengths likewise, the leading axes), after all checks."""
        expect_params(name, params, kind)
        for field, p in params._asdict().items():
            expect_float(name, field, p)
            expect_shape(name, field, p, shapes[field])
            expect_same_dtype(name, field, p, "w", params.w)
        x, state, lengths = given(name, how, x)
        expect_float(name, "x", x)
        if x.ndim < 2 or x.shape[-1] != n_in:
            raise ValueError(f"{name}: x must have shape (..., time, {n_in}), got {describe(x)}; "
                             "time is the last axis but one.")  # fmt: skip
        expect_same_dtype(name, "x", x, "w", params.w)
        lead, time = x.shape[:-2], x.shape[-2]
        if state is not None:
            if state_type and not isinstance(state, state_type):
                raise TypeError(f"{name}: state must be {state_type.__name__}({', '.join(parts)}), got {describe(state)}; "
                                "pass None to start from zero.")  # fmt: skip
            for part, s in zip(parts, state if state_type else (state,)):
                expect_float(name, part, s)
                expect_shape(name, part, s, (*lead, n_hidden))
                expect_same_dtype(name, part, s, "x", x)
        x = x.reshape(math.prod(lead), time, n_in)
        zero = jnp.zeros_like(x, shape=(x.shape[0], n_hidden))  # derived from x, so that it is sharded with x
        if how.lengths:
            expect_lengths(name, lengths, lead, time)
            lengths = jnp.clip(lengths.astype(jnp.int32), 0, time).reshape(x.shape[0])
            x = without(x, past(lengths, time))
        if state is None:
            return params, x, (state_type(*(zero for _ in parts)) if state_type else zero), lengths, lead
        return params, x, jax.tree.map(lambda s: s.reshape(zero.shape), state), lengths, lead

    def left(y, state, lead):
        y = y.reshape(*lead, *y.shape[1:])
        return (y, jax.tree.map(lambda s: s.reshape(*lead, n_hidden), state)) if how.carry else y

    def layer_apply(params, x, *, key=None):
        params, x, state, lengths, lead = entered(params, x)
        y, last = apply(params, x, state, lengths=lengths, truncate=k)
        return left(y, last, lead)

    def layer_fwd(params, x, *, key=None, fwd=fwd):
        starts = how.carry and isinstance(x, tuple) and len(x) > 1 and x[1] is not None
        params, x, state, lengths, lead = entered(params, x)
        run = truncated(fwd, bwd, k)[0] if k else fwd
        padding = None if lengths is None else past(lengths, x.shape[1])
        (y, last), residuals = run(params, x, state, *((padding,) if how.lengths and state_type else ()))
        if lengths is not None:
            y = without(y, padding)
            last = with_h(last, at_end(y, h_of(state), lengths))
            *others, _, kept = residuals
            residuals = *others, y, kept
        y = left(y, last, lead)
        return y, (residuals, () if starts else None, outline(y[0] if how.carry else y), lengths)

    def output(residuals):
        y = outlined(residuals[2])
        return (y, None) if how.carry else y

    def layer_bwd(residuals, ct, *, bwd=bwd):
        residuals, starts, y, lengths = residuals
        ct_y, ct_state = ct if how.carry else (ct, None)
        lead = ct_y.shape[:-2]
        if ct_state is not None:
            state = Like((*lead, n_hidden), y.dtype)
            expect_cotangent(
                name, "the state's cotangent", ct_state, state_type(*(state for _ in parts)) if state_type else state
            )
        ct_y = ct_y.reshape(math.prod(lead), *ct_y.shape[-2:])
        zero = jnp.zeros_like(ct_y, shape=(ct_y.shape[0], n_hidden))
        if ct_state is None:  # the last state was not used
            ct_state = state_type(*(zero for _ in parts)) if state_type else zero
        ct_state = jax.tree.map(lambda s: s.reshape(zero.shape), ct_state)
        more, ct_first = (), zero
        if lengths is not None:  # the last h is a step of y
            time = ct_y.shape[1]
            ct_end, ct_first = at_end_t(h_of(ct_state), lengths, time)
            ct_y, ct_state = without(ct_y, past(lengths, time)) + ct_end, with_h(ct_state, zero)
            more = (jnp.maximum(lengths - 1, 0),) if k else ()
        run = truncated(fwd, bwd, k)[1] if k else bwd
        ct_params, ct_x, ct_state = run(residuals, (ct_y, ct_state), *more)
        if lengths is not None:
            ct_state = with_h(ct_state, h_of(ct_state) + ct_first)
        ct_x = ct_x.reshape(*lead, *ct_x.shape[1:])
        if starts is None:
            return ct_params, cotangents(how, ct_x, None)
        return ct_params, cotangents(how, ct_x, jax.tree.map(lambda s: s.reshape(*lead, n_hidden), ct_state))

    fast_layer = partial(layer_fwd, fwd=fast[0]), partial(layer_bwd, bwd=fast[1])
    made = leaf(f"{name}({n_in}, {n_hidden})", init, layer_apply, layer_fwd, layer_bwd, output, fast=fast_layer)
    if k is None or made.plain is None:
        return made
    return made._replace(cuts=True, plain=made.plain._replace(cuts=True))
