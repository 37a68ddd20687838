import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import nnjax
from nnjax.cases import hard, jittered

QUICK = {"dtypes": ["float32"], "transforms": ["jit"], "witnesses": ()}
OTHERS = {"dtypes": ["float32"], "transforms": ["vmap", "scan", "checkpoint", "second"], "witnesses": ()}

# (arguments of conv_transpose, options, shape of x)
SHAPES = {
    "1-D": ((3, 2, 3), {"stride": 2}, (2, 4, 3)),
    "stride beyond the kernel": ((2, 3, (2, 1)), {"stride": 3, "padding": "VALID"}, (2, 3, 2, 2)),
    "padding beyond the kernel": ((2, 3, 2), {"padding": 3}, (2, 7, 2)),
    "a pair on each side": ((2, 3, (3, 2)), {"stride": (2, 1), "padding": ((0, 2), (1, 0))}, (2, 3, 4, 2)),
    "output padding": ((2, 2, (2, 3)), {"stride": (3, 2), "padding": 1, "output_padding": (2, 1)}, (2, 3, 3, 2)),
    "output padding under a dilation": ((2, 2, 3), {"padding": 0, "dilation": 4, "output_padding": 3}, (2, 3, 2)),
    "groups": ((4, 6, (2, 3)), {"groups": 2, "stride": 2, "dilation": (1, 2)}, (2, 3, 2, 4)),
    "depthwise": ((3, 3, (3, 3)), {"groups": 3, "bias": False}, (2, 3, 4, 3)),
    "3-D": ((2, 3, (2, 1, 3)), {"stride": (1, 2, 2), "padding": "same"}, (2, 2, 3, 2, 2)),
    "one place": ((2, 3, (3, 3)), {"padding": 1}, (4, 1, 1, 2)),
}


def made(args, options, shape, seed=0):
    layer = jittered(nnjax.conv_transpose(*args, **options))
    return layer, layer.init(jax.random.key(seed)), hard(np.random.default_rng(seed), shape)


def written_out(x, w, stride, padding, more, dilation, groups):
    """All x[p] w[i]ᵀ added at p stride + i dilation - padding, in NumPy. x: (n, space, in), w: (*kernel, out / groups, in)."""
    dims = len(stride)
    space, kernel = x.shape[1:-1], w.shape[:dims]
    whole = [(n - 1) * s + (k - 1) * d + 1 + m for n, k, s, d, m in zip(space, kernel, stride, dilation, more)]
    y = np.zeros((len(x), *whole, w.shape[-2] * groups))
    n_in, n_out = w.shape[-1] // groups, w.shape[-2]
    for p in np.ndindex(space):
        for i, g in itertools.product(np.ndindex(kernel), range(groups)):
            at = tuple(a * s + b * d for a, b, s, d in zip(p, i, stride, dilation))
            mine = slice(g * n_in, (g + 1) * n_in)
            y[(slice(None), *at, slice(g * n_out, (g + 1) * n_out))] += x[(slice(None), *p, mine)] @ w[i][:, mine].T
    return y[(slice(None), *(slice(a, n - b) for n, (a, b) in zip(whole, padding)))]


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.repeats
@pytest.mark.in_turn
def test_every_kind_of_window_passes_and_has_the_value_of_the_sum(name):
    (args, options, shape), dims = SHAPES[name], len(SHAPES[name][2]) - 2
    layer, params, x = made(args, options, shape)
    nnjax.check_layer(layer, params, x, **QUICK).raise_if_failed()
    one = {n: options.get(n, d) for n, d in (("stride", 1), ("dilation", 1), ("output_padding", 0))}
    stride, dilation, more = ((v,) * dims if isinstance(v, int) else v for v in one.values())
    y = layer.fwd(params, x)[0]
    kernel = params.w.shape[:dims]
    total = [(n - 1) * s + (k - 1) * d + 1 - m for n, s, k, d, m in zip(shape[1:], stride, kernel, dilation, y.shape[1:])]
    padding = options.get("padding", "SAME")
    if isinstance(padding, str):  # so many places are taken away in all, half of them before; or added, at the end
        pairs = [(max(t, 0) // 2, t - max(t, 0) // 2) for t in total]
        more = tuple(max(-b, 0) for _, b in pairs)
        pairs = [(a, max(b, 0)) for a, b in pairs]
    else:
        pairs = (
            [(padding,) * 2] * dims if isinstance(padding, int) else [p if isinstance(p, tuple) else (p, p) for p in padding]
        )
    expected = written_out(*(np.asarray(a, np.float64) for a in (x, params.w)), stride, pairs, more, dilation,
                           options.get("groups", 1))  # fmt: skip
    expected = expected if params.b is None else expected + np.asarray(params.b)
    assert y.shape == expected.shape
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("lead", [(), (0,), (1,), (2, 3)], ids=str)
@pytest.mark.repeats
@pytest.mark.in_turn
def test_leading_axes(lead):
    args, options, shape = SHAPES["groups"]
    layer, params, x = made(args, options, (*lead, *shape[1:]))
    assert not nnjax.check_layer(layer, params, x, **QUICK).failures


@pytest.mark.parametrize("name", ["1-D", "groups", "output padding"])
@pytest.mark.slow
@pytest.mark.in_turn
def test_other_transforms_pass(name):
    nnjax.check_layer(*made(*SHAPES[name]), **OTHERS).raise_if_failed()


@pytest.mark.parametrize("padding", ["SAME", "VALID", 1])
def test_it_is_the_transpose_of_the_convolution_with_the_same_kernel(padding, x64):
    """Its value is the x-cotangent of conv, and its own x-cotangent the value of conv."""
    how = {"stride": 2, "padding": padding, "groups": 2, "bias": False}
    forth, back = nnjax.conv(6, 4, (3, 2), **how), nnjax.conv_transpose(4, 6, (3, 2), **how)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((2, 3, 4, 4)))
    params = back.init(jax.random.key(0))
    params = params._replace(w=params.w.astype(float))
    y, residuals = back.fwd(params, x)
    ct_y = jnp.asarray(rng.standard_normal(y.shape))
    image, kept = forth.fwd(params, ct_y)  # an image of the size that y has
    np.testing.assert_allclose(back.bwd(residuals, ct_y)[1], image, atol=1e-12)
    np.testing.assert_allclose(forth.bwd(kept, x)[1], y, atol=1e-12)
    np.testing.assert_allclose(forth.bwd(kept, x)[0].w, back.bwd(residuals, ct_y)[0].w, atol=1e-12)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 2, 4])
def test_same_and_valid_are_those_of_lax(padding, stride, kernel):
    x, w = hard(np.random.default_rng(0), (2, 5, 3)), hard(np.random.default_rng(1), (kernel, 2, 3))
    ours = nnjax.ops.conv_transpose(x, w, stride=stride, padding=padding)
    theirs = lax.conv_transpose(
        x, jnp.flip(w, 0).swapaxes(1, 2), (stride,), padding, dimension_numbers=("NWC", "WIO", "NWC")
    )  # fmt: skip
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_kernel_turned_around_in_the_backward_is_rejected():
    layer, params, x = made((2, 3, (3, 2)), {"padding": 0}, (3, 4, 3, 2))

    def bwd(residuals, ct_y):
        params, x = residuals
        turned = nnjax.conv(3, 2, (3, 2), padding="VALID", bias=False)
        ct_params, _ = layer.bwd(residuals, ct_y)
        return ct_params, turned.apply(params._replace(w=jnp.flip(params.w, (0, 1)), b=None), ct_y)

    report = nnjax.check_layer(layer._replace(bwd=bwd), params, x, **QUICK)
    assert {row.leaf for row in report.failures} == {"x"}


@pytest.mark.parametrize(
    ("args", "options", "words"),
    [
        ((3, 4, 3), {"groups": 2}, "groups must divide .*groups=2"),
        ((2, 4, 0), {}, "kernel must be a positive int"),
        ((2, 4, 3), {"stride": 2, "padding": 1, "output_padding": 2}, r"output_padding .*stride \(2,\).*got 2"),
        ((2, 4, 3), {"stride": 2, "padding": 1, "output_padding": (1, 1)}, r"output_padding .*got \(1, 1\)"),
        ((2, 4, 3), {"stride": 2, "padding": 1, "output_padding": -1}, "output_padding .*got -1"),
        ((2, 4, 3), {"stride": 2, "padding": 1, "output_padding": True}, "output_padding .*got True"),
        ((2, 4, 3), {"stride": 2, "output_padding": 1}, 'output_padding goes with .*"SAME"'),
        ((2, 4, 3), {"padding": -1}, "padding must be"),
    ],
    ids=str,
)
def test_arguments_that_do_not_fit_are_refused(args, options, words):
    with pytest.raises(ValueError, match=f"conv_transpose: {words}"):
        nnjax.conv_transpose(*args, **options)


def test_inputs_that_do_not_fit_are_refused():
    layer = nnjax.conv_transpose(2, 3, (3, 3), padding=2)
    params = layer.init(jax.random.key(0))
    assert params.w.shape == (3, 3, 3, 2)
    with pytest.raises(
        ValueError, match=r"conv_transpose: x must have shape \(..., height, width, 2\).*got float32 \(2, 5, 5\)"
    ):
        layer.apply(params, jnp.zeros((2, 5, 5)))
    with pytest.raises(ValueError, match=r"conv_transpose: .*place.*\(1, 2, 5, 2\).*pad less"):
        layer.apply(params, jnp.zeros((1, 2, 5, 2)))
    with pytest.raises(TypeError, match=r"conv_transpose: x .*floating"):
        layer.apply(params, jnp.zeros((1, 5, 5, 2), jnp.int32))
    with pytest.raises(TypeError, match=r"conv_transpose: x .*float16"):
        layer.apply(params, jnp.zeros((1, 5, 5, 2), jnp.float16))
    with pytest.raises(TypeError, match="conv_transpose: params must be"):
        layer.fwd((params.w, params.b), jnp.zeros((1, 5, 5, 2)))
    with pytest.raises(ValueError, match=r"conv_transpose: w must have shape"):
        layer.apply(params._replace(w=params.w[0]), jnp.zeros((1, 5, 5, 2)))
