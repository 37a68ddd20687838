"""What a check compares: dtypes, transforms, devices, precisions and witnesses."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import describe, expect_flag, unknown_name, whole_number
from .running import transforms

DTYPES = ("float64", "float32", "bfloat16", "float16")
EVERYWHERE = ("eager", "jit")  # in every dtype
IN_WIDE = ("vmap", "scan", "checkpoint", transforms.SECOND_ORDER)  # by default in float32 and float64 only
WIDE = ("float64", "float32")
PLAIN = "plain"
WITNESSES = ("adjoint", "taylor", PLAIN)
ASKED = ("repeat", "batch_invariant")  # witnesses that run only if they are named


class Options(NamedTuple):
    """What to compare. transforms=None: EVERYWHERE, and IN_WIDE if the dtype is wide or `full` is set.

    named: the dtypes were named, so a definition that does not run in one of them is an error.
    """

    dtypes: tuple[str, ...]
    transforms: tuple[str, ...] | None
    devices: tuple[Any, ...]
    compute_dtype: str | None
    seed: int
    full: bool
    witnesses: tuple[str, ...]
    named: bool = False

    def transforms_in(self, dtype: str) -> tuple[str, ...]:
        """The transforms to run in this dtype."""
        if self.transforms is not None:
            return self.transforms
        return EVERYWHERE + (IN_WIDE if self.full or dtype in WIDE else ())

    def of_plain(self, dtype: str) -> tuple[str, ...]:
        """The transforms under which the plain pair is compared too."""
        chosen = self.transforms_in(dtype) if PLAIN in self.witnesses else ()
        return chosen if self.full else tuple(t for t in chosen if t == "jit" or len(chosen) == 1)


def expect_seed(who: str, seed: Any) -> None:
    """Raise ValueError unless seed is a whole number of at least 0."""
    if whole_number(seed) is None or seed < 0:
        raise ValueError(f"{who}: seed must be an int of at least 0, got {seed!r}; pass 0.")


def options(
    dtypes: Any = None,
    transforms_: Any = None,
    devices: Any = None,
    compute_dtype: Any = None,
    seed: Any = 0,
    full: Any = False,
    witnesses: Any = None,
) -> Options:
    """Checked options. Raises ValueError for unknown names, TypeError if they are not in a list."""
    dtypes, transforms_, devices = _listed("dtypes", dtypes), _listed("transforms", transforms_), _listed("devices", devices)
    for device in devices or ():
        if not isinstance(device, jax.Device):
            raise TypeError(
                f"check: devices must be some of jax.devices(), got {describe(device)}; leave it out for the first."
            )
    expect_seed("check", seed)
    expect_flag("check", full=full)
    for name in (*(dtypes or ()), *(() if compute_dtype is None else (compute_dtype,))):
        try:
            known = jnp.issubdtype(np.dtype(name), jnp.floating)
        except (TypeError, ValueError):  # NumPy reads a text such as "dense(3, 2)" as a list of formats
            raise unknown_name("dtype", str(name), DTYPES) from None
        if not known:
            raise ValueError(f"check: dtypes must be floating point, got {name}; pick from {', '.join(DTYPES)}.")
    for name in transforms_ or ():
        if not isinstance(name, str) or name != transforms.SECOND_ORDER:
            transforms.named(name)
    witnesses = _listed("witnesses", witnesses)
    for name in witnesses or ():
        if not isinstance(name, str) or name not in (*WITNESSES, *ASKED):
            raise unknown_name("witness", name, (*WITNESSES, *ASKED))
    return Options(
        tuple(np.dtype(d).name for d in (dtypes or DTYPES)),
        tuple(transforms_) if transforms_ else None,
        tuple(devices) if devices else (jax.local_devices()[0],),
        compute_dtype,
        seed,
        full,
        WITNESSES if witnesses is None else tuple(witnesses),
        bool(dtypes),
    )


def _listed(what: str, given: Any) -> tuple[Any, ...] | None:
    """The entries of a list, None if none was given."""
    if given is None:
        return None
    if not isinstance(given, (list, tuple, set, frozenset, np.ndarray)) or getattr(given, "ndim", 1) == 0:
        came = repr(given) if isinstance(given, str) else describe(given)
        raise TypeError(f"check: {what} must be a list, got {came}; pass one, such as [{came}], or leave it out.")
    return tuple(given)


def precisions(device: Any, dtype: Any = "float32") -> tuple[str, ...]:
    """Matmul precisions that differ on this device in this dtype: full, and the device's default (TF32 on NVIDIA GPUs).

    Products of 16-bit numbers are exact in float32, so only the default is checked for them.
    """
    if device.platform == "cpu":
        return ("highest",)
    return ("default",) if np.dtype(dtype).itemsize == 2 else ("highest", "default")
