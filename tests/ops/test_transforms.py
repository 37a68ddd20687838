"""Every function of `nnjax.ops` inside the transforms of JAX and of other libraries. A new one needs a line in the table."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from nnjax import ops


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


X = normal(4, 6, 4)  # four examples
W = {
    "scale": normal(4, seed=1),
    "offset": normal(4, seed=2),
    "square": normal(4, 4, seed=3),
    "kernel": normal(3, 4, 4, seed=4),
    "in": normal(4, 8, seed=5) / 2,
    "state": normal(2, 8, seed=6) / 2,
    "experts": normal(3, 4, 4, seed=7),
    "down": normal(3, 2, 4, seed=8),
}


def heads(x):
    return x.reshape(*x.shape[:-1], 2, 2)


def gates(w, n):
    """A matrix for each of n gates, side by side."""
    return jnp.concatenate([w["square"] * (1 + i) for i in range(n)], 1)


def labels(x):
    """A class for each example, that follows from it."""
    return jnp.argmax(jax.lax.stop_gradient(x[:, 0]), -1).astype(jnp.int32)


def by_place(x):
    """All rows of the first place, then of the second, and so on."""
    return jnp.swapaxes(x, 0, 1).reshape(-1, 4)


def thirds(x):
    """Of these rows those of two places for each of three experts."""
    return jnp.full((3,), x.size // 12, jnp.int32)


# x: (examples, 6, 4). Each gives something for each example, or a sum over them.
OPS = {
    "attention": lambda w, x: ops.attention(heads(x), heads(x @ w["square"]), heads(x)),
    "dot_product_attention": lambda w, x: ops.dot_product_attention(heads(x), heads(x @ w["square"]), heads(x)),
    "conv": lambda w, x: ops.conv(x, w["kernel"], w["offset"]),
    "avg_pool": lambda w, x: ops.avg_pool(x @ w["square"], 2, padding=1),
    "conv_transpose": lambda w, x: ops.conv_transpose(x, jnp.swapaxes(w["kernel"], 1, 2), stride=2),
    "max_pool": lambda w, x: ops.max_pool(x @ w["square"], 2, padding=1),
    "layer_norm": lambda w, x: ops.layer_norm(x, w["scale"], w["offset"]),
    "rms_norm": lambda w, x: ops.rms_norm(x, w["scale"]),
    "group_norm": lambda w, x: ops.group_norm(x, 2, w["scale"], w["offset"]),
    "batch_norm": lambda w, x: ops.batch_norm(x, w["scale"], w["offset"], w["offset"], jnp.square(w["scale"])),
    "gelu": lambda w, x: ops.gelu(x @ w["square"]),
    "silu": lambda w, x: ops.silu(x @ w["square"]),
    "swiglu": lambda w, x: ops.swiglu(x @ w["square"], x),
    "geglu": lambda w, x: ops.geglu(x @ w["square"], x),
    "rotary": lambda w, x: ops.rotary(heads(x @ w["square"])),
    "rnn": lambda w, x: ops.rnn(x, None, w["in"][:, :2], w["state"][:, :2])[0],
    "gru": lambda w, x: ops.gru(x, None, w["in"][:, :6], w["state"][:, :6])[0],
    "lstm": lambda w, x: ops.lstm(x, None, w["in"], w["state"])[0],
    "rg_lru": lambda w, x: ops.rg_lru(x, None, w["in"][:, :6], None, w["scale"][:2])[0],
    "linear_recurrence": lambda w, x: ops.linear_recurrence(jax.nn.sigmoid(x @ w["square"]), x),
    "ragged_dot": lambda w, x: ops.ragged_dot(by_place(x), w["experts"], thirds(x)),
    "mixture_of_experts": lambda w, x: ops.mixture_of_experts(x, w["square"][:, :3], w["experts"], w["down"], top_k=2),
    "softmax_cross_entropy": lambda w, x: ops.softmax_cross_entropy(x[:, 0] @ w["square"], labels(x), reduction="sum"),
    "linear_cross_entropy": lambda w, x: ops.linear_cross_entropy(x[:, 0], w["square"], labels(x), reduction="sum"),
    "linear_kl_divergence": lambda w, x: ops.linear_kl_divergence(x, w["square"], x[..., :2], w["in"][:, :2], reduction="sum"),
    "linear_jensen_shannon": lambda w, x: ops.linear_jensen_shannon(
        x, w["square"], x[..., :2], w["in"][:, :2], reduction="sum"
    ),
    "linear_dpo": lambda w, x: ops.linear_dpo(
        x.reshape(-1, 2, 3, 4), w["square"], jnp.ones((len(x), 2, 3), jnp.int32), jnp.zeros((len(x), 2)), reduction="sum"
    ),
}


def gradient(name):
    """The cotangents of w and x, for outputs that are squared and summed, and for losses, which are sums already."""
    return jax.grad(lambda w, x: (lambda y: jnp.square(y).sum() if y.ndim else y)(OPS[name](w, x)), (0, 1))


def near(ours, theirs):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4, rtol=2e-4), ours, theirs)


def test_every_function_is_in_the_table():
    assert set(OPS) == set(dir(ops))


@pytest.mark.parametrize("name", OPS)
@pytest.mark.repeats
@pytest.mark.in_turn
def test_under_jit_vmap_and_scan(name):
    whole = jax.jit(gradient(name))(W, X)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(whole))
    assert any(np.any(leaf) for leaf in jax.tree.leaves(whole[0]))
    one_by_one = jax.vmap(gradient(name), (None, 0))(W, X[:, None])
    near(jax.tree.map(lambda g: g.sum(0), one_by_one[0]), whole[0])
    near(one_by_one[1][:, 0], whole[1])

    def step(total, x):
        of_w, of_x = gradient(name)(W, x[None])
        return jax.tree.map(jnp.add, total, of_w), of_x[0]

    near(jax.lax.scan(step, jax.tree.map(jnp.zeros_like, W), X), whole)


@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.parametrize("name", OPS)
@pytest.mark.repeats
@pytest.mark.in_turn
def test_in_shard_map(name, checked):
    def local(w, x):
        of_w, of_x = gradient(name)(w, x)
        return (of_w if checked else jax.lax.psum(of_w, "data")), of_x

    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    specs = (P(), P("data"))
    near(
        jax.jit(jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=specs, check_vma=checked))(W, X), gradient(name)(W, X)
    )


@pytest.mark.parametrize("name", OPS)
@pytest.mark.repeats
@pytest.mark.in_turn
def test_second_derivatives_in_each_order_of_modes(name, x64):
    """Along one direction: forward over reverse, reverse over reverse, reverse over forward, all in one program."""
    w, x = (jax.tree.map(lambda a: a.astype(jnp.float64), tree) for tree in (W, X))
    along = jax.tree.map(lambda a: jnp.cos(jnp.arange(a.size, dtype=a.dtype)).reshape(a.shape), (w, x))
    of = gradient(name)

    def value(w, x):
        y = OPS[name](w, x)
        return jnp.square(y).sum() if y.ndim else y

    def inner(a, b):
        return sum(jnp.vdot(u, v) for u, v in zip(jax.tree.leaves(a), jax.tree.leaves(b)))

    @jax.jit
    def derivatives(w, x):
        slope = jax.jvp(value, (w, x), along)[1]
        forward_reverse = jax.jvp(of, (w, x), along)[1]
        reverse_reverse = jax.grad(lambda *at: inner(of(*at), along), (0, 1))(w, x)
        reverse_forward = jax.grad(lambda *at: jax.jvp(value, at, along)[1], (0, 1))(w, x)
        return slope, inner(of(w, x), along), forward_reverse, reverse_reverse, reverse_forward

    slope, right, *second = derivatives(w, x)
    np.testing.assert_allclose(slope, right, rtol=1e-9)
    for one in second[1:]:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8), one, second[0])


@pytest.mark.parametrize("name", OPS)
@pytest.mark.slow
@pytest.mark.in_turn
def test_in_modules_of_flax_and_equinox(name):
    nnx, eqx = pytest.importorskip("flax.nnx"), pytest.importorskip("equinox")

    class OfEquinox(eqx.Module):
        w: dict

        def __call__(self, x):
            return OPS[name](self.w, x)

    class OfFlax(nnx.Module):
        def __init__(self, w):
            for key, value in w.items():
                setattr(self, key, nnx.Param(value))

        def __call__(self, x):
            return OPS[name]({key: getattr(self, key)[...] for key in W}, x)

    def loss(model):
        y = model(X)
        return jnp.square(y).sum() if y.ndim else y

    whole, _ = gradient(name)(W, X)
    near(eqx.filter_grad(loss)(OfEquinox(W)).w, whole)
    found = nnx.grad(loss)(OfFlax(W))
    near({key: found[key][...] for key in W}, whole)
