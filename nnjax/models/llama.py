"""Llama."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..combinators import residual, scan_layers, serial, tied
from ..errors import describe, expect_flag, expect_not_negative, expect_positive, whole_number
from ..layer import Layer
from ..layers.attending.rotary import THETA
from ..layers.attention import attention
from ..layers.dropout import dropout as drop
from ..layers.dropout import expect_rate
from ..layers.embedding import embedding, unembedding
from ..layers.gating.gated import swiglu
from ..layers.norm import rms_norm
from .gpt import gpt_initializers

Window = tuple[int, int] | None


class LlamaOptions(NamedTuple):
    """The options of a `llama` that its parameters and its numbers depend on, by the names of its arguments."""

    vocab: int
    context: int
    layers: int
    heads: int
    width: int
    kv_heads: int | None = None
    head_dim: int | None = None
    hidden: int | None = None
    rope_theta: float = THETA
    rope_scaling: Mapping[str, Any] | None = None
    eps: float = 1e-5
    qkv_bias: bool = False
    sliding_window: int | None = None
    full_layers: int = 0
    tie: bool = False
    dropout: float = 0.0
    scan: bool = True

    def attention(self, window: Window) -> dict[str, Any]:
        """The options of `attention` in blocks with this window."""
        return {
            "kv_heads": self.kv_heads, "head_dim": self.head_dim, "rope": True, "rope_theta": self.rope_theta,
            "rope_scaling": self.rope_scaling, "window": window,
        }  # fmt: skip

    def stacks(self) -> list[tuple[int, Window]]:
        """(how many blocks, the window of their attention), in order."""
        if self.sliding_window is None or self.sliding_window >= self.context:
            return [(self.layers, None)]
        full = min(self.full_layers, self.layers)
        found: list[tuple[int, Window]] = [(full, None), (self.layers - full, (self.sliding_window - 1, 0))]
        return [(n, window) for n, window in found if n]


def expect_llama(o: LlamaOptions) -> LlamaOptions:
    """The options with their defaults filled in. Raises ValueError or TypeError for those that make no sense."""
    sizes = {name: getattr(o, name) for name in ("vocab", "context", "layers", "heads", "width")}
    vocab, context, layers, heads, width = expect_positive("llama", **sizes)
    hidden = -(-8 * width // 24) * 8 if o.hidden is None else expect_positive("llama", hidden=o.hidden)[0]
    if o.sliding_window is not None:
        expect_positive("llama", sliding_window=o.sliding_window)
    full = whole_number(o.full_layers)
    if full is None or full < 0:
        raise ValueError(f"llama: full_layers must be a whole number of at least 0, got {o.full_layers!r}; pass how many "
                         "of the first layers see all positions.")  # fmt: skip
    expect_flag("llama", qkv_bias=o.qkv_bias, tie=o.tie, scan=o.scan)
    expect_rate("llama", o.dropout)
    (eps,) = expect_not_negative("llama", eps=o.eps)
    return o._replace(vocab=vocab, context=context, layers=layers, heads=heads, width=width, hidden=hidden, full_layers=full,
                      eps=eps)  # fmt: skip


def within(embed: Layer, context: int) -> Layer:
    """embed, for ids (..., s) with s <= context."""

    def checked(f: Callable[..., Any]) -> Callable[..., Any]:
        def run(params, x, *, key=None):
            shape = getattr(x, "shape", ())
            if shape and shape[-1] > context:
                raise ValueError(f"llama: ids must have at most {context} positions, the context, got {describe(x)}; cut them, "
                                 "or make the model with a larger context.")  # fmt: skip
            return f(params, x, key=key)

        return run

    return embed._replace(apply=checked(embed.apply), fwd=checked(embed.fwd))


def llama_block(o: LlamaOptions, window: Window = None, kernel: bool = False) -> Layer:
    """One block: x + attention(norm(x)), then x + swiglu(norm(x)).  x, y: (..., s, width).  o: complete options."""
    normal, small = gpt_initializers(o.layers)
    dropped = (drop(o.dropout),) if o.dropout else ()
    mix = attention(
        o.width, o.heads, **o.attention(window), bias=o.qkv_bias, out_bias=False, init=normal, init_out=small, kernel=kernel
    )
    assert o.hidden is not None
    feed = swiglu(o.width, o.hidden, init=normal, init_out=small)
    before = rms_norm(o.width, eps=o.eps)
    return serial(residual(serial(before, mix, *dropped)), residual(serial(before, feed, *dropped)))


def llama(
    vocab: int,
    context: int,
    layers: int,
    heads: int,
    width: int,
    *,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    hidden: int | None = None,
    rope_theta: float = 10000.0,
    rope_scaling: Mapping[str, Any] | None = None,
    eps: float = 1e-5,
    qkv_bias: bool = False,
    sliding_window: int | None = None,
    full_layers: int = 0,
    tie: bool = False,
    dropout: float = 0.0,
    fused: bool = False,
    remat: bool = False,
    scan: bool = True,
    kernel: bool = False,
) -> Layer:
    """Llama (Touvron et al. 2023): ids -> logits of the next id at every position.

    An embedding; `layers` blocks x + attention(norm(x)), x + swiglu(norm(x)), with RMS norms, causal attention with rotary
    positions, and no biases; a last norm; a table of its own as the head, or with `tie` the embedding's again.
    ids: integers (..., s), s <= context; y: (..., s, vocab), or with `fused` (h, table) for `linear_cross_entropy`, h: (...,
    s, width).  kv_heads, head_dim, rope_theta, rope_scaling, kernel: as in `attention`; hidden: of `swiglu`, by default 8/3
    width, rounded up to a multiple of 8, which makes a block of about as many parameters as a gpt's; eps: of the norms;
    qkv_bias: biases of queries, keys and values, as in Qwen-2. sliding_window: how many positions a position sees, its own
    among them, in all blocks but the first full_layers; dropout, remat, scan and initial weights: as in `gpt`.
    params: the tuple (table, body, head), or with `tie` TiedParams(table, body).  It is a composition: each part has its own
    transpose, and they follow in reverse order.
    Raises ValueError for sizes that do not fit together, ids longer than the context, and remat without scan.

    >>> model = nnjax.llama(65, context=16, layers=2, heads=4, width=32, kv_heads=2)
    >>> model.apply(model.init(jax.random.key(0)), jnp.array([[1, 2, 3]])).shape
    (1, 3, 65)
    """
    o = expect_llama(LlamaOptions(
        vocab, context, layers, heads, width, kv_heads, head_dim, hidden, rope_theta, rope_scaling, eps, qkv_bias,
        sliding_window, full_layers, tie, dropout, scan,
    ))  # fmt: skip
    expect_flag("llama", fused=fused, remat=remat, kernel=kernel)
    if remat and not scan:
        raise ValueError("llama: remat needs the scan, in which it recomputes blocks, got scan=False; leave one of them out.")
    normal, _ = gpt_initializers(o.layers)
    dropped = (drop(dropout),) if dropout else ()
    blocks = [(llama_block(o, window, kernel), n) for n, window in o.stacks()]
    if scan:
        stacks = [scan_layers(block, n, remat=remat) for block, n in blocks]
    else:
        stacks = [serial(*(block for block, n in blocks for _ in range(n)))]
    body = serial(*dropped, *stacks, rms_norm(o.width, eps=o.eps))
    table = embedding(o.vocab, o.width, init=normal)
    embed, head = within(table, o.context), unembedding(o.vocab, o.width, fused=fused)
    whole = tied(embed, body, head) if tie else serial(embed, body, head._replace(init=table.init))
    return whole._replace(name="llama")
