import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.fast import attend_large as large
from nnjax.layers.attend import attend_apply, attend_bwd, attend_fwd


@pytest.fixture
def small(monkeypatch):
    """Blocks of 2 queries from 4 keys on."""
    for name, value in (("KEYS", 4), ("TILE", 2), ("BLOCK_BYTES", 1)):
        monkeypatch.setattr(large, name, value)


def inputs(s=9, t=9, seed=0):
    rng = np.random.default_rng(seed)
    shapes = (2, 2, 3, s, 4), (2, 2, t, 4), (2, 2, t, 4), (2, 2, 3, s, 4)
    return tuple(jnp.asarray(rng.standard_normal(shape).astype(np.float32)) for shape in shapes)


def pair(causal, bwd=large.attend_bwd):
    def fwd(q, k, v):
        y, log_z = large.attend_fwd(q, k, v, None, causal=causal, plain=None)
        return y, (q, k, v, None, y, log_z)

    return fwd, lambda residuals, ct: bwd(residuals, ct, causal=causal, plain=None)


def test_blocks_are_few_and_large():
    def q(b, heads, s):
        return jax.ShapeDtypeStruct((b, heads, 1, s, 64), jnp.float32)

    assert large.rows_at_a_time(q(1, 2, 4096), 4096) == 1024
    assert large.rows_at_a_time(q(1, 4, 2048), 2048) == 1024
    assert large.rows_at_a_time(q(1, 1, 2048), 2048) is None  # 17 MB: one block
    assert large.rows_at_a_time(q(64, 16, 1024), 1024) is None
    assert large.rows_at_a_time(q(1, 2, 1), 4096) is None  # one query
    rows = large.rows_at_a_time(q(8, 16, 5000), 5000)
    assert rows is not None
    assert rows % large.TILE == 0
    assert math.ceil(5000 / rows) <= large.MOST
    assert large.rows_at_a_time(q(0, 2, 4096), 4096) is None


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.repeats
@pytest.mark.in_turn
def test_the_blocks_keep_to_the_definition(small, causal):
    q, k, v, _ = inputs()
    report = nnjax.check_pair(
        *pair(causal), q, k, v, reference=lambda q, k, v: attend_apply(q, k, v, None, causal=causal),
        dtypes=["float32", "bfloat16"], transforms=["jit", "vmap"],
    )  # fmt: skip
    assert report.ok, report


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("_seen", lambda keep, rows, t, causal: large.visible(large.numbers(0, 2), large.numbers(0, t), keep, causal)),
        ("_plus", lambda sums, first: first if sums is None else sums),
        ("clear", lambda p, seen: p * 1.01),
    ],
)
def test_a_fault_in_a_block_is_found(small, monkeypatch, name, wrong):
    monkeypatch.setattr(large, name, wrong)
    q, k, v, _ = inputs(8, 8)
    report = nnjax.check_pair(
        *pair(True), q, k, v, reference=lambda q, k, v: attend_apply(q, k, v, None, causal=True),
        dtypes=["float32"], transforms=["jit"], witnesses=(),
    )  # fmt: skip
    assert not report.ok


@pytest.mark.slow
@pytest.mark.in_turn
def test_hidden_numbers_may_be_anything_and_visible_ones_count(small):
    q, k, v, ct = inputs()
    k, v = k.at[:, :, 5].set(jnp.nan), v.at[:, :, 6].set(jnp.inf)
    y, log_z = large.attend_fwd(q, k, v, None, causal=True, plain=None)
    expected, (*_, expected_log_z) = attend_fwd(q, k, v, None, causal=True)
    np.testing.assert_allclose(y, expected, atol=1e-5)
    np.testing.assert_array_equal(jnp.isnan(log_z), jnp.isnan(expected_log_z))
    assert jnp.isfinite(y[..., :5, :]).all()
    assert jnp.isnan(y[..., 5:, :]).all()
    cts = large.attend_bwd((q, k, v, None, y, log_z), ct, causal=True, plain=None)
    expected_cts = attend_bwd((q, k, v, None, expected, expected_log_z), ct, causal=True)
    np.testing.assert_array_equal(jnp.isnan(cts[0]), jnp.isnan(expected_cts[0]))


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_a_program_for_a_gpu_or_tpu_goes_in_blocks_and_holds_no_square(platform):
    shape = (1, 2, 1, 4096, 64)
    q, k = (jax.ShapeDtypeStruct(s, jnp.float32) for s in (shape, (1, 2, 4096, 64)))

    def step(q, k, v, ct):
        from nnjax.layers.attend import fast_bwd, fast_fwd

        y, residuals = fast_fwd(q, k, v, None, causal=True)
        return y, fast_bwd(residuals, ct, causal=True)

    text = jax.jit(step).trace(q, k, k, q).lower(lowering_platforms=(platform,)).as_text()
    assert text.count("optimization_barrier") >= 7
    assert "4096x4096" not in text
