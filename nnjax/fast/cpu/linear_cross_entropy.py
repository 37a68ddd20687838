"""The gradient of a linear map and its cross-entropy, in chunks of rows: only the outputs of one chunk exist at a time."""

import jax.numpy as jnp
from jax import Array, lax

from ...linear import broadcast, pad
from ..by_rows import zeros_like

CHUNK_BYTES = 2**24  # of outputs that exist at a time
FEW = 256  # up to this many classes the one-hot is formed, rather than scattered (bench case `loss V=65`)
TURNED = 10  # from more chunks than this on ct_wᵀ is formed, in products that are faster, and turned at the end


def rows_at_a_time(n: int, vocab: int) -> int:
    """Rows in a chunk, out of n: at most CHUNK_BYTES of float32 outputs but at least 64 rows, in equal chunks."""
    most = max(64, CHUNK_BYTES // (4 * vocab))
    return -(-n // -(-n // most)) if n else 1


def gradient_of_rows(rows: Array, w: Array, labels: Array, share: Array) -> tuple[Array, Array, Array]:
    """As `nnjax.losses.fused.gradient_of_rows`."""
    n, acc, vocab = rows.shape[0], share.dtype, w.shape[0]
    few, size = vocab <= FEW, rows_at_a_time(n, vocab)
    turned = not few and n > TURNED * size

    def chunks(t):
        t = pad(t, ((0, -n % size), *((0, 0),) * (t.ndim - 1)))
        return t.reshape(t.shape[0] // size, size, *t.shape[1:])  # not -1: a width may be 0

    def step(ct_w, chunk):
        h, share, labels = chunk
        # Fused with the maximum the product is slow.
        s = lax.optimization_barrier(jnp.einsum("cn,vn->cv", h, w, preferred_element_type=acc))
        top = s.max(-1)
        e = jnp.exp(s - broadcast(top[:, None], s.shape))
        z = e.sum(-1)
        if few:  # ct_s = share (p - onehot), formed; its transposes, ct_s w and ct_sᵀ h, need nothing more
            hit = broadcast(labels[:, None], s.shape) == broadcast(jnp.arange(vocab, dtype=jnp.int32)[None], s.shape)
            p = e * broadcast((share / z)[:, None], s.shape)
            ct_s = (p - jnp.where(hit, broadcast(share[:, None], s.shape), jnp.zeros_like(s))).astype(h.dtype)
            ct_h = jnp.einsum("cv,vn->cn", ct_s, w, preferred_element_type=acc)
            ct_w = ct_w + jnp.einsum("cv,cn->vn", ct_s, h, preferred_element_type=acc)
            return ct_w, (top - jnp.where(hit, s, jnp.zeros_like(s)).sum(-1), jnp.log(z), ct_h)
        # ct_s = share (p - onehot), the part of the one-hot below, p = e / z: dividing the thin factors by z saves a pass over
        # the c x v matrix.
        f = broadcast((share / z)[:, None], h.shape)
        e = e.astype(h.dtype)
        ct_h = f * jnp.einsum("cv,vn->cn", e, w, preferred_element_type=acc)
        fh = (f * h.astype(acc)).astype(h.dtype)
        ct_w = ct_w + jnp.einsum("cn,cv->nv", *((fh, e) if turned else (e, fh)), preferred_element_type=acc)
        return ct_w, (top, jnp.log(z), ct_h)

    zeros = zeros_like(w, acc)
    ct_w, (above, log_z, ct_h) = lax.scan(step, zeros.T if turned else zeros, (chunks(rows), chunks(share), chunks(labels)))
    above, log_z, ct_h = above.reshape(-1)[:n], log_z.reshape(-1)[:n], ct_h.reshape(above.size, rows.shape[1])[:n]
    ct_w = ct_w.T if turned else ct_w
    if not few:  # the part of the one-hot: onehot w selects rows of w, its transpose adds to them
        chosen = w.at[labels].get(mode="fill", fill_value=0, wrap_negative_indices=False).astype(acc)
        column = broadcast(share[:, None], rows.shape)
        ct_h = ct_h - column * chosen
        ct_w = ct_w.at[labels].add(-column * rows.astype(acc), mode="drop", wrap_negative_indices=False)
        above = above - (rows.astype(acc) * chosen).sum(-1)
    return above + log_z, ct_h, ct_w
