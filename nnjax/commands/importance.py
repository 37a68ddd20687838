"""What a run within a budget does first: the most common cases, one of each family, then the rest of the tables."""

import os
from collections.abc import Sequence
from typing import Any

from .budget import by_importance

CHECK = (
    "gpt", "attention", "linear_cross_entropy", "dense", "conv", "lenet", "lstm", "layer_norm", "embedding",
    "softmax_cross_entropy", "gelu(tanh)", "max_pool", "dropout", "batch_norm", "gru", "rnn", "mlp", "scan_layers",
    "char_rnn", "rms_norm", "group_norm", "softmax", "relu", "silu", "attention, grouped", "conv, depthwise",
    "avg_pool", "learned_positions", "unembedding", "residual", "parallel", "mean_squared_error", "binary_cross_entropy",
    "rg_lru", "linear_recurrence",
)  # fmt: skip
BENCH = (
    "gpt", "attention, S = 4096", "attention, S = 1024", "lenet, batch 128", "linear_cross_entropy, V = 32768",
    "conv 5x5", "depthwise", "lstm", "max_pool", "layer_norm", "mlp 9",
)  # fmt: skip

# Options of `check_layer`: no float64, in which no GPU trains, and so none of the witnesses that need it.
WITHIN_BUDGET: dict[str, Any] = {"dtypes": ("float32", "bfloat16"), "transforms": ("jit",), "witnesses": ()}


def units(entries: Sequence[Any], kinds: Sequence[Any], peers: bool, hurried: bool) -> dict[str, tuple[Any, Any]]:
    """What to measure, by name: each entry of the bench's table in each kind (a precision and a dtype). With `peers` the
    entry is also measured beside other libraries, where it has them, after its first kind; the kind of such a unit is None.

    hurried: the important cases in every kind, then the others in the first kind, then in the other kinds.
    """
    kinds = [kinds[0], *([None] if peers else []), *kinds[1:]]
    pairs = [(entry, kind) for entry in entries for kind in kinds]
    if hurried:
        named = {entry.name: entry for entry in entries}
        order = by_importance(list(named), BENCH)
        many = sum(any(name.startswith(start) for name in named) for start in BENCH)
        pairs = [(named[name], kind) for part in (order[:many], order[many:]) for kind in kinds for name in part]
    return {
        kind.named(entry.name) if kind else f"{entry.name}, beside other libraries": (entry, kind)
        for entry, kind in pairs
        if kind or entry.peers
    }


def workers(budget: float | None) -> int:
    """Cases to check at once, each of which compiles two programs at a time; within a budget, more on many cores."""
    return 2 if budget is None else max(2, min(4, (os.cpu_count() or 1) // 4))
