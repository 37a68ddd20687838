"""PyTorch's samples of convolutions and pools."""

from collections.abc import Callable

import jax.numpy as jnp
import pytest

import nnjax
from nnjax import ops

from .samples import agree, call, channels_first, channels_last, without

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def conv(x, w, b=None, stride=1, padding=0, dilation=1, groups=1):
    dims = w.ndim - 2
    batched = x.ndim == dims + 2
    x = x if batched else x[None]
    if isinstance(padding, str):
        padding = padding.upper()
    elif not isinstance(padding, int):
        padding = [(p, p) for p in (padding if len(padding) == dims else padding * dims)]
    each = {"stride": stride, "dilation": dilation}
    each = {name: v if isinstance(v, int) or len(v) == dims else tuple(v) * dims for name, v in each.items()}
    w = jnp.moveaxis(w, (0, 1), (-1, -2))
    y = channels_first(ops.conv(channels_last(x), w, b, padding=padding, groups=groups, **each))
    return y if batched else y[0]


def pool(make: Callable, dims: int) -> Callable:
    def run(x, kernel_size, stride=None, padding=0, *more, **options):
        names = ("ceil_mode", "count_include_pad", "divisor_override") if make is nnjax.avg_pool else ("dilation", "ceil_mode")
        options = {**dict(zip(names, more)), **options}
        ones = (1, (1,), (1,) * dims)
        without(
            padding=(padding in (0, (0,), (0,) * dims), True),
            dilation=(options.get("dilation", 1) in ones, True),
            ceil_mode=(options.get("ceil_mode", False), False),
            return_indices=(options.get("return_indices", False), False),
            divisor_override=(options.get("divisor_override"), None),
        )
        window = (kernel_size,) * dims if isinstance(kernel_size, int) else tuple(kernel_size) * (dims // len(kernel_size))
        stride = (stride,) * dims if isinstance(stride, int) else tuple(stride or window)
        stride = stride * (dims // len(stride))
        y = call(make(window, stride), (), jnp.moveaxis(x, -1 - dims, -1))
        return jnp.moveaxis(y, -1, -1 - dims)

    return run


OURS = {
    "nn.functional.conv1d": conv,
    "nn.functional.conv2d": conv,
    "nn.functional.max_pool1d": pool(nnjax.max_pool, 1),
    "nn.functional.max_pool2d": pool(nnjax.max_pool, 2),
    "nn.functional.avg_pool1d": pool(nnjax.avg_pool, 1),
    "nn.functional.avg_pool2d": pool(nnjax.avg_pool, 2),
}


@pytest.mark.parametrize("name", OURS)
@pytest.mark.in_turn
def test_samples_of_pytorch_give_the_same_output_and_gradients(database, name, capsys):
    agree(database[name], name, OURS[name], capsys)
