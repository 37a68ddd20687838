"""How attention's kernels divide their work: blocks by platform, dtype and head size, and what fits at all."""

import importlib
import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ...linear import Amounts, broadcast

CUDA, TPU = "cuda", "tpu"
DTYPES = (jnp.float32, jnp.bfloat16, jnp.float16)
# (Largest head size, most bytes of a number, queries and keys at a time, warps, stages): the largest blocks that fit into the
# registers and shared memory of an H100, as its compiler reports.
CUDA_BLOCKS = (
    (64, 2, 128, 64, 8, 2),
    (64, 4, 64, 64, 8, 2),
    (128, 2, 64, 64, 8, 2),
    (128, 4, 64, 32, 8, 2),
    (256, 2, 64, 32, 8, 2),
    (256, 4, 32, 32, 8, 1),
)
TPU_BLOCK = 256  # queries and keys at a time
TPU_LANES = 128  # numbers in a row of its layout
TPU_BYTES = 12 << 20  # of the keys and values, or queries and cotangents, of one head, which stay in fast memory
LEAST = {CUDA: 16, TPU: TPU_LANES}  # the smallest side of a product


class Plan(NamedTuple):
    """queries, keys, features: their numbers; rows, columns: queries and keys at a time.

    width: the features with padding; warps, stages: for a GPU, else 0.
    interpret: run by XLA, operation by operation, on any platform.
    """

    platform: str
    queries: int
    keys: int
    features: int
    rows: int
    columns: int
    width: int
    warps: int = 0
    stages: int = 0
    interpret: bool = False


def power_of_two(n: int) -> int:
    """The smallest power of two that is at least n."""
    return 1 << max(n - 1, 0).bit_length()


def plan_for(platform: str, q: Any, k: Any) -> Plan | None:
    """The plan for queries like q: (b, h, g, s, d) and keys like k: (b, h, t, d), or None if the kernels do not fit.

    With one key every weight is 1 and the cotangent of every score is 0, but yᵀ ct_y - vᵀ ct_y is 0 only up to rounding.
    """
    (*_, s, d), (*_, t, _) = q.shape, k.shape
    if q.dtype not in DTYPES or k.dtype != q.dtype or 0 in (*q.shape, *k.shape) or t == 1:
        return None
    least = LEAST[platform]
    if platform == TPU:
        length, width = (blocks(n, TPU_LANES) * TPU_LANES for n in (max(s, t), d))
        held = 4 * q.shape[2] * length * width * q.dtype.itemsize  # of two arrays, each twice, as the next one is loading
        if held > TPU_BYTES or q.dtype == jnp.float16:
            return None
        rows, columns = (min(TPU_BLOCK, max(least, power_of_two(n))) for n in (s, t))
        return Plan(platform, s, t, d, rows, columns, d)
    fits = [row[2:] for row in CUDA_BLOCKS if d <= row[0] and q.dtype.itemsize <= row[1]]
    if not fits:
        return None
    rows, columns, warps, stages = fits[0]
    rows, columns = (min(most, max(least, power_of_two(n))) for most, n in ((rows, s), (columns, t)))
    return Plan(platform, s, t, d, rows, columns, max(least, power_of_two(d)), warps, stages)


def amounts(shape: tuple[int, ...], sizes: dict[int, int]) -> Amounts:
    """The zeros after each axis that extend these axes to these sizes."""
    return tuple((0, sizes.get(axis - len(shape), n) - n) for axis, n in enumerate(shape))


def blocks(n: int, size: int) -> int:
    return math.ceil(n / size)


def over(i: Any, n: int) -> Any:
    """i // n for an int32, which stays one even if JAX's integers have 64 bits."""
    return lax.div(i, np.int32(n))


def rest(i: Any, n: int) -> Any:
    return lax.rem(i, np.int32(n))


def loop(first: Any, stop: Any, step: Callable[..., Any], start: Any) -> Any:
    """Apply step(i, carry) from the start, for i from `first` to before `stop`, in int32."""
    return lax.fori_loop(jnp.int32(first), jnp.int32(stop), step, start)


def outline_of(shape: tuple[int, ...], dtype: Any, *operands: Array) -> jax.ShapeDtypeStruct:
    """The output of a kernel with these operands: inside `jax.shard_map` it varies over all axes that one of them does."""

    def made(*xs):
        return broadcast(sum((x.reshape(x.size)[0].astype(dtype) for x in xs), jnp.zeros((), dtype)), shape)

    return jax.eval_shape(made, *operands)


def installed(name: str) -> Any:
    """The module of jax.experimental with this name, or None."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer JAX says that it moves elsewhere
        try:
            return importlib.import_module(f"jax.experimental.{name}")
        except ImportError:
            return None


def has_pallas() -> bool:
    return installed("pallas") is not None


def has_triton() -> bool:
    """Whether the installed JAX lowers Pallas to Triton. If not, a GPU gets XLA's spelling.

    JAX 0.12 announces its removal with a DeprecationWarning whenever a program is lowered for a GPU. Pallas' other lowering for
    GPUs needs different kernels.
    """
    return hasattr(installed("pallas.triton"), "CompilerParams")


def compiler_params(plan: Any) -> Any:
    """The options for a plan's platform, or None. Those for a GPU name the lowering to Triton."""
    if plan.interpret or plan.platform == TPU:
        return None
    return installed("pallas.triton").CompilerParams(num_warps=plan.warps, num_stages=plan.stages)


def accumulator(dtype: Any) -> np.dtype:
    return np.promote_types(dtype, np.float32)
