"""The parameters of a run, from one of its checkpoints, without the state of the optimizer and without a mesh."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ...layer import Layer
from ...layers.normalising.running import running_statistics
from ..checkpoint import read_arrays
from ..checkpoint_folder import CheckpointError, Damaged, known, place, steps, verify
from ..run import Epoch


class Found(NamedTuple):
    """params of the checkpoint of this step; history: the epochs up to it; skipped: a sentence for each skipped checkpoint."""

    params: Any
    step: int
    history: tuple[Epoch, ...]
    skipped: tuple[str, ...]


def read_parameters(
    folder: Path, model: Layer, where: str, *, statistics: str = "", best: bool = False, step: int | None = None
) -> Found:
    """The parameters of the newest valid checkpoint, of the best one that is kept, or of the one of this step.

    where: their place in the saved state, as `evaluated_at` names it; statistics: that of the running statistics, which are put
    into them.
    Raises CheckpointError if there is none, or if it does not hold parameters of this model.
    """
    skipped: list[str] = []
    for number in _candidates(folder, best, step):
        path = place(folder, number)
        try:
            manifest = verify(path)
        except Damaged as error:
            skipped.append(str(error))
            continue
        params = _read(path, manifest, jax.eval_shape(model.init, jax.random.key(0)), where)
        if statistics:
            running = running_statistics(model)
            state = _read(path, manifest, jax.eval_shape(running.init, params), statistics)
            params = running.frozen(params, state)
        history = tuple(Epoch(*record) for record in manifest["metrics"]["history"])
        return Found(params, number, history, tuple(skipped))
    kind = "no checkpoint with a known accuracy" if best and not skipped else "no valid checkpoint"
    why = "; ".join(skipped) or ("no epoch has ended" if best else "none was saved")
    raise CheckpointError(f"{folder} has {kind}: {why}. Name another run, or continue this one with --resume.")


def _candidates(folder: Path, best: bool, step: int | None) -> Iterator[int]:
    if step is not None:
        yield step
    elif not best:
        yield from reversed(steps(folder))
    else:
        scores = {n: manifest["metrics"].get("accuracy") for n, manifest in known(folder).items()}
        scored = {n: score for n, score in scores.items() if isinstance(score, float) and score == score}
        yield from sorted(scored, key=lambda n: (-scored[n], n))


def _read(path: Path, manifest: Mapping[str, Any], like: Any, where: str) -> Any:
    leaves = jax.tree_util.tree_leaves_with_path(like)
    there = {leaf["name"]: (f"{i:05d}", leaf) for i, leaf in enumerate(manifest["leaves"])}
    here, wanted, numbers = jnp.zeros(()).sharding, {}, []
    for at, x in leaves:
        name = where + jax.tree_util.keystr(at)
        number, leaf = there.get(name, ("", {}))
        if leaf.get("shape") != list(x.shape):
            came = f"has {leaf['dtype']} {tuple(leaf['shape'])} as" if leaf else "lacks"
            raise CheckpointError(f"{path} {came} {name}, expected {x.dtype} {x.shape}: it is from another network.")
        numbers.append(number)
        wanted[number] = jax.ShapeDtypeStruct(x.shape, jnp.dtype(leaf["dtype"]), sharding=here)
    found = read_arrays(path, wanted)
    return jax.tree.unflatten(jax.tree.structure(like), [found[n].astype(x.dtype) for n, (_, x) in zip(numbers, leaves)])
