"""What is printed about a run before it starts, and while its gradient is checked."""

from typing import TYPE_CHECKING

import jax
from jax.sharding import Mesh

if TYPE_CHECKING:
    from ..train import Train

COMPARING = "checking the gradient against jax.grad"


def described(o: "Train", mesh: Mesh | None) -> str:
    """How the run optimises, and on what mesh, as a sentence; it names each kind of decay."""
    by = {"hand": "hand", "jax": "jax.grad", "both": "hand, compared with jax.grad at every step"}[o.grad]
    given = [f"{k} {v:g}" for k, v in o.optimizer_args.items()]
    words = [" ".join([o.optimizer, *given]), f"learning rate {o.learning_rate}"]
    words += [f"{o.schedule}"] if o.schedule else []
    words += [f"gradient clipped to norm {o.clip:g}"] if o.clip else []
    words += [f"L2 in the loss, lambda {o.l2:g}"] if o.l2 else []
    words += [f"L1 in the loss, {o.l1:g}"] if o.l1 else []
    words += [f"decoupled weight decay {o.weight_decay:g}, not in the loss"] if o.weight_decay else []
    words += [f"scores of the moving average, decay {o.average:g}"] if o.average else []
    words += [f"computed in {o.compute_dtype}"] if o.compute_dtype else []
    words += [f"in {o.microbatches} microbatches"] if o.microbatches > 1 else []
    words += [f"gradients by {by}" if o.feedback == "transpose" else f"errors sent back by {o.feedback} feedback"]
    words = [", ".join(words) + (f"\nsaving in {o.folder}" if o.folder else "")]
    if mesh is not None:
        sizes = ", ".join(f"{name}={size}" for name, size in mesh.shape.items())
        where = f"{mesh.size} devices ({mesh.devices.flat[0].platform})"
        where += f" of {jax.process_count()} processes" if jax.process_count() > 1 else ""
        words.append(f"on {where}, mesh {sizes}")
    return "\n".join(words)
