import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax import nielsen

NETS = [(2, 2), (3, 5), (4, 3, 2), (5, 1, 4), (7, 4, 6, 3), (3, 8, 2, 5, 4), (2, 3, 4, 5, 6, 7)]


def numpy_backprop(w, b, x, y, cost):
    """The book's equations (BP1)-(BP4), one example, one entry at a time where the book has indices."""

    def s(z):
        return 1 / (1 + np.exp(-z))

    a, z = [x], []
    for w_l, b_l in zip(w, b):
        z.append(np.array([sum(w_l[j, k] * a[-1][k] for k in range(w_l.shape[1])) + b_l[j] for j in range(w_l.shape[0])]))
        a.append(s(z[-1]))
    delta = a[-1] - y
    if cost == "quadratic":
        delta = delta * s(z[-1]) * (1 - s(z[-1]))
    nabla_w, nabla_b = [None] * len(w), [None] * len(w)
    for l in reversed(range(len(w))):
        nabla_b[l] = delta
        nabla_w[l] = np.array([[d * a_k for a_k in a[l]] for d in delta])
        if l:
            sent = [sum(w[l][j, k] * delta[j] for j in range(len(delta))) for k in range(w[l].shape[1])]
            delta = np.array(sent) * s(z[l - 1]) * (1 - s(z[l - 1]))
    return nabla_w, nabla_b


def by_components(params, x, y, cost):
    """The whole backward with `send_back_by_components` instead of `send_back`."""
    z, a = [], [x]
    for w, b in zip(params.w, params.b):
        z.append(w @ a[-1] + b)
        a.append(nielsen.sigmoid(z[-1]))
    delta = nielsen.output_error(cost, z[-1], a[-1], y)
    nabla_w, nabla_b = [nielsen.weight_gradient(delta, a[-2])], [nielsen.bias_gradient(delta)]
    for l in reversed(range(len(params.w) - 1)):
        delta = nielsen.send_back_by_components(params.w[l + 1], delta, z[l])
        nabla_w.insert(0, nielsen.weight_gradient(delta, a[l]))
        nabla_b.insert(0, nielsen.bias_gradient(delta))
    return nielsen.Params(tuple(nabla_w), tuple(nabla_b))


def close(a, b, rtol=1e-12):
    for u, v in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        u, v = np.asarray(u), np.asarray(v)
        assert np.linalg.norm(u - v) <= rtol * np.linalg.norm(v)


@pytest.mark.parametrize("cost", ["quadratic", "cross_entropy"])
@pytest.mark.parametrize("sizes", NETS, ids=str)
@pytest.mark.repeats
def test_backprop_agrees_with_the_book_with_jax_and_with_components(x64, sizes, cost):
    rng = np.random.default_rng(len(sizes))
    w = tuple(rng.standard_normal((m, n)) for n, m in zip(sizes[:-1], sizes[1:]))
    b = tuple(rng.standard_normal(m) for m in sizes[1:])
    x, y = rng.standard_normal((64, sizes[0])), rng.random((64, sizes[-1]))
    params, c = nielsen.Params(tuple(map(jnp.asarray, w)), tuple(map(jnp.asarray, b))), getattr(nielsen, cost)

    def ours(params, x, y):
        return nielsen.backprop(params, x, y, c)

    def four(params, x, y):
        by_jax = jax.grad(lambda p, x, y: c.value(nielsen.feedforward(p, x), y))
        of_each = (ours, by_jax, lambda p, x, y: by_components(p, x, y, c))
        return *(jax.vmap(f, (None, 0, 0))(params, x, y) for f in of_each), ours(params, x.T, y.T)

    found, by_jax, components, columns = jax.tree.map(np.asarray, jax.jit(four)(params, x, y))
    close(found, by_jax)
    close(found, components)
    close(columns, jax.tree.map(lambda g: g.sum(0), found))
    for i in range(64):
        one = jax.tree.map(lambda g, i=i: g[i], found)
        close(one, nielsen.Params(*map(tuple, numpy_backprop(w, b, x[i], y[i], cost))))
    for batch in (1, 3):
        some = jax.jit(ours)(params, x[:batch].T, y[:batch].T)
        close(some, jax.tree.map(lambda g, n=batch: g[:n].sum(0), found))


def test_the_seeds_example_two_layers_of_two_neurons():
    """Which weights make the input of a neuron, and which carry the output of one.

    In the seed's notation w11 and w21 feed neuron 1 of the next layer; w11 and w12 carry neuron 1's output.
    """
    w11, w21, w12, w22 = 0.1, 0.2, 0.3, 0.4
    w = jnp.array([[w11, w21], [w12, w22]])  # row j: what neuron j listens to; column k: where neuron k is heard
    a, delta, z = jnp.array([5.0, 7.0]), jnp.array([11.0, 13.0]), jnp.zeros(2)

    forward = w @ a
    np.testing.assert_allclose(forward[0], w11 * 5 + w21 * 7, rtol=1e-6)  # along a row

    error = nielsen.send_back(w, delta, z) / nielsen.sigmoid_prime(z)
    np.testing.assert_allclose(error[0], w11 * 11 + w12 * 13, rtol=1e-6)  # down a column: the transpose
    np.testing.assert_allclose(error, w.T @ delta, rtol=1e-6)
    np.testing.assert_allclose(error, nielsen.send_back_by_components(w, delta, z) / nielsen.sigmoid_prime(z), rtol=1e-6)

    np.testing.assert_allclose(error, jax.grad(lambda a: jnp.vdot(delta, w @ a))(a), rtol=1e-6)
    assert not np.allclose(error, jnp.linalg.inv(w) @ delta, rtol=0.1)  # why not the inverse: it gives another vector
    assert not np.allclose(error, w @ delta, rtol=0.1)


def test_what_is_sent_back_through_can_be_exchanged():
    params = nielsen.init(jax.random.key(0), [3, 4, 2])
    x, y = jnp.ones(3), jnp.array([0.0, 1.0])
    right = nielsen.backprop(params, x, y)
    close(nielsen.backprop(params, x, y, send_back=lambda w: w.T), right, 0)
    blocked = nielsen.backprop(params, x, y, send_back=lambda w: jnp.zeros_like(w.T))
    assert not blocked.w[0].any()
    close(blocked.w[1], right.w[1], 0)


@pytest.mark.parametrize("cost", ["quadratic", "cross_entropy"])
@pytest.mark.parametrize("weights", [None, jnp.array([1.0, 0.0, 2.0])], ids=["plain", "weighted"])
def test_the_mean_over_a_batch_with_l2_is_the_gradient_of_its_objective(cost, weights):
    c = getattr(nielsen, cost)
    params = nielsen.init(jax.random.key(0), [4, 5, 3])
    x, y = jax.random.normal(jax.random.key(1), (3, 4)), jax.random.uniform(jax.random.key(2), (3, 3))
    value, grads = jax.jit(nielsen.value_and_grad(c, lmbda=5.0, n=100))(params, x, y, weights=weights)
    by_jax = jax.jit(jax.value_and_grad(nielsen.objective(c, lmbda=5.0, n=100)))(params, x, y, weights)
    close((value, grads), by_jax, 1e-5)


def test_cross_entropy_never_forms_log_of_zero():
    a, y = jnp.array([0.0, 1.0, 0.5]), jnp.array([0.0, 1.0, 1.0])
    np.testing.assert_allclose(nielsen.cross_entropy.value(a, y), np.log(2), rtol=1e-6)


def test_both_initialisations_have_the_books_deviations():
    small, large = (nielsen.init(jax.random.key(0), [400, 300, 10], large=flag) for flag in (False, True))
    assert [w.shape for w in small.w] == [(300, 400), (10, 300)]
    np.testing.assert_allclose(small.w[0].std(), 1 / 20, rtol=0.02)
    np.testing.assert_allclose(large.w[0].std(), 1, rtol=0.02)
    np.testing.assert_allclose(small.b[0].std(), 1, rtol=0.2)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda p: nielsen.feedforward(p, jnp.ones((5, 3))),
            ValueError,
            r"x must be one example \(3,\).*got \(5, 3\); for a batch of rows",
        ),
        (
            lambda p: nielsen.backprop(p, jnp.ones(4), jnp.ones(2)),
            ValueError,
            r"x must be one example \(3,\).*got \(4,\)",
        ),
        (
            lambda p: nielsen.backprop(p, jnp.ones(3), jnp.ones(3)),
            ValueError,
            r"y must have shape \(2,\).*got \(3,\); one-hot",
        ),
        (
            lambda p: nielsen.backprop((p.w, p.b), jnp.ones(3), jnp.ones(2)),
            TypeError,
            r"params must be Params\(w, b\), got tuple",
        ),
        (
            lambda p: nielsen.init(jax.random.key(0), [3]),
            ValueError,
            r"sizes must be two or more positive ints, got \[3\]",
        ),
        (
            lambda p: nielsen.init(jax.random.key(0), [3, 0]),
            ValueError,
            r"sizes must be two or more positive ints, got \[3, 0\]",
        ),
    ],
)
def test_bad_input_is_refused(call, error, message):
    params = nielsen.init(jax.random.key(0), [3, 4, 2])
    with pytest.raises(error, match=message):
        call(params)


SATURATED = [(20.0, 0.0), (-200.0, 1.0), (90.0, 1.0), (1e4, 0.25), (0.5, 1.0), (12.0, 1.0), (-1e4, 0.0), (0.0, 0.5)]


@jax.jit
def saturated(params, x, t):
    f, cost = nielsen.objective(nielsen.cross_entropy), nielsen.cross_entropy
    return (f(params, x, t), nielsen.value_and_grad(cost)(params, x, t)[0]), (
        jax.grad(f)(params, x, t),
        nielsen.backprop(params, x[0], t[0], cost),
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize(("z", "y"), SATURATED)
def test_the_cross_entropy_of_a_saturated_neuron_is_finite_and_has_the_gradient_of_backprop(x64, z, y, dtype):
    params = nielsen.Params((jnp.array([[z]], dtype),), (jnp.zeros(1, dtype),))
    x, t = jnp.ones((1, 1), dtype), jnp.array([[y]], dtype)
    value, slope = y * np.logaddexp(0, -z) + (1 - y) * np.logaddexp(0, z), (1 + np.tanh(z / 2)) / 2 - y
    eps = float(jnp.finfo(dtype).eps)
    values, gradients = saturated(params, x, t)
    for got in values:
        assert got.dtype == dtype
        np.testing.assert_allclose(np.float64(got), value, rtol=8 * eps, atol=float(jnp.finfo(dtype).tiny))
    for gradient in gradients:
        np.testing.assert_allclose(np.float64(np.squeeze(gradient.b[0])), slope, atol=2 * eps)
        np.testing.assert_allclose(np.float64(np.squeeze(gradient.w[0])), slope, atol=2 * eps)


def test_another_cost_is_used_as_given():
    cost = nielsen.Cost(lambda a, y: jnp.abs(a - y).sum(0), lambda z, a, y: jnp.sign(a - y) * nielsen.sigmoid_prime(z))
    params = nielsen.init(jax.random.key(0), [4, 3])
    x, y = jax.random.normal(jax.random.key(1), (5, 4)), jnp.ones((5, 3))
    value, grads = nielsen.value_and_grad(cost)(params, x, y)
    np.testing.assert_allclose(value, (1 - nielsen.feedforward(params, x.T)).sum() / 5, rtol=1e-6)
    close(grads, jax.grad(nielsen.objective(cost))(params, x, y), 1e-5)


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
@pytest.mark.parametrize("cost", ["quadratic", "cross_entropy"])
@pytest.mark.repeats
def test_an_example_of_weight_zero_is_ignored(cost, bad):
    c, params = getattr(nielsen, cost), nielsen.init(jax.random.key(0), [4, 5, 3])
    x, y = jax.random.normal(jax.random.key(1), (3, 4)), jax.random.uniform(jax.random.key(2), (3, 3))
    weights = jnp.array([1.0, 0.0, 2.0])
    expected = nielsen.value_and_grad(c)(params, x[::2], y[::2], weights=weights[::2])
    x, y = x.at[1].set(bad), y.at[1, 0].set(bad)
    close(nielsen.value_and_grad(c)(params, x, y, weights=weights), expected, 1e-6)
    close(jax.value_and_grad(nielsen.objective(c))(params, x, y, weights), expected, 1e-5)


def test_numpy_coefficients_do_not_widen_arrays():
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), nielsen.init(jax.random.key(0), np.array([4, 3])))
    x, y = jnp.ones((2, 4), jnp.bfloat16), jnp.ones((2, 3), jnp.bfloat16)
    value, grads = nielsen.value_and_grad(lmbda=np.float64(0.5), n=np.int64(10))(params, x, y)
    expected = nielsen.value_and_grad(lmbda=0.5, n=10)(params, x, y)
    for a, b in zip(jax.tree.leaves((value, grads)), jax.tree.leaves(expected), strict=True):
        assert a.dtype == jnp.bfloat16
        np.testing.assert_array_equal(a, b)
