"""Floating-point operations of a program's products and convolutions, counted in the program that JAX traced.

XLA's `cost_analysis()` does not suffice: on a GPU a product is a library call, which it cannot count, and it counts the
body of a loop once.
"""

import math
from collections.abc import Callable
from typing import Any

import jax

NAMES = {"gpu": ("cuda", "rocm", "gpu")}  # names of a platform in a traced program


def product_flops(f: Callable[..., Any], args: tuple[Any, ...], platform: str) -> float:
    """Twice the multiplications of every product and convolution in f(*args), as it is lowered for the platform.

    A loop counts as often as it runs. NaN if products run in a loop of unknown length.
    """
    return _counted(jax.make_jaxpr(f)(*args).jaxpr, NAMES.get(platform, (platform,)))


def _counted(jaxpr: Any, names: tuple[str, ...]) -> float:
    return sum(_one(eqn, names) for eqn in jaxpr.eqns)


def _one(eqn: Any, names: tuple[str, ...]) -> float:
    kind, params = eqn.primitive.name, eqn.params
    if kind == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        return 2.0 * eqn.outvars[0].aval.size * math.prod(eqn.invars[0].aval.shape[d] for d in contracted)
    if kind == "conv_general_dilated":
        rhs, spec = eqn.invars[1].aval, params["dimension_numbers"].rhs_spec
        return 2.0 * eqn.outvars[0].aval.size * rhs.size / rhs.shape[spec[0]] / params["batch_group_count"]
    inner = [_counted(jaxpr, names) for jaxpr in _inner(params)]
    if kind == "scan":
        return params["length"] * sum(inner)
    if kind == "while":
        return math.nan if any(inner) else 0.0
    if kind == "cond":
        return inner[_branch(params.get("branches_platforms"), names)] if params.get("branches_platforms") else max(inner)
    if kind == "pallas_call":
        return sum(inner) * math.prod(params["grid_mapping"].grid)
    return sum(inner)


def _inner(params: dict[str, Any]) -> list[Any]:
    """The programs inside, such as branches or the body of a loop."""
    values = [one for v in params.values() for one in (v if isinstance(v, (tuple, list)) else (v,))]
    return [jaxpr for jaxpr in (getattr(one, "jaxpr", one) for one in values) if hasattr(jaxpr, "eqns")]


def _branch(platforms: Any, names: tuple[str, ...]) -> int:
    """Which branch `jax.lax.platform_dependent` takes; None means every platform that is not named."""
    return next((i for i, of in enumerate(platforms) if of is not None and set(of) & set(names)), platforms.index(None))
