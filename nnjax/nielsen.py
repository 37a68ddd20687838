"""Chapter 2 of Nielsen's "Neural Networks and Deep Learning", in the book's own symbols.

One example at a time, in column vectors; batch with `jax.vmap`, or by putting several columns side by side (the book's
"matrix-based" exercise): the four equations are the same, letter for letter.

w[l][j, k] is the weight from neuron k of a layer to neuron j of the next, so row j of w[l] holds what neuron j listens
to, and column k holds where neuron k is heard.
Forward, z_j sums along row j:        z = w a + b.
Backward, the error of neuron k sums over everyone who heard it, down column k: that is w.T @ delta.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


class Params(NamedTuple):
    """w[l]: (neurons out, neurons in), b[l]: (neurons out,), l = 0 for the first layer that computes."""

    w: tuple[Array, ...]
    b: tuple[Array, ...]

    WEIGHTS = ("w",)


class Cost(NamedTuple):
    """value(a, y), and error(z, a, y), its output error delta^L (BP1 worked out for this cost), per column."""

    value: Callable[[Array, Array], Array]
    error: Callable[[Array, Array, Array], Array]


def sigmoid(z: Array) -> Array:
    """1 / (1 + exp(-z)), entry by entry."""
    return jax.nn.sigmoid(z)


def sigmoid_prime(z: Array) -> Array:
    """sigmoid(z) (1 - sigmoid(z)): the diagonal of the layer's Jacobian, so its transpose is itself."""
    return sigmoid(z) * (1 - sigmoid(z))


def _cross_entropy_value(a, y):
    entropy = jnp.where(y > 0, y * jnp.log(jnp.where(y > 0, a, jnp.ones_like(a))), jnp.zeros_like(a))
    complement = jnp.where(y < 1, (1 - y) * jnp.log1p(-jnp.where(y < 1, a, jnp.zeros_like(a))), jnp.zeros_like(a))
    return -(entropy + complement).sum(0)


quadratic = Cost(
    value=lambda a, y: 0.5 * jnp.square(a - y).sum(0),
    error=lambda z, a, y: (a - y) * sigmoid_prime(z),
)
"""C = |a - y|^2 / 2;  delta^L = (a - y) sigmoid'(z)."""

cross_entropy = Cost(value=_cross_entropy_value, error=lambda z, a, y: a - y)
"""C = -sum_j [y_j ln a_j + (1 - y_j) ln(1 - a_j)];  delta^L = a - y: sigmoid' has cancelled (the book's eq. 66)."""


def init(key: Array, sizes: Any, large: bool = False) -> Params:
    """Normal weights and biases: deviation 1 for biases and, for weights, 1 / sqrt(neurons in), or 1 if `large`.

    `large` is the initialisation of chapter 1, the default that of chapter 3.  Raises ValueError for fewer than two layers.
    """
    if not isinstance(large, (bool, np.bool_)):
        raise TypeError(f"nielsen.init: large must be True or False, got {type(large).__name__}; pass one of them.")
    many = isinstance(sizes, (tuple, list)) or getattr(sizes, "ndim", 0) == 1
    whole = [isinstance(n, (int, np.integer)) and not isinstance(n, bool) and 1 <= n < 2**31 for n in sizes] if many else []
    if len(whole) < 2 or not all(whole):
        raise ValueError(f"nielsen.init: sizes must be two or more positive ints, got {sizes!r}; pass e.g. [784, 30, 10].")
    typed = isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.ndim == 0
    if not typed and not (isinstance(key, (jax.Array, np.ndarray)) and key.dtype == jnp.uint32 and key.shape == (2,)):
        raise TypeError(f"nielsen.init: key must be one key of jax.random, got {type(key).__name__}; pass jax.random.key(0).")
    sizes = [int(n) for n in sizes]
    keys = jax.random.split(key, 2 * len(sizes))
    w = tuple(
        jax.random.normal(k, (n_out, n_in), jnp.float32) / (1.0 if large else n_in**0.5)
        for k, n_in, n_out in zip(keys, sizes[:-1], sizes[1:])
    )
    b = tuple(jax.random.normal(k, (n,), jnp.float32) for k, n in zip(keys[len(sizes) :], sizes[1:]))
    return Params(w, b)


def _forward(params, x):
    """The weighted inputs z and activations a of every layer; a[0] = x."""
    a, z = [x], []
    for w, b in zip(params.w, params.b):
        z.append(w @ a[-1] + (b if x.ndim == 1 else b[:, None]))
        a.append(sigmoid(z[-1]))
    return z, a


def _expect_arrays(who, **arrays):
    for name, x in arrays.items():
        if not isinstance(x, (jax.Array, np.ndarray)):
            raise TypeError(f"{who}: {name} must be an array, got {type(x).__name__}; convert it with jnp.asarray.")
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise TypeError(f"{who}: {name} must be real floating point, got {x.dtype} {x.shape}; convert it with "
                            f"{name}.astype(jnp.float32).")  # fmt: skip
    dtypes = {name: str(jnp.result_type(x)) for name, x in arrays.items()}  # without x64, NumPy's float64 counts as float32
    if len(set(dtypes.values())) > 1:
        raise TypeError(f"{who}: {' and '.join(dtypes)} must share one dtype, got {', '.join(dtypes.values())}; convert one of "
                        "them with astype.")  # fmt: skip


def _expect_axes(who, **arrays):
    for name, x in arrays.items():
        if x.ndim not in (1, 2):
            raise ValueError(f"{who}: {name} must be one column (neurons,), or several (neurons, batch), got {x.shape}; "
                             "reshape it.")  # fmt: skip


def _expect_cost(who, cost):
    if not isinstance(cost, Cost) or not all(map(callable, cost)):
        raise TypeError(f"{who}: cost must be a nielsen.Cost(value, error), got {type(cost).__name__}; pass quadratic or "
                        "cross_entropy.")  # fmt: skip


def _expect_back(who, w, delta, z):
    _expect_arrays(who, w=w, delta=delta, z=z)
    _expect_axes(who, delta=delta, z=z)
    if w.ndim != 2 or delta.shape != w.shape[:1] + z.shape[1:] or z.shape[:1] != w.shape[1:]:
        raise ValueError(
            f"{who}: w must have shape (out, in), delta (out,) and z (in,), or (out, batch) and (in, batch), got {w.shape}, "
            f"{delta.shape} and {z.shape}; w is that of the layer after z."
        )


def _expect(who, params, x):
    if not isinstance(params, Params):
        raise TypeError(f"{who}: params must be Params(w, b), got {type(params).__name__}; make them with nielsen.init.")
    if not isinstance(params.w, tuple) or not isinstance(params.b, tuple) or len(params.w) != len(params.b) or not params.w:
        raise TypeError(f"{who}: params must hold a tuple w and a tuple b with as many arrays each, got others; make them "
                        "with nielsen.init.")  # fmt: skip
    for i, (w, b) in enumerate(zip(params.w, params.b)):
        _expect_arrays(who, **{f"w[{i}]": w, f"b[{i}]": b})
        n_in = params.w[i - 1].shape[0] if i else None
        if w.ndim != 2 or b.shape != w.shape[:1] or n_in not in (None, w.shape[1]):
            raise ValueError(
                f"{who}: w[{i}] must have shape (neurons out, neurons in) and b[{i}] (neurons out,), as many in as the layer "
                f"before has out, got {w.shape} and {b.shape}; make them with nielsen.init."
            )
    _expect_arrays(who, x=x)
    dtypes = {str(jnp.result_type(a)) for a in (x, *params.w, *params.b)}
    if len(dtypes) > 1:
        raise TypeError(f"{who}: params and x must share one dtype, got {', '.join(sorted(dtypes))}; convert one of them with "
                        "astype.")  # fmt: skip
    if x.ndim not in (1, 2) or x.shape[:1] != params.w[0].shape[1:]:
        n_in = params.w[0].shape[1]
        raise ValueError(
            f"{who}: x must be one example ({n_in},), or one a column ({n_in}, batch), as w[0] has {n_in} columns, "
            f"got {x.shape}; for a batch of rows use jax.vmap, or pass x.T."
        )


def _expect_one_each(send_back, n):
    entries = send_back if isinstance(send_back, Sequence) and not isinstance(send_back, str) else (send_back,)
    if not all(callable(f) or hasattr(f, "shape") for f in entries):
        raise TypeError(f"nielsen.backprop: send_back must be a function of w, or one function or matrix for each w after the "
                        f"first, got {send_back!r}; pass e.g. jnp.transpose.")  # fmt: skip
    if isinstance(send_back, Sequence) and len(send_back) != n:
        raise ValueError(
            f"nielsen.backprop: send_back must be one operator, or one entry for each of the {n} w after the first, got "
            f"{len(send_back)}; the first w has nothing before it to send an error to."
        )


def feedforward(params: Params, x: Array) -> Array:
    """a^L, from a^0 = x by a = sigmoid(w a + b).  x: (inputs,), result: (outputs,)."""
    _expect("nielsen.feedforward", params, x)
    return _forward(params, x)[1][-1]


def output_error(cost: Cost, z: Array, a: Array, y: Array) -> Array:
    """BP1: delta^L = dC/da^L ⊙ sigmoid'(z^L), in the closed form of each cost."""
    _expect_cost("nielsen.output_error", cost)
    _expect_arrays("nielsen.output_error", z=z, a=a, y=y)
    if not z.shape == a.shape == y.shape:
        raise ValueError(f"nielsen.output_error: z, a and y must share one shape, got {z.shape}, {a.shape} and {y.shape}; each "
                         "has an entry for each output neuron.")  # fmt: skip
    return cost.error(z, a, y)


def send_back(w: Array, delta: Array, z: Array) -> Array:
    """BP2: delta^l = ((w^{l+1})ᵀ delta^{l+1}) ⊙ sigmoid'(z^l).  w: (out, in), delta: (out,), z: (in,)."""
    _expect_back("nielsen.send_back", w, delta, z)
    return (w.T @ delta) * sigmoid_prime(z)


def send_back_by_components(w: Array, delta: Array, z: Array) -> Array:
    """BP2 before anyone wrote a matrix: delta_k = sum_j w[j, k] delta_j sigmoid'(z_k), over the neurons j that k feeds.

    The first index of w runs under the sum, so the sum goes down column k: as a matrix product, that is w.T @ delta.
    """
    _expect_back("nielsen.send_back_by_components", w, delta, z)
    n_out, n_in = w.shape
    return jnp.stack([sum(w[j, k] * delta[j] for j in range(n_out)) * sigmoid_prime(z[k]) for k in range(n_in)])


def bias_gradient(delta: Array) -> Array:
    """BP3: dC/db^l_j = delta^l_j, summed over the columns if there are several."""
    _expect_arrays("nielsen.bias_gradient", delta=delta)
    _expect_axes("nielsen.bias_gradient", delta=delta)
    return delta if delta.ndim == 1 else delta.sum(1)


def weight_gradient(delta: Array, a: Array) -> Array:
    """BP4: dC/dw^l_jk = delta^l_j a^{l-1}_k.  delta: (out,), a: (in,), result: (out, in), like w.

    It is delta aᵀ, the adjoint of w -> w a; with several columns, delta @ a.T also sums over them.
    """
    _expect_arrays("nielsen.weight_gradient", delta=delta, a=a)
    _expect_axes("nielsen.weight_gradient", delta=delta, a=a)
    if delta.shape[1:] != a.shape[1:]:
        raise ValueError(
            f"nielsen.weight_gradient: delta and a must have the same number of columns, got {delta.shape} and {a.shape}; pass "
            "both for one example, or for one batch."
        )
    return jnp.outer(delta, a) if delta.ndim == 1 else delta @ a.T


Back = Callable[[Array], Array]  # w -> the matrix that carries the error back through it
BP1, BP2, BP3, BP4 = output_error, send_back, bias_gradient, weight_gradient


def backprop(
    params: Params, x: Array, y: Array, cost: Cost = quadratic, send_back: Back | Sequence[Back | Array] = jnp.transpose
) -> Params:
    """The gradient of cost(feedforward(x), y) for one example, as a Params of nabla_w, nabla_b.

    x: (inputs,), y: (outputs,).  For a batch: jax.vmap(backprop, in_axes=(None, 0, 0)); or x: (inputs, batch),
    y: (outputs, batch), one example a column, for the sum of their gradients.
    send_back(w) is the matrix that carries the error back through w: the transpose, unless you try something else, such as the
    operators of `nnjax.feedback`; or one of them, or a matrix of the shape of w.T, for each w after the first.
    """
    _expect("nielsen.backprop", params, x)
    _expect_cost("nielsen.backprop", cost)
    _expect_arrays("nielsen.backprop", y=y)
    shape = params.b[-1].shape + x.shape[1:]
    if y.shape != shape:
        raise ValueError(
            f"nielsen.backprop: y must have shape {shape}, one entry for each output neuron, got {y.shape}; "
            "one-hot encode a class number with jax.nn.one_hot."
        )
    _expect_one_each(send_back, len(params.w) - 1)
    z, a = _forward(params, x)
    delta = BP1(cost, z[-1], a[-1], y)
    nabla_w, nabla_b = [BP4(delta, a[-2])], [BP3(delta)]
    for l in reversed(range(len(params.w) - 1)):
        operator: Any = send_back[l] if isinstance(send_back, Sequence) else send_back
        back = operator if hasattr(operator, "shape") else operator(params.w[l + 1])
        if getattr(back, "shape", None) != params.w[l + 1].shape[::-1]:
            raise ValueError(
                f"nielsen.backprop: send_back must give {params.w[l + 1].shape[::-1]}, the shape of w[{l + 1}].T, got "
                f"{getattr(back, 'shape', type(back).__name__)}; pass e.g. jnp.transpose."
            )
        delta = BP2(back.T, delta, z[l])  # by default back = w.T, so back.T is w itself
        nabla_w.insert(0, BP4(delta, a[l]))
        nabla_b.insert(0, BP3(delta))
    return Params(tuple(nabla_w), tuple(nabla_b))


def _shares(x, weights):
    """How much each example of a batch counts in the mean: (batch,), summing to 1."""
    return jnp.full(x.shape[:1], 1 / x.shape[0], x.dtype) if weights is None else weights / weights.sum()


def _regularised(who, cost, lmbda, n):
    """lmbda and n as Python floats, which do not widen arrays."""
    _expect_cost(who, cost)
    for name, value, least in (("lmbda", lmbda, 0), ("n", n, 1)):
        number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
        if not number or not least <= value < np.inf:
            raise ValueError(
                f"{who}: {name} must be a number of at least {least}, got {value!r}; n counts the training examples."
            )
    return float(lmbda), float(n)


def _expect_batch(who, params, x, y, weights):
    _expect_arrays(who, x=x, y=y, **({} if weights is None else {"weights": weights}))
    if x.ndim != 2 or y.ndim != 2 or y.shape[0] != x.shape[0] or (weights is not None and weights.shape != x.shape[:1]):
        raise ValueError(
            f"{who}: x must have shape (batch, inputs), y (batch, outputs) and weights (batch,), got {x.shape}, {y.shape} and "
            f"{None if weights is None else weights.shape}; of one example, pass x[None]."
        )
    _expect(who, params, x.T)


def _cost(cost, z, a, y):
    """C for each column.  Where sigmoid is rounded to 0 or 1, ln a or ln(1 - a) is lost, so they are computed from z."""
    if cost.value is not _cross_entropy_value:
        return cost.value(a, y)
    return -(y * jax.nn.log_sigmoid(z) + (1 - y) * jax.nn.log_sigmoid(-z)).sum(0)  # 1 - sigmoid(z) = sigmoid(-z)


def _counted(x, weights):
    """x with zeros for the examples of weight 0: 0 times NaN or infinity would not be 0."""
    return x if weights is None else jnp.where((weights != 0)[:, None], x, jnp.zeros_like(x))


def objective(cost: Cost = quadratic, lmbda: float = 0.0, n: int = 1) -> Callable[..., Array]:
    """f(params, x, y, weights=None) -> C, the mean cost of a batch plus (lmbda / 2n) sum w^2.

    x: (batch, inputs), y: (batch, outputs), weights: (batch,); n is the number of training examples.
    """
    lmbda, count = _regularised("nielsen.objective", cost, lmbda, n)

    def f(params, x, y, weights=None):
        _expect_batch("nielsen.objective", params, x, y, weights)
        x, y = _counted(x, weights), _counted(y, weights)
        z, a = _forward(params, x.T)
        mean = jnp.vdot(_shares(x, weights), _cost(cost, z[-1], a[-1], y.T))
        if not lmbda:  # XLA keeps 0 times the weights; without it an epoch of [784, 100, 10] takes 0.87 of the time
            return mean
        return mean + sum(((lmbda / (2 * count)) * jnp.vdot(w, w) for w in params.w), start=0.0)

    return f


def value_and_grad(
    cost: Cost = quadratic, lmbda: float = 0.0, n: int = 1, send_back: Back | Sequence[Back | Array] = jnp.transpose
) -> Callable[..., tuple[Array, Params]]:
    """f(params, x, y, *, weights=None, key=None) -> (C, gradient) of `objective`, by backprop.

    It has the signature that `nnjax.train` takes; key is not used.
    """
    value = objective(cost, lmbda, n)
    lmbda, count = _regularised("nielsen.value_and_grad", cost, lmbda, n)

    def f(params, x, y, *, weights=None, key=None):
        _expect_batch("nielsen.value_and_grad", params, x, y, weights)
        x, y = _counted(x, weights), _counted(y, weights)
        # The gradient is linear in the output error: with weighted errors, the sum over columns is the mean.
        share = _shares(x, weights)[None, :]
        nabla = backprop(params, x.T, y.T, cost._replace(error=lambda z, a, y: cost.error(z, a, y) * share), send_back)
        if lmbda:
            nabla = nabla._replace(w=tuple(nabla_w + (lmbda / count) * w for nabla_w, w in zip(nabla.w, params.w)))
        return value(params, x, y, weights), nabla

    return f
