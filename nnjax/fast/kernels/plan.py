"""How attention's kernels cut their work: blocks by platform, dtype and head size, and what fits at all."""

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
# (Head size up to which, bytes of a number up to which, queries and keys at a time, warps, stages): the largest blocks of which
# an H100's registers and shared memory hold everything, as its compiler says.
CUDA_BLOCKS = (
    (64, 2, 128, 64, 8, 2),
    (64, 4, 64, 64, 8, 2),
    (128, 2, 64, 64, 8, 2),
    (128, 4, 64, 32, 8, 2),
    (256, 2, 64, 32, 8, 2),
    (256, 4, 32, 32, 8, 1),
)
TPU_BLOCK = 256  # queries and keys at a time
TPU_LANES = 128  # a row of numbers is laid out in so many
TPU_BYTES = 12 << 20  # of the keys and values, or queries and cotangents, of one head, which stay in fast memory
LEAST = {CUDA: 16, TPU: TPU_LANES}  # the smallest side of a product


class Plan(NamedTuple):
    """queries, keys, features: how many there are; rows, columns: how many queries and keys at a time.

    width: the features that are laid out, zeros behind them; warps, stages: of a GPU, else 0.
    interpret: run by XLA, operation for operation, on any platform.
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
    """The least one that is at least n."""
    return 1 << max(n - 1, 0).bit_length()


def plan_for(platform: str, q: Any, k: Any) -> Plan | None:
    """For queries like q: (b, h, g, s, d) and keys like k: (b, h, t, d), or None where the kernels are not for them.

    Of one key every weight is 1 and the cotangent of every score 0: yᵀ ct_y less vᵀ ct_y is that only up to rounding.
    """
    (*_, s, d), (*_, t, _) = q.shape, k.shape
    if q.dtype not in DTYPES or k.dtype != q.dtype or 0 in (*q.shape, *k.shape) or t == 1:
        return None
    least = LEAST[platform]
    if platform == TPU:
        length, width = (blocks(n, TPU_LANES) * TPU_LANES for n in (max(s, t), d))
        held = 4 * q.shape[2] * length * width * q.dtype.itemsize  # of two arrays, each with the next one under way
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
    """The zeros behind each axis that bring these axes to these sizes."""
    return tuple((0, sizes.get(axis - len(shape), n) - n) for axis, n in enumerate(shape))


def blocks(n: int, size: int) -> int:
    return math.ceil(n / size)


def over(i: Any, n: int) -> Any:
    """i // n of an int32, which it stays where JAX's integers have 64 bits."""
    return lax.div(i, np.int32(n))


def rest(i: Any, n: int) -> Any:
    return lax.rem(i, np.int32(n))


def loop(first: Any, stop: Any, step: Callable[..., Any], start: Any) -> Any:
    """What step(i, carry) makes of the start, i from `first` to before `stop`, in int32."""
    return lax.fori_loop(jnp.int32(first), jnp.int32(stop), step, start)


def outline_of(shape: tuple[int, ...], dtype: Any, *operands: Array) -> jax.ShapeDtypeStruct:
    """What a kernel of these operands gives: it varies, inside `jax.shard_map`, as all of them together do."""

    def made(*xs):
        return broadcast(sum((x.reshape(x.size)[0].astype(dtype) for x in xs), jnp.zeros((), dtype)), shape)

    return jax.eval_shape(made, *operands)


def installed(name: str) -> Any:
    """That module of jax.experimental, or None."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer JAX says that it moves elsewhere
        try:
            return importlib.import_module(f"jax.experimental.{name}")
        except ImportError:
            return None


def has_pallas() -> bool:
    return installed("pallas") is not None


def has_triton() -> bool:
    """Whether the installed JAX lowers Pallas to Triton. Where that has gone a GPU gets XLA's spelling.

    JAX 0.12 announces it by a DeprecationWarning whenever a program is lowered for a GPU: Pallas' other lowering for GPUs takes
    kernels of another source.
    """
    return hasattr(installed("pallas.triton"), "CompilerParams")


def compiler_params(plan: Any) -> Any:
    """The own options of a plan's platform, or None. Those of a GPU name the lowering to Triton."""
    if plan.interpret or plan.platform == TPU:
        return None
    return installed("pallas.triton").CompilerParams(num_warps=plan.warps, num_stages=plan.stages)


def accumulator(dtype: Any) -> np.dtype:
    return np.promote_types(dtype, np.float32)
