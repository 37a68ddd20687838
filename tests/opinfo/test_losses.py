"""PyTorch's samples of losses."""

from collections.abc import Callable

import jax.numpy as jnp
import pytest

import nnjax

from .samples import agree, call, channels_last, without

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


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


OURS = {
    "nn.functional.cross_entropy": cross_entropy,
    "nn.functional.mse_loss": elementwise(nnjax.mean_squared_error),
    "nn.functional.binary_cross_entropy_with_logits": elementwise(nnjax.binary_cross_entropy),
}


@pytest.mark.parametrize("name", OURS)
@pytest.mark.in_turn
def test_samples_of_pytorch_give_the_same_output_and_gradients(database, name, capsys):
    agree(database[name], name, OURS[name], capsys)
