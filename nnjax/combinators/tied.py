"""One table at both ends: its two cotangents are added."""

from typing import Any, NamedTuple

import jax

from ..errors import describe, expect_key
from ..layer import Layer, Met, Y, add_cotangents, expect_layer, split_key


class TiedParams(NamedTuple):
    """table: the parameters that embed and head share; body: those of the body. See `tied`."""

    table: Any
    body: Any


def tied(embed: Layer, body: Layer, head: Layer[Y]) -> Layer[Y]:
    """y = head(table, body(embed(table, x))): one table used twice.

    Backward: head gives ct_table_out and embed gives ct_table_in. The table's cotangent is their sum: the table was copied,
    and the transpose of a copy is a sum. The key is split in three.
    Raises TypeError for what is no Layer, and for params that are not TiedParams.

    >>> model = nnjax.tied(nnjax.embedding(10, 4), nnjax.tanh(), nnjax.unembedding(10, 4))
    >>> model.apply(model.init(jax.random.key(0)), jnp.array([1, 7])).shape
    (2, 10)
    """
    for layer in (embed, body, head):
        expect_layer("tied", layer)

    def init(key):
        expect_key("tied.init", key)
        k_table, k_body = jax.random.split(key)
        return TiedParams(embed.init(k_table), body.init(k_body))

    def checked(params):
        if not isinstance(params, TiedParams):
            raise TypeError(
                f"tied: params must be TiedParams(table, body), got {describe(params)}; make them with layer.init(key)."
            )
        return params

    def apply(params, x, *, key=None):
        table, inner = checked(params)
        k_embed, k_body, k_head = split_key(key, 3)
        e = embed.apply(table, x, key=k_embed)
        return head.apply(table, body.apply(inner, e, key=k_body), key=k_head)

    def fwd(params, x, *, key=None):
        table, inner = checked(params)
        k_embed, k_body, k_head = split_key(key, 3)
        e, embed_residuals = embed.fwd(table, x, key=k_embed)
        h, body_residuals = body.fwd(inner, e, key=k_body)
        y, head_residuals = head.fwd(table, h, key=k_head)
        return y, (embed_residuals, body_residuals, head_residuals)

    def bwd(residuals, ct_y):
        embed_residuals, body_residuals, head_residuals = residuals
        ct_table_out, ct_h = head.bwd(head_residuals, ct_y)
        ct_body, ct_e = body.bwd(body_residuals, ct_h)
        ct_table_in, ct_x = embed.bwd(embed_residuals, ct_e)
        return TiedParams(add_cotangents(ct_table_in, ct_table_out), ct_body), ct_x

    def walk(params, x, key):
        table, inner = checked(params)
        k_embed, k_body, k_head = split_key(key, 3)
        table, e = yield Met("embed", embed, table, x, k_embed)
        inner, h = yield Met("body", body, inner, e, k_body)
        _, y = yield Met("head", head, table, h, k_head)
        return TiedParams(table, inner), y

    return Layer("tied", init, apply, fwd, bwd, (embed, body, head), walk, tied)
