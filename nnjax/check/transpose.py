"""check_transpose: two linear maps, of which one should be the transpose of the other."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import describe
from .calls import argument_names
from .matrix import run_matrix
from .options import options
from .pair import pair_run
from .report import Diagnosis, Report, Row, Where
from .subject import FLOAT0, Outputs, Subject, sorted_outputs, split, vjp_of
from .witness.oracle import eps_of, in_x64, norms, on_host
from .witness.rounding import random_like


def check_transpose(
    linear: Callable[..., Any], transpose: Callable[..., Any], x: Any, y: Any = None, *, dtypes: Sequence[str] | None = None,
    transforms: Sequence[str] | None = None, devices: Sequence[Any] | None = None, seed: int = 0, full: bool = False,
) -> Report:  # fmt: skip
    """Compare `transpose` with `jax.linear_transpose` of `linear`, and check that `linear` is linear.

    linear(x) -> y and transpose(y) -> x, x and y pytrees. Only shapes and integer leaves of x and y count; values are drawn.
    y may be left out: its shape is that of linear(x). The adjoint identity <y, A x> = <Aᵀ y, x> is a separate witness.
    Raises TypeError if a map is not a function, ValueError if y does not have the shape of linear(x).
    """
    for what, f in (("linear", linear), ("transpose", transpose)):
        if not callable(f):
            raise TypeError(f"check_transpose: {what} must be a function, got {describe(f)}; pass linear, transpose, x, y.")
    opts = options(dtypes, transforms, devices, None, seed, full, ("adjoint",))
    spec, diff, other = split((x,), {}, argument_names(linear, 1) or ("x",))
    given = jax.eval_shape(lambda x: linear(x), x)
    if y is not None and jax.tree.map(jnp.shape, y) != jax.tree.map(lambda s: s.shape, given):
        came, due = jax.tree.map(jnp.shape, y), jax.tree.map(lambda s: s.shape, given)
        raise ValueError(f"check_transpose: y must have the shape of linear(x), {due}, got {came}; pass such a y, or none.")
    rng = np.random.default_rng((seed, 4))
    diff = [random_like(rng, v.shape, v.dtype) for v in diff]

    def reference(diff, other, cts):
        def flat(diff):
            return sorted_outputs(linear(*spec.merge(diff, other)[0]))[0]

        return Outputs(flat(diff), [], jax.linear_transpose(flat, diff)(list(cts))[0])

    def bwd(residuals, ct_y):
        ct = jax.tree.map(lambda c: None if getattr(c, "dtype", None) == FLOAT0 else c, ct_y)
        return (transpose(ct),)

    def fwd(x):
        return linear(x), ()

    @jax.custom_vjp
    def function(x):
        return linear(x)

    function.defvjp(fwd, bwd)
    hand, problems = pair_run(fwd, bwd, spec)
    name = getattr(transpose, "__name__", "transpose")
    remat = vjp_of(function, spec, jax.checkpoint)
    subject = Subject(
        case=name, spec=spec, definition=linear, reference=reference, hand=hand, rematerialised=remat, problems=problems
    )
    report = run_matrix(subject, diff, other, opts)
    return report._replace(rows=(*report.rows, _linearity(name, linear, spec, diff, other, rng)))


def _linearity(name, linear, spec, diff, other, rng) -> Row:
    """A(2 x - 3 z) = 2 A x - 3 A z, in float64."""

    def flat(diff, other):
        return sorted_outputs(linear(*spec.merge(diff, other)[0]))[0]

    x, z = on_host(diff), [rng.standard_normal(v.shape) for v in diff]
    together = in_x64(flat, [2 * a - 3 * b for a, b in zip(x, z)], other)
    apart = [2 * a - 3 * b for a, b in zip(in_x64(flat, x, other), in_x64(flat, z, other))]
    error = max((float(norms(a - b)[1]) for a, b in zip(together, apart)), default=0.0)
    size = max((float(norms(a)[1]) for a in apart), default=0.0)
    # Both sides round sums of the same numbers, as many as x has entries.
    bound = 64 * eps_of(np.float64) * max(size, 1.0) * max(1.0, np.sqrt(sum(v.size for v in x)))
    ok = error <= bound
    wrong = None if ok else Diagnosis("unknown", f"the map is not linear: A(2x - 3z) and 2Ax - 3Az differ by {error:.3g}")
    where, status = Where(name, "float64", "eager", "cpu"), "ok" if ok else "failed"
    return where.row("output", error=error, bound=bound, status=status, diagnosis=wrong, witness="linearity")
