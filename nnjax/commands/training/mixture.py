"""The options of `nnjax train` for a mixture of experts."""

from dataclasses import dataclass


@dataclass
class OfMixtures:
    """They stand among those of `Train`."""

    experts: int = 8
    """Experts of each block of a moe."""
    top_k: int = 2
    """How many of them a position goes through; with 1 its weight is that of a softmax over all of them."""
    balance: float = 0.01
    """Weight of the loss that keeps the experts of a moe evenly busy; 0 leaves it out."""
    router_z: float = 0.001
    """Weight of the loss that keeps the logits of a moe's routers small; 0 leaves it out."""
