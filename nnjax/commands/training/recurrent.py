"""The recurrent models of text, by the names that `nnjax train` has for them, and what truncated backpropagation leaves out."""

from typing import TYPE_CHECKING, Any

from ...grad import ValueAndGrad
from ...train.trained.network import Network
from ...train.watching.truncation import truncation_bias

if TYPE_CHECKING:
    from ..train import Train

CELLS = {"char_rnn": "lstm", "linear_rnn": "linear"}


def recurrent_network(name: str, vocab: int, o: "Train") -> Network:
    """The char_rnn that this name stands for."""
    return Network("char_rnn", {"vocab": vocab, "width": o.width, "cell": CELLS[name], "layers": o.layers})


def bias_of(every: int, truncated: ValueAndGrad, whole: ValueAndGrad, params: Any, *batch: Any) -> str:
    """How far the truncated gradient is from the whole one on this batch, as a sentence."""
    found = truncation_bias(truncated, whole, params, *batch)[0]
    return (f"truncated every {every} characters: on the first batch it differs from the gradient by {found.relative:.2g} of "
            f"its size, at an angle of {found.angle:.1f} degrees")  # fmt: skip
