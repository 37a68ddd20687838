"""The configuration of `nnjax.reproduce.nanogpt` in PyTorch (eager), to compare times."""

# pyright: reportMissingImports=false

import math
import time

import numpy as np

from ..bench.peers import torch_gpt
from ..data.text import Text
from .nanogpt import CPU, Configuration


def train_by_torch(text: Text, seed: int, c: Configuration = CPU) -> tuple[float, float]:
    """(validation loss, seconds): the same network, batches of the same sizes, AdamW with the same schedule."""
    import torch
    from torch import nn

    torch.manual_seed(seed)
    model = torch_gpt(len(text.vocabulary), c.context, c.layers, c.heads, c.width)
    for name, p in model.named_parameters():
        if p.ndim >= 2:
            residual = name.endswith(("out.weight", "mlp.2.weight"))
            nn.init.normal_(p, 0.0, 0.02 / math.sqrt(2 * c.layers) if residual else 0.02)
        elif name.endswith("bias"):
            nn.init.zeros_(p)
    groups = [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": c.weight_decay},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=c.learning_rate, betas=(0.9, c.b2))
    ids = {part: torch.from_numpy(np.array(getattr(text, part), np.int64)) for part in ("train", "validation")}
    rng, steps = np.random.default_rng(seed), torch.arange(c.context)

    def losses(part, starts, reduction):
        at = torch.from_numpy(starts)[:, None] + steps[None]
        scores = model(ids[part][at])
        return nn.functional.cross_entropy(scores.flatten(0, 1), ids[part][at + 1].flatten(), reduction=reduction)

    def validation_loss():
        count = (len(text.validation) - 1) // c.context
        starts = np.arange(count) * c.context
        with torch.no_grad():
            parts = [float(losses("validation", starts[i : i + 128], "sum")) for i in range(0, count, 128)]
        return sum(parts) / (count * c.context)

    start, value = time.perf_counter(), float("nan")
    for step in range(c.steps):
        done = (step - c.warmup) / (c.steps - c.warmup)
        cosine = c.learning_rate * (0.1 + 0.45 * (1 + math.cos(math.pi * done)))
        for group in optimizer.param_groups:
            group["lr"] = c.learning_rate * step / c.warmup if step < c.warmup else cosine
        optimizer.zero_grad(set_to_none=True)
        losses("train", rng.integers(0, len(text.train) - c.context, c.batch_size), "mean").backward()
        nn.utils.clip_grad_norm_(model.parameters(), c.clip)
        optimizer.step()
        if (step + 1) % c.every == 0:
            value = validation_loss()
    return value, time.perf_counter() - start
