"""Losses: layers without parameters; one of them includes the last linear map."""

from .fused import linear_cross_entropy as linear_cross_entropy
from .means import binary_cross_entropy as binary_cross_entropy
from .means import mean_squared_error as mean_squared_error
from .means import softmax_cross_entropy as softmax_cross_entropy
