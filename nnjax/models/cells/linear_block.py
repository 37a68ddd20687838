"""A block around a linear recurrence, as in Griffin: alone, the recurrence has no product from one feature to another."""

from typing import Any

from ...combinators import residual, serial
from ...errors import describe
from ...layer import Layer, Met
from ...layers.activation import gelu
from ...layers.dense import dense
from ...layers.norm import rms_norm
from ...layers.recurring.rg_lru import rg_lru


def linear_block(n_in: int, n_hidden: int, *, carry: bool = False) -> Layer:
    """h = x + dense(rg_lru(rms_norm(x))), y = h + dense(gelu(dense(rms_norm(h)))).  x, h, y: (..., time, n), n_in = n_hidden.

    De et al. 2024, section 2, with one branch. With `carry` x is (x, state) and y is (y, state), those of `rg_lru`.
    Raises ValueError where n_hidden is not n_in.
    """
    if n_in != n_hidden:
        raise ValueError(f"linear_block: n_hidden must be n_in, as x is added to its output, got {n_in} and {n_hidden}.")
    n = n_in
    before, cell, after = rms_norm(n), rg_lru(n, n, carry=carry), dense(n, n)
    then = residual(serial(rms_norm(n), dense(n, 2 * n), gelu(approximate=True), dense(2 * n, n)))
    if carry:
        return _carried(before, cell, after, then)
    return serial(residual(serial(before, cell, after)), then)._replace(name=f"linear_block({n}, {n})")


def _carried(before: Layer, cell: Layer, after: Layer, then: Layer) -> Layer:
    """y = then(x + after(cell(before(x)))), cell a recurrent layer made with carry=True; parameters as without a state."""
    name = f"linear_block around {cell.name}"

    def entered(params, x):
        if not isinstance(x, tuple) or len(x) != 2:
            raise TypeError(f"{name}: with carry=True x must be the tuple (x, state), got {describe(x)}; pass (x, None) to "
                            "start from zero.")  # fmt: skip
        if not isinstance(params, tuple) or len(params) != 2 or not isinstance(params[0], tuple) or len(params[0]) != 3:
            raise TypeError(f"{name}: params must be nested as ((., ., .), .), got {describe(params)}; make them with "
                            "layer.init(key).")  # fmt: skip
        return *params, *x

    def init(key):
        return serial(residual(serial(before, cell, after)), then).init(key)

    def apply(params, x, *, key=None):
        (p_before, p_cell, p_after), p_then, x, state = entered(params, x)
        h, state = cell.apply(p_cell, (before.apply(p_before, x), state))
        return then.apply(p_then, x + after.apply(p_after, h)), state

    def fwd(params, x, *, key=None):
        (p_before, p_cell, p_after), p_then, x, state = entered(params, x)
        h, of_before = before.fwd(p_before, x)
        (h, state), of_cell = cell.fwd(p_cell, (h, state))
        h, of_after = after.fwd(p_after, h)
        y, of_then = then.fwd(p_then, x + h)
        return (y, state), (of_before, of_cell, of_after, of_then)

    def bwd(residuals, ct):
        of_before, of_cell, of_after, of_then = residuals
        ct_y, ct_state = ct
        ct_then, ct_sum = then.bwd(of_then, ct_y)
        ct_after, ct_h = after.bwd(of_after, ct_sum)
        ct_cell, (ct_h, ct_state) = cell.bwd(of_cell, (ct_h, ct_state))
        ct_before, ct_x = before.bwd(of_before, ct_h)
        return ((ct_before, ct_cell, ct_after), ct_then), (ct_sum + ct_x, ct_state)  # x was copied: its two cotangents add

    def walk(params, x, key) -> Any:
        (p_before, p_cell, p_after), p_then, x, state = entered(params, x)
        p_before, h = yield Met("before", before, p_before, x, None)
        p_cell, (h, state) = yield Met("cell", cell, p_cell, (h, state), None)
        p_after, h = yield Met("after", after, p_after, h, None)
        p_then, y = yield Met("then", then, p_then, x + h, None)
        return ((p_before, p_cell, p_after), p_then), (y, state)

    return Layer(name, init, apply, fwd, bwd, (before, cell, after, then), walk, _carried)
