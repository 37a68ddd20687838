"""Save and load parameters as safetensors files: plain named arrays, which any framework can read without unpickling."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from ..data.files import expect_path, replacing
from ..errors import describe

DTYPES = (
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bfloat16", "float16", "float32",
    "float64", "complex64", "float8_e4m3fn", "float8_e5m2",
)  # fmt: skip


def _library() -> Any:
    try:
        import safetensors.flax
        import safetensors.numpy
    except ImportError:
        raise ValueError("safetensors files need the train extra: python -m pip install 'nnjax[train]'.") from None
    return safetensors


def _named(params: Any) -> dict[str, Any]:
    return {jax.tree_util.keystr(path).lstrip("."): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}


def _plain(name: str, x: Any) -> np.ndarray:
    """x as the library expects it: entries row by row in memory, in this machine's byte order."""
    who = f"save_weights: {name or 'params'}"
    if hasattr(x, "dtype") and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
        raise TypeError(f"{who} is a key of jax.random; save jax.random.key_data of it, or leave it out.")
    if isinstance(x, Tracer) or not isinstance(x, (np.ndarray, np.generic, jax.Array)):
        raise TypeError(f"{who} must be a concrete array, got {describe(x)}; save what layer.init returned, outside jit.")
    if isinstance(x, jax.Array) and (x.is_deleted() or not x.is_fully_addressable):
        why = "was donated to a jitted function" if x.is_deleted() else "lies partly on devices of another process"
        raise ValueError(f"{who} {why}, so its numbers are not here; save the newest parameters, gathered on this process.")
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"{who} must not be a masked array, as a file has no masks; fill it, as in x.filled(0).")
    if x.dtype.name not in DTYPES:
        raise TypeError(f"{who} must have a dtype of safetensors ({', '.join(DTYPES)}), got {describe(x)}; convert it.")
    return np.asarray(x, x.dtype.newbyteorder("="), order="C")


def save_weights(path: str | Path, params: Any) -> None:
    """Save every array of a tree of parameters, named by its place in the tree (`[0].w`), in one file: whole or not at all.

    They may be arrays of JAX or NumPy, including views of any kind.
    Raises ValueError if the file cannot be written, TypeError for a leaf that is not an array or has an unsupported dtype.
    """
    path, library = expect_path("save_weights", path), _library()
    arrays = {name: _plain(name, x) for name, x in _named(params).items()}
    try:
        with replacing(path) as draft:
            library.numpy.save_file(arrays, str(draft))
    except (OSError, library.SafetensorError) as error:  # the latter for a full disk
        raise ValueError(f"{path} cannot be written: {error}; choose another place.") from None


def read_tensors(path: str | Path) -> dict[str, jax.Array]:
    """Every array of a safetensors file by name, in its own dtype, or without x64 in the 32-bit one.

    Raises ValueError if it cannot be read, or holds integers that do not fit into 32 bits.
    """
    path, library = expect_path("read_tensors", path), _library()
    if not path.is_file():
        raise ValueError(f"{path} {'is a folder' if path.is_dir() else 'does not exist'}; check the path of the file.")
    try:
        with library.safe_open(str(path), framework="np") as file:
            cut = [name for name in file.keys() if _overflows(file, name)]  # noqa: SIM118
        found = library.flax.load_file(str(path))
    except Exception as error:  # the library has its own exception for a damaged header
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} cannot be read as a safetensors file: {reason}; replace it with an intact copy.") from None
    if cut:
        raise ValueError(f"{path}: {cut[0]} holds integers of more than 32 bits; read it under jax.enable_x64(True).")
    return found


def _overflows(file: Any, name: str) -> bool:
    """Whether there are integers that JAX would silently cut off at 32 bits."""
    dtype = {"I64": np.int64, "U64": np.uint64}.get(file.get_slice(name).get_dtype())
    if dtype is None or jax.dtypes.canonicalize_dtype(dtype) == dtype:
        return False
    exact = file.get_tensor(name)
    return bool((exact != exact.astype(jax.dtypes.canonicalize_dtype(dtype))).any())


def _as_here(x: Any) -> str:
    """x described, with the dtype in which JAX reads it."""
    if isinstance(getattr(x, "dtype", None), np.dtype):
        return f"{jax.dtypes.canonicalize_dtype(x.dtype.newbyteorder('='))} {tuple(x.shape)}"
    return describe(x)


def load_weights(path: str | Path, like: Any) -> Any:
    """The parameters that `save_weights` wrote, in a tree like `like` (as `layer.init` makes it, or its shapes).

    Raises ValueError, which names the array, if one is missing, left over, or of another shape or dtype.
    """
    found, wanted = read_tensors(path), _named(like)
    for name in sorted({*found, *wanted}):
        came, want = (_as_here(d[name]) if name in d else "nothing" for d in (found, wanted))
        if came != want:
            raise ValueError(f"{path}: {name} must be {want}, got {came}; load it into the model that it was saved from.")
    return jax.tree.unflatten(jax.tree.structure(like), [found[name] for name in wanted])
