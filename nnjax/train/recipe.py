"""From names, as on a command line, to what `fit` takes."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import optax

from .. import layers, losses, nielsen
from ..errors import expect_positive, unknown_name
from ..grad import ValueAndGrad, add_l2, reference_value_and_grad, value_and_grad
from ..layer import Layer
from ..models import mlp
from .dataset import Dataset
from .fit import one_hot

ACTIVATIONS: dict[str, Callable[[], Layer]] = {
    name: getattr(layers, name) for name in ("sigmoid", "tanh", "relu", "leaky_relu", "elu", "gelu", "silu", "softplus")
}
LOSSES: dict[str, Callable[[], Layer]] = {
    name: getattr(losses, name) for name in ("softmax_cross_entropy", "binary_cross_entropy", "mean_squared_error")
}
COSTS = {"quadratic": nielsen.quadratic, "cross_entropy": nielsen.cross_entropy}
OPTIMIZERS = tuple(
    name
    for name in ("sgd", "adam", "adamw", "adagrad", "rmsprop", "nadam", "lamb", "lion", "radam", "yogi", "adabelief")
    if hasattr(optax, name)
)
MODELS = ("mlp", "nielsen")


class Recipe(NamedTuple):
    """params: initial; hand and reference: two functions of one signature; predict, encode: see `fit`."""

    params: Any
    hand: ValueAndGrad
    reference: ValueAndGrad
    predict: Callable[[Any, Any], Any]
    encode: Callable | None
    loss: str


def named(what: str, name: str, table: Any) -> Any:
    """table[name], or the error that names the nearest entry."""
    if name not in table:
        raise unknown_name(what, name, table)
    return table[name] if isinstance(table, dict) else name


def make_optimizer(name: str, learning_rate: float) -> optax.GradientTransformation:
    """optax's optimizer of this name. Raises ValueError for one that is not known, or a rate that is not positive."""
    if not learning_rate > 0:
        raise ValueError(f"learning rate must be positive, got {learning_rate}; 0.001 suits adam, 0.1 sgd.")
    return getattr(optax, named("optimizer", name, OPTIMIZERS))(learning_rate)


def make_recipe(
    model: str, data: Dataset, *, hidden: Sequence[int], activation: str | None, loss: str | None, l2: float, key: jax.Array
) -> Recipe:
    """The model of this name for this data. Raises ValueError for names that are not known and sizes that do not fit.

    mlp: dense layers with `activation` between them. nielsen: the book's sigmoid network, by `nielsen.backprop`.
    l2 is the book's lambda: the cost grows by (l2 / 2n) sum w^2, n the number of training examples.
    """
    named("model", model, MODELS)
    if not l2 >= 0:
        raise ValueError(f"l2 must be at least 0, got {l2}; 0 turns it off.")
    expect_positive("hidden", **{f"layer {i}": n for i, n in enumerate(hidden)})
    sizes = [data.train.x.shape[1], *hidden, data.classes]
    n = len(data.train.y)
    if model == "nielsen":
        if activation not in (None, "sigmoid"):
            raise ValueError(
                f"the model nielsen has sigmoid neurons, got activation {activation!r}; use the model mlp for others."
            )
        return _nielsen(sizes, loss or "quadratic", l2, n, data.classes, key)
    net = mlp(sizes, named("activation", activation or "relu", ACTIVATIONS)())
    loss = loss or "softmax_cross_entropy"
    chosen = named("loss", loss, LOSSES)()
    return Recipe(
        net.init(key),
        add_l2(value_and_grad(net, chosen), l2 / n),
        add_l2(reference_value_and_grad(net, chosen), l2 / n),
        net.apply,
        None if loss == "softmax_cross_entropy" else one_hot(data.classes),
        loss,
    )


def _nielsen(sizes, loss, l2, n, classes, key) -> Recipe:
    cost = named("loss of the model nielsen", loss, COSTS)
    objective = nielsen.objective(cost, l2, n)

    def reference(params, x, y, *, weights=None, key=None):
        return jax.value_and_grad(objective)(params, x, y, weights)

    def predict(params, x):
        return nielsen.feedforward(params, x.T).T

    hand = nielsen.value_and_grad(cost, l2, n)
    return Recipe(nielsen.init(key, sizes), hand, reference, predict, one_hot(classes), loss)
