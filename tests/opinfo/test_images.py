"""PyTorch's samples of convolutions and pools."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax import ops

from .modules import Module, parameters
from .samples import agree, call, channels_first, channels_last, without

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
LEAST = 0.95


def each(value, dims: int):
    """One number for each axis of space, from a number or a tuple of one or of all."""
    value = (value,) * dims if isinstance(value, int) else tuple(value)
    return value * dims if len(value) == 1 else value


def batched(f: Callable) -> Callable:
    """f of x and w, channels first, where x may lack the axis of the batch."""

    def run(x, w, b=None, stride=1, padding=0, *more, **options):
        dims = w.ndim - 2
        whole = x if x.ndim == dims + 2 else x[None]
        padding = padding if isinstance(padding, str) else each(padding, dims)
        y = f(channels_last(whole), jnp.moveaxis(w, (0, 1), (-1, -2)), b, each(stride, dims), padding, *more, **options)
        return channels_first(y) if x.ndim == dims + 2 else channels_first(y)[0]

    return run


@batched
def conv(x, w, b, stride, padding, dilation=1, groups=1):
    return ops.conv(x, w, b, stride=stride, padding=padding, dilation=each(dilation, len(stride)), groups=groups)


@batched
def conv_transpose(x, w, b, stride, padding, output_padding=0, groups=1, dilation=1):
    dims = len(stride)
    more, dilation = each(output_padding, dims), each(dilation, dims)
    # PyTorch's kernel is (in, out / groups, ...): that of the convolution too, so that it has been moved as conv's is
    return ops.conv_transpose(x, w, b, stride=stride, padding=padding, output_padding=more, dilation=dilation, groups=groups)


def max_pool(dims: int) -> Callable:
    def run(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
        window = each(kernel_size, dims)
        layer = nnjax.max_pool(
            window, each(stride or window, dims), each(padding, dims), dilation=each(dilation, dims), ceil_mode=ceil_mode
        )  # fmt: skip
        return jnp.moveaxis(call(layer, (), jnp.moveaxis(x, -1 - dims, -1)), -1, -1 - dims)

    return run


def avg_pool(dims: int) -> Callable:
    def run(x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None):
        window = each(kernel_size, dims)
        y = ops.avg_pool(
            jnp.moveaxis(x, -1 - dims, -1), window, each(stride or window, dims), each(padding, dims), ceil_mode=ceil_mode,
            count_include_pad=count_include_pad, divisor=divisor_override,
        )  # fmt: skip
        return jnp.moveaxis(y, -1, -1 - dims)

    return run


def adaptive_avg_pool(dims: int) -> Callable:
    def run(x, output_size):
        places = output_size if isinstance(output_size, (tuple, list)) else (output_size,) * dims
        layer = nnjax.adaptive_avg_pool(tuple(places))
        return jnp.moveaxis(call(layer, (), jnp.moveaxis(x, -1 - dims, -1)), -1, -1 - dims)

    return run


class Maximum:
    """PyTorch's max-pool without the places that it returns on request: `test_the_places_of_the_maxima_agree` has those."""

    def __init__(self, op):
        self.op, self.sample_inputs = op, op.sample_inputs

    def __call__(self, x, **options):
        return self.op(x, **{**options, "return_indices": False})


OURS = {
    **{f"nn.functional.conv{n}d": conv for n in (1, 2, 3)},
    **{f"nn.functional.conv_transpose{n}d": conv_transpose for n in (1, 2, 3)},
    **{f"nn.functional.max_pool{n}d": max_pool(n) for n in (1, 2, 3)},
    **{f"nn.functional.avg_pool{n}d": avg_pool(n) for n in (1, 2, 3)},
    **{f"nn.functional.adaptive_avg_pool{n}d": adaptive_avg_pool(n) for n in (1, 2, 3)},
}


@pytest.mark.parametrize("name", OURS)
@pytest.mark.in_turn
def test_samples_of_pytorch_give_the_same_output_and_gradients(database, name, capsys):
    op = Maximum(database[name]) if "max_pool" in name else database[name]
    agree(op, name, OURS[name], capsys, LEAST)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_the_places_of_the_maxima_agree(dims):
    """With ties and windows of -inf: PyTorch's number of a place in x, from the number of the entry in the window."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    space = (7, 6, 5)[:dims]
    x = np.where(rng.random((2, *space, 3)) < 0.4, -np.inf, rng.integers(0, 3, (2, *space, 3)))
    window, stride, padding = (3, 2, 3)[:dims], (2, 1, 2)[:dims], (1, 1, 1)[:dims]
    for ceil_mode, dilation in ((False, 1), (True, 1), (False, 2)):
        layer = nnjax.max_pool(window, stride, padding, dilation=dilation, ceil_mode=ceil_mode)
        with jax.enable_x64(True):
            y, (where, _) = layer.fwd((), jnp.asarray(x))
        how = {"dilation": dilation, "ceil_mode": ceil_mode, "return_indices": True}
        pool = getattr(torch.nn.functional, f"max_pool{dims}d")
        theirs, indices = pool(torch.from_numpy(np.moveaxis(x, -1, 1)), window, stride, padding, **how)
        np.testing.assert_array_equal(np.moveaxis(y, -1, 1), theirs.numpy())
        entry = np.unravel_index(np.moveaxis(where, -1, 1), window)
        starts = np.meshgrid(*(np.arange(n) * s - p for n, s, p in zip(y.shape[1:-1], stride, padding)), indexing="ij")
        found = np.ravel_multi_index([at + dilation * i for at, i in zip(np.broadcast_arrays(*starts), entry)], space)
        # in three dimensions PyTorch names a place outside of a window where all is -inf
        known = np.isfinite(np.moveaxis(y, -1, 1)) if dims == 3 else True
        np.testing.assert_array_equal(np.where(known, found, -1), np.where(known, indices.numpy(), -1))


def module(f: Callable) -> Callable:
    """f(x, w, b, ...) from a module of PyTorch and its parameters."""

    def run(m, x, **options):
        p, options = parameters(options)
        without(**{"padding by copies": (m.padding_mode, "zeros")})
        output = {"output_padding": m.output_padding} if m.transposed else {}
        y = f(x, p["weight"], p.get("bias"), m.stride, m.padding, groups=m.groups, dilation=m.dilation, **output)
        return y.ravel()

    return run


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose"])
def test_samples_of_the_modules_agree(kind, dims, capsys):
    pytest.importorskip("torch")
    ours = conv_transpose if kind == "ConvTranspose" else conv
    agree(Module(f"{kind}{dims}d"), f"{kind}{dims}d", module(ours), capsys)


def pooled(m, x, **options):
    assert not options
    dims = int(type(m).__name__[-2])
    if "Adaptive" in type(m).__name__:
        return adaptive_avg_pool(dims)(x, m.output_size).ravel()
    how = (m.kernel_size, m.stride, m.padding)
    if "Max" in type(m).__name__:
        return max_pool(dims)(x, *how, m.dilation, m.ceil_mode).ravel()
    return avg_pool(dims)(x, *how, m.ceil_mode, m.count_include_pad, getattr(m, "divisor_override", None)).ravel()


class Pooling(Module):
    """A module of PyTorch that pools, without the places of its maxima."""

    def __call__(self, module, *inputs, **options):
        module.return_indices = False
        return super().__call__(module, *inputs, **options)


@pytest.mark.parametrize("kind", ["MaxPool", "AvgPool", "AdaptiveAvgPool"])
def test_samples_of_the_modules_of_pools_agree(kind, capsys):
    pytest.importorskip("torch")
    for dims in (1, 2, 3):
        agree(Pooling(f"{kind}{dims}d"), f"{kind}{dims}d", pooled, capsys, LEAST)
