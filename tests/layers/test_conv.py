import random
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import nnjax
from nnjax.cases import hard, jittered
from nnjax.check.mutation.mutants import hunt
from nnjax.layers.conv import expect_padding

QUICK = {"dtypes": ["float32"], "transforms": ["jit"], "witnesses": ()}
OTHERS = {"dtypes": ["float32"], "transforms": ["vmap", "scan", "checkpoint", "second"], "witnesses": ()}

# (arguments of conv, shape of x): stride beyond the kernel, kernel 1, groups = channels, dilation, odd and uneven sizes.
SHAPES = {
    "1-D": ((2, 3, 3), {"stride": 2}, (2, 8, 2)),
    "1-D, dilated, explicit": ((2, 4, 2), {"dilation": 3, "padding": ((4, 1),)}, (3, 5, 2)),
    "valid": ((1, 2, (3, 2)), {"padding": "VALID"}, (2, 5, 4, 1)),
    "many channels": ((17, 2, (3, 3)), {}, (2, 4, 5, 17)),
    "many channels, much cut off": ((16, 3, (5, 5)), {"padding": "VALID"}, (2, 7, 6, 16)),
    "kernel 1": ((3, 2, (1, 1)), {}, (2, 3, 2, 3)),
    "kernel 1, strided": ((3, 2, (1, 1)), {"stride": (2, 3)}, (2, 5, 4, 3)),
    "stride beyond the kernel": ((2, 2, (2, 2)), {"stride": 3, "padding": "VALID"}, (2, 7, 9, 2)),
    "groups": ((4, 6, (2, 3)), {"groups": 2, "stride": (1, 2), "dilation": (2, 1)}, (2, 5, 6, 4)),
    "groups, many": ((4, 4, (3, 2)), {"groups": 2, "padding": ((0, 3), (2, 0))}, (2, 3, 4, 4)),
    "depthwise": ((3, 3, (3, 3)), {"groups": 3}, (2, 4, 5, 3)),
    "depthwise, two kernels a channel": ((3, 6, (3, 2)), {"groups": 3, "stride": 2, "bias": False}, (2, 5, 4, 3)),
    "one place": ((2, 3, (3, 3)), {"padding": "VALID"}, (4, 3, 3, 2)),
    "3-D": ((2, 3, (2, 3, 1)), {"stride": (1, 2, 1), "padding": (1, (0, 2), 0)}, (2, 2, 4, 3, 2)),
    "3-D, groups": ((4, 6, (2, 2, 2)), {"dilation": (1, 2, 1), "groups": 2}, (1, 2, 3, 3, 4)),
    "3-D, depthwise": ((2, 4, (1, 2, 2)), {"groups": 2, "padding": "valid"}, (1, 1, 3, 3, 2)),
}


def made(args, options, shape, seed=0):
    layer = jittered(nnjax.conv(*args, **options))
    return layer, layer.init(jax.random.key(seed)), hard(np.random.default_rng(seed), shape)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.repeats
@pytest.mark.in_turn
def test_every_kind_of_window_passes(name):
    layer, params, x = made(*SHAPES[name])
    nnjax.check_layer(layer, params, x, **QUICK).raise_if_failed()


@pytest.mark.parametrize("lead", [(), (0,), (1,), (2, 3)], ids=str)
@pytest.mark.parametrize("name", ["1-D", "depthwise", "valid"])
@pytest.mark.repeats
def test_leading_axes(name, lead):
    args, options, shape = SHAPES[name]
    layer, params, x = made(args, options, (*lead, *shape[1:]))
    assert not nnjax.check_layer(layer, params, x, **QUICK).failures


@pytest.mark.parametrize("name", ["1-D", "groups", "depthwise", "many channels"])
@pytest.mark.slow
@pytest.mark.in_turn
def test_other_transforms_pass(name):
    nnjax.check_layer(*made(*SHAPES[name]), **OTHERS).raise_if_failed()


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.repeats
def test_the_pair_gives_the_value_of_the_definition(name):
    layer, params, x = made(*SHAPES[name])
    np.testing.assert_allclose(layer.fwd(params, x)[0], layer.apply(params, x), rtol=1e-4, atol=1e-4)


def test_the_value_is_that_of_lax_and_of_the_sum_written_out():
    layer, params, x = made((2, 3, (2, 3)), {"padding": ((1, 0), (0, 2)), "stride": (2, 1)}, (2, 5, 4, 2))
    theirs = lax.conv_general_dilated(
        x, params.w, (2, 1), ((1, 0), (0, 2)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )  # fmt: skip
    y = layer.apply(params, x)
    np.testing.assert_allclose(y, theirs + params.b[None, None, None], rtol=1e-6)
    padded = np.pad(np.asarray(x), ((0, 0), (1, 0), (0, 2), (0, 0)))
    one = np.einsum("ijc,ijco->o", padded[1, 2:4, 1:4], np.asarray(params.w)) + np.asarray(params.b)
    np.testing.assert_allclose(y[1, 1, 1], one, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.in_turn
def test_a_kernel_that_was_not_flipped_is_rejected_and_so_is_every_mutant():
    layer, params, x = made((2, 3, (2, 3)), {"padding": "VALID"}, (3, 4, 5, 2))

    def bwd(residuals, ct_y):
        (w, _), x = residuals
        ct_params, _ = layer.bwd(residuals, ct_y)
        ct_x = lax.conv_general_dilated(
            ct_y, w.swapaxes(2, 3), (1, 1), ((1, 1), (2, 2)), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return ct_params, ct_x

    assert nnjax.check_layer(layer._replace(bwd=bwd), params, x, **QUICK).failures
    outcomes = hunt(layer, params, x)
    assert outcomes
    assert not [o.mutant for o in outcomes if o.status == "survived"]


@pytest.mark.parametrize(
    ("args", "options", "message"),
    [
        ((3, 4, 3), {"groups": 2}, r"conv: groups must divide in_channels and out_channels, got groups=2, in_channels=3"),
        ((2, 4, 0), {}, r"conv: kernel must be a positive int, or a tuple of one, two or three, got 0"),
        ((2, 4, (3, 3, 3, 3)), {}, r"conv: kernel must be a positive int"),
        ((2, 4, (3, 3)), {"stride": (1, 2, 3)}, r"conv: stride must be a positive int, or a tuple of 2, got \(1, 2, 3\)"),
        ((2, 4, 3), {"dilation": 0}, r"conv: dilation must be a positive int"),
        (
            (2, 4, 3),
            {"padding": "Same"},
            r'conv: padding must be "SAME", "VALID", an int >= 0, or for each of the 1 axes of space an int or a pair',
        ),
        ((2, 4, 3), {"padding": ((1, -1),)}, r"conv: padding must be"),
        ((0, 4, 3), {}, r"conv: in_channels must be a positive int, got 0"),
    ],
    ids=str,
)
def test_arguments_that_do_not_fit_are_refused(args, options, message):
    with pytest.raises(ValueError, match=message):
        nnjax.conv(*args, **options)


@pytest.mark.parametrize(
    ("padding", "amounts"),
    [
        (1, ((1, 1), (1, 1))),
        (np.int64(2), ((2, 2), (2, 2))),
        ((1, 2), ((1, 1), (2, 2))),
        ([[1, 0], [0, 2]], ((1, 0), (0, 2))),
        ((1, (0, 2)), ((1, 1), (0, 2))),
        (np.array([[1, 0], [0, 2]]), ((1, 0), (0, 2))),
        (np.array([1, 0]), ((1, 1), (0, 0))),
    ],
    ids=str,
)
def test_padding_is_a_number_a_number_for_each_axis_or_pairs(padding, amounts):
    x = hard(np.random.default_rng(0), (2, 3, 4, 2))
    layer, plain = (nnjax.conv(2, 3, [2, np.int8(3)], padding=p) for p in (padding, amounts))
    params = layer.init(jax.random.key(0))
    np.testing.assert_array_equal(layer.apply(params, x), plain.apply(params, x))
    np.testing.assert_array_equal(nnjax.ops.conv(x, params.w, params.b, padding=padding), plain.apply(params, x))
    assert expect_padding(padding, 2) == amounts


@pytest.mark.parametrize("padding", [-1, 1.0, True, "full", None, (1,), (1, 2, 3), ((1, 2, 3), 1), ((1, True), 1)], ids=str)
def test_other_paddings_are_refused(padding):
    for call in (
        lambda: nnjax.conv(2, 3, (2, 3), padding=padding),
        lambda: nnjax.ops.conv(jnp.ones((1, 3, 4, 2)), jnp.ones((2, 3, 2, 3)), padding=padding),
    ):
        with pytest.raises(ValueError, match=r'conv: padding must be "SAME", "VALID", an int >= 0'):
            call()


def test_inputs_that_do_not_fit_are_refused():
    layer = nnjax.conv(2, 3, (3, 3), padding="VALID")
    params = layer.init(jax.random.key(0))
    with pytest.raises(
        ValueError, match=r"conv: x must have shape \(..., height, width, 2\), channels last, got float32 \(2, 5, 5\)"
    ):
        layer.apply(params, jnp.zeros((2, 5, 5)))
    with pytest.raises(ValueError, match=r"conv: the kernel \(3, 3\) with dilation \(1, 1\) must fit into the padded input"):
        layer.apply(params, jnp.zeros((1, 2, 5, 2)))
    with pytest.raises(TypeError, match=r"conv: x must be .*floating"):
        layer.apply(params, jnp.zeros((1, 5, 5, 2), jnp.int32))
    with pytest.raises(TypeError, match=r"conv: x .*float16"):
        layer.apply(params, jnp.zeros((1, 5, 5, 2), jnp.float16))
    with pytest.raises(TypeError, match=r"conv: params must be"):
        layer.fwd((params.w, params.b), jnp.zeros((1, 5, 5, 2)))


class Tried(NamedTuple):
    """A convolution of the search: everything that decides the spelling of the transposes."""

    x: tuple[int, ...]
    kernel: tuple[int, ...]
    out: int
    stride: tuple[int, ...]
    padding: str | tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int

    def fits(self):
        around = ((0, 0),) * len(self.kernel) if isinstance(self.padding, str) else self.padding
        reach = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation)]
        return self.padding == "SAME" or all(n + a + b >= r for n, (a, b), r in zip(self.x[1:-1], around, reach))

    def layer(self):
        how = {"stride": self.stride, "padding": self.padding, "dilation": self.dilation, "groups": self.groups}
        return nnjax.conv(self.x[-1], self.out, self.kernel, **how)


# 1x1 with a stride where an image ends at one row; a kernel higher than the image; zeros above or below alone.
WORST = [
    Tried((1, 2, 2, 3), (1, 1), 3, (2, 2), "VALID", (1, 1), 1),
    Tried((2, 1, 1, 8), (3, 3), 4, (1, 1), "SAME", (1, 1), 1),
    Tried((1, 1, 3, 2), (1, 1), 1, (2, 1), ((1, 0), (0, 0)), (1, 1), 1),
    Tried((2, 1, 4, 1), (1, 2), 2, (1, 1), ((0, 3), (1, 0)), (1, 1), 1),
    Tried((2, 1, 4, 4), (1, 3), 2, (3, 2), ((2, 2), (1, 1)), (2, 1), 2),
    Tried((2, 1, 1, 3), (3, 3), 6, (2, 2), "SAME", (1, 1), 3),
    Tried((1, 3, 1, 2), (1, 1), 2, (3, 3), ((2, 0), (0, 2)), (1, 1), 1),
    Tried((2, 1, 2), (1,), 2, (4,), ((5, 5),), (3,), 1),
]


def drawn(seed, n):
    """n convolutions that fit, drawn at random."""
    draw, found = random.Random(seed), []
    while len(found) < n:
        dims, groups = draw.choice((1, 2, 2, 2)), draw.choice((1, 1, 2, 3))

        def each(*values, dims=dims):
            return tuple(draw.choice(values) for _ in range(dims))

        x = (draw.choice((0, 1, 1, 2, 2)), *each(1, 1, 2, 3, 4), groups * draw.randint(1, 3 if groups == 1 else 2))
        padding = draw.choice(("SAME", "VALID", tuple(zip(each(0, 0, 1, 2, 5), each(0, 0, 1, 2, 5)))))
        one = Tried(x, each(1, 1, 2, 3, 4), groups * draw.randint(1, 3), each(1, 1, 2, 3, 4), padding, each(1, 1, 2, 3), groups)
        if one.fits():
            found.append(one)
    return found


def furthest(tried):
    """The distance of each hand-written pair from its definition and from its jax.grad: in float64, in one program for all."""
    rng = np.random.default_rng(0)
    inputs = []
    for one in tried:
        params = jax.eval_shape(one.layer().init, jax.random.key(0))
        y = jax.eval_shape(one.layer().apply, params, jax.ShapeDtypeStruct(one.x, jnp.float32))
        inputs.append(jax.tree.map(lambda a: rng.standard_normal(a.shape), (params, jax.ShapeDtypeStruct(one.x, float), y)))

    @jax.jit
    def both(inputs):
        found = []
        for one, (params, x, ct_y) in zip(tried, inputs, strict=True):
            layer = one.layer()
            expected, pull_back = jax.vjp(layer.apply, params, x)
            y, residuals = layer.fwd(params, x)
            found.append(((y, layer.bwd(residuals, ct_y)), (expected, pull_back(ct_y))))
        return found

    def off(got, expected):
        assert got.shape == expected.shape
        assert got.dtype == expected.dtype == np.float64
        return np.abs(got - expected).max(initial=0) / (1 + np.abs(expected).max(initial=0))

    found = jax.device_get(both(inputs))
    return [max(jax.tree.leaves(jax.tree.map(off, got, expected))) for got, expected in found]


EACH, CHUNKS = 100, 20


def test_the_search_holds_every_kind_of_convolution():
    tried = {one for seed in range(CHUNKS) for one in drawn(seed, EACH)}
    assert len(tried) >= 1990  # few are drawn twice
    kinds = {
        "1-D": lambda t: len(t.kernel) == 1,
        "height 1": lambda t: len(t.kernel) == 2 and t.x[1] == 1,
        "height 1 under a kernel of 1 row, strided or padded": lambda t: t.x[1:-1][0] == t.kernel[0] == 1 and t.stride[0] > 1,
        "no batch": lambda t: t.x[0] == 0,
        "groups": lambda t: 1 < t.groups < t.x[-1],
        "depthwise": lambda t: t.groups == t.x[-1] == t.out > 1,
        "several kernels a channel": lambda t: 1 < t.groups == t.x[-1] < t.out,
        "padding beyond the kernel": lambda t: t.padding not in ("SAME", "VALID") and max(map(max, t.padding)) > max(t.kernel),
        "dilated": lambda t: max(t.dilation) > 1 < max(t.kernel),
    }
    for kind, is_one in kinds.items():
        assert sum(map(is_one, tried)) >= 50, kind


def test_the_worst_of_the_search_agree_with_jax_grad(x64):
    for one, off in zip(WORST, furthest(WORST), strict=True):
        assert off <= 1e-13, (one, off)


@pytest.mark.in_turn
def test_some_of_the_search_agree_with_jax_grad(x64):
    tried = [one for one in drawn(CHUNKS, 500) if 1 in one.x[1:-1] and one.x[0]][:32]
    assert len(tried) == 32
    for one, off in zip(tried, furthest(tried), strict=True):
        assert off <= 1e-13, (one, off)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(CHUNKS))
@pytest.mark.in_turn
def test_two_thousand_convolutions_agree_with_jax_grad(x64, seed):
    tried, compared = drawn(seed, EACH), 0
    for i in range(0, EACH, 25):
        for one, off in zip(tried[i : i + 25], furthest(tried[i : i + 25]), strict=True):
            assert off <= 1e-13, (one, off)
            compared += 1
    assert compared == EACH
    assert EACH * CHUNKS >= 2000


def test_a_volume_is_the_sum_written_out(x64):
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 3, 4, 3, 2)), rng.standard_normal((2, 3, 1, 2, 3))
    y = nnjax.ops.conv(jnp.asarray(x), jnp.asarray(w), stride=(1, 2, 1), padding=((1, 0), (0, 1), (0, 0)))
    padded = np.pad(x, ((0, 0), (1, 0), (0, 1), (0, 0), (0, 0)))
    assert y.shape == (2, 3, 2, 3, 3)
    for p in np.ndindex(3, 2, 3):
        seen = padded[:, p[0] : p[0] + 2, 2 * p[1] : 2 * p[1] + 3, p[2] : p[2] + 1]
        np.testing.assert_allclose(y[(slice(None), *p)], np.einsum("nijkc,ijkco->no", seen, w), atol=1e-12)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_padding_in_small_letters_is_the_same(padding):
    x, w = jnp.ones((1, 5, 2)), jnp.ones((3, 2, 1))
    np.testing.assert_array_equal(nnjax.ops.conv(x, w, padding=padding.lower()), nnjax.ops.conv(x, w, padding=padding))


@pytest.mark.parametrize("groups", [1, 2])
def test_the_pair_refuses_what_is_no_parameter_too(groups):
    layer = nnjax.conv(2, 2, 3, groups=groups)
    with pytest.raises(TypeError, match="conv: params must be"):
        layer.fwd((), jnp.ones((1, 4, 2)))
