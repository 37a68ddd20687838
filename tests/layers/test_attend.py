from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.fast import attend_finite
from nnjax.fast import attend_large as large
from nnjax.fast.cpu import attend as cpu
from nnjax.layers import attend
from nnjax.layers.attend import attend_apply
from nnjax.layers.attend import fast_bwd as attend_bwd
from nnjax.layers.attend import fast_fwd as attend_fwd

TPU = {"held": jax.lax.optimization_barrier}


def gpu_fwd(q, k, v, keep, *, causal):
    """In blocks of 4 queries, instead of those for 1,024 keys."""
    spelled = partial(large.rows_fwd, rows=4)
    y, log_z = attend_finite.attend_fwd(q, k, v, keep, causal=causal, spelled=spelled)
    return y, (q, k, v, keep, y, log_z)


gpu_bwd = partial(attend_finite.attend_bwd, spelled=partial(large.rows_bwd, rows=4))

PAIRS = {
    "plain": (attend.attend_fwd, attend.attend_bwd),
    "tpu": (partial(attend.attend_fwd, **TPU), partial(attend.attend_bwd, **TPU)),
    "gpu": (gpu_fwd, gpu_bwd),
    "fast": (attend_fwd, attend_bwd),
}
SPELLINGS = ["plain", cpu.ROWS, cpu.BLOCKS, "tpu", "gpu"]


def choose(monkeypatch, how):
    """The pair in this spelling."""
    monkeypatch.setattr(cpu, "SPELLINGS", ((1000, how, 4),))
    return PAIRS[how if how in PAIRS else "fast"]


def inputs(s, t, *, h=2, g=2, d=4, b=2, masked=False, seed=0):
    rng = np.random.default_rng(seed)
    q, k, v, ct = (
        jnp.asarray(rng.standard_normal(shape).astype(np.float32))
        for shape in ((b, h, g, s, d), (b, h, t, d), (b, h, t, d), (b, h, g, s, d))
    )
    return q, k, v, jnp.asarray(rng.random((b, t)) < 0.3) if masked else None, ct


def both(q, k, v, keep, ct, causal, pair):
    fwd, bwd = pair

    def definition(q, k, v):
        return attend_apply(q, k, v, keep, causal=causal)

    def by_hand(q, k, v, ct):
        y, residuals = fwd(q, k, v, keep, causal=causal)
        return y, bwd(residuals, ct, causal=causal)

    def by_jax(q, k, v, ct):
        y, pull = jax.vjp(definition, q, k, v)
        return y, pull(ct)

    return jax.jit(lambda *args: (by_hand(*args), by_jax(*args)))(q, k, v, ct)


@pytest.mark.parametrize(
    ("s", "t", "causal", "masked"),
    [
        (1, 1, True, False),
        (9, 9, True, False),  # not a multiple of 4
        (8, 8, True, True),
        (9, 9, False, False),
        (13, 13, False, True),
        (3, 10, False, False),  # a different number of keys than queries
        (10, 3, False, True),
    ],
)
@pytest.mark.parametrize("how", SPELLINGS)
@pytest.mark.repeats
def test_each_spelling_gives_what_the_definition_gives(monkeypatch, how, s, t, causal, masked):
    pair = choose(monkeypatch, how)
    hand, reference = both(*inputs(s, t, masked=masked), causal, pair)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), hand, reference)


@pytest.mark.parametrize("how", SPELLINGS)
@pytest.mark.repeats
@pytest.mark.in_turn
def test_an_empty_batch_and_large_scores(monkeypatch, how):
    pair = choose(monkeypatch, how)
    q, k, v, _, ct = inputs(5, 5)
    empty = tuple(t[:0] for t in (q, k, v))
    hand, _ = both(*empty, None, ct[:0], True, pair)
    assert [t.shape for t in hand[1]] == [t.shape for t in empty]
    (y, cts), (expected, expected_cts) = both(1e4 * q, k, v, None, ct, True, pair)
    assert jnp.isfinite(y).all()
    np.testing.assert_allclose(y, expected, atol=1e-5)
    assert all(jnp.isfinite(t).all() for t in (*cts, *expected_cts))


@pytest.mark.parametrize("how", SPELLINGS)
def test_a_query_without_a_visible_key_gives_zero_and_no_gradient(monkeypatch, how):
    pair = choose(monkeypatch, how)
    q, k, v, _, ct = inputs(4, 4)
    keep = jnp.array([[False, False, True, True], [True] * 4])
    (y, (ct_q, ct_k, _)), (expected, _) = both(q, k, v, keep, ct, True, pair)
    assert not y[0, :, :, :2].any()
    assert not expected[0, :, :, :2].any()
    assert not ct_q[0, :, :, :2].any()
    assert not ct_k[0, :, :2].any()


@pytest.mark.in_turn
def test_half_precision_is_summed_in_float32():
    q, k, v, _, _ = inputs(64, 64, d=64)
    low = [t.astype(jnp.bfloat16) for t in (q, k, v)]
    y, _ = attend_fwd(*low, None, causal=True)
    assert y.dtype == jnp.bfloat16
    exact = attend_apply(*(t.astype(jnp.float32) for t in low), None, causal=True)
    assert float(jnp.abs(y.astype(jnp.float32) - exact).max()) < 0.03


@pytest.mark.parametrize(("keys", "share"), [(1024, 0.6), (2048, 0.15)])
def test_the_matrix_of_all_products_is_never_formed(keys, share):
    q, k, v, _, ct = inputs(keys, keys, h=4, g=1, b=1)

    def by_hand(q, k, v, ct):
        return attend_bwd(attend_fwd(q, k, v, None, causal=True)[1], ct, causal=True)

    memory = jax.jit(by_hand).lower(q, k, v, ct).compile().memory_analysis()
    assert memory.temp_size_in_bytes < share * 4 * keys * keys * 4


def test_a_forgotten_delta_is_found():
    def fwd(q, k, v):
        return attend_fwd(q, k, v, None, causal=True)

    def bwd(residuals, ct):
        *kept, y, log_z = residuals
        return attend_bwd((*kept, jnp.zeros_like(y), log_z), ct, causal=True)

    q, k, v, _, _ = inputs(5, 5)
    report = nnjax.check_pair(
        fwd, bwd, q, k, v, reference=lambda q, k, v: attend_apply(q, k, v, None, causal=True),
        dtypes=["float32"], transforms=["jit"], witnesses=(),
    )  # fmt: skip
    assert {row.leaf for row in report.failures} == {"q", "k"}


def test_a_program_for_a_tpu_holds_the_maximum_apart_and_others_do_not():
    layer = nnjax.attention(8, 2)
    params, x = layer.init(jax.random.key(0)), jnp.zeros((2, 9, 8))

    def step(x):
        y, residuals = layer.fwd(params, x)
        return layer.bwd(residuals, y)

    traced = jax.jit(step).trace(x)
    held = {p: traced.lower(lowering_platforms=(p,)).as_text().count("optimization_barrier") for p in ("cpu", "cuda", "tpu")}
    assert held == {"cpu": 0, "cuda": 0, "tpu": 2}


@pytest.mark.in_turn
def test_what_is_held_apart_has_second_derivatives_and_may_be_mapped():
    q, k, v, _, ct = inputs(5, 5)

    def norm(pair, q):
        _, residuals = pair[0](q, k, v, None, causal=True)
        return (pair[1](residuals, ct, causal=True)[0] ** 2).sum()

    found = [jax.jit(jax.vmap(jax.grad(partial(norm, PAIRS[how]))))(jnp.stack([q, 2 * q])) for how in ("plain", "tpu", "gpu")]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[0], found[2], rtol=1e-5, atol=1e-6)
