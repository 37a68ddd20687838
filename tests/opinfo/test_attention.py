"""PyTorch's samples of attention."""

import jax.numpy as jnp
import pytest

from nnjax import ops

from .samples import agree, without

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def attention(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
    s, t = q.shape[-2], k.shape[-2]
    without(
        dropout_p=(dropout_p, 0.0),
        attn_mask=(attn_mask is None, True),
        scale=(scale, None),
        **{
            "is_causal, of other lengths": (is_causal and s != t, False),
            "values of other features": (v.shape[-1], k.shape[-1]),
            "batches that are broadcast": (q.shape[:-3], k.shape[:-3]),
        },
    )
    heads_last = [jnp.swapaxes(x, -3, -2) if x.ndim > 3 else x[..., None, :] for x in (q, k, v)]
    y = ops.attention(*heads_last, causal=is_causal)
    return jnp.swapaxes(y, -3, -2) if q.ndim > 3 else y[..., 0, :]


OURS = {
    "nn.functional.scaled_dot_product_attention": attention,
}


@pytest.mark.parametrize("name", OURS)
@pytest.mark.in_turn
def test_samples_of_pytorch_give_the_same_output_and_gradients(database, name, capsys):
    agree(database[name], name, OURS[name], capsys)
