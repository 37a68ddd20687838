"""Losses: layers without parameters; some of them include the last linear map.

>>> nnjax.losses.mean_squared_error is nnjax.mean_squared_error
True
"""

from .binary import binary_cross_entropy as binary_cross_entropy
from .cross_entropy import softmax_cross_entropy as softmax_cross_entropy
from .distillation import linear_jensen_shannon as linear_jensen_shannon
from .distillation import linear_kl_divergence as linear_kl_divergence
from .divergence import kl_divergence as kl_divergence
from .fused import linear_cross_entropy as linear_cross_entropy
from .preference import linear_dpo as linear_dpo
from .regression import huber_loss as huber_loss
from .regression import mean_squared_error as mean_squared_error
from .regression import smooth_l1_loss as smooth_l1_loss
