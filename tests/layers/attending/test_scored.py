import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax.fast.cpu import scored as cpu
from nnjax.layers.attending.scored import Extras, Scoring, fast_bwd, fast_fwd, scored_bwd, scored_fwd

BAD = [np.nan, np.inf, -np.inf]
SIZES = [(2, 2, 2, 3, 5, 2, 3), (2, 1, 3, 4, 4, 3, 1), (1, 2, 1, 1, 3, 1, 2), (3, 1, 1, 4, 1, 2, 2)]  # b, h, g, s, t, d, e


def who_sees(x, how, b, h, g, s, t):
    """bool (b, h, g, s, t), one query and key after the other."""
    seen = np.zeros((b, h, g, s, t), bool)
    first = t - s if how.causal == "end" else 0
    left, right = how.window
    for at in np.ndindex(seen.shape):
        n, _, _, i, j = at
        place = first + i
        seen[at] = (
            (how.causal is None or j <= place)
            and (left is None or j >= place - left)
            and (right is None or j <= place + right)
            and (x.mask is None or bool(np.broadcast_to(x.mask, seen.shape)[at]))
            and (x.bias is None or bool(np.broadcast_to(x.bias, seen.shape)[at] > -np.inf))
            and (x.lengths[0] is None or i < x.lengths[0][n])
            and (x.lengths[1] is None or j < x.lengths[1][n])
            and (x.segments is None or bool(x.segments[0][n, i] == x.segments[1][n, j]))
        )
    return seen


def plain(q, k, v, bias, slopes, seen, how, kept):
    """Each query over copies of the keys that it sees, zeros for the others, so that nothing hidden is ever multiplied."""
    with jax.numpy_rank_promotion("allow"):
        own_k, own_v = (jnp.where(seen[..., None], x[:, :, None, None], 0.0) for x in (k, v))
        own_q = jnp.where(seen.any(-1)[..., None], q, 0.0)
        s = how.scale * (own_q[..., None, :] * own_k).sum(-1)
        s = s if how.softcap is None else how.softcap * jnp.tanh(s / how.softcap)
        if slopes is not None:
            first = k.shape[-2] - q.shape[-2] if how.causal == "end" else 0
            i, j = np.arange(q.shape[-2])[:, None] + first, np.arange(k.shape[-2])[None]
            s = s - slopes[None, :, :, None, None] * np.abs(i - j)
        s = s if bias is None else s + jnp.where(seen, bias, 0.0)
        s = jnp.where(seen, s, -1e300)
        e = jnp.where(seen, jnp.exp(s - jax.lax.stop_gradient(s.max(-1, keepdims=True))), 0.0)
        total = e.sum(-1, keepdims=True)
        p = e / jnp.where(total == 0, 1.0, total)
        p = p if kept is None else jnp.where(kept, p / (1 - how.rate), 0.0)
        log_z = jnp.where(total[..., 0] == 0, -jnp.inf, jax.nn.logsumexp(s, -1))
        return (p[..., None] * own_v).sum(-2), log_z


def drawn(seed):
    """(q, k, v, extras, how, cts) of this seed; what nobody may look at is NaN or infinite."""
    rng = np.random.default_rng(seed)
    b, h, g, s, t, d, e = SIZES[seed % len(SIZES)]
    some = lambda: rng.random() < 0.4  # noqa: E731
    axes = lambda: tuple(n if rng.random() < 0.6 else 1 for n in (b, h, g, s, t))  # noqa: E731
    how = Scoring(
        float(rng.uniform(0.2, 2)),
        float(rng.uniform(0.5, 3)) if some() else None,
        str(rng.choice(["start", "end"])) if some() else None,
        tuple(int(rng.integers(0, 4)) if some() else None for _ in range(2)),  # type: ignore[arg-type]
        0.4 if some() else 0.0,
    )
    bias = rng.standard_normal(axes()) if some() else None
    if bias is not None:
        bias[rng.random(bias.shape) < 0.2] = -np.inf
    x = Extras(
        bias,
        rng.uniform(0, 1, (h, g)) if some() else None,
        rng.random(axes()) < 0.7 if some() else None,
        tuple(rng.integers(0, n + 1, b).astype(np.int32) if some() else None for n in (s, t)),  # type: ignore[arg-type]
        (rng.integers(0, 2, (b, s)).astype(np.int8), rng.integers(0, 2, (b, t)).astype(np.int8)) if some() else None,
        jax.random.key(seed),
    )
    q, k, v = (rng.standard_normal(shape) for shape in ((b, h, g, s, d), (b, h, t, d), (b, h, t, e)))
    seen = who_sees(x, how, b, h, g, s, t)
    q[~seen.any(-1)] = rng.choice([*BAD, 1.0])
    blind = ~seen.any((2, 3))
    k[blind], v[blind] = rng.choice([*BAD, 1.0]), rng.choice([*BAD, 1.0])
    cts = rng.standard_normal((b, h, g, s, e)), rng.standard_normal((b, h, g, s))
    return q, k, v, x, how, cts, seen


def both(seed):
    """(names, plain, fast, by jax.grad of each query by itself), values and cotangents."""
    with jax.enable_x64(True):
        q, k, v, x, how, cts, seen = drawn(seed)
        q, k, v, x, cts = jax.tree.map(jnp.asarray, (q, k, v, x, cts))
        kept = None
        if how.rate:
            keys = jax.random.split(x.key, int(np.prod(seen.shape[:3])))
            draws = [jax.random.uniform(key, seen.shape[3:], jnp.float32) >= jnp.float32(how.rate) for key in keys]
            kept = jnp.stack(draws).reshape(seen.shape)
        with jax.numpy_dtype_promotion("standard"):

            @jax.jit
            def reference(q, k, v, bias, slopes, ct_y, ct_log_z):
                values, pull = jax.vjp(lambda *a: plain(*a, seen, how, kept), q, k, v, bias, slopes)
                return *values, *pull((ct_y, jnp.where(jnp.asarray(~seen.any(-1)), 0.0, ct_log_z)))

            theirs = reference(q, k, v, x.bias, x.slopes, *cts)
        found = []
        for fwd, bwd in ((scored_fwd, scored_bwd), (fast_fwd, fast_bwd)):

            def pair(q, k, v, x, cts, fwd=fwd, bwd=bwd):
                y, residuals = fwd(q, k, v, x, how=how)
                ct_q, ct_k, ct_v, ct_x = bwd(residuals, cts, how=how)
                return *y, ct_q, ct_k, ct_v, ct_x.bias, ct_x.slopes

            found.append(jax.jit(pair)(q, k, v, x, cts))
        return ("y", "log_z", "q", "k", "v", "bias", "slopes"), *found, theirs


def agree(seed):
    for name, *ours, theirs in zip(*both(seed)):
        for tier, x in zip(("plain", "fast"), ours):
            if theirs is None:
                assert x is None
            else:
                np.testing.assert_allclose(x, theirs, atol=1e-12, rtol=1e-12, err_msg=f"{tier} {name}")


@pytest.fixture(autouse=True)
def small_rows_and_chunks(monkeypatch):
    monkeypatch.setattr(cpu, "ROW", 2)
    monkeypatch.setattr(cpu, "PRODUCTS", 20)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.repeats
@pytest.mark.in_turn
def test_any_options_together_are_as_each_query_by_itself_and_nobody_meets_what_is_hidden(seed):
    agree(seed)


@pytest.mark.slow
@pytest.mark.in_turn
@pytest.mark.parametrize("seed", range(8, 300, 36))
def test_more_of_them(seed):
    for each in range(seed, seed + 36):
        agree(each)
