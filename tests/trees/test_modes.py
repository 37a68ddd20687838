import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import nnjax
from nnjax import ops
from nnjax.trees.modes import in_both_modes

X = jnp.asarray(np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32))


@jax.custom_vjp
def _cube(x, w):
    return w * x**3


def _fwd(x, w):
    return w * x**3, (x, w)


def _bwd(kept, ct):
    x, w = kept
    return 3 * w * x**2 * ct, (x**3 * ct).sum((0, 1)[: x.ndim])


_cube.defvjp(_fwd, _bwd)
_both = in_both_modes(_cube, _fwd, _bwd, "cube")


def cube(x, w=2.0):
    return _both(x, jnp.asarray(w, jnp.float32))


def total(x):
    return cube(x).sum()


ONCE, TWICE = 6 * X**2, 12 * X  # the derivatives of total


@pytest.mark.parametrize(
    "pushed",
    [
        lambda x: jax.jvp(cube, (x,), (x,))[1],
        lambda x: jax.jit(lambda x: jax.jvp(cube, (x,), (x,)))(x)[1],
        lambda x: jax.jvp(jax.jit(cube), (x,), (x,))[1],
        lambda x: jax.linearize(cube, x)[1](x),
        lambda x: jax.jvp(jax.vmap(cube), (x,), (x,))[1],
        lambda x: jax.vmap(lambda r: jax.jvp(cube, (r,), (r,))[1], in_axes=1, out_axes=1)(x),
        lambda x: jnp.einsum("ijkl,kl->ij", jax.jacfwd(cube)(x), x),
        lambda x: jax.jvp(jax.checkpoint(cube), (x,), (x,))[1],
        lambda x: jax.jvp(lambda x: jax.lax.scan(lambda c, r: (c, cube(r)), 0.0, x)[1], (x,), (x,))[1],
    ],
)
def test_forward_mode_is_the_transpose_of_the_backward(pushed):
    np.testing.assert_allclose(pushed(X), ONCE * X, rtol=1e-5)


@pytest.mark.parametrize(
    "twice",
    [
        lambda x: jax.jvp(jax.grad(total), (x,), (jnp.ones_like(x),))[1],
        lambda x: jax.jvp(jax.grad(jax.jit(total)), (x,), (jnp.ones_like(x),))[1],
        lambda x: jax.jit(jax.grad(lambda x: jax.grad(total)(x).sum()))(x),
        lambda x: jax.vmap(jax.grad(lambda r: jax.grad(total)(r).sum()))(x),
        lambda x: jax.grad(lambda x: jax.jvp(cube, (x,), (jnp.ones_like(x),))[1].sum())(x),
        lambda x: jax.jit(jax.grad(lambda x: jax.jvp(cube, (x,), (jnp.ones_like(x),))[1].sum()))(x),
        lambda x: jax.jvp(lambda x: jax.jvp(cube, (x,), (jnp.ones_like(x),))[1], (x,), (jnp.ones_like(x),))[1],
        lambda x: jnp.einsum("ijij->ij", jax.hessian(total)(x)),
    ],
)
def test_second_derivatives_in_every_order_of_modes(twice):
    np.testing.assert_allclose(jax.grad(total)(X), ONCE, rtol=1e-6)
    np.testing.assert_allclose(twice(X), TWICE, rtol=1e-5)


def test_arguments_without_a_tangent_get_none():
    w = jnp.float32(2.0)
    np.testing.assert_allclose(jax.jvp(lambda w: cube(X, w), (w,), (w,))[1], 2 * X**3, rtol=1e-6)
    np.testing.assert_allclose(jax.grad(lambda w: cube(X, w).sum())(w), (X**3).sum(), rtol=1e-5)
    np.testing.assert_allclose(
        jax.vmap(jax.grad(lambda w, r: cube(r, w).sum()), (None, 0))(w, X), (X**3).sum(1), rtol=1e-5
    )  # one w for all rows
    text = str(jax.make_jaxpr(jax.grad(lambda w: cube(X, w).sum()))(w))
    assert "transposed_backward" not in text


def test_in_loops_under_checkpoint_and_in_shard_map():
    def looped(x):
        return jax.lax.scan(lambda c, _: (jax.checkpoint(cube)(c) * 0.1, None), x, None, 2)[0].sum()

    def plain(x):
        for _ in range(2):
            x = 2 * x**3 * 0.1
        return x.sum()

    np.testing.assert_allclose(jax.jit(jax.grad(looped))(X), jax.grad(plain)(X), rtol=1e-5)
    np.testing.assert_allclose(jax.jvp(looped, (X,), (X,))[1], jax.jvp(plain, (X,), (X,))[1], rtol=1e-5)
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    for check in (True, False):
        on = {"mesh": mesh, "in_specs": P("data"), "out_specs": P("data"), "check_vma": check}
        np.testing.assert_allclose(jax.jit(jax.shard_map(jax.grad(total), **on))(X), ONCE, rtol=1e-6)
        pushed = jax.shard_map(lambda x: jax.jvp(cube, (x,), (x,))[1], **on)
        np.testing.assert_allclose(jax.jit(pushed)(X), ONCE * X, rtol=1e-6)


def test_reverse_mode_in_a_loop_keeps_the_residuals_and_no_more():
    """The tangent's rule could keep the argument beside them: sin's pair keeps its cosine alone."""

    @jax.custom_vjp
    def sine(x):
        return jnp.sin(x)

    fwd, bwd = lambda x: (jnp.sin(x), jnp.cos(x)), lambda c, ct: (ct * c,)
    sine.defvjp(fwd, bwd)
    both = in_both_modes(sine, fwd, bwd, "sine")

    def stacked(f):
        jaxpr = jax.make_jaxpr(jax.grad(lambda x: jax.lax.scan(lambda c, _: (f(c), None), x, None, 5)[0].sum()))(X)
        forward = next(eqn for eqn in jaxpr.eqns if eqn.primitive.name == "scan")
        return [v.aval.shape for v in forward.outvars]

    assert stacked(both) == stacked(sine)


def test_nothing_is_left_of_it_in_the_program():
    assert "transposed" not in jax.jit(jax.grad(total)).lower(X).as_text()


def test_a_backward_that_cannot_be_transposed_says_what_to_use():
    @jax.custom_vjp
    def f(x):
        return 4 * x

    def bwd(_, ct):
        return (jax.lax.while_loop(lambda c: c[0] < 2, lambda c: (c[0] + 1, 2 * c[1]), (0, ct))[1],)

    f.defvjp(lambda x: (4 * x, None), bwd)
    both = in_both_modes(f, lambda x: (4 * x, None), bwd, "four")
    np.testing.assert_allclose(jax.grad(lambda x: both(x).sum())(X), 4 * jnp.ones_like(X))
    for pushed in (lambda x: jax.jvp(both, (x,), (x,)), jax.jit(lambda x: jax.jvp(both, (x,), (x,)))):
        with pytest.raises(TypeError, match=r"four: forward-mode.*apply.*jax\.jacrev"):
            pushed(X)


@pytest.mark.parametrize(
    ("bwd", "message"),
    [
        (lambda _, ct: (ct[:1],), r"of its shape and dtype, expected float32 \(4, 3\), got float32 \(1, 3\)"),
        (lambda _, ct: (ct.astype(jnp.float16),), r"expected float32.*got float16"),
        (lambda _, ct: (ct, ct), r"a cotangent for each input"),
        (lambda _, ct: ({"x": ct},), r"a cotangent for each input"),
    ],
)
def test_a_backward_of_another_shape_or_structure_is_refused(bwd, message):
    rule = jax.custom_vjp(lambda x: 1 * x)
    both = in_both_modes(rule, lambda x: (1 * x, None), bwd, "copy")
    with pytest.raises(TypeError, match=f"copy: .*{message}"):
        jax.grad(lambda x: both(x).sum())(X)


OURS = {
    "gelu": ops.gelu,
    "layer_norm": ops.layer_norm,
    "rotary": lambda x: ops.rotary(jnp.stack([x, x], -1)),
    "attention": lambda x: ops.attention(*[x[:, None]] * 3),
    "attention of lengths": lambda x: ops.attention(*[x[:, None]] * 3, key_value_seq_lengths=jnp.int32(2), causal=False),
    "as_custom_vjp": lambda x: nnjax.as_custom_vjp(nnjax.tanh())((), x),
    "max_pool": lambda x: ops.max_pool(x[None, ..., None], (2, 2)),
    "softmax_cross_entropy": lambda x: ops.softmax_cross_entropy(x, jnp.zeros(4, jnp.int32)),
}


@pytest.mark.parametrize("f", OURS.values(), ids=OURS)
def test_functions_of_nnjax_agree_in_both_modes(f):
    back, forward = jax.jit(jax.jacrev(f))(X), jax.jit(jax.jacfwd(f))(X)
    np.testing.assert_allclose(forward, back, rtol=1e-5, atol=1e-6)
    assert jnp.abs(forward).max() > 0
