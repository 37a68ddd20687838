"""PyTorch's own samples of its operations (OpInfo), in float64: output and gradients against ours, where we support them."""

import math
import warnings
from collections import Counter
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax import layers, ops
from nnjax.layer import as_custom_vjp

pytestmark = pytest.mark.slow
MOST = 1e-10  # relative to the size of the compared numbers


class CannotExpress(Exception):
    """A sample with an option that nnjax does not have; the message is the option."""


def without(**options) -> None:
    """Raise for the first option with a value that has an effect."""
    for name, (value, nothing) in options.items():
        if value != nothing:
            raise CannotExpress(name)


def call(layer, params, x):
    return as_custom_vjp(layer)(params, x)


def channels_last(x):
    return jnp.moveaxis(x, 1, -1)


def channels_first(x):
    return jnp.moveaxis(x, -1, 1)


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


def _scaled(n, scale, offset):
    return layers.norm.NormParams(jnp.ones(n) if scale is None else scale, offset)


def layer_norm(x, shape, weight=None, bias=None, eps=1e-5):
    without(**{"a negative eps": (eps <= 0, False)})
    n = math.prod(shape)
    flat = [None if a is None else a.reshape(n) for a in (weight, bias)]
    params = _scaled(n, flat[0], jnp.zeros(n) if bias is None else flat[1])
    return call(nnjax.layer_norm(n, eps=eps), params, x.reshape(*x.shape[: x.ndim - len(shape)], n)).reshape(x.shape)


def rms_norm(x, shape, weight=None, eps=None):
    eps = np.finfo(np.float64).eps if eps is None else eps
    without(**{"a negative eps": (eps <= 0, False)})
    n = math.prod(shape)
    params = _scaled(n, None if weight is None else weight.reshape(n), None)
    return call(nnjax.rms_norm(n, eps=float(eps)), params, x.reshape(*x.shape[: x.ndim - len(shape)], n)).reshape(x.shape)


def group_norm(x, groups, weight=None, bias=None, eps=1e-5):
    without(**{"a negative eps": (eps <= 0, False)})
    n = x.shape[1]
    params = _scaled(n, weight, jnp.zeros(n) if bias is None else bias)
    spread = channels_last(x)
    flat = spread.reshape(x.shape[0], math.prod(x.shape[2:]), 1, n)  # an image, whose height is the number of places
    return channels_first(call(nnjax.group_norm(groups, n, eps=eps), params, flat).reshape(spread.shape))


def batch_norm(x, mean, var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    without(training=(training, True), **{"a negative eps": (eps <= 0, False)})
    without(**{"x without channels": (x.ndim < 2, False)})
    n = x.shape[1]
    norm = nnjax.batch_norm(n, eps=eps)
    given = {"scale": jnp.ones(n) if weight is None else weight, "offset": jnp.zeros(n) if bias is None else bias}
    params = norm.init(jax.random.key(0))._replace(**given)
    return channels_first(call(norm, params, channels_last(x)))


def _reduced(losses: Callable, weights, total, reduction: str, shape):
    """By the weighted mean: the mean, the sum, or each alone."""
    if reduction == "none":
        each = [losses(slice(i, i + 1), jnp.ones(1)) * weights[i] for i in range(len(weights))]
        return jnp.stack(each).reshape(shape) if each else jnp.zeros(shape)
    value = losses(slice(None), weights) * weights.sum()
    return value if reduction == "sum" else value / total


def cross_entropy(y, t, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0):
    without(
        **{
            "soft targets": (jnp.issubdtype(t.dtype, jnp.floating), False),
            "smoothing of weighted classes": (weight is not None and label_smoothing > 0, False),
        }
    )
    scores = channels_last(y) if y.ndim > 1 else y[None]
    scores, labels = scores.reshape(-1, scores.shape[-1]), t.reshape(-1)
    kept = labels != ignore_index
    labels = jnp.where(kept, labels, 0)
    weights = jnp.where(kept, jnp.ones(labels.shape) if weight is None else weight[labels], 0.0)
    loss = nnjax.softmax_cross_entropy(label_smoothing=label_smoothing)
    each = lambda at, w: call(loss, (), (scores[at], labels[at], w))  # noqa: E731
    return _reduced(each, weights, weights.sum(), reduction, t.shape)


def elementwise(make: Callable) -> Callable:
    def run(y, t, weight=None, reduction="mean", pos_weight=None):
        without(**{"pos_weight": (pos_weight is None, True), "shapes that are broadcast": (y.shape, t.shape)})
        weights = jnp.ones(y.size) if weight is None else jnp.broadcast_to(weight, y.shape).reshape(-1)
        rows = [a.reshape(-1, 1) for a in (y, t)]
        each = lambda at, w: call(make(), (), (rows[0][at], rows[1][at], w))  # noqa: E731
        return _reduced(each, weights, y.size, reduction, y.shape)

    return run


def attention(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
    s, t = q.shape[-2], k.shape[-2]
    without(
        dropout_p=(dropout_p, 0.0),
        attn_mask=(attn_mask is None, True),
        scale=(scale, None),
        **{
            "is_causal, of other lengths": (is_causal and s != t, False),
            "values of other features": (v.shape[-1], k.shape[-1]),
            "batches that are broadcast": (q.shape[:-3], k.shape[:-3]),
        },
    )
    heads_last = [jnp.swapaxes(x, -3, -2) if x.ndim > 3 else x[..., None, :] for x in (q, k, v)]
    y = ops.attention(*heads_last, causal=is_causal)
    return jnp.swapaxes(y, -3, -2) if q.ndim > 3 else y[..., 0, :]


def linear(x, w, b=None):
    dense = nnjax.dense(w.shape[1], w.shape[0], bias=b is not None)
    return call(dense, layers.DenseParams(w.T, b), x)


def embedding(w, ids, padding_idx=None, max_norm=None, norm_type=2.0, scale_grad_by_freq=False, sparse=False):
    without(
        padding_idx=(padding_idx, None), max_norm=(max_norm, None), scale_grad_by_freq=(scale_grad_by_freq, False)
    )  # sparse: another storage of the same gradient
    layer = nnjax.embedding(*w.shape)
    return call(layer, type(layer.init(jax.random.key(0)))(w), ids)


def softmax(x, dim=-1, dtype=None):
    without(dtype=(dtype, None))
    if x.ndim == 0:
        return call(nnjax.layers.softmax(), (), x[None])[0]
    return jnp.moveaxis(call(nnjax.layers.softmax(), (), jnp.moveaxis(x, dim, -1)), -1, dim)


def pointwise(make: Callable) -> Callable:
    return lambda x, **options: call(make(**options), (), x)


def gelu(x, approximate="none"):
    return call(nnjax.gelu(approximate=approximate == "tanh"), (), x)


def leaky_relu(x, negative_slope=0.01, inplace=False):
    return call(nnjax.leaky_relu(negative_slope), (), x)


OURS = {
    "nn.functional.conv1d": conv,
    "nn.functional.conv2d": conv,
    "nn.functional.max_pool1d": pool(nnjax.max_pool, 1),
    "nn.functional.max_pool2d": pool(nnjax.max_pool, 2),
    "nn.functional.avg_pool1d": pool(nnjax.avg_pool, 1),
    "nn.functional.avg_pool2d": pool(nnjax.avg_pool, 2),
    "nn.functional.layer_norm": layer_norm,
    "nn.functional.rms_norm": rms_norm,
    "nn.functional.group_norm": group_norm,
    "nn.functional.batch_norm": batch_norm,
    "nn.functional.cross_entropy": cross_entropy,
    "nn.functional.mse_loss": elementwise(nnjax.mean_squared_error),
    "nn.functional.binary_cross_entropy_with_logits": elementwise(nnjax.binary_cross_entropy),
    "nn.functional.scaled_dot_product_attention": attention,
    "nn.functional.linear": linear,
    "nn.functional.embedding": embedding,
    "nn.functional.relu": pointwise(nnjax.relu),
    "nn.functional.leaky_relu": leaky_relu,
    "nn.functional.silu": pointwise(nnjax.silu),
    "nn.functional.gelu": gelu,
    "sigmoid": pointwise(nnjax.sigmoid),
    "tanh": pointwise(nnjax.tanh),
    "softmax": softmax,
}


@pytest.fixture(scope="module")
def database():
    pytest.importorskip("torch")
    pytest.importorskip("expecttest")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.testing._internal.common_methods_invocations import op_db
    return {op.name: op for op in op_db if not op.variant_test_name}


@pytest.mark.parametrize("name", OURS)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.in_turn
def test_samples_of_pytorch_give_the_same_output_and_gradients(database, name, capsys):
    import torch

    torch.manual_seed(0)
    op, agreed, left = database[name], 0, Counter()
    with jax.enable_x64(True):
        for number, sample in enumerate(op.sample_inputs("cpu", torch.float64, requires_grad=True)):
            try:
                _same(op, OURS[name], sample, f"{name}, sample {number}")
            except CannotExpress as option:
                left[str(option)] += 1
            else:
                agreed += 1
    with capsys.disabled():
        without_us = ", ".join(f"{option} {n}" for option, n in left.most_common())
        print(f"\n{name}: {agreed} agree" + (f"; not expressible: {without_us}" if left else ""))
    assert agreed > 0


def _same(op, ours: Callable, sample, where: str) -> None:
    import torch

    given = [sample.input, *sample.args, *sample.kwargs.values()]
    tensors = [x for x in given if torch.is_tensor(x)]
    places = {id(x): i for i, x in enumerate(tensors)}
    floats = [i for i, x in enumerate(tensors) if x.is_floating_point()]
    arrays = [jnp.asarray(x.detach().resolve_conj().numpy()) for x in tensors]

    def run(some):
        values = dict(zip(floats, some))

        def of(x):
            return x if not torch.is_tensor(x) else values.get(places[id(x)], arrays[places[id(x)]])

        return ours(of(sample.input), *map(of, sample.args), **{name: of(x) for name, x in sample.kwargs.items()})

    y, vjp = jax.vjp(run, [arrays[i] for i in floats])
    expected = op(sample.input, *sample.args, **sample.kwargs)
    _close(y, expected, where)
    ct = np.random.default_rng(0).standard_normal(y.shape)
    asked = [i for i in floats if tensors[i].requires_grad]
    grads = torch.autograd.grad(expected, [tensors[i] for i in asked], torch.from_numpy(np.asarray(ct)), allow_unused=True)
    (cts,) = vjp(jnp.asarray(ct))
    for i, grad in zip(asked, grads):
        _close(cts[floats.index(i)], torch.zeros_like(tensors[i]) if grad is None else grad, f"{where}, tensor {i}")


def _close(ours, theirs, where: str) -> None:
    theirs = theirs.detach().to_dense().numpy() if theirs.is_sparse else theirs.detach().numpy()
    assert ours.shape == theirs.shape, f"{where}: {ours.shape} against {theirs.shape}"
    finite = np.isfinite(theirs)
    np.testing.assert_array_equal(np.where(finite, 0, ours), np.where(finite, 0, theirs), err_msg=where)
    scale = max(np.abs(theirs[finite]).max(initial=0), 1.0)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=MOST * scale, err_msg=where)
