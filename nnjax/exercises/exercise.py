"""What an exercise is made of."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

Mistakes = dict[str, dict[str, Any]]  # {argument: {the mistake in words: what its cotangent would be}}


class Exercise(NamedTuple):
    """forward(*arguments()) is the definition; fwd gives the same value and the residuals, which `kept` names.

    mistakes(residuals, ct_y) -> what the cotangents would be under mistakes that are common. helpers: what forward calls.
    See `show`.
    """

    name: str
    forward: Callable[..., Any]
    fwd: Callable[..., Any]
    arguments: Callable[[], tuple[Any, ...]]
    kept: tuple[str, ...]
    mistakes: Callable[..., Mistakes]
    helpers: tuple[Callable[..., Any], ...] = ()

    @property
    def names(self) -> list[str]:
        """The names of the arguments."""
        return list(inspect.signature(self.forward).parameters)
