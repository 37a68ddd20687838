"""Backpropagation written out by hand in JAX, every transpose in plain sight, every gradient checked against jax.grad."""

import importlib
from typing import TYPE_CHECKING, Any

from . import auxiliary, feedback, nielsen, ops
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
    GatedParams,
    GRUParams,
    LSTMParams,
    LSTMState,
    MirrorParams,
    MixtureParams,
    NormParams,
    RGLRUParams,
    RNNParams,
    Running,
    RunningState,
    Statistics,
    adaptive_avg_pool,
    attention,
    avg_pool,
    batch_norm,
    batch_norm_statistics,
    calibrate,
    conv,
    conv_transpose,
    cross_attention,
    dense,
    dropout,
    elu,
    embedding,
    flatten,
    geglu,
    gelu,
    global_avg_pool,
    group_norm,
    gru,
    layer_norm,
    leaky_relu,
    learned_positions,
    linear_recurrence,
    log_softmax,
    lstm,
    max_pool,
    mixture_of_experts,
    relu,
    rg_lru,
    rms_norm,
    rnn,
    running_statistics,
    sigmoid,
    silu,
    softmax,
    softplus,
    swiglu,
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
from .models.decode_llama import generate_llama
from .models.generate import generate
from .models.gpt import gpt
from .models.lenet import lenet
from .models.llama import llama
from .models.mlp import mlp
from .models.moe import moe
from .models.resnet import resnet

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
    "GatedParams",
    "LSTMParams",
    "LSTMState",
    "Layer",
    "MirrorParams",
    "MixtureParams",
    "NormParams",
    "RGLRUParams",
    "RNNParams",
    "Report",
    "Running",
    "RunningState",
    "Statistics",
    "TiedParams",
    "accumulate",
    "adaptive_avg_pool",
    "as_custom_vjp",
    "attention",
    "audit",
    "auxiliary",
    "avg_pool",
    "batch_norm",
    "batch_norm_statistics",
    "binary_cross_entropy",
    "calibrate",
    "char_rnn",
    "check_layer",
    "check_pair",
    "check_transpose",
    "check_vjp",
    "conv",
    "conv_transpose",
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
    "geglu",
    "gelu",
    "generate",
    "generate_gpt",
    "generate_llama",
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
    "linear_recurrence",
    "llama",
    "log_softmax",
    "lstm",
    "max_pool",
    "mean_squared_error",
    "mixture_of_experts",
    "mlp",
    "models",
    "moe",
    "nielsen",
    "ops",
    "parallel",
    "plain",
    "recompute",
    "reference_value_and_grad",
    "relu",
    "residual",
    "resnet",
    "rg_lru",
    "rms_norm",
    "rnn",
    "running_statistics",
    "scan_layers",
    "serial",
    "sigmoid",
    "silu",
    "smooth_l1_loss",
    "softmax",
    "softmax_cross_entropy",
    "softplus",
    "swiglu",
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
