"""Backpropagation written out by hand in JAX, every transpose in plain sight, every gradient checked against jax.grad."""

import importlib
from typing import TYPE_CHECKING, Any

from . import feedback, nielsen, ops
from .bench.rule import Cost, cost
from .check import Report, audit, check_layer, check_pair, check_transpose, check_vjp, intended
from .chunks import in_chunks
from .combinators import TiedParams, parallel, recompute, residual, scan_layers, serial, tied
from .direct import direct_value_and_grad
from .grad import accumulate, reference_value_and_grad, value_and_grad
from .layer import Layer, as_custom_vjp, plain
from .layers import (
    AttentionParams,
    BatchNormParams,
    ConvParams,
    CrossAttentionParams,
    DenseParams,
    EmbeddingParams,
    GRUParams,
    LSTMParams,
    LSTMState,
    MirrorParams,
    NormParams,
    RNNParams,
    attention,
    avg_pool,
    batch_norm,
    calibrate,
    conv,
    cross_attention,
    dense,
    dropout,
    elu,
    embedding,
    flatten,
    gelu,
    global_avg_pool,
    group_norm,
    gru,
    layer_norm,
    leaky_relu,
    learned_positions,
    log_softmax,
    lstm,
    max_pool,
    relu,
    rms_norm,
    rnn,
    sigmoid,
    silu,
    softmax,
    softplus,
    tanh,
    unembedding,
)
from .losses import (
    binary_cross_entropy,
    huber_loss,
    kl_divergence,
    linear_cross_entropy,
    linear_dpo,
    linear_jensen_shannon,
    linear_kl_divergence,
    mean_squared_error,
    smooth_l1_loss,
    softmax_cross_entropy,
)
from .models.char_rnn import char_rnn
from .models.decode import generate_gpt
from .models.generate import generate
from .models.gpt import gpt
from .models.lenet import lenet
from .models.mlp import mlp

if TYPE_CHECKING:
    from . import data, distributed, draw, exercises, models, train

__version__ = "0.1.0"

__all__ = [
    "AttentionParams",
    "BatchNormParams",
    "ConvParams",
    "Cost",
    "CrossAttentionParams",
    "DenseParams",
    "EmbeddingParams",
    "GRUParams",
    "LSTMParams",
    "LSTMState",
    "Layer",
    "MirrorParams",
    "NormParams",
    "RNNParams",
    "Report",
    "TiedParams",
    "accumulate",
    "as_custom_vjp",
    "attention",
    "audit",
    "avg_pool",
    "batch_norm",
    "binary_cross_entropy",
    "calibrate",
    "char_rnn",
    "check_layer",
    "check_pair",
    "check_transpose",
    "check_vjp",
    "conv",
    "cost",
    "cross_attention",
    "data",
    "dense",
    "direct_value_and_grad",
    "distributed",
    "draw",
    "dropout",
    "elu",
    "embedding",
    "exercises",
    "feedback",
    "flatten",
    "gelu",
    "generate",
    "generate_gpt",
    "global_avg_pool",
    "gpt",
    "group_norm",
    "gru",
    "huber_loss",
    "in_chunks",
    "intended",
    "kl_divergence",
    "layer_norm",
    "leaky_relu",
    "learned_positions",
    "lenet",
    "linear_cross_entropy",
    "linear_dpo",
    "linear_jensen_shannon",
    "linear_kl_divergence",
    "log_softmax",
    "lstm",
    "max_pool",
    "mean_squared_error",
    "mlp",
    "models",
    "nielsen",
    "ops",
    "parallel",
    "plain",
    "recompute",
    "reference_value_and_grad",
    "relu",
    "residual",
    "rms_norm",
    "rnn",
    "scan_layers",
    "serial",
    "sigmoid",
    "silu",
    "smooth_l1_loss",
    "softmax",
    "softmax_cross_entropy",
    "softplus",
    "tanh",
    "tied",
    "train",
    "unembedding",
    "value_and_grad",
]

LATER = ("data", "distributed", "draw", "exercises", "models", "train")  # imported on first use


def __getattr__(name: str) -> Any:
    if name in LATER:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
