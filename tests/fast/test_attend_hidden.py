import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax.fast import attend_finite
from nnjax.fast import attend_large as large
from nnjax.fast.attend_hidden import finite, hide, kept, told, visible, who_sees_no_number
from nnjax.fast.cpu import attend
from nnjax.layers.attend import attend_apply, fast_bwd, fast_fwd
from nnjax.layers.attend import attend_bwd as plain_bwd
from nnjax.layers.attend import attend_fwd as plain_fwd
from nnjax.layers.attention import attention, attention_step, expect_attention

BAD = [np.nan, np.inf, -np.inf, 1e38]


def plain(q, k, v, keep, causal):
    """Attention of every query over copies of the keys that it sees, zero if it sees none: hidden numbers are never used."""
    with jax.numpy_rank_promotion("allow"):
        seen = np.ones((q.shape[-2], k.shape[-2]), bool)
        seen = (np.tril(seen) if causal else seen)[None, None, None]
        seen = seen if keep is None else seen & np.asarray(keep)[:, None, None, None]
        own_k, own_v = (jnp.where(seen[..., None], x[:, :, None, None], 0.0) for x in (k, v))
        own_q = jnp.where(seen.any(-1)[..., None], q, 0.0)
        s = jnp.where(seen, (own_q[..., None, :] * own_k).sum(-1) / np.sqrt(q.shape[-1]), -1e300)
        e = jnp.where(seen, jnp.exp(s - s.max(-1, keepdims=True)), 0.0)
        total = e.sum(-1, keepdims=True)
        return ((e / jnp.where(total == 0, 1.0, total))[..., None] * own_v).sum(-2)


def drawn(seed):
    """(q, k, v, keep, ct_y, causal, queries at a time) for this seed, with NaN or infinity wherever no query looks."""
    rng = np.random.default_rng(seed)
    causal, masked = bool(rng.integers(2)), bool(rng.integers(2))
    b, h, g, d = (int(n) for n in rng.integers(1, (4, 4, 4, 6)))
    s = int(rng.choice([1, 2, 3, 5, 7, 11]))
    t = s if causal else int(rng.choice([1, 2, 3, 5, 8]))
    q, k, v, ct = (rng.standard_normal(shape) for shape in ((b, h, g, s, d), (b, h, t, d), (b, h, t, d), (b, h, g, s, d)))
    keep = rng.random((b, t)) < rng.choice([0.0, 0.3, 0.8]) if masked else None
    if keep is not None:
        for x in (k, v):
            x[~keep[:, None, :, None] & np.ones(x.shape, bool)] = rng.choice([*BAD, 1.0])
        blind = ~np.logical_or.accumulate(keep, -1) if causal else np.broadcast_to(~keep.any(-1, keepdims=True), (b, s))
        q[blind[:, None, None, :, None] & np.ones(q.shape, bool)] = rng.choice(BAD)
    return q, k, v, keep, ct, causal, int(rng.choice([1, 2, 4, 100]))


def by_hand(q, k, v, keep, ct, causal, fwd=fast_fwd, bwd=fast_bwd):
    y, residuals = fwd(q, k, v, keep, causal=causal)
    return y, *bwd(residuals, ct, causal=causal)


def in_blocks(rows):
    """The pair for a GPU, with this many queries at a time."""

    def fwd(q, k, v, keep, *, causal):
        spelled = functools.partial(large.rows_fwd, rows=rows)
        return (made := attend_finite.attend_fwd(q, k, v, keep, causal=causal, spelled=spelled))[0], (q, k, v, keep, *made)

    return fwd, functools.partial(attend_finite.attend_bwd, spelled=functools.partial(large.rows_bwd, rows=rows))


def pulled(f, q, k, v, ct):
    y, pull = jax.vjp(f, q, k, v)
    return y, *pull(ct)


def held(monkeypatch, seed, atol=1e-12):
    q, k, v, keep, ct, causal, block = drawn(seed)
    q, k, v, ct = map(jnp.asarray, (q, k, v, ct))
    right = jax.jit(lambda *xs: pulled(lambda q, k, v: plain(q, k, v, keep, causal), *xs))(q, k, v, ct)
    keep = None if keep is None else jnp.asarray(keep)
    found = [jax.jit(lambda *xs: pulled(lambda q, k, v: attend_apply(q, k, v, keep, causal=causal), *xs))(q, k, v, ct)]
    for fwd, bwd in ((plain_fwd, plain_bwd), in_blocks(block)):
        found.append(jax.jit(lambda *xs, f=fwd, b=bwd: by_hand(*xs[:3], keep, xs[3], causal, f, b))(q, k, v, ct))
    for how in (attend.ROWS, attend.BLOCKS):
        monkeypatch.setattr(attend, "SPELLINGS", ((1000, how, block),))
        found.append(jax.jit(lambda q, k, v, ct: by_hand(q, k, v, keep, ct, causal))(q, k, v, ct))
    for name, ours in zip(("definition", "plain", "gpu", attend.ROWS, attend.BLOCKS), found, strict=True):
        for leaf, a, b in zip(("y", "ct_q", "ct_k", "ct_v"), ours, right, strict=True):
            assert a.dtype == jnp.float64
            np.testing.assert_allclose(a, b, rtol=atol, atol=atol, err_msg=f"{leaf} of {name}, seed {seed}")


@pytest.mark.parametrize("seed", range(24))
@pytest.mark.repeats
@pytest.mark.in_turn
def test_attention_of_every_kind_equals_attention_over_copies_of_the_visible_keys(monkeypatch, x64, seed):
    held(monkeypatch, seed)


@pytest.mark.parametrize("first", range(100, 320, 20))
@pytest.mark.slow
@pytest.mark.in_turn
def test_two_hundred_more_attentions(monkeypatch, x64, first):
    for seed in range(first, first + 20):
        held(monkeypatch, seed)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


Q, K, V, CT = normal(2, 2, 2, 6, 4), normal(2, 2, 6, 4, seed=1), normal(2, 2, 6, 4, seed=2), normal(2, 2, 2, 6, 4, seed=3)


def spellings(monkeypatch, causal, keep=None):
    """(name, f) of the definition and every spelling of the pair; f(q, k, v, ct) -> (y, ct_q, ct_k, ct_v)."""
    yield "definition", lambda *xs: pulled(lambda q, k, v: attend_apply(q, k, v, keep, causal=causal), *xs)
    yield "plain", lambda q, k, v, ct: by_hand(q, k, v, keep, ct, causal, plain_fwd, plain_bwd)
    yield "gpu", lambda q, k, v, ct: by_hand(q, k, v, keep, ct, causal, *in_blocks(4))
    for how in (attend.ROWS, attend.BLOCKS):
        monkeypatch.setattr(attend, "SPELLINGS", ((1000, how, 4),))
        yield how, functools.partial(lambda q, k, v, ct: by_hand(q, k, v, keep, ct, causal))


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("holder", ["k", "v", "q"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.slow
@pytest.mark.in_turn
def test_queries_before_a_nan_are_not_affected_by_it(monkeypatch, holder, bad, dtype):
    at = 5 if holder == "q" else 3  # spoil the last query, or a key that later queries see
    given = {"q": jnp.asarray(Q, dtype), "k": jnp.asarray(K, dtype), "v": jnp.asarray(V, dtype)}
    ct = jnp.asarray(CT, dtype)
    spoilt = given | {holder: given[holder].at[..., at, 1].set(bad)}
    for name, f in spellings(monkeypatch, causal=True):
        right = f(*given.values(), ct)
        y, ct_q, *_ = f(*spoilt.values(), ct)
        np.testing.assert_array_equal(y[..., :at, :], right[0][..., :at, :], err_msg=name)
        np.testing.assert_array_equal(ct_q[..., :at, :], right[1][..., :at, :], err_msg=name)
        if not abs(bad) <= float(jnp.finfo(dtype).max):
            assert jnp.isnan(y[..., at:, :]).all(), name  # the query that sees it is NaN


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.repeats
@pytest.mark.in_turn
def test_keys_after_a_query_with_nan_keep_their_gradient(monkeypatch, bad):
    for name, f in spellings(monkeypatch, causal=True):
        _, ct_q, ct_k, ct_v = f(jnp.asarray(Q).at[..., 2, 0].set(bad), jnp.asarray(K), jnp.asarray(V), jnp.asarray(CT))
        for ct in (ct_k, ct_v):
            assert jnp.isfinite(ct[..., 3:, :]).all(), name
            assert jnp.isnan(ct[..., :3, :]).all(), name
        assert jnp.isfinite(ct_q[..., jnp.array([0, 1, 3, 4, 5]), :]).all(), name


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.slow
@pytest.mark.in_turn
def test_masked_keys_have_no_gradient_and_no_effect_under_vmap_and_scan(monkeypatch, causal, dtype):
    keep = jnp.array([[True, False, True, True, False, True], [False, True, True, False, True, True]])
    q, k, v, ct = (jnp.asarray(x, dtype) for x in (Q, K, V, CT))
    hole = ~keep[:, None, :, None] & jnp.ones(k.shape, bool)
    k_bad, v_bad = jnp.where(hole, jnp.asarray(jnp.nan, dtype), k), jnp.where(hole, jnp.asarray(-jnp.inf, dtype), v)
    for name, f in spellings(monkeypatch, causal, keep):
        for a, b in zip(f(q, k_bad, v_bad, ct), f(q, k, v, ct), strict=True):
            np.testing.assert_array_equal(a, b, err_msg=name)
        _, _, ct_k, ct_v = f(q, k_bad, v_bad, ct)
        assert not ct_k[jnp.asarray(hole)].any(), name
        assert not ct_v[jnp.asarray(hole)].any(), name

    def one(q, k, v, keep, ct):
        return tuple(x[0] for x in by_hand(q[None], k[None], v[None], keep[None], ct[None], causal))

    whole = by_hand(q, k_bad, v_bad, keep, ct, causal)
    each = jax.vmap(one)(q, k_bad, v_bad, keep, ct)
    scanned = jax.lax.scan(lambda c, xs: (c, one(*xs)), None, (q, k_bad, v_bad, keep, ct))[1]
    tolerance = 1e-5 if dtype == jnp.float32 else 5e-2
    for found in (each, scanned):
        for a, b in zip(found, whole, strict=True):
            np.testing.assert_allclose(a.astype(jnp.float32), b.astype(jnp.float32), rtol=tolerance, atol=tolerance)


@pytest.mark.slow
@pytest.mark.in_turn
def test_a_masked_layer_keeps_a_spoilt_position_to_itself():
    layer = attention(8, 4, kv_heads=2, rope=True, key_mask=True)
    params, x, mask = (
        layer.init(jax.random.key(0)),
        jnp.asarray(normal(2, 5, 8)),
        jnp.array([[True, False, True, True, True]] * 2),
    )
    spoilt = x.at[:, 1].set(jnp.nan)
    for f in (layer.apply, lambda *args: layer.fwd(*args)[0]):
        y, right = f(params, (spoilt, mask)), f(params, (x, mask))
        np.testing.assert_array_equal(jnp.delete(y, 1, axis=1), jnp.delete(right, 1, axis=1))
        assert jnp.isnan(y[:, 1]).all()  # its own query is NaN


@pytest.mark.in_turn
def test_later_positions_are_ignored_in_generation():
    layer, opts = attention(8, 4), expect_attention(8, 4)
    params, x = layer.init(jax.random.key(0)), jnp.asarray(normal(3, 2, 8))
    cache = (jnp.full((3, 4, 5, 2), jnp.nan), jnp.full((3, 4, 5, 2), jnp.inf))
    for t in range(2):
        y, cache = attention_step(params, x[:, t], cache, jnp.int32(t), opts=opts)
    np.testing.assert_allclose(y, layer.apply(params, x)[:, 1], atol=1e-5)


@pytest.mark.in_turn
def test_the_pieces_do_what_they_say():
    x = jnp.array([[[[1.0, jnp.nan], [2.0, 3.0]]]])
    np.testing.assert_array_equal(finite(x)[0, 0], [[1.0, 0.0], [2.0, 3.0]])
    np.testing.assert_array_equal(told(x)[0, 0], [jnp.nan, 0.0])
    np.testing.assert_array_equal(kept(x, jnp.array([[False, True]]))[0, 0], [[0.0, 0.0], [2.0, 3.0]])
    assert kept(x, None) is x
    good, bad = jnp.ones((1, 1, 3, 2)), jnp.ones((1, 1, 3, 2)).at[0, 0, 1, 0].set(-jnp.inf)
    for given, who in (((good, good, good), [0, 0, 0]), ((bad, good, good), [0, 1, 0]), ((good, bad, good), [0, 1, 1]),
                       ((good, good, bad), [0, 1, 1])):  # fmt: skip
        q, k, v = given
        np.testing.assert_array_equal(who_sees_no_number(q[:, :, None], k, v, None)[0, 0, 0], who)
    rows = jnp.arange(2, dtype=jnp.int32)
    np.testing.assert_array_equal(visible(rows, rows, jnp.array([[True, False]]), True)[0, 0, 0], [[True, False]] * 2)
    np.testing.assert_array_equal(hide(jnp.ones(2), jnp.array([True, False])), [1.0, jnp.finfo(jnp.float32).min])
