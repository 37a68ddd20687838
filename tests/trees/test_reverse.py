import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import nnjax
from nnjax import ops
from nnjax.trees.reverse import reverse_only

X = jnp.asarray(np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32))


@jax.custom_vjp
def _cube(x, w):
    return w * x**3


_cube.defvjp(lambda x, w: (w * x**3, (x, w)), lambda kept, ct: (3 * kept[1] * kept[0] ** 2 * ct, kept[0] ** 3 * ct))


def cube(x, w=2.0):
    return _cube(*reverse_only("cube has no forward-mode; use x**3", (x, jnp.full_like(x, w) if isinstance(w, float) else w)))


def total(x):
    return cube(x).sum()


TWICE = 12 * X  # the second derivatives of total


@pytest.mark.parametrize(
    "pushed",
    [
        lambda x: jax.jvp(cube, (x,), (x,)),
        lambda x: jax.jit(lambda x: jax.jvp(cube, (x,), (x,)))(x),
        lambda x: jax.jvp(jax.jit(cube), (x,), (x,)),
        lambda x: jax.jacfwd(cube)(x),
        lambda x: jax.linearize(cube, x)[1](x),
        lambda x: jax.jvp(jax.vmap(cube), (x,), (x,)),
        lambda x: jax.grad(lambda x: jax.jvp(cube, (x,), (x,))[1].sum())(x),
    ],
)
def test_forward_mode_says_what_to_use(pushed):
    with pytest.raises(TypeError, match=r"cube has no forward-mode; use x\*\*3"):
        pushed(X)


@pytest.mark.parametrize(
    "twice",
    [
        lambda x: jax.jvp(jax.grad(total), (x,), (jnp.ones_like(x),))[1],
        lambda x: jax.jvp(jax.grad(jax.jit(total)), (x,), (jnp.ones_like(x),))[1],
        lambda x: jax.jit(jax.grad(lambda x: jax.grad(total)(x).sum()))(x),
        lambda x: jax.vmap(jax.grad(lambda r: jax.grad(total)(r).sum()))(x),
    ],
)
def test_reverse_mode_and_what_goes_over_it_do_not_meet_the_mark(twice):
    np.testing.assert_allclose(jax.grad(total)(X), 6 * X**2, rtol=1e-6)
    np.testing.assert_allclose(twice(X), TWICE, rtol=1e-5)


def test_forward_mode_over_reverse_mode_in_another_argument():
    w = jnp.full_like(X, 2.0)

    def gradient(w):
        return jax.grad(lambda x: cube(x, w).sum())(X)

    np.testing.assert_allclose(jax.jvp(gradient, (w,), (w,))[1], 6 * X**2, rtol=1e-6)


def test_in_loops_under_checkpoint_and_in_shard_map():
    def looped(x):
        return jax.lax.scan(lambda c, _: (jax.checkpoint(cube)(c) * 0.1, None), x, None, 2)[0].sum()

    def plain(x):
        for _ in range(2):
            x = 2 * x**3 * 0.1
        return x.sum()

    np.testing.assert_allclose(jax.jit(jax.grad(looped))(X), jax.grad(plain)(X), rtol=1e-5)
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    for check in (True, False):
        run = jax.shard_map(jax.grad(total), mesh=mesh, in_specs=P("data"), out_specs=P("data"), check_vma=check)
        np.testing.assert_allclose(jax.jit(run)(X), 6 * X**2, rtol=1e-6)


def test_nothing_is_left_of_it_in_the_program():
    assert "reverse" not in jax.jit(jax.grad(total)).lower(X).as_text()


OURS = {
    "gelu": ops.gelu,
    "layer_norm": ops.layer_norm,
    "attention": lambda x: ops.attention(*[x[:, None]] * 3),
    "as_custom_vjp": lambda x: nnjax.as_custom_vjp(nnjax.tanh())((), x),
}


@pytest.mark.parametrize("f", OURS.values(), ids=OURS)
def test_functions_of_nnjax_name_what_to_use(f):
    with pytest.raises(TypeError, match=r"forward-mode.*use .*(apply|jax\.nn)"):
        jax.jvp(f, (X,), (X,))
    assert jnp.isfinite(jax.grad(lambda x: f(x).sum())(X)).all()
