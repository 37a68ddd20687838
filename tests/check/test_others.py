"""Our verdicts beside those of jax.test_util.check_grads and chex.assert_numerical_grads, where these are wrong.

`pytest -s` prints the table. In every row except those of ALL_RIGHT at least one of the two is wrong; ours must not be.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import nnjax


def points(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def with_jvp(derivative):
    """sin, with this function of (cos(x) * tangent) as its derivative."""

    @jax.custom_jvp
    def f(x):
        return jnp.sin(x)

    f.defjvp(lambda x, dx: (f(*x), derivative(jnp.cos(x[0]) * dx[0])))
    return f


def with_vjp(value, derivative):
    """sin, whose rule returns this value and this function of (cos(x) * ct)."""

    @jax.custom_vjp
    def f(x):
        return jnp.sin(x)

    f.defvjp(lambda x: (value(x), x), lambda x, ct: (derivative(jnp.cos(x) * ct),))
    return f


def rule(body, fwd, bwd):
    f = jax.custom_vjp(body)
    f.defvjp(fwd, bwd)
    return f


def tied_maximum(right):
    """The maximum of a row: half of the cotangent to each of two that tie, or (wrong) all of it to both."""

    def bwd(x, ct):
        hit = (x == jnp.broadcast_to(x.max(-1, keepdims=True), x.shape)).astype(x.dtype)
        share = hit / jnp.broadcast_to(hit.sum(-1, keepdims=True), x.shape) if right else hit
        return (share * jnp.broadcast_to(ct[:, None], x.shape),)

    return rule(lambda x: x.max(-1), lambda x: (x.max(-1), x), bwd)


def relu(x):
    return jnp.where(x > 0, x, jnp.zeros_like(x))


def mlp(params, x):
    for w in params:
        x = jnp.tanh(x @ w)
    return x


RIGHT_MLP = rule(mlp, lambda p, x: jax.vjp(mlp, p, x), lambda pull, ct: pull(ct))
WEIGHTS = tuple(points(30, 30, seed=i) for i in range(4))
SCALED = rule(
    lambda big, small: big * 1e4 + jnp.broadcast_to(small.sum(), big.shape),
    lambda big, small: (big * 1e4 + jnp.broadcast_to(small.sum(), big.shape), small),
    lambda small, ct: (1e4 * ct, 0.98 * jnp.broadcast_to(ct.sum(), small.shape)),
)
TAKE = rule(
    lambda table, ids: table[ids],
    lambda table, ids: (table[ids], (table, ids)),
    lambda kept, ct: (jnp.zeros_like(kept[0]).at[kept[1]].add(ct), None),
)
DROPPED = rule(
    lambda x, key: jnp.where(jax.random.bernoulli(key, jnp.float32(0.5), x.shape), x, 0),
    lambda x, key: (jnp.where(jax.random.bernoulli(key, jnp.float32(0.5), x.shape), x, 0), key),
    lambda key, ct: (jnp.where(jax.random.bernoulli(key, jnp.float32(0.5), ct.shape), ct, 0), None),
)
RELU = rule(relu, lambda x: (relu(x), x > 0), lambda positive, ct: (jnp.where(positive, ct, 0),))
TANH = rule(jnp.tanh, lambda x: (jnp.tanh(x), jnp.tanh(x)), lambda y, ct: (ct * (1 - y) * (1 + y),))

# name: (function, arguments, whether its rule is right, the mode for check_grads)
TABLE = {
    "zero derivative, n = 499": (with_jvp(lambda d: 0 * d), (points(499),), False, "fwd"),
    "x 1.5, n = 256": (with_jvp(lambda d: 1.5 * d), (points(256),), False, "fwd"),
    "sign flipped, n = 1,024": (with_jvp(lambda d: -d), (points(1024),), False, "fwd"),
    "fwd returns 2 sin + 1, n = 1,000": (
        with_vjp(lambda x: 2 * jnp.sin(x) + 1, lambda d: d), (points(1000),), False, "rev"),
    "zero backward, n = 10,000": (with_vjp(jnp.sin, lambda d: 0 * d), (points(10_000),), False, "rev"),
    "x -10, n = 64": (with_vjp(jnp.sin, lambda d: -10 * d), (points(64),), False, "rev"),
    "wrong at ties only": (tied_maximum(False), (jnp.array([[1.0, 2.0, 2.0], [3.0, 3.0, 1.0]]),), False, "rev"),
    "a small leaf under a large one": (SCALED, (points(40), points(40, seed=1)), False, "rev"),
    "right: tanh MLP of 4 layers": (RIGHT_MLP, (WEIGHTS, points(16, 30)), True, "rev"),
    "right: tanh in bfloat16": (TANH, (points(50).astype(jnp.bfloat16),), True, "rev"),
    "right: relu at 0": (RELU, (jnp.zeros(5),), True, "rev"),
    "right: integer ids, repeated": (TAKE, (points(5, 3), jnp.array([0, 2, 2, 4])), True, "rev"),
    "right: a key": (DROPPED, (points(20), jax.random.key(0)), True, "rev"),
    "right: maximum with ties": (tied_maximum(True), (jnp.array([[1.0, 2.0, 2.0], [3.0, 3.0, 1.0]]),), True, "rev"),
}  # fmt: skip

ALL_RIGHT = ("x -10, n = 64", "wrong at ties only", "right: maximum with ties")


def accepts(check):
    """ "accepts", "rejects", or "raises" for an error that is not a verdict."""
    try:
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            check()
    except AssertionError:
        return "rejects"
    except Exception as error:
        return f"raises {type(error).__name__}"
    return "accepts"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TABLE)
@pytest.mark.slow
@pytest.mark.in_turn
def test_ours_decides_rightly_where_others_err(name):
    f, args, right, mode = TABLE[name]
    theirs = accepts(lambda: check_grads(f, args, order=1, modes=(mode,)))
    chexs = accepts(lambda: chex.assert_numerical_grads(f, args, order=1, modes=(mode,)))
    report = nnjax.check_vjp(f, *args)
    ours = "accepts" if report.ok else "rejects"
    print(f"\n{name:34} check_grads {theirs:18} chex {chexs:22} ours {ours}")
    due = "accepts" if right else "rejects"
    assert ours == due, str(report)
    assert ((theirs, chexs) == (due, due)) == (name in ALL_RIGHT)


@pytest.mark.in_turn
def test_a_leaf_that_was_never_compared_is_reported():
    """A misordered table left some tensors uncompared for months: here that fails."""
    report = nnjax.check_vjp(TAKE, points(5, 3), jnp.array([1, 1]))
    assert {row.leaf for row in report.rows} == {"output", "table"}
    assert np.isfinite([row.bound for row in report.rows]).all()
