"""The cases of losses."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import losses
from .case import Case
from .inputs import example_weights, hard, unseen


def targets(n: int, weighted: bool) -> Callable[..., Any]:
    def inputs(rng, lead):
        y, t = hard(rng, (*lead, n)), jnp.asarray(rng.integers(0, 3, (*lead, n)).astype(np.float32) / 2)
        if not weighted:
            return y, t
        weights = example_weights(rng, lead)
        return unseen(y, weights, jnp.nan), unseen(t, weights, jnp.inf), weights

    return inputs


def classes(n: int, weighted: bool, absent: bool = False, dtype: Any = np.int32) -> Callable[..., Any]:
    """absent: some classes that are not a label have the logit -inf."""

    def inputs(rng, lead):
        y, labels = hard(rng, (*lead, n)), jnp.asarray(rng.integers(0, n, lead).astype(dtype))
        if absent:
            own = np.asarray(labels)[..., None] == np.arange(n)
            y = jnp.where((rng.random(y.shape) < 0.2) & ~own, -jnp.inf, y)
        if not weighted:
            return y, labels
        weights = example_weights(rng, lead)
        return unseen(y, weights, jnp.nan), labels, weights

    return inputs


def fused(vocab: int, n: int, weighted: bool) -> Callable[..., Any]:
    def inputs(rng, lead):
        h, w = jnp.asarray(rng.standard_normal((*lead, n)).astype(np.float32)), hard(rng, (vocab, n))
        labels = jnp.asarray(rng.integers(0, min(vocab, 256), lead).astype(np.uint8))
        if not weighted:
            return (h, w), labels
        weights = example_weights(rng, lead)
        return (unseen(h, weights, jnp.nan), w), labels, weights

    return inputs


def _floats(rng, *shape: int) -> jax.Array:
    return jnp.asarray(rng.standard_normal(shape).astype(np.float32))


def _probabilities(rng, *shape: int) -> np.ndarray:
    """Each row sums to 1, with zeros in it."""
    q = rng.random(shape) * (rng.random(shape) < 0.7) + np.eye(shape[-1])[rng.integers(0, shape[-1], shape[:-1])]
    return (q / q.sum(-1, keepdims=True)).astype(np.float32)


def _soft(n: int) -> Callable[..., Any]:
    """Some classes without probability have the logit -inf."""

    def inputs(rng, lead):
        y, q, weights = hard(rng, (*lead, n)), _probabilities(rng, *lead, n), example_weights(rng, lead)
        y = jnp.where(jnp.asarray((rng.random(q.shape) < 0.5) & (q == 0)), -jnp.inf, y)
        return unseen(y, weights, jnp.nan), unseen(jnp.asarray(q), weights, jnp.inf), weights

    return inputs


def _ignored(n: int) -> Callable[..., Any]:
    """int8 labels, a third of them -100 over rows that are no numbers."""

    def inputs(rng, lead):
        labels = np.where(rng.random(lead) < 0.3, -100, rng.integers(0, n, lead)).astype(np.int8)
        if labels.size > 1:
            labels.flat[-1] = -100
        return unseen(hard(rng, (*lead, n)), jnp.asarray(labels != -100, jnp.float32), jnp.nan), jnp.asarray(labels)

    return inputs


def _distributions(n: int, logarithms: bool) -> Callable[..., Any]:
    def inputs(rng, lead):
        y, q = jnp.log(jnp.asarray(_probabilities(rng, *lead, n)) + 0.01), jnp.asarray(_probabilities(rng, *lead, n))
        return y, jnp.log(q) if logarithms else q

    return inputs


def _biased(vocab: int, n: int, probabilities: bool) -> Callable[..., Any]:
    """Rows of a fused loss, some of them ignored over what is no number; of one class without a target the bias is -inf."""

    def inputs(rng, lead):
        h, w, b = _floats(rng, *lead, n), hard(rng, (vocab, n)), _floats(rng, vocab).at[-1].set(-jnp.inf)
        weights = example_weights(rng, lead)
        h = unseen(h, weights, jnp.nan)
        if probabilities:
            q = np.concatenate([_probabilities(rng, *lead, vocab - 1), np.zeros((*lead, 1), np.float32)], -1)
            return (h, w, b), unseen(jnp.asarray(q), weights, jnp.inf), weights
        labels = np.where(rng.random(lead) < 0.2, -1, rng.integers(0, vocab - 1, lead)).astype(np.int16)
        return (unseen(h, jnp.asarray(labels != -1, jnp.float32), jnp.inf), w, b), jnp.asarray(labels), weights

    return inputs


def _taught(vocab: int, n: int, m: int) -> Callable[..., Any]:
    """A class that neither has, by a bias of -inf; the teacher has m features."""

    def inputs(rng, lead):
        b = [_floats(rng, vocab).at[1].set(-jnp.inf) for _ in range(2)]
        weights = example_weights(rng, lead)
        h, taught = unseen(_floats(rng, *lead, n), weights, jnp.nan), unseen(_floats(rng, *lead, m), weights, jnp.nan)
        return (h, _floats(rng, vocab, n), b[0]), (taught, _floats(rng, vocab, m), b[1]), weights

    return inputs


def _pairs(vocab: int, n: int, tokens: int, table: bool) -> Callable[..., Any]:
    """Answers of unequal length; the reference as a model of its own, or as log-probabilities."""

    def inputs(rng, lead):
        shape = *lead, 2, tokens
        labels = rng.integers(0, vocab, shape)
        labels[..., 0, -1:] = -100
        h = unseen(_floats(rng, *shape, n), jnp.asarray(labels != -100, jnp.float32), jnp.nan)
        reference = (_floats(rng, *shape, n), _floats(rng, vocab, n)) if table else -3 + _floats(rng, *lead, 2)
        weights = () if table else (example_weights(rng, lead),)
        return (h, _floats(rng, vocab, n)), (jnp.asarray(labels.astype(np.int32)), reference), *weights

    return inputs


CLASS_WEIGHTS = (0.5, 2.0, -0.25, 1.0, 0.75)


def _given() -> list[Case]:
    """Of outputs that are given."""
    to_targets = (losses.mean_squared_error(), losses.binary_cross_entropy())
    to_classes = (losses.softmax_cross_entropy(), losses.softmax_cross_entropy(label_smoothing=0.1))
    table = []
    for weighted, suffix in ((False, ""), (True, ", weighted")):
        table += [Case(loss.name + suffix, loss, targets(4, weighted)) for loss in to_targets]
        plain, smoothed = to_classes
        narrow = classes(256, True, dtype=np.uint8) if weighted else classes(5, False, absent=True)
        table += [
            Case(plain.name + suffix, plain, narrow),
            Case(f"{smoothed.name}, smoothed{suffix}", smoothed, classes(5, weighted)),
        ]
    options = {"class_weights": CLASS_WEIGHTS, "label_smoothing": 0.2, "z_loss": 0.1, "softcap": 3.0}
    pos_weight = losses.binary_cross_entropy(pos_weight=(0.5, 1.0, 3.0, 0.0), reduction="none")
    return [
        *table,
        Case("softmax_cross_entropy, probabilities", losses.softmax_cross_entropy(z_loss=0.1), _soft(5)),
        Case(
            "softmax_cross_entropy, ignored, class weights, capped, z-loss",
            losses.softmax_cross_entropy(**options),
            _ignored(5),
        ),
        Case(
            "softmax_cross_entropy, none",
            losses.softmax_cross_entropy(class_weights=CLASS_WEIGHTS, reduction="none"),
            _ignored(5),
        ),
        Case("binary_cross_entropy, pos_weight, none", pos_weight, targets(4, True)),
        Case("huber_loss", losses.huber_loss(delta=0.7), targets(4, True)),
        Case("smooth_l1_loss", losses.smooth_l1_loss(beta=0.6, reduction="sum"), targets(4, False)),
        Case("kl_divergence", losses.kl_divergence(), _distributions(5, False)),
        Case("kl_divergence, log target", losses.kl_divergence(log_target=True, reduction="none"), _distributions(5, True)),
    ]


def of_losses() -> list[Case]:
    """Every loss, with its options."""
    plain, capped = losses.linear_cross_entropy(), {"softcap": 3.0, "z_loss": 0.1, "ignore_index": -1}
    return [
        *_given(),
        Case("linear_cross_entropy", plain, fused(7, 3, False)),
        Case("linear_cross_entropy, weighted", plain, fused(7, 3, True)),
        Case("linear_cross_entropy, many classes", plain, fused(257, 2, True)),
        Case(
            "linear_cross_entropy, bias, capped, none",
            losses.linear_cross_entropy(reduction="none", **capped),
            _biased(6, 3, False),
        ),
        Case(
            "linear_cross_entropy, probabilities", losses.linear_cross_entropy(class_weights=CLASS_WEIGHTS), _biased(5, 3, True)
        ),
        Case("linear_kl_divergence", losses.linear_kl_divergence(temperature=2.0), _taught(6, 3, 2)),
        Case("linear_jensen_shannon", losses.linear_jensen_shannon(beta=0.3), _taught(6, 3, 2)),
        Case(
            "linear_jensen_shannon, reverse, none", losses.linear_jensen_shannon(beta=1.0, reduction="none"), _taught(5, 2, 2)
        ),
        Case("linear_dpo", losses.linear_dpo(beta=0.5, label_smoothing=0.1), _pairs(6, 3, 3, True)),
        Case("linear_dpo, given reference", losses.linear_dpo(beta=0.5), _pairs(6, 3, 2, False)),
        Case("linear_dpo, long answers", losses.linear_dpo(beta=0.05, label_smoothing=0.1), _pairs(6, 3, 64, False)),
    ]
