import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

import nnjax
from nnjax.cases import hard
from nnjax.layers.pooling.windows import Pool, make_pool

QUICK = {"dtypes": ["float32"], "transforms": ["jit"], "witnesses": ()}

# (window, stride, padding, options of max_pool, shape of x)
MAXIMA = {
    "padded": ((3, 3), (2, 2), 1, {}, (2, 5, 4, 2)),
    "side by side, padded": ((2, 2), None, ((1, 0), (0, 1)), {}, (2, 5, 3, 2)),
    "same": ((3, 2), (2, 1), "SAME", {}, (2, 4, 5, 2)),
    "1-D, pairs": (3, 2, [(2, 1)], {}, (2, 6, 2)),
    "dilated": ((2, 3), (1, 2), 1, {"dilation": (3, 1)}, (2, 5, 4, 2)),
    "ceil": ((3, 2), (2, 2), 0, {"ceil_mode": True}, (2, 6, 3, 2)),
    "ceil, padded, a window left out": ((2,), (3,), 1, {"ceil_mode": True}, (2, 5, 2)),
    "3-D": ((2, 1, 3), (1, 2, 2), (1, 0, 1), {}, (2, 3, 3, 4, 2)),
    "3-D, side by side": ((2, 2, 2), None, 0, {"ceil_mode": True}, (1, 3, 4, 2, 2)),
}
MEANS = {
    "padded": ((3, 3), (2, 2), 1, {}, (2, 5, 4, 2)),
    "padded, not counted": ((3, 2), (2, 1), ((1, 2), (0, 1)), {"count_include_pad": False}, (2, 5, 4, 2)),
    "side by side, padded": ((2, 2), None, ((1, 0), (0, 1)), {}, (2, 5, 3, 2)),
    "same": ((3, 2), (2, 1), "same", {"count_include_pad": False}, (2, 4, 5, 2)),
    "ceil": ((3, 2), (2, 2), 1, {"ceil_mode": True}, (2, 6, 3, 2)),
    "divisor": ((2, 2), (1, 1), 1, {"divisor": -3}, (2, 3, 3, 2)),
    "3-D": ((2, 1, 3), (1, 2, 2), (1, 0, 1), {"ceil_mode": True}, (2, 3, 3, 4, 2)),
}


def each(value, dims):
    return tuple(value) if isinstance(value, (tuple, list)) else (value,) * dims


def windows(shape, window, stride, padding, dilation=1, ceil_mode=False):
    """For every place: the entries of x in its window, in order, each a tuple, and how many of all lie before its end.

    Counted by hand, place by place, as the words of the docstring say.
    """
    space = shape[1:-1]
    dims = len(space)
    window, dilation = each(window, dims), each(dilation, dims)
    stride = window if stride is None else each(stride, dims)
    if isinstance(padding, str):
        pairs = []
        for n, k, s, d in zip(space, window, stride, dilation):
            total = max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
            pairs.append((total // 2, total - total // 2))
    else:
        pairs = [p if isinstance(p, tuple) else (p, p) for p in each(padding, dims)]
    starts = []
    for n, k, s, d, (a, b) in zip(space, window, stride, dilation, pairs):
        fits = [at for at in range(-a, n + b, s) if at + (k - 1) * d < n + b]
        more = fits[-1] + s  # the next one does not fit; with ceil_mode it counts if it begins before the end's padding
        starts.append([*fits, more] if ceil_mode and fits[-1] + (k - 1) * d < n + b - 1 and more < n else fits)
    found = {}
    for place, start in zip(np.ndindex(*map(len, starts)), itertools.product(*starts)):
        reads = [tuple(at + i * d for at, i, d in zip(start, j, dilation)) for j in np.ndindex(window)]
        inside = [r for r in reads if all(0 <= q < n for q, n in zip(r, space))]
        found[place] = inside, sum(all(q < n + b for q, n, (_, b) in zip(r, space, pairs)) for r in reads)
    return found


def out(found):
    return tuple(1 + max(place[axis] for place in found) for axis in range(len(next(iter(found)))))


@pytest.mark.parametrize("name", MAXIMA)
@pytest.mark.repeats
@pytest.mark.in_turn
def test_a_maximum_is_taken_of_x_alone_and_its_first_place_gets_the_cotangent(name):
    window, stride, padding, options, shape = MAXIMA[name]
    layer = nnjax.max_pool(window, stride, padding, **options)
    rng = np.random.default_rng(0)
    x = rng.integers(0, 4, shape).astype(np.float32)
    x = np.where(rng.random(shape) < 0.3, -np.inf, x)  # ties, and windows without a finite entry
    found = windows(shape, window, stride, padding, **options)
    y, ct_x = (np.full((shape[0], *out(found), shape[-1]), -np.inf), np.zeros(shape))
    ct_y = rng.standard_normal(y.shape).astype(np.float32)
    for place, (inside, _) in found.items():
        for n, c in np.ndindex(shape[0], shape[-1]):
            best = max(inside, key=lambda r: x[(n, *r, c)])  # the first of several
            y[(n, *place, c)] = x[(n, *best, c)]
            ct_x[(n, *best, c)] += ct_y[(n, *place, c)]
    for spelled in (layer, nnjax.plain(layer)):
        ours, residuals = spelled.fwd((), x)
        np.testing.assert_array_equal(ours, y)
        np.testing.assert_array_equal(spelled.apply((), x), y)
        np.testing.assert_allclose(spelled.bwd(residuals, ct_y)[1], ct_x, atol=1e-5)
    nnjax.check_layer(layer, (), hard(rng, shape), **QUICK).raise_if_failed()


@pytest.mark.parametrize("name", MEANS)
@pytest.mark.repeats
def test_a_mean_is_taken_over_what_counts(name):
    window, stride, padding, options, shape = MEANS[name]
    layer = nnjax.avg_pool(window, stride, padding, **options)
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    found = windows(shape, window, stride, padding, ceil_mode=options.get("ceil_mode", False))
    y = np.zeros((shape[0], *out(found), shape[-1]))
    for place, (inside, counted) in found.items():
        n = options.get("divisor") or (counted if options.get("count_include_pad", True) else len(inside))
        y[(slice(None), *place)] = sum(x[(slice(None), *r)] for r in inside) / n
    for ours in (layer.apply((), x), layer.fwd((), x)[0]):
        np.testing.assert_allclose(ours, y, rtol=1e-5, atol=1e-6)
    nnjax.check_layer(layer, (), hard(np.random.default_rng(1), shape), **QUICK).raise_if_failed()


def test_same_is_that_of_flax():
    x = hard(np.random.default_rng(0), (2, 7, 6, 3))
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        for ours, theirs in ((nnjax.ops.max_pool, linen.max_pool), (nnjax.ops.avg_pool, linen.avg_pool)):
            np.testing.assert_allclose(ours(x, (3, 2), (2, 2), "SAME"), theirs(x, (3, 2), (2, 2), "SAME"), rtol=1e-6)


def test_a_window_that_sees_padding_alone_gives_minus_infinity_and_no_gradient():
    layer = nnjax.max_pool(2, 1, padding=1, dilation=2)
    x = jnp.array([[5.0]])  # the only window reads the places -1 and 1
    y, residuals = layer.fwd((), x)
    np.testing.assert_array_equal(y, [[-jnp.inf]])
    np.testing.assert_array_equal(layer.bwd(residuals, jnp.ones_like(y))[1], [[0.0]])


def test_not_a_number_beside_padding_stays():
    x = jnp.array([jnp.nan, 1.0, 2.0])[:, None]
    dilated = nnjax.max_pool(2, 1, "SAME", dilation=2)  # place 1 reads 0 and 2
    for layer, bad in ((nnjax.max_pool(3, 1, 1), 0), (nnjax.plain(nnjax.max_pool(3, 1, 1)), 0), (dilated, 1)):
        for y in (layer.apply((), x), layer.fwd((), x)[0]):
            assert jnp.isnan(y[bad, 0])
            assert not jnp.isnan(y[-1, 0])


def test_the_cotangent_of_the_padding_is_not_lost_if_the_padding_wins_by_mistake():
    layer = nnjax.max_pool((3, 3), (2, 2), padding=1)
    zero = jnp.full((1, 3, 3, 1), -1.0)  # were the padding 0, it would be the maximum

    def padded_with_zeros(params, x, *, key=None):
        return nnjax.max_pool((3, 3), (2, 2)).apply((), jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))))

    np.testing.assert_array_equal(layer.apply((), zero), jnp.full((1, 2, 2, 1), -1.0))
    assert nnjax.check_layer(layer._replace(apply=padded_with_zeros), (), zero, **QUICK).failures


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: nnjax.max_pool(3, 1, 3), r"max_pool: padding must be less than .*\(3,\), got 3"),
        (lambda: nnjax.avg_pool((2, 2), padding=((0, 2), (0, 0))), r"avg_pool: padding must be less"),
        (lambda: nnjax.max_pool(3, padding="full"), r"max_pool: padding must be"),
        (lambda: nnjax.max_pool(3, dilation=0), r"max_pool: dilation must be"),
        (lambda: nnjax.avg_pool(3, divisor=0), r"avg_pool: divisor must be an int other than 0"),
        (lambda: nnjax.avg_pool(3, divisor=1.5), r"avg_pool: divisor .*1\.5"),
        (lambda: nnjax.max_pool(3, dilation=2).apply((), jnp.zeros((4, 1))), r"max_pool: the window \(3,\) must fit"),
        (lambda: nnjax.max_pool((2, 2, 2)).apply((), jnp.zeros((2, 2, 1))), r"max_pool: x must have shape \(..., depth, h"),
        (lambda: nnjax.max_pool(2, padding=1).apply((), jnp.zeros((0, 1))), r"max_pool: the window .*must fit"),
    ],
)
def test_what_does_not_fit_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_flags_are_flags():
    with pytest.raises(TypeError, match="ceil_mode must be True or False"):
        nnjax.max_pool(2, ceil_mode="yes")
    with pytest.raises(TypeError, match="count_include_pad must be True or False"):
        nnjax.avg_pool(2, count_include_pad=2)


def test_what_lies_around_is_cut_off_again():
    pool = make_pool("max_pool", (3, 2), (2, 2), ((1, 0), (0, 1)), ceil_mode=True)
    x = jnp.ones((2, 4, 3, 1))
    around = pool.surround(x, 7.0)
    assert around.shape == pool.padded(x.shape)
    np.testing.assert_array_equal(pool.surround_t(around, x.shape), x)
    np.testing.assert_allclose(around.sum(), x.sum() + 7 * (around.size - x.size))
    bare = Pool((2,), (2,))
    assert bare.surround(x[0, 0], 7.0) is x[0, 0] or bare.surround(x[0, 0], 7.0).shape == x[0, 0].shape
    assert bare.first((4,)) is None
