"""The cases of a Llama block: gates, rotary positions with scaling, and the whole model."""

from typing import Any

from .. import layers
from ..layers.gating.gate import gate
from ..models.llama import llama
from .case import Case
from .inputs import features, hard, ids, positions
from .variants import jittered

LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 16}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 3.0, "beta_fast": 2.0, "beta_slow": 0.5, "original_max_position_embeddings": 8}


def _halves(n: int) -> Any:
    return lambda rng, lead: (hard(rng, (*lead, n)), hard(rng, (*lead, n)))


def llamas() -> list[Case]:
    stretched = layers.attention(8, 2, kv_heads=1, rope=True, rope_theta=50.0, rope_scaling=LLAMA3, out_bias=False)
    wide_heads = layers.attention(6, 2, head_dim=4, rope=True, rope_theta=30.0, rope_scaling=YARN, bias=False)
    windowed = llama(5, 5, 1, 2, 4, kv_heads=1, hidden=5, qkv_bias=True, sliding_window=2, dropout=0.25)
    return [
        Case("gate", gate(layers.gelu(approximate=True)), _halves(5)),
        Case("swiglu", layers.swiglu(3, 5), features(3)),
        Case("geglu", layers.geglu(4, 3), features(4)),
        # of 4 positions: with 5 or 6, XLA finds no tiles for the product before the rotation on an H100
        Case("attention, rope by llama3, grouped", stretched, positions(4, 8)),
        Case("attention, rope by yarn, wide heads", wide_heads, positions(4, 6)),
        Case("llama", jittered(llama(5, 4, 2, 2, 4, hidden=3, tie=True)), ids(5, 3)),
        Case("llama, windowed, grouped, biased", jittered(windowed), ids(5, 4), keyed=True),
    ]
