"""Layers compose by a fold whose backward runs the other way.

    y = A B x    pulls a cotangent back as    ct_x = (A B)ᵀ ct_y = Bᵀ Aᵀ ct_y

so every combinator calls the `bwd` of its parts in the opposite order of their `fwd`.
"""

from .compose import parallel, recompute, serial
from .residual import residual
from .scan import scan_layers
from .tied import TiedParams, tied

__all__ = ["TiedParams", "parallel", "recompute", "residual", "scan_layers", "serial", "tied"]
