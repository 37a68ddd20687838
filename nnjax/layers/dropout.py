"""Dropout: a random diagonal matrix, drawn from the key."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ..errors import expect_float, expect_key, expect_params, real_number
from ..layer import Layer
from ..leaf import Like, leaf


def keep_share(key: Any, shape: tuple[int, ...], rate: float) -> Array:
    """bool: False for a share `rate` of the entries."""
    # Drawn in float32 whatever x is: under x64 a float64 draw would be a different mask.
    return jax.random.uniform(key, shape, jnp.float32) >= jnp.float32(rate)


def dropout_apply(params: Any, x: Array, *, key: Any = None, rate: float) -> Array:
    """y = x / (1 - rate) where kept, else 0; y = x without a key.  Each entry is dropped with probability `rate`."""
    expect_params("dropout", params, tuple)
    expect_float("dropout", "x", x)
    if key is None:
        return x
    expect_key("dropout", key)
    return jnp.where(keep_share(key, x.shape, rate), x * (1 / (1 - rate)), jnp.zeros_like(x))


def dropout_fwd(params: Any, x: Array, *, key: Any = None, rate: float) -> Any:
    y = dropout_apply(params, x, key=key, rate=rate)
    return y, (None if key is None else keep_share(key, x.shape, rate),)


def dropout_bwd(residuals: Any, ct_y: Array, *, rate: float) -> Any:
    (keep,) = residuals  # y = D x with D diagonal, hence symmetric: the same entries are dropped on the way back
    if keep is None:
        return (), ct_y
    return (), jnp.where(keep, ct_y * (1 / (1 - rate)), jnp.zeros_like(ct_y))


def expect_rate(who: str, rate: Any) -> float:
    """The rate as a Python float. Raises ValueError unless 0 <= rate < 1."""
    share = real_number(rate)
    if share is None or not 0 <= share < 1:
        raise ValueError(f"{who}: rate must be the share dropped, 0 <= rate < 1, got {rate!r}; 0.5 drops half.")
    return share


def dropout(rate: float) -> Layer[Array]:
    """y = x / (1 - rate) with probability 1 - rate, else 0; without a key (inference) y = x.  x, y: any shape.

    rate is the share dropped.  The same key gives the same mask in `apply` and `fwd`.  Raises ValueError unless
    0 <= rate < 1.  Srivastava et al. 2014, scaled in training so that inference needs no scale.

    >>> layer = nnjax.dropout(0.5)
    >>> layer.apply((), jnp.ones(4)).tolist()
    [1.0, 1.0, 1.0, 1.0]
    >>> set(layer.apply((), jnp.ones(99), key=jax.random.key(0)).tolist()) == {0.0, 2.0}
    True
    """
    share = expect_rate("dropout", rate)
    return leaf(
        f"dropout({share})",
        lambda key: (),
        lambda params, x, *, key=None: dropout_apply(params, x, key=key, rate=share),
        lambda params, x, *, key=None: dropout_fwd(params, x, key=key, rate=share),
        lambda residuals, ct_y: dropout_bwd(residuals, ct_y, rate=share),
        lambda residuals: None if residuals[0] is None else Like(residuals[0].shape),
    )._replace(draws=True)


def draws_from_key(layer: Layer) -> bool:
    """Whether the layer, or a part of it, draws from its key, and so behaves differently without one."""
    return layer.draws or any(map(draws_from_key, layer.parts))
