"""Parameters in and out as safetensors files: plain arrays by name, which any framework reads and nobody unpickles."""

import os
import tempfile
from pathlib import Path
from typing import Any

import jax

from .errors import describe


def _library() -> Any:
    try:
        import safetensors.flax
    except ImportError:
        raise ValueError("safetensors files need the train extra: python -m pip install 'nnjax[train]'.") from None
    return safetensors.flax


def _named(params: Any) -> dict[str, Any]:
    return {jax.tree_util.keystr(path).lstrip("."): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}


def save_weights(path: str | Path, params: Any) -> None:
    """Every array of a tree of parameters, named by its place in the tree (`[0].w`), in one file: whole or not at all.

    Raises ValueError where the file cannot be written.
    """
    path = Path(path)
    try:
        handle, draft = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        os.close(handle)
        try:
            _library().save_file(_named(params), draft)
            os.replace(draft, path)
        finally:
            Path(draft).unlink(missing_ok=True)
    except OSError as error:
        raise ValueError(f"{path} cannot be written: {error}; choose another place.") from None


def read_tensors(path: str | Path) -> dict[str, jax.Array]:
    """Every array of a safetensors file by name. Raises ValueError where it cannot be read."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} is not there; check the path of the safetensors file.")
    library = _library()
    try:
        return library.load_file(str(path))
    except Exception as error:  # the library has an exception of its own for a damaged header
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} cannot be read as a safetensors file: {reason}; replace it with a sound copy.") from None


def load_weights(path: str | Path, like: Any) -> Any:
    """The parameters that `save_weights` wrote, in a tree like `like` (as `layer.init` makes it, or its shapes).

    Raises ValueError where an array is missing, left over, or of another shape or dtype: it says which.
    """
    found, wanted = read_tensors(path), _named(like)
    for name in sorted({*found, *wanted}):
        came, want = (describe(d[name]) if name in d else "nothing" for d in (found, wanted))
        if came != want:
            raise ValueError(f"{path}: expected {want} as {name}, got {came}; load it into the model that it was saved from.")
    return jax.tree.unflatten(jax.tree.structure(like), [found[name] for name in wanted])
