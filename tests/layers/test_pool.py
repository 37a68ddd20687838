import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

import nnjax
from nnjax.cases import hard
from nnjax.check.mutation.mutants import hunt

QUICK = {"dtypes": ["float32"], "transforms": ["jit"], "witnesses": ()}
OTHERS = {"dtypes": ["float32"], "transforms": ["vmap", "scan", "checkpoint", "second"], "witnesses": ()}

# (window, stride, shape of x): even and odd sizes, overlap, gaps, a window of one, the whole input as window.
WINDOWS = {
    "2 x 2": ((2, 2), None, (2, 4, 6, 3)),
    "odd size": ((2, 2), None, (2, 5, 7, 3)),
    "overlapping": ((3, 2), (1, 1), (2, 6, 5, 2)),
    "overlapping, strided": ((3, 3), (2, 2), (2, 7, 8, 2)),
    "stride beyond the window": ((1, 2), (2, 3), (2, 6, 9, 2)),
    "window 1": ((1, 1), (1, 1), (2, 3, 4, 2)),
    "the whole": ((4, 3), None, (2, 4, 3, 2)),
    "1-D": (3, 2, (2, 8, 2)),
}
POOLS = {"max_pool": nnjax.max_pool, "avg_pool": nnjax.avg_pool}
FLAX = {"max_pool": linen.max_pool, "avg_pool": linen.avg_pool}


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("name", WINDOWS)
@pytest.mark.repeats
def test_values_are_those_of_flax_and_gradients_those_of_the_definition(pool, name):
    window, stride, shape = WINDOWS[name]
    layer, x = POOLS[pool](window, stride), hard(np.random.default_rng(0), shape)
    window = window if isinstance(window, tuple) else (window,)
    strides = window if stride is None else stride if isinstance(stride, tuple) else (stride,)
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        run = jax.jit(lambda x: (FLAX[pool](x, window, strides), layer.apply((), x), layer.fwd((), x)[0]))
        expected, *found = run(x)
    for y in found:
        np.testing.assert_allclose(y, expected, rtol=1e-6)
    nnjax.check_layer(layer, (), x, **QUICK).raise_if_failed()


@pytest.mark.parametrize("lead", [(), (0,), (1,), (2, 3)], ids=str)
@pytest.mark.parametrize("make", [*POOLS.values(), lambda w: nnjax.global_avg_pool()], ids=[*POOLS, "global"])
def test_leading_axes(make, lead):
    layer, x = make((2, 2)), hard(np.random.default_rng(1), (*lead, 5, 4, 2))
    assert not nnjax.check_layer(layer, (), x, **QUICK).failures


@pytest.mark.slow
@pytest.mark.parametrize("layer", [nnjax.max_pool((3, 2), (2, 1)), nnjax.avg_pool((3, 2), (2, 1))], ids=lambda f: f.name)
@pytest.mark.in_turn
def test_other_transforms_pass_and_every_mutant_is_killed(layer):
    x = hard(np.random.default_rng(2), (3, 5, 4, 2))
    nnjax.check_layer(layer, (), x, **OTHERS).raise_if_failed()
    outcomes = hunt(layer, (), x)
    assert outcomes
    assert not [o.mutant for o in outcomes if o.status == "survived"]


def gradient(layer, x):
    return layer.bwd(layer.fwd((), x)[1], jnp.ones_like(layer.apply((), x)))[1]


@pytest.mark.in_turn
def test_of_equal_maxima_the_first_in_the_window_gets_everything():
    x = jnp.array([[1.0, 2.0, 2.0], [2.0, 0.0, 2.0], [0.0, 0.0, 0.0]])[..., None]
    grad = gradient(nnjax.max_pool((2, 2), (1, 1)), x)[..., 0]
    np.testing.assert_array_equal(grad, [[0, 2, 0], [1, 0, 1], [0, 0, 0]])
    np.testing.assert_array_equal(grad, jax.grad(lambda x: nnjax.max_pool((2, 2), (1, 1)).apply((), x).sum())(x)[..., 0])


def test_every_wrong_way_of_breaking_a_tie_is_found():
    layer = nnjax.max_pool((2, 2))

    def shared(residuals, ct_y):  # every maximum gets a share: another convention
        ct = layer.bwd(residuals, ct_y)[1]
        return (), (ct + jnp.flip(ct, -2)) / 2

    x = hard(np.random.default_rng(3), (2, 4, 4, 2))
    assert nnjax.check_layer(layer._replace(bwd=shared), (), jnp.zeros_like(x), **QUICK).failures


@pytest.mark.parametrize("bad", [jnp.nan, -jnp.inf])
@pytest.mark.in_turn
def test_not_a_number_and_minus_infinity_go_where_reduce_window_sends_them(bad):
    layer, x = nnjax.max_pool((2, 2)), jnp.full((2, 2, 1), bad).at[0, 1, 0].set(-1.0)
    np.testing.assert_array_equal(layer.fwd((), x)[0], layer.apply((), x))
    if bad == -jnp.inf:
        np.testing.assert_array_equal(gradient(layer, x)[..., 0], [[0, 1], [0, 0]])


def test_a_mean_in_half_precision_is_summed_in_float32():
    x = jnp.full((64, 64, 1), 1.0, jnp.bfloat16)
    assert nnjax.avg_pool((64, 64)).apply((), x) == 1.0
    assert nnjax.global_avg_pool().apply((), x) == 1.0


def test_flatten_keeps_the_batch_or_all_leading_axes():
    x = hard(np.random.default_rng(4), (2, 3, 4, 5))
    assert nnjax.flatten().apply((), x).shape == (2, 60)
    assert nnjax.flatten(2).apply((), x).shape == (2, 3, 20)
    nnjax.check_layer(nnjax.flatten(3), (), x, **QUICK).raise_if_failed()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nnjax.max_pool(0), r"max_pool: window must be a positive int"),
        (lambda: nnjax.max_pool((2, 2), (1,)), r"max_pool: stride must be a positive int, or a tuple of 2, got \(1,\)"),
        (lambda: nnjax.avg_pool("2"), r"avg_pool: window must be a positive int, or a tuple of one, two or three, got '2'"),
        (lambda: nnjax.max_pool((3, 3)).apply((), jnp.zeros((2, 4, 1))), r"max_pool: the window \(3, 3\) must fit into"),
        (lambda: nnjax.max_pool((2, 2)).apply((), jnp.zeros((4, 1))), r"max_pool: x must have shape \(..., height, width, cha"),
        (
            lambda: nnjax.global_avg_pool().apply((), jnp.zeros((0, 4, 1))),
            r"global_avg_pool: x must have 2 axes of space, none",
        ),
        (lambda: nnjax.global_avg_pool(0), r"global_avg_pool: axes must be a positive int, got 0"),
        (lambda: nnjax.flatten(3).apply((), jnp.zeros((2, 4))), r"flatten: x must have at least 3 axes"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_integers_are_refused():
    with pytest.raises(TypeError, match=r"max_pool: x must be .*floating"):
        nnjax.max_pool(2).apply((), jnp.zeros((4, 1), jnp.int32))


def drawn(seed, n):
    """n poolings that fit, drawn at random: (layer, shape of x)."""
    draw, found = random.Random(seed), []
    while len(found) < n:
        dims = draw.choice((1, 2, 2))
        window, stride, space = (tuple(draw.choice((1, 1, 2, 3, 4)) for _ in range(dims)) for _ in range(3))
        if all(k <= size for k, size in zip(window, space)):
            make = draw.choice(tuple(POOLS.values()))
            found.append((make(window, draw.choice((stride, None))), (draw.choice((0, 1, 2)), *space, draw.choice((1, 2)))))
    return found


def furthest(tried):
    """The distance of each hand-written pair from jax.grad of its definition, in float64, with ties, in one program for all."""
    rng = np.random.default_rng(0)
    inputs = []
    for layer, shape in tried:
        y = jax.eval_shape(layer.apply, (), jax.ShapeDtypeStruct(shape, jnp.float64))
        inputs.append((rng.integers(-2, 3, shape).astype(np.float64), rng.standard_normal(y.shape)))

    @jax.jit
    def both(inputs):
        found = []
        for (layer, _), (x, ct_y) in zip(tried, inputs, strict=True):
            expected, pull_back = jax.vjp(lambda x, layer=layer: layer.apply((), x), x)
            y, residuals = layer.fwd((), x)
            found.append(((y, layer.bwd(residuals, ct_y)[1]), (expected, *pull_back(ct_y))))
        return found

    def off(got, expected):
        assert got.shape == expected.shape
        assert got.dtype == expected.dtype == np.float64
        return np.abs(got - expected).max(initial=0)

    return [max(map(off, got, expected)) for got, expected in jax.device_get(both(inputs))]


def test_some_of_the_search_agree_with_jax_grad(x64):
    tried = drawn(10, 24)
    for one, off in zip(tried, furthest(tried), strict=True):
        assert off <= 1e-14, (one[0].name, one[1], off)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.in_turn
def test_four_hundred_poolings_agree_with_jax_grad(x64, seed):
    tried = drawn(seed, 50)
    for one, off in zip(tried, furthest(tried), strict=True):
        assert off <= 1e-14, (one[0].name, one[1], off)
