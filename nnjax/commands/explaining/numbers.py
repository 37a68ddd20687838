"""The small network that `nnjax explain` shows, from sizes or weights, and all of its numbers."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ... import feedback, nielsen
from ...errors import expect_arrays, expect_sizes, whole_number

MOST = 5  # neurons in a layer, and layers: more do not fit
LARGEST = 100.0  # of a weight that is given
NUDGE = 0.001
BY_HAND = (2, 2, 2)


class Network(NamedTuple):
    """Params, one example x and its target y; all are round numbers in float64."""

    params: nielsen.Params
    x: np.ndarray
    y: np.ndarray


class Numbers(NamedTuple):
    """What `nnjax explain` prints. k counts the neurons of the last layer but one, j those of the last.

    w: [j, k], b: [j]; z, a: [k]; z_next, a_next, y, delta: [j]; cost.
    Of the cost, by a_k: sent = w.T @ delta, and nudged = finite differences; by z_k: by_sum, by_transpose, by_grad.
    inverse_sent = inverse(w) @ delta, by_inverse = that times sigmoid'(z); None, and `refused` says why, where w has none.
    """

    w: np.ndarray
    b: np.ndarray
    z: np.ndarray
    a: np.ndarray
    z_next: np.ndarray
    a_next: np.ndarray
    y: np.ndarray
    cost: float
    delta: np.ndarray
    slope: np.ndarray
    sent: np.ndarray
    nudged: np.ndarray
    by_sum: np.ndarray
    by_transpose: np.ndarray
    by_grad: np.ndarray
    inverse_sent: np.ndarray | None
    by_inverse: np.ndarray | None
    refused: str


def parse_sizes(text: str) -> tuple[int, ...]:
    """ "3,2,4" -> (3, 2, 4).  Raises ValueError for what is no list of 2 to 5 numbers from 1 to 5."""
    parts = [part.strip() for part in text.split(",")] if isinstance(text, str) else []
    good = 2 <= len(parts) <= MOST and all(p.isascii() and p.isdecimal() and 1 <= int(p[:20]) <= MOST for p in parts)
    if not good:
        shown = text if not isinstance(text, str) or len(text) <= 40 else f"{text[:40]}..."
        raise ValueError(
            f"explain: --sizes must be 2 to {MOST} layers of 1 to {MOST} neurons each, separated by commas, so that the tables "
            f"fit, got {shown!r}; pass e.g. --sizes 3,2,4."
        )
    return tuple(map(int, parts))


def parse_weights(text: str) -> np.ndarray:
    """ "[[0.8, -0.5], [0.3, 1.2]]" -> that matrix, a row for each neuron out.

    Raises ValueError unless it is a matrix in JSON of 1 to 5 rows of 1 to 5 numbers from -100 to 100.
    """

    def refuse(came: str) -> ValueError:
        return ValueError(
            f"explain: --weights must be a matrix in JSON, 1 to {MOST} rows (a neuron each) of 1 to {MOST} numbers from "
            f"-{LARGEST:.0f} to {LARGEST:.0f}, got {came}; pass e.g. --weights '[[0.8,-0.5],[0.3,1.2]]'."
        )

    try:
        rows: Any = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        raise refuse(repr(text if not isinstance(text, str) or len(text) <= 40 else f"{text[:40]}...")) from None
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise refuse("another structure")
    lengths = sorted({len(row) for row in rows})
    if not 1 <= len(rows) <= MOST or len(lengths) != 1 or not 1 <= lengths[0] <= MOST:
        raise refuse(f"{len(rows)} rows of {' and '.join(map(str, lengths)) or 'no'} numbers")
    for value in (v for row in rows for v in row):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= LARGEST:
            raise refuse(f"the entry {str(value)[:40]!r}" if isinstance(value, str) else f"the entry {str(value)[:40]}")
    return np.array(rows, np.float64)


def network(sizes: Sequence[int], seed: int | None = None) -> Network:
    """Numbers written by hand for two layers of two neurons, fed by two inputs; else drawn from the seed and rounded to 0.1."""
    sizes = expect_sizes("network", "sizes", sizes, "(3, 2, 4)")
    if sizes == BY_HAND and seed is None:
        w = (np.array([[1.0, -2.0], [2.0, 1.0]]), np.array([[1.0, -0.5], [2.0, 1.5]]))
        b = (np.array([0.5, -3.5]), np.array([0.0, -1.0]))
        return Network(nielsen.Params(w, b), np.array([1.0, 0.5]), np.array([1.0, 0.0]))  # type: ignore[arg-type]
    number = whole_number(0 if seed is None else seed)
    if number is None or not 0 <= number < 2**32:
        raise ValueError(f"explain: --seed must be from 0 to {2**32 - 1}, got {seed}; pass e.g. --seed 1.")
    key, of_x, of_y = jax.random.split(jax.random.key(number), 3)
    params = jax.tree.map(_rounded, nielsen.init(key, sizes))
    x = _rounded(jax.random.normal(of_x, sizes[:1], jnp.float32))
    return Network(params, x, np.asarray(jax.random.bernoulli(of_y, 0.5, sizes[-1:]), np.float64))


def with_weights(w: np.ndarray, sizes: Sequence[int] | None = None, seed: int | None = None) -> Network:
    """The network whose last layer has these weights, (neurons out, neurons in), and zero biases; two layers by default.

    Raises ValueError if the last two sizes are not those of w.
    """
    own = w.shape[::-1]
    if sizes is not None and tuple(sizes[-2:]) != own:
        raise ValueError(
            f"explain: --sizes must end in {own[0]},{own[1]}, as --weights is {own[1]} x {own[0]}, got "
            f"{','.join(map(str, sizes))}; leave --sizes out, or pass e.g. --sizes 3,{own[0]},{own[1]}."
        )
    params, x, y = network(own if sizes is None else sizes, seed)
    return Network(nielsen.Params((*params.w[:-1], w), (*params.b[:-1], np.zeros(own[1]))), x, y)  # type: ignore[arg-type]


def _rounded(x: Array) -> np.ndarray:
    return np.round(np.asarray(x, np.float64), 1) + 0.0  # -0.0 + 0.0 is 0.0


def numbers(net: Network) -> Numbers:
    """The error of the last layer, and in every way what becomes of it in the layer before.

    Where there are but two layers, x stands for the z of the first, and nothing is before it.
    """
    if not isinstance(net, Network):
        raise TypeError(f"explain: numbers are those of a Network, got {type(net).__name__}; make one with network(sizes).")
    expect_arrays("numbers", "the network", net, "make one with network(sizes)")
    with jax.enable_x64(True):
        params, x, y = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), tuple(net))
        nielsen.backprop(params, x, y)  # refuses what does not fit together
        w, b = params
        z, a = x, x if len(w) > 1 else nielsen.sigmoid(x)
        for w_l, b_l in zip(w[:-1], b[:-1]):
            z = w_l @ a + b_l
            a = nielsen.sigmoid(z)
        last, z_next = nielsen.Params(w[-1:], b[-1:]), w[-1] @ a + b[-1]

        def cost(a: Array) -> Array:
            return nielsen.quadratic.value(nielsen.feedforward(last, a), y)

        a_next, slope = nielsen.feedforward(last, a), nielsen.sigmoid_prime(z)
        delta = nielsen.output_error(nielsen.quadratic, z_next, a_next, y)
        nudged = jnp.stack([(cost(a + step) - cost(a - step)) / (2 * NUDGE) for step in NUDGE * jnp.eye(len(a))])
        inverse_sent, refused = None, ""
        try:
            inverse_sent = feedback.inverse(w[-1]) @ delta
        except ValueError as error:
            refused = str(error).removeprefix("feedback.inverse: ")
        found = {
            "w": w[-1], "b": b[-1], "z": z, "a": a, "z_next": z_next, "a_next": a_next, "y": y, "delta": delta, "slope": slope,
            "sent": w[-1].T @ delta, "nudged": nudged, "inverse_sent": inverse_sent,
            "by_sum": nielsen.send_back_by_components(w[-1], delta, z),
            "by_transpose": nielsen.send_back(w[-1], delta, z),
            "by_grad": jax.grad(lambda z: cost(nielsen.sigmoid(z)))(z),
            "by_inverse": None if inverse_sent is None else inverse_sent * slope,
        }  # fmt: skip
        return Numbers(cost=float(cost(a)), refused=refused, **jax.tree.map(np.asarray, found))
