"""PyTorch's samples of losses."""

from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
import pytest

import nnjax
from nnjax import ops

from .samples import agree, call, channels_last

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
LEAST = 0.95  # of the samples


def cross_entropy(y, t, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0):
    classes_last = channels_last if y.ndim > 1 else lambda a: a
    t = classes_last(t) if jnp.issubdtype(t.dtype, jnp.floating) else t
    options = {"ignore_index": ignore_index, "reduction": reduction, "label_smoothing": label_smoothing}
    return ops.softmax_cross_entropy(classes_last(y), t, class_weights=weight, **options)


def linear_cross_entropy(x, w, t, *, linear_bias=None, weight=None, reduction="mean", ignore_index=None, label_smoothing=0.0):
    """Tables of more axes are those of many losses of the same rows."""
    options = {
        "ignore_index": -100 if ignore_index is None else ignore_index,
        "reduction": reduction,
        "label_smoothing": label_smoothing,
    }
    if w.ndim == 2:
        return ops.linear_cross_entropy(x, w, t, bias=linear_bias, class_weights=weight, **options)
    scores = jnp.einsum("nd,v...d->nv...", x, w)
    scores = scores if linear_bias is None else scores + jnp.broadcast_to(linear_bias, scores.shape)
    return cross_entropy(scores, t, weight, **options)


def elementwise(make: Callable) -> Callable:
    """Every element is an example: PyTorch divides a mean by their number, whatever they weigh."""

    def run(y, t, weight=None, reduction="mean", **options):
        shape = jnp.broadcast_shapes(y.shape, t.shape)
        y, t, *weights = (jnp.broadcast_to(a, shape).reshape(-1, 1) for a in (y, t, *([] if weight is None else [weight])))
        each = call(make(**options, reduction="none"), (), (y, t, *(w[:, 0] for w in weights)))
        return {"mean": each.mean, "sum": each.sum, "none": lambda: each.reshape(shape)}[reduction]()

    return run


def binary_cross_entropy(y, t, weight=None, reduction="mean", pos_weight=None):
    make = nnjax.binary_cross_entropy
    if pos_weight is None:
        return elementwise(make)(y, t, weight, reduction)
    if weight is None and reduction != "none":
        rows = call(make(pos_weight=pos_weight, reduction=reduction), (), (y, t))
        return rows if reduction == "mean" else rows * y.shape[-1]
    columns = [
        elementwise(partial(make, pos_weight=pos_weight[j : j + 1]))(
            y[:, j], t[:, j], None if weight is None else weight[:, j], "none"
        )
        for j in range(y.shape[1])
    ]
    each = jnp.stack(columns, -1)
    return {"mean": each.mean, "sum": each.sum, "none": lambda: each}[reduction]()


def kl_divergence(y, t, reduction="mean", log_target=False):
    """An example is an element; the rows of a batch where the mean is over them."""
    if reduction == "batchmean":
        rows = call(nnjax.kl_divergence(log_target=log_target, reduction="sum"), (), (y, t))
        return rows / y.shape[0]
    return elementwise(partial(nnjax.kl_divergence, log_target=log_target))(y, t, None, reduction)


OURS = {
    "nn.functional.cross_entropy": cross_entropy,
    "nn.functional.linear_cross_entropy": linear_cross_entropy,
    "nn.functional.mse_loss": elementwise(nnjax.mean_squared_error),
    "nn.functional.huber_loss": elementwise(nnjax.huber_loss),
    "nn.functional.smooth_l1_loss": elementwise(nnjax.smooth_l1_loss),
    "nn.functional.binary_cross_entropy_with_logits": binary_cross_entropy,
    "nn.functional.kl_div": kl_divergence,
}


@pytest.mark.parametrize("name", OURS)
@pytest.mark.in_turn
def test_samples_of_pytorch_give_the_same_output_and_gradients(database, name, capsys):
    if name not in database:
        pytest.skip(f"this PyTorch has no {name}")
    agree(database[name], name, OURS[name], capsys, LEAST)
