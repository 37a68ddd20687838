"""A gate: one half of the features lets the other through, act(gate) * up."""

from typing import Any

from jax import Array

from ...errors import describe, expect_float, expect_params, expect_same_dtype, expect_shape
from ...layer import Layer
from ...leaf import leaf


def gate_apply(x: Any, act: Layer) -> Array:
    """y = act(gate) * up, entry by entry.  x: (gate, up), all of one shape."""
    gate, up = x
    return act.apply((), gate) * up


def gate_fwd(x: Any, act: Layer) -> Any:
    return gate_apply(x, act), x


def gate_bwd(residuals: Any, ct_y: Array, act: Layer) -> Any:
    gate, up, *formed = residuals  # act(gate) too, where it is there already
    a, kept = act.fwd((), gate)  # formed again, not kept
    # y is linear in each half, and `times b` is its own transpose: so each half is the factor of the other's cotangent
    _, ct_gate = act.bwd(kept, ct_y * up)
    return ct_gate, ct_y * (formed[0] if formed else a)


def gate(act: Layer) -> Layer[Array]:
    """y = act(gate) * up for x = (gate, up), two arrays of one shape; act: an activation, entry by entry.

    Its Jacobian is diagonal in either half, and so its own transpose: ct_up = ct_y act(gate), ct_gate = ct_y up act'(gate).
    Raises TypeError or ValueError for anything but two such arrays.
    """
    name = f"gate({act.name})"

    def checked(params, x):
        expect_params(name, params, tuple)
        if not isinstance(x, tuple) or len(x) != 2:
            raise TypeError(f"{name}: x must be the tuple (gate, up), got {describe(x)}; pass both halves.")
        for half, a in zip(("gate", "up"), x):
            expect_float(name, half, a)
        expect_same_dtype(name, "up", x[1], "gate", x[0])
        expect_shape(name, "up", x[1], x[0].shape)
        return x

    return leaf(
        name,
        lambda key: (),
        lambda params, x, *, key=None: gate_apply(checked(params, x), act),
        lambda params, x, *, key=None: gate_fwd(checked(params, x), act),
        lambda residuals, ct_y: ((), gate_bwd(residuals, ct_y, act)),
        lambda residuals: residuals[1],  # up: y is like it
    )
