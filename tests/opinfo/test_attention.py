"""PyTorch's samples of attention."""

import jax
import jax.numpy as jnp
import pytest

import nnjax
from nnjax import layers, ops

from .modules import Module, flat, parameters
from .samples import agree, call

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
LEAST = 0.95
KEY = jax.random.key(0)


def attention(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
    """scaled_dot_product_attention; where no input has an axis of heads, there is one head."""
    headless = max(x.ndim for x in (q, k, v)) == 3
    if headless:
        q, k, v = (x[:, None] for x in (q, k, v))
        attn_mask = attn_mask[:, None] if attn_mask is not None and attn_mask.ndim == 3 else attn_mask
    lead = jnp.broadcast_shapes(*(x.shape[:-3] for x in (q, k, v)))
    many = max(x.shape[-3] for x in (q, k, v))
    heads = (q.shape[-3], k.shape[-3], v.shape[-3]) if enable_gqa else (many,) * 3
    q, k, v = (jnp.broadcast_to(x, (*lead, h, *x.shape[-2:])) for x, h in zip((q, k, v), heads))
    if attn_mask is not None:
        attn_mask = attn_mask.reshape((1,) * (len(lead) + 3 - attn_mask.ndim) + attn_mask.shape)
    masked = {} if attn_mask is None else {"mask" if attn_mask.dtype == bool else "bias": attn_mask}
    order = "start" if is_causal else False
    dropped = {"dropout_rate": dropout_p, "key": KEY} if dropout_p else {}
    y = ops.attention(*(jnp.swapaxes(x, -3, -2) for x in (q, k, v)), causal=order, scale=scale, **masked, **dropped)
    y = jnp.swapaxes(y, -3, -2)
    return y[:, 0] if headless else y


def kept(batch: int, heads: int, s: int, t: int, rate: float):
    """Which weights our dropout keeps: with equal scores, and the weights themselves for an output."""
    even = jnp.zeros((batch, s, heads, 1))
    ones = jnp.broadcast_to(jnp.eye(t)[:, None], (batch, t, heads, t))
    y = ops.attention(even, jnp.zeros((batch, t, heads, 1)), ones, causal=False, dropout_rate=rate, key=KEY)
    return jnp.swapaxes(y, 1, 2) > 0


class Attention:
    """PyTorch's, which drops the weights that ours drops: it draws others from its own generator."""

    def __init__(self, op):
        self.sample_inputs = op.sample_inputs
        self.op = op

    def __call__(self, q, k, v, dropout_p=0.0, **options):
        import torch

        if not dropout_p:
            return self.op(q, k, v, **options)
        lead = torch.broadcast_shapes(q.shape[:-2], k.shape[:-2])
        batch, heads = lead if len(lead) == 2 else (lead[0], 1)
        mask = torch.tensor(kept(batch, heads, q.shape[-2], k.shape[-2], dropout_p).tolist())
        mask = mask if len(lead) == 2 else mask[:, 0]
        math = torch.ops.aten._scaled_dot_product_attention_math
        return math(q, k, v, dropout_p=dropout_p, dropout_mask=mask, **options)[0]


def test_samples_of_scaled_dot_product_attention_agree(database, capsys):
    op = Attention(database["nn.functional.scaled_dot_product_attention"])
    agree(op, "scaled_dot_product_attention", attention, capsys, LEAST)


def multihead(module, query, key, value, key_padding_mask=None, attn_mask=None, **options):
    """MultiheadAttention without an axis for the batch: (positions, features)."""
    p, options = parameters(options)
    assert not options
    n, heads = module.embed_dim, module.num_heads
    dense = nnjax.dense(n, n, bias="in_proj_bias" in p)
    biases = jnp.split(p["in_proj_bias"], 3) if "in_proj_bias" in p else [None] * 3
    weights = jnp.split(p["in_proj_weight"], 3)
    q, k, v = (call(dense, layers.DenseParams(w.T, b), x) for w, b, x in zip(weights, biases, (query, key, value)))
    seen = jnp.ones((heads, len(q), len(k)), bool)
    seen = seen if attn_mask is None else seen & ~attn_mask
    seen = seen if key_padding_mask is None else seen & ~key_padding_mask[None, None]
    added = [(p["bias_k"][0], p["bias_v"][0])] if "bias_k" in p else []
    added += [(jnp.zeros((1, n)),) * 2] if module.add_zero_attn else []
    for more_k, more_v in added:
        k, v = jnp.concatenate([k, more_k]), jnp.concatenate([v, more_v])
    seen = jnp.pad(seen, ((0, 0), (0, 0), (0, len(added))), constant_values=True)
    q, k, v = (x.reshape(len(x), heads, n // heads) for x in (q, k, v))
    y = ops.attention(q, k, v, mask=seen, causal=False)
    told = jnp.broadcast_to(jnp.eye(len(k))[:, None], (len(k), heads, len(k)))
    shares = ops.attention(q, k, told, mask=seen, causal=False).mean(1)
    out = layers.DenseParams(p["out_proj.weight"].T, p.get("out_proj.bias"))
    y = call(nnjax.dense(n, n, bias=out.b is not None), out, y.reshape(len(y), n))
    return jnp.concatenate([part.ravel() for part in flat((y, shares))])


def test_samples_of_multihead_attention_agree(database, capsys):
    agree(Module("MultiheadAttention"), "MultiheadAttention", multihead, capsys, LEAST)
