"""The cases of `nnjax bench`, each with its targets: time and temporary memory, hand-written over jax.grad."""

from .rows.entry import Entry
from .rows.images import images
from .rows.layers import single_layers
from .rows.losses import of_losses
from .rows.mixtures import mixtures
from .rows.models import whole_models
from .rows.recurrences import recurrences
from .rows.sequences import kernels, sequences


def entries(platform: str = "cpu") -> list[Entry]:
    """The whole table.  platform: the name that JAX uses in lowering; an accelerator adds the cases with its own kernels."""
    added = kernels(platform) if platform in ("cuda", "tpu") else []
    return [
        *whole_models(), *images(), *sequences(), *recurrences(), *of_losses(), *single_layers(), *mixtures(), *added,
    ]  # fmt: skip
