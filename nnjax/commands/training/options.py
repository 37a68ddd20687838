"""The options of `nnjax train`, checked before any work: no data is read, no folder made, nothing compiled."""

import importlib.util
import math
import os
from dataclasses import fields
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from ...errors import expect_positive
from ...train.optimizers import make_optimizer
from ...train.recipe import ACTIVATIONS, COSTS, FEEDBACK, LOSSES, MODELS, named
from .text import EVERY, MODELS_OF_TEXT, TRANSFORMERS

if TYPE_CHECKING:
    from ..train import Train

OF: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("expand", "standardise", "activation", "loss", "trajectory", "target"), MODELS),
    **dict.fromkeys(("hidden", "feedback"), ("mlp", "lenet", "nielsen")),
    **dict.fromkeys(("regression", "standardise_targets"), ("mlp", "lenet", "resnet")),
    **dict.fromkeys(("microbatches", "average"), (*(m for m in MODELS if m != "resnet"), *MODELS_OF_TEXT)),
    **dict.fromkeys(("layers", "width", "context"), MODELS_OF_TEXT),
    "channels": ("lenet", "resnet"),
    "blocks": ("resnet",),
    "dropout": ("lenet", *TRANSFORMERS),
    "heads": TRANSFORMERS,
    "kv_heads": ("llama",),
    "truncate": ("char_rnn",),
    **dict.fromkeys(("experts", "top_k", "balance", "router_z"), ("moe",)),
}  # the models that have each option that some lack
TEXTS = ("tiny_shakespeare",)  # data sets that are texts
COUNTS = ("batch_size", "microbatches", "blocks", "layers", "heads", "width", "context", "experts", "top_k")
SEEDS = 1 << 32  # jax.random.key takes only the lowest 32 bits of a seed
LARGEST = 1 << 31  # sizes and steps are counted in int32
LAYERS = 1000  # of a model for text; each layer of a char_rnn is compiled separately
LONG = 1 << 30  # steps of a schedule that is only tried out
PRECISIONS = ("bfloat16", "float16", "float32")


def expect_options(o: "Train") -> None:
    """Raise ValueError for an option that makes no sense, alone or beside another, whatever the data."""
    text, model = _is_text(o), _model(o)
    _expect_model_for(o.data, text, model)
    _expect_sizes(o)
    _expect_numbers(o)
    _expect_useful(o, model)
    if text:
        _expect_of_text(o, model)
    else:
        _expect_of_images(o, model)
    _expect_saved(o)
    _expect_optimizer(o)


def _is_text(o: "Train") -> bool:
    return o.data.lower().endswith(".txt") or o.data in TEXTS


def _model(o: "Train") -> str:
    return o.model or ("gpt" if _is_text(o) else "mlp")


def is_used(o: "Train", name: str) -> bool:
    """Whether the model of the run has this option."""
    return name not in OF or _model(o) in OF[name]


def _expect_model_for(data: str, text: bool, model: str) -> None:
    """Raise ValueError for a model that is unknown, or made for other data."""
    named("model", model, (*MODELS, *MODELS_OF_TEXT))
    if not text and model in MODELS_OF_TEXT:
        raise ValueError(f"train: the model {model} needs text, got --data {data}; pass --data {TEXTS[0]}, or a .txt file.")
    if text and model in MODELS:
        raise ValueError(f"train: {model} is a model of images and tables, and {data} is a text: add --data digits, or data of "
                         f"your own, or choose --model {', '.join(MODELS_OF_TEXT[:-1])} or {MODELS_OF_TEXT[-1]}.")  # fmt: skip


def _expect_optimizer(o: "Train") -> None:
    if "learning_rate" in o.optimizer_args:
        raise ValueError("train: the learning rate has its own option; pass --learning-rate, not an optimizer argument.")
    optimizer = make_optimizer(
        o.optimizer, o.learning_rate, LONG, arguments=o.optimizer_args, schedule=o.schedule,
        schedule_arguments=o.schedule_args, clip=o.clip, weight_decay=o.weight_decay, average=o.average, skip=o.skip_non_finite,
    )  # fmt: skip
    params = {"w": jax.ShapeDtypeStruct((2, 2), jnp.float32), "b": jax.ShapeDtypeStruct((2,), jnp.float32)}
    try:
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            jax.eval_shape(lambda p: optimizer.update(p, optimizer.init(p), p), params)
    except Exception as error:  # optax checks few arguments: whatever it or JAX raises for a wrong one
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"train: the optimizer {o.optimizer} cannot take a step with these arguments: {reason}; see --optimizer-args and "
            "--schedule-args."
        ) from None


def _expect_useful(o: "Train", model: str) -> None:
    """Raise ValueError for an option that this model does not use."""
    for f in fields(o):
        of = OF.get(f.name, (model,))
        if model not in of and getattr(o, f.name) != f.default:
            alike = [m for m in of if (m in MODELS_OF_TEXT) == (model in MODELS_OF_TEXT)]
            whose = ", ".join(of[:-1]) + " and " * (len(of) > 1) + of[-1]
            if alike:
                other = f"or add --model {alike[0]}"
            elif model in MODELS_OF_TEXT:
                other = f"{model} has --layers and --width for its sizes"
            else:
                other = f"or add --model {of[0]} --data {TEXTS[0]}"
            raise ValueError(
                f"train: --{f.name.replace('_', '-')} is an option of {whose}, got it with {model}; leave it out, {other}."
            )


def _expect_sizes(o: "Train") -> None:
    given = {"epochs": o.epochs, "patience": o.patience, "save_every": o.save_every, "kv_heads": o.kv_heads}
    given |= {"truncate": o.truncate}
    sizes: dict[str, int] = {name: n for name, n in given.items() if n is not None}
    sizes |= {name: getattr(o, name) for name in COUNTS}
    sizes |= {f"hidden layer {i}": n for i, n in enumerate(o.hidden)}
    sizes |= {f"channels of convolution {i}": n for i, n in enumerate(o.channels)}
    expect_positive("train", **sizes)
    counts = {"trajectory": o.trajectory, "skip_non_finite": o.skip_non_finite}
    for name, n in counts.items():
        if not 0 <= n < LARGEST:
            raise ValueError(f"train: {name} must be at least 0 and less than 2**31, got {n}; 0 turns it off.")
    if o.layers > LAYERS:
        raise ValueError(f"train: layers must be at most {LAYERS}, got {o.layers}; use fewer, and a larger --width.")
    if o.batch_size % o.microbatches:
        raise ValueError(
            f"train: a batch of {o.batch_size} cannot be shared among {o.microbatches} equal parts; make --batch-size a "
            "multiple of --microbatches."
        )
    if not 0 <= o.seed < SEEDS:
        raise ValueError(f"train: seed must be from 0 to {SEEDS - 1}, got {o.seed}; pass e.g. --seed 1.")


def _expect_numbers(o: "Train") -> None:
    names = ("learning_rate", "clip", "weight_decay", "l2", "l1", "average", "dropout", "balance", "router_z")
    numbers: dict[str, float | None] = {name.replace("_", " "): getattr(o, name) for name in names}
    for what, args in (("optimizer", o.optimizer_args), ("schedule", o.schedule_args)):
        numbers |= {f"the argument {name} of the {what}": value for name, value in args.items()}
    for name, value in numbers.items():
        if value is not None and not math.isfinite(value):
            raise ValueError(f"train: {name} must be a finite number, got {value}; pass one.")
    for name, value in (("l2", o.l2), ("l1", o.l1), ("balance", o.balance), ("router z", o.router_z)):
        if value < 0:
            raise ValueError(f"train: {name} must be at least 0, got {value}; 0 turns it off.")
    if not 0 <= o.dropout < 1:
        raise ValueError(f"train: dropout must be a share from 0 to less than 1, got {o.dropout}; pass e.g. 0.1.")
    if o.compute_dtype is not None:
        named("--compute-dtype", o.compute_dtype, PRECISIONS)
        if o.grad == "both":
            raise ValueError(
                f"train: --grad both compares gradients in full precision, got --compute-dtype "
                f"{o.compute_dtype}; leave one of them out."
            )


def _expect_of_text(o: "Train", model: str) -> None:
    if model in TRANSFORMERS and o.width % o.heads:
        raise ValueError(f"train: --width must be a multiple of --heads, got {o.width} and {o.heads}; change one of them.")
    if model == "llama" and (o.width // o.heads % 2 or o.heads % (o.kv_heads or o.heads)):
        raise ValueError(
            "train: a llama turns pairs of features and shares keys among heads, so --width / --heads must be even and --heads "
            f"a multiple of --kv-heads, got {o.width}, {o.heads} and {o.kv_heads}; change one."
        )
    if model == "moe" and o.top_k > o.experts:
        raise ValueError(f"train: --top-k must be at most --experts, got {o.top_k} and {o.experts}; change one of them.")
    if o.epochs is not None and o.epochs * EVERY >= LARGEST:
        raise ValueError(f"train: {o.epochs} epochs of {EVERY} steps are too many, 2**31 steps or more; pass fewer --epochs.")


def _expect_of_images(o: "Train", model: str) -> None:
    named("feedback", o.feedback, FEEDBACK)
    if o.feedback != "transpose" and o.grad != "hand":
        raise ValueError(f"train: --feedback {o.feedback} gives no gradient that jax.grad could compute; leave out --grad.")
    if model == "nielsen":
        named("loss of the model nielsen", o.loss or "quadratic", COSTS)
        if o.activation not in (None, "sigmoid"):
            raise ValueError(
                f"the model nielsen has sigmoid neurons only, got activation {o.activation!r}; use the model mlp for others."
            )
    else:
        named("loss", o.loss or "softmax_cross_entropy", LOSSES)
        named("activation", o.activation or "relu", ACTIVATIONS)


def _expect_saved(o: "Train") -> None:
    if o.folder is None:
        asked = {"--resume": o.resume, "--save-every": o.save_every is not None, "--tensorboard": o.tensorboard}
        for option in (name for name, given in asked.items() if given):
            raise ValueError(f"train: {option} needs a folder for the run; add --folder.")
    elif os.path.lexists(o.folder) and not o.folder.is_dir():
        raise ValueError(f"train: --folder must be a folder, got the file {o.folder}; name another place.")
    if o.tensorboard and importlib.util.find_spec("tensorboardX") is None:
        raise ValueError("train: --tensorboard needs tensorboardX: python -m pip install 'nnjax[tensorboard]'.")
    if o.wandb is not None and importlib.util.find_spec("wandb") is None:
        raise ValueError("train: --wandb needs wandb: python -m pip install 'nnjax[wandb]'.")


def expect_on_mesh(o: "Train") -> None:
    """Raise ValueError for options that work on one device only."""
    given = {f"--model {o.model}": o.model in ("nielsen", "resnet"), f"--feedback {o.feedback}": o.feedback != "transpose",
             "--grad both": o.grad == "both", "--trajectory": o.trajectory > 0}  # fmt: skip
    for option in (name for name, asked in given.items() if asked):
        raise ValueError(f"train: {option} works on one device only; leave it out, or leave out --devices and --mesh.")
