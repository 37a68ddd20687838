"""Layers that are a sum over devices: each has some of the heads or hidden features, all have the same input."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from ...errors import expect_positive
from ...layer import Layer
from ...layers.attention import AttentionParams, attention
from ...layers.gating.gated import swiglu
from ..collectives import copy_to, copy_to_t, reduce_from, reduce_from_t
from ..sharded import Sharded, expect_divides, like_parameters


def summed_apply(params: Any, x: Array, *, key: Any = None, part: Layer, axis: str) -> Array:
    """y = part_1(x) + ... + part_n(x): device i has the parameters of part i.  x, y: the same on all devices."""
    return reduce_from(part.apply(params, copy_to(x, axis), key=key), axis)


def summed_fwd(params: Any, x: Array, *, key: Any = None, part: Layer, axis: str) -> Any:
    y, residuals = part.fwd(params, copy_to(x, axis), key=key)
    return reduce_from(y, axis), residuals


def summed_bwd(residuals: Any, ct_y: Array, *, part: Layer, axis: str) -> Any:
    ct_params, ct_x = part.bwd(residuals, reduce_from_t(ct_y, axis))  # each summand gets the whole ct_y
    return ct_params, copy_to_t(ct_x, axis)  # every device has a copy of x: sum what each sends back


def _summed(name: str, init: Callable[[Any], Any], part: Layer, axis: str, specs: list[P]) -> Sharded:
    layer = Layer(
        name,
        init,
        lambda params, x, *, key=None: summed_apply(params, x, key=key, part=part, axis=axis),
        lambda params, x, *, key=None: summed_fwd(params, x, key=key, part=part, axis=axis),
        lambda residuals, ct_y: summed_bwd(residuals, ct_y, part=part, axis=axis),
    )
    return Sharded(layer, like_parameters(layer, specs))


def by_groups(params: AttentionParams, devices: int) -> AttentionParams:
    """The parameters of `nnjax.attention` with the columns of each device's groups of heads side by side: q, k, v of the first
    device, then of the second, ...

    Entries only change places: the transpose puts them back (`by_groups_t`).
    """
    n_q = params.out.w.shape[-2]

    def one(p):
        q, k, v = jnp.split(p, [n_q, (n_q + p.shape[-1]) // 2], -1)
        return jnp.concatenate([a.reshape(*a.shape[:-1], devices, -1) for a in (q, k, v)], -1).reshape(p.shape)

    return params._replace(qkv=jax.tree.map(one, params.qkv))


def by_groups_t(ct: AttentionParams, devices: int) -> AttentionParams:
    """Back to the columns of all queries, then of all keys, then of all values."""
    n_q = ct.out.w.shape[-2] // devices

    def one(p):
        each = p.reshape(*p.shape[:-1], devices, -1)
        parts = jnp.split(each, [n_q, (n_q + each.shape[-1]) // 2], -1)
        return jnp.concatenate([a.reshape(*p.shape[:-1], -1) for a in parts], -1)

    return ct._replace(qkv=jax.tree.map(one, ct.qkv))


def grouped_attention(
    n: int, heads: int, mesh: Mesh, axis: str = "model", *, kv_heads: int | None = None, bias: bool = False,
    init: Callable[..., Array] | None = None, init_out: Callable[..., Array] | None = None, **options: Any,
) -> Sharded:  # fmt: skip
    """`nnjax.attention` without a bias of the output, split by groups of heads that share keys and values: one all-reduce
    forward, after W_out, and one backward, before W_qkv.

    bias: of queries, keys and values; options: others of `nnjax.attention`, such as rope.  Parameters lie as `llama_by_groups`
    puts them: each device has the columns of its own queries, keys and values.
    Raises ValueError if kv_heads is not a multiple of the axis.

    >>> mesh = nnjax.distributed.make_mesh(model=1)
    >>> tuple(nnjax.distributed.grouped_attention(16, 4, mesh, kv_heads=2, rope=True).specs.out.w)
    ('model', None)
    """
    kv_heads = heads if kv_heads is None else kv_heads
    heads, kv_heads = expect_positive("grouped_attention", heads=heads, kv_heads=kv_heads)
    whole = attention(n, heads, kv_heads=kv_heads, bias=bias, out_bias=False, init=init, init_out=init_out, **options)
    own = expect_divides("grouped_attention", "kv_heads", kv_heads, mesh, axis)
    devices = kv_heads // own
    options = {"head_dim": n // heads, **{name: value for name, value in options.items() if value is not None}}
    part = attention(n, heads // devices, kv_heads=own, bias=bias, out_bias=False, **options)
    specs = [P(None, axis), *([P(axis)] if bias else []), P(axis, None)]
    return _summed(
        f"grouped_attention({n}, {heads})", lambda key: by_groups(whole.init(key), devices), part, axis, specs
    )  # fmt: skip


def cut_swiglu(
    n: int, hidden: int, mesh: Mesh, axis: str = "model", *, init: Callable[..., Array] | None = None,
    init_out: Callable[..., Array] | None = None,
) -> Sharded:  # fmt: skip
    """`nnjax.swiglu` split by its hidden features, W_gate and W_up by columns and W_down by rows: one all-reduce forward, after
    W_down, and one backward.

    Raises ValueError if hidden is not a multiple of the axis.

    >>> mesh = nnjax.distributed.make_mesh(model=1)
    >>> [tuple(spec) for spec in jax.tree.leaves(nnjax.distributed.cut_swiglu(4, 6, mesh).specs)]
    [(None, 'model'), (None, 'model'), ('model', None)]
    """
    whole = swiglu(n, hidden, init=init, init_out=init_out)
    part = swiglu(n, expect_divides("cut_swiglu", "hidden", hidden, mesh, axis))
    return _summed(f"cut_swiglu({n}, {hidden})", whole.init, part, axis, [P(None, axis), P(None, axis), P(axis, None)])
