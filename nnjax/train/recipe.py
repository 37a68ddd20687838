"""From names, as on a command line, to what `fit` takes."""

import math
import os
from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Any, NamedTuple

import jax

from .. import feedback as back
from .. import losses, nielsen
from ..data.dataset import Dataset
from ..data.images import image_shape
from ..direct import direct_value_and_grad
from ..errors import expect_positive
from ..grad import ValueAndGrad, accumulate, add_l1, add_l2, lower_precision, reference_value_and_grad, value_and_grad
from ..layer import Layer
from ..layers.normalising.running import Running, running_statistics
from ..models.llama import LlamaOptions
from .fit import one_hot
from .placement import ONE_DEVICE, Placement
from .trained.network import ACTIVATIONS, Network, layer_of, layers_after_the_first, named, operators
from .watching.alignment import Aligned
from .watching.finite import first_not_finite
from .watching.scores import as_columns

LOSSES: dict[str, Callable[[], Layer]] = {
    name: getattr(losses, name) for name in ("softmax_cross_entropy", "binary_cross_entropy", "mean_squared_error")
}
NUMBERS = "mean_squared_error"  # the loss for targets that are numbers
COSTS = {"quadratic": nielsen.quadratic, "cross_entropy": nielsen.cross_entropy}
MODELS = ("mlp", "lenet", "resnet", "nielsen")
CHANNELS = {"lenet": (20, 40), "resnet": (8, 16, 32)}  # unless others are given
FEEDBACK = (*back.LOCAL, "direct")


class Recipe(NamedTuple):
    """params: initial; hand and reference: two functions of one signature; predict, encode, where: see `fit`.

    sizes: of every layer, as text; network: makes the model again. aligned: what is compared if something other than the
    transpose carries the error back.
    hand and reference take parameters placed as `placement` says; one_device: the reference for parameters on one device,
    if it differs.  running: of the statistics of batch norms, if the model has any.
    """

    params: Any
    hand: ValueAndGrad
    reference: ValueAndGrad
    predict: Callable[[Any, Any], Any]
    encode: Callable[..., Any] | None
    loss: str
    sizes: str
    network: Network
    where: Callable[..., str] | None = None
    aligned: Aligned | None = None
    placement: Placement = ONE_DEVICE
    one_device: ValueAndGrad | None = None
    running: Running | None = None


class Gradients(NamedTuple):
    """The gradients of a model and its loss, by hand and by jax.grad; placement: of the parameters."""

    hand: ValueAndGrad
    reference: ValueAndGrad
    placement: Placement = ONE_DEVICE


class Mlp(NamedTuple):
    """The arguments that an `mlp` was made from."""

    sizes: Sequence[int]
    activation: Layer


class Gpt(NamedTuple):
    """The arguments that a `gpt` was made from."""

    vocab: int
    context: int
    layers: int
    heads: int
    width: int
    dropout: float = 0.0
    scan: bool = True


class Moe(NamedTuple):
    """The arguments that a `moe` was made from."""

    vocab: int
    context: int
    layers: int
    heads: int
    width: int
    experts: int
    top_k: int
    balance: float
    z: float
    dropout: float = 0.0
    scan: bool = True


Made = Mlp | Gpt | LlamaOptions | Moe  # what a model was made from, of those that can be split over devices


def gradients(model: Layer, loss: Layer, made: Made | None = None) -> Gradients:
    """The gradients on one device, where `made` does not matter."""
    return Gradients(value_and_grad(model, loss), reference_value_and_grad(model, loss))


def make_recipe(
    model: str, data: Dataset, *, hidden: Sequence[int] = (64,), channels: Sequence[int] = (), blocks: int = 1,
    activation: str | None = None, loss: str | None = None, dropout: float = 0.0, l2: float = 0.0, l1: float = 0.0,
    microbatches: int = 1, compute_dtype: str | None = None, feedback: str | Sequence[back.Operator] = "transpose",
    gradients: Callable[[Layer, Layer, Made | None], Gradients] = gradients, key: jax.Array,
) -> Recipe:  # fmt: skip
    """The model of this name for this data. Raises ValueError for unknown names and for sizes that do not fit.

    mlp: dense layers with `activation` between them. lenet: `channels` convolutions and pools, then dense layers, on grey or
    RGB images. resnet: a stage of `blocks` residual blocks for each entry of `channels`, on such images. channels: () for the
    usual ones. nielsen: the book's sigmoid network, by `nielsen.backprop`.  dropout: the share dropped before each dense layer
    of a lenet.  l2 is the book's lambda: the cost grows by (l2 / 2n) sum w^2, n the number of training examples; l1 likewise by
    (l1 / n) sum |w|.  microbatches: split each batch into this many parts; compute_dtype: compute in it, while parameters
    stay in float32. feedback: what carries the error back, by its name in `nnjax.feedback`, or "direct"; or one operator
    for each layer with weights after the first.  gradients(model, loss, made): the gradients on the devices to train on.
    """
    named("model", model, MODELS)
    if isinstance(feedback, str):
        named("feedback", feedback, FEEDBACK)
    for name, value in (("l2", l2), ("l1", l1)):
        if not value >= 0:
            raise ValueError(f"{name} must be at least 0, got {value}; 0 turns it off.")
    expect_positive("hidden", **{f"layer {i}": n for i, n in enumerate(hidden)})
    if dropout and model != "lenet":
        raise ValueError(f"dropout is an option of the model lenet, got it with {model}; leave it out.")
    if model == "resnet" and (microbatches > 1 or feedback != "transpose"):
        raise ValueError(
            f"the model resnet has batch norms, which see a whole batch, and sends the error back by the transpose, got "
            f"{microbatches} microbatches and feedback {feedback!r}; leave them out."
        )
    _expect_loss_for(data, model, loss)
    sizes = [data.train.x.shape[1], *hidden, data.classes]
    n = len(data.train.y)
    if model == "nielsen":
        if activation not in (None, "sigmoid"):
            raise ValueError(
                f"the model nielsen has sigmoid neurons only, got activation {activation!r}; use the model mlp for others."
            )
        made = _nielsen(sizes, loss or "quadratic", l2, n, data.classes, feedback, key)
    else:
        channels = channels or CHANNELS.get(model, ())
        made = _layered(model, data, hidden, channels, blocks, activation, loss, dropout, l2 / n, feedback, gradients, key)

    def whole(f: ValueAndGrad) -> ValueAndGrad:
        f = lower_precision(f, compute_dtype) if compute_dtype else f
        f = accumulate(f, microbatches) if microbatches > 1 else f
        return add_l1(f, l1 / n) if l1 else f

    one = whole(made.one_device) if made.one_device else None
    running = _lowered(made.running, compute_dtype) if made.running and compute_dtype else made.running
    return made._replace(hand=whole(made.hand), reference=whole(made.reference), one_device=one, running=running)


def _expect_loss_for(data: Dataset, model: str, loss: str | None) -> None:
    """Raise ValueError for a model or a loss that is for classes, if the targets are numbers."""
    if not data.regression:
        return
    if model == "nielsen":
        raise ValueError(f"the targets of {data.name!r} are numbers, which the sigmoid outputs of the model nielsen cannot "
                         "reach; use the model mlp.")  # fmt: skip
    if loss not in (None, NUMBERS):
        named("loss", loss, LOSSES)
        raise ValueError(f"the targets of {data.name!r} are numbers, so the loss must be {NUMBERS}, got {loss}; leave out the "
                         "loss (--loss), or, if they are classes, save them as integers from 0.")  # fmt: skip


def initial(init: Callable[[jax.Array], Any], key: jax.Array) -> Any:
    """init(key). Raises ValueError, before any array is made, if the machine does not have enough memory."""
    needed = 2 * sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(jax.eval_shape(init, key)))
    if needed > (have := memory()):
        raise ValueError(
            f"the parameters and their gradient alone take {needed / 2**30:,.0f} GiB, of the machine's {have / 2**30:,.0f}; "
            "make the model smaller."
        )
    return init(key)


def memory() -> float:
    """Bytes of the device's memory, or the machine's; infinite if neither is known."""
    known = jax.local_devices()[0].memory_stats() or {}
    try:
        return known.get("bytes_limit") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return math.inf


def _layered(model, data, hidden, channels, blocks, activation, loss, dropout, l2, feedback, gradients, key) -> Recipe:
    activation = activation or "relu"
    act = named("activation", activation, ACTIVATIONS)()
    pixels = math.prod(data.train.x.shape[1:])
    loss = loss or (NUMBERS if data.regression else "softmax_cross_entropy")
    chosen = named("loss", loss, LOSSES)()
    sizes = [pixels, *hidden, data.outputs]
    encode = as_columns if data.regression else None if loss == "softmax_cross_entropy" else one_hot(data.classes)
    if model == "mlp":
        shape, words, options = (pixels,), str(sizes), {"sizes": sizes}
    else:
        shape = image_shape(f"the model {model}", data)
        words = f"{shape[0]}x{shape[1]}{' RGB' if shape[2] == 3 else ''}, "
    if model == "lenet":
        options = {"classes": data.outputs, "channels": channels, "hidden": hidden, "image": shape, "dropout": dropout}
        words += f"conv {list(channels)}, dense {sizes[1:]}"
    if model == "resnet":
        options = {"classes": data.outputs, "channels": channels, "blocks": blocks, "image": shape}
        words += f"stages {list(channels)}, {blocks} block{'s' if blocks > 1 else ''} each"
    network = Network(model, {**options, "activation": activation})
    sent_back = () if model == "resnet" else operators(feedback, key, layers_after_the_first(network))
    make = partial(layer_of, network)
    net = make() if model == "resnet" else make(feedback=sent_back)

    def on_images(f: ValueAndGrad) -> ValueAndGrad:
        @wraps(f, assigned=())
        def on_rows(params, x, labels, *, weights=None, key=None):
            return f(params, x.reshape(-1, *shape), labels, weights=weights, key=key)

        return on_rows

    direct = feedback == "direct"
    found = gradients(net, chosen, Mlp(sizes, act) if model == "mlp" else None)
    hand = direct_value_and_grad(net, chosen, jax.random.fold_in(key, 1)) if direct else found.hand
    # The true gradient, for comparison: by hand with the transpose; for mirror, whose parameters differ, by jax.grad.
    right = reference_value_and_grad(net, chosen) if feedback == "mirror" else value_and_grad(make(), chosen)
    carried = None if feedback == "transpose" else Aligned(on_images(hand), on_images(right), () if direct else sent_back)
    return Recipe(
        initial(net.init, key),
        add_l2(on_images(hand), l2),
        add_l2(on_images(found.reference), l2),
        lambda params, x: net.apply(params, x.reshape(-1, *shape)),
        encode,
        loss,
        words,
        network,
        lambda params, x, labels, key: first_not_finite(net, chosen, params, x.reshape(-1, *shape), labels, key),
        carried,
        found.placement,
        add_l2(on_images(reference_value_and_grad(net, chosen)), l2) if found.placement is not ONE_DEVICE else None,
        _of_images(running_statistics(net), shape) if model == "resnet" else None,
    )


def _of_images(running: Running, shape: Sequence[int]) -> Running:
    """The same, for rows of pixels."""
    return running._replace(
        update=lambda state, params, x, *, key=None: running.update(state, params, x.reshape(-1, *shape), key=key)
    )


def _lowered(running: Running, dtype: Any) -> Running:
    """The same, with the forward pass in this dtype, as in the gradient, and averages in that of the parameters."""

    def cast(tree):
        return jax.tree.map(lambda a: a.astype(dtype), tree)

    return running._replace(update=lambda state, params, x, *, key=None: running.update(state, cast(params), cast(x), key=key))


def nielsen_predict(params: nielsen.Params, x: jax.Array) -> jax.Array:
    """Outputs of the book's network for rows of images."""
    return nielsen.feedforward(params, x.T).T


def _nielsen(sizes, loss, l2, n, classes, feedback, key) -> Recipe:
    cost = named("loss of the model nielsen", loss, COSTS)
    if feedback in ("direct", "mirror"):
        raise ValueError(f"the model nielsen sends the error back from layer to layer through its own w, got feedback "
                         f"{feedback!r}; use the model mlp.")  # fmt: skip
    objective = nielsen.objective(cost, l2, n)
    sent_back = operators(feedback, key, len(sizes) - 2)

    def reference(params, x, y, *, weights=None, key=None):
        return jax.value_and_grad(objective)(params, x, y, weights)

    hand = nielsen.value_and_grad(cost, l2, n, sent_back)
    bare, right = nielsen.value_and_grad(cost, send_back=sent_back), nielsen.value_and_grad(cost)
    carried = None if feedback == "transpose" else Aligned(bare, right, sent_back)
    network = Network("nielsen", {"sizes": sizes})
    params = initial(lambda key: nielsen.init(key, sizes), key)
    return Recipe(params, hand, reference, nielsen_predict, one_hot(classes), loss, str(sizes), network, None, carried)
