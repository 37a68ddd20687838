"""A folder in the Hugging Face layout: config.json, and the arrays in one safetensors file or in shards with their index."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from ..errors import describe
from .weights import read_tensors


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in this file. Raises ValueError if there is none, or it cannot be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}; replace it with an intact copy.") from None
    if not isinstance(found, dict):
        raise ValueError(
            f"{path} must hold a JSON object of options, got {type(found).__name__}; replace it with an intact copy."
        )
    return found


KINDS: dict[str, Callable[[Any], bool]] = {
    "a positive whole number": lambda v: isinstance(v, int) and not isinstance(v, bool) and v > 0,
    "a whole number": lambda v: isinstance(v, int) and not isinstance(v, bool) and v >= 0,
    "a positive number": lambda v: isinstance(v, (int, float)) and not isinstance(v, bool) and 0 < v < float("inf"),
    "true or false": lambda v: isinstance(v, bool),
    "a name": lambda v: isinstance(v, str),
    "an object": lambda v: isinstance(v, dict),
    "a list": lambda v: isinstance(v, list),
}


def expect_kinds(path: Path, config: dict[str, Any], kinds: Mapping[str, Sequence[str]]) -> None:
    """Raise ValueError for an option of the config that is not of its kind. Those that are null are taken out of it."""
    for kind, names in kinds.items():
        for name in names:
            if config.get(name) is None:
                config.pop(name, None)
            elif not KINDS[kind](config[name]):
                raise ValueError(f"{path}: {name} must be {kind}, got {config[name]!r}; correct it.")


def read_arrays(path: Path) -> Mapping[str, jax.Array]:
    """Every array of the file, of the shards of the index, or of the folder."""
    if path.is_dir():
        whole, index = path / "model.safetensors", path / "model.safetensors.index.json"
        if whole.exists() or not index.exists():
            if not whole.exists():
                there = ", ".join(sorted(p.name for p in path.iterdir())[:5]) or "nothing"
                raise ValueError(f"{path} must hold model.safetensors, or its shards and model.safetensors.index.json, got "
                                 f"{there}; save the model as safetensors, as pickled files are never read.")  # fmt: skip
            return read_tensors(whole)
        path = index
    if path.suffix != ".json":
        return read_tensors(path)
    try:
        places = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        shards = sorted(set(places.values()))
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist; check the path of the index.") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read as an index of shards, with a weight_map: {error!r}; replace it with an "
                         "intact copy.") from None  # fmt: skip
    for shard in shards:
        if not isinstance(shard, str) or Path(shard).name != shard:
            raise ValueError(f"{path}: shards must lie beside the index, got {shard!r}; replace it with an intact copy.")
    read = {shard: read_tensors(path.parent / shard) for shard in shards}
    for name, shard in places.items():
        if name not in read[shard]:
            raise ValueError(f"{path} says that {name} is in {shard}, but it is missing; replace both with intact copies.")
    return {name: read[shard][name] for name, shard in places.items()}


def cast(who: str, path: Path, arrays: dict[str, jax.Array], dtype: Any) -> dict[str, jax.Array]:
    """The arrays in this dtype, or unchanged if they all share one."""
    for name, array in arrays.items():
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise ValueError(
                f"{path}: {name} must be floating point, got {describe(array)}; load a model that is not quantised."
            )
    if dtype is None:
        kinds = sorted({str(array.dtype) for array in arrays.values()})
        if len(kinds) > 1:
            raise ValueError(f"{path} holds arrays of {' and '.join(kinds)}; pass the dtype to use.")
        return arrays
    try:
        wanted = jnp.dtype(dtype)
    except TypeError:
        wanted = None
    if wanted is None or not jnp.issubdtype(wanted, jnp.floating) or jax.dtypes.canonicalize_dtype(wanted) != wanted:
        raise ValueError(f"{who}: dtype must be float32, bfloat16 or float16, or under jax.enable_x64(True) float64, got "
                         f"{dtype!r}; pass one of them.")  # fmt: skip
    return {name: array.astype(wanted) for name, array in arrays.items()}
