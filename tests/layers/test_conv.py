import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import nnjax
from nnjax.cases import hard, jittered
from nnjax.check.mutants import hunt

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
}


def made(args, options, shape, seed=0):
    layer = jittered(nnjax.conv(*args, **options))
    return layer, layer.init(jax.random.key(seed)), hard(np.random.default_rng(seed), shape)


@pytest.mark.parametrize("name", SHAPES)
def test_every_kind_of_window_passes(name):
    layer, params, x = made(*SHAPES[name])
    nnjax.check_layer(layer, params, x, **QUICK).raise_if_failed()


@pytest.mark.parametrize("lead", [(), (0,), (1,), (2, 3)], ids=str)
@pytest.mark.parametrize("name", ["1-D", "depthwise", "valid"])
def test_leading_axes(name, lead):
    args, options, shape = SHAPES[name]
    layer, params, x = made(args, options, (*lead, *shape[1:]))
    assert not nnjax.check_layer(layer, params, x, **QUICK).failures


@pytest.mark.parametrize("name", ["1-D", "groups", "depthwise", "many channels"])
def test_other_transforms_pass(name):
    nnjax.check_layer(*made(*SHAPES[name]), **OTHERS).raise_if_failed()


@pytest.mark.parametrize("name", SHAPES)
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
        ((2, 4, 0), {}, r"conv: kernel must be a positive int, or a tuple of one or two, got 0"),
        ((2, 4, (3, 3, 3)), {}, r"conv: kernel must be a positive int"),
        ((2, 4, (3, 3)), {"stride": (1, 2, 3)}, r"conv: stride must be a positive int, or a tuple of 2, got \(1, 2, 3\)"),
        ((2, 4, 3), {"dilation": 0}, r"conv: dilation must be a positive int"),
        (
            (2, 4, 3),
            {"padding": "same"},
            r'conv: padding must be "SAME", "VALID" or a pair of ints >= 0 for each of the 1 axes',
        ),
        ((2, 4, 3), {"padding": ((1, -1),)}, r"conv: padding must be"),
        ((0, 4, 3), {}, r"conv: in_channels must be a positive int, got 0"),
    ],
    ids=str,
)
def test_arguments_that_do_not_fit_are_refused(args, options, message):
    with pytest.raises(ValueError, match=message):
        nnjax.conv(*args, **options)


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
