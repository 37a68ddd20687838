"""A mixture of experts whose experts lie on several devices."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from jax import Array, lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from ...layer import Layer
from ...layers.routing.experts import experts_bwd, experts_fwd
from ...layers.routing.mixture_of_experts import (
    MixtureParams,
    expect_mixture,
    load_of,
    mixture_of_experts_apply,
    mixture_of_experts_bwd,
    mixture_of_experts_fwd,
)
from ...layers.routing.mixture_of_experts import mixture_of_experts as on_one_device
from ...layers.routing.ragged import FAST
from ..collectives import Axis, gather, names, reduce_from
from ..sharded import Sharded, expect_divides, expect_mesh
from .dispatch import travelling_bwd, travelling_fwd


def _load(sizes: Array, choices: int, dtype: Any, *, batch: Axis) -> Array:
    """Each expert's share of the choices on all devices of these axes."""
    if not names(batch):
        return load_of(sizes, choices, dtype)
    return load_of(reduce_from(sizes, batch), choices * lax.axis_size(batch), dtype)


def mixture_of_experts(
    n: int, hidden: int, experts: int, top_k: int, mesh: Mesh, axis: str | None = "expert", *, batch: Axis | None = None,
    activation: Literal["swiglu", "gelu"] = "swiglu", over: Literal["chosen", "all"] | None = None,
    balance: float | None = None, z: float | None = None, init: Callable[..., Array] | None = None,
    init_out: Callable[..., Array] | None = None,
) -> Sharded:  # fmt: skip
    """`nnjax.mixture_of_experts` with its experts on the devices of the axis, each of which has examples of its own.

    Forward two all-to-alls, of the rows to their experts and back, and one of numbers; backward four, of which two carry one
    number for each row. The transpose of an all-to-all is the all-to-all back. No token is dropped: a block has room for all
    rows, so each message is as many times larger than its rows as there are devices.
    batch: all the axes with different examples, axis among them, by default axis alone: the load of each expert is counted over
    them, and the mean of `losses` over their devices is that of one device (`mean_over` takes it). axis=None: every device has
    all experts. A gradient of an expert is complete on its device; that of the router is summed by `replicated`.
    Raises ValueError if experts is not a multiple of the axis, and as the layer of one device does.

    >>> mesh = nnjax.distributed.make_mesh(expert=1)
    >>> tuple(nnjax.distributed.mixture_of_experts(16, 32, 4, 2, mesh).specs.up)
    ('expert', None, None)
    """
    opts = expect_mixture(n, hidden, experts, top_k, activation, over, balance, z)
    axes = names(batch if batch is not None else axis or ())
    expect_mesh("distributed.mixture_of_experts", mesh, axes)
    one = on_one_device(
        n, hidden, experts, top_k, activation=activation, over=over, balance=balance, z=z, init=init, init_out=init_out
    )
    load = partial(_load, batch=axes)
    meet, meet_bwd = partial(experts_fwd, by=FAST), partial(experts_bwd, by=FAST)
    tree: Any = MixtureParams
    specs, summed = tree(P(), P(), P()), tree(*(frozenset[str](),) * 3)
    if axis is not None:
        expect_divides("distributed.mixture_of_experts", "experts", experts, mesh, axis)
        meet, meet_bwd = partial(travelling_fwd, axis=axis), partial(travelling_bwd, axis=axis)
        cut, done = P(axis, None, None), frozenset((axis,))
        specs, summed = tree(P(), cut, cut), tree(frozenset(), done, done)

    def apply(params, x, *, key=None):
        if axis is not None:
            up, down = gather((params.up, params.down), axis, [0, 0])
            params = params._replace(up=up, down=down)
        return mixture_of_experts_apply(params, x, opts=opts, load=load)

    layer = Layer(
        f"distributed.{one.name}", one.init, apply,
        lambda params, x, *, key=None: mixture_of_experts_fwd(params, x, opts=opts, meet=meet, load=load),
        lambda residuals, ct_y: mixture_of_experts_bwd(residuals, ct_y, opts=opts, meet_bwd=meet_bwd),
    )  # fmt: skip
    return Sharded(layer, specs, summed)
