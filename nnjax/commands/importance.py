"""What a run within a budget takes first: what most people train with, one of each family, then the rest of the tables."""

import os
from typing import Any

CHECK = (
    "gpt", "attention", "linear_cross_entropy", "dense", "conv", "lenet", "lstm", "layer_norm", "embedding",
    "softmax_cross_entropy", "gelu(tanh)", "max_pool", "dropout", "batch_norm", "gru", "rnn", "mlp", "scan_layers",
    "char_rnn", "rms_norm", "group_norm", "softmax", "relu", "silu", "attention, grouped", "conv, depthwise",
    "avg_pool", "learned_positions", "unembedding", "residual", "parallel", "mean_squared_error", "binary_cross_entropy",
)  # fmt: skip
BENCH = (
    "gpt", "attention, S = 4096", "attention, S = 1024", "lenet, batch 128", "linear_cross_entropy, V = 32768",
    "conv 5x5", "depthwise", "lstm", "max_pool", "layer_norm", "mlp 9",
)  # fmt: skip

# Of `check_layer`: float64 is left out, in which no GPU trains, and with it the witnesses that need it.
WITHIN_BUDGET: dict[str, Any] = {"dtypes": ("float32", "bfloat16"), "transforms": ("jit",), "witnesses": ()}


def workers(budget: float | None) -> int:
    """Cases that are checked at once, each of which compiles two programs at a time: within a budget more on many cores."""
    return 2 if budget is None else max(2, min(4, (os.cpu_count() or 1) // 4))
