"""A question that values can answer: F(x) = <ct, body(x)> at the arguments of a call, in float64, and a rule's gradient."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from ..calls import bound, in_own_precision
from ..subject import Leaves, Spec, sorted_outputs, split
from .oracle import eps_of
from .rounding import random_like
from .truth import operations

Answer = TypeVar("Answer")


class Question(NamedTuple):
    """F(x) = <ct, body(x)>, and its gradient by the rule."""

    spec: Spec
    diff: Leaves  # in float64
    other: Leaves
    cts: Leaves
    rule: Any
    body: Any
    eps: float = 2.0**-52  # machine epsilon of the precision in which the body runs
    stops: bool = False  # whether the body stops gradients anywhere
    dtypes: tuple[Any, ...] = ()  # the original dtypes of the arguments

    def value(self) -> Any:
        """F, as a function of a list of arrays in float64."""

        @jax.jit
        def run(diff, other, cts):
            return sum(jnp.vdot(c, y) for c, y in zip(cts, self._floats(self.body)(diff, other)))

        return lambda diff: float(run(list(diff), self.other, self.cts))

    def _floats(self, f):
        def call(diff, other):
            args, kwargs = self.spec.merge(diff, other)
            return sorted_outputs(f(*args, **kwargs))[0]

        return call

    def pulled(self, f: Any, dtypes: Any = None) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """The outputs of f and the gradient of <ct, f(x)>, by the reverse mode of f; dtypes: of the arguments, if others."""

        @jax.jit
        def run(diff, other, cts):
            y, pull = jax.vjp(lambda diff: self._floats(f)(diff, other), diff)
            return y, pull([c.astype(v.dtype) for c, v in zip(cts, y)])[0]

        diff = [np.asarray(x, d) for x, d in zip(self.diff, dtypes)] if dtypes else list(self.diff)
        y, gradient = run(diff, self.other, self.cts)
        return [np.asarray(v, np.float64) for v in y], [np.asarray(g, np.float64) for g in gradient]

    def gradient(self, f: Any) -> list[np.ndarray]:
        """The gradient of <ct, f(x)>, by the reverse mode of f."""
        return self.pulled(f)[1]

    def outputs(self, f: Any, dtypes: Any = None) -> list[np.ndarray]:
        """The outputs of f, without differentiation."""
        diff = [np.asarray(x, d) for x, d in zip(self.diff, dtypes)] if dtypes else list(self.diff)
        return [np.asarray(v, np.float64) for v in jax.jit(self._floats(f))(diff, self.other)]


def asked(
    answer: Callable[[Question], Answer], rule: Any, body: Any, args: tuple[Any, ...], kwargs: dict[str, Any], seed: int,
    unknown: Answer,
) -> Answer:  # fmt: skip
    """What values at these arguments answer; `unknown` if the body has none, or if its autodiff is needed and does not run."""
    with own_options(), jax.enable_x64(True):
        try:
            return answer(_question(rule, body, args, kwargs, seed))
        except Exception:
            return unknown


@contextmanager
def own_options() -> Iterator[None]:
    """Within this context, JAX's defaults hold, whatever the caller has set for the program under test."""
    with (
        jax.disable_jit(False),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
        jax.debug_nans(False),
        jax.debug_infs(False),
        jax.check_tracer_leaks(False),
        jax.transfer_guard("allow"),
    ):
        yield


def _question(rule: Any, body: Any, args: tuple[Any, ...], kwargs: dict[str, Any], seed: int) -> Question:
    ((rule, body), args, kwargs, names), own = in_own_precision(bound(rule, body, args, kwargs))
    spec, diff, other = split(args, kwargs, names)
    dtypes = tuple(x.dtype for x in diff)
    diff = [np.asarray(x).astype(np.float64) for x in diff]
    bare = Question(spec, diff, other, [], rule, body, eps_of(own or np.float64), dtypes=dtypes)
    program, shapes = jax.make_jaxpr(bare._floats(body), return_shape=True)(diff, other)
    rng = np.random.default_rng((seed, 2))
    cts = [random_like(rng, s.shape, s.dtype) for s in shapes]
    return bare._replace(cts=cts, stops="stop_gradient" in operations(program.jaxpr))
