import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.fast.gpu import linear_cross_entropy as gpu
from nnjax.losses import fused


def test_rows_are_shared_evenly_among_chunks():
    assert gpu.rows_at_a_time(2048, 2**15) == 512
    assert gpu.rows_at_a_time(2048, 65) == 2048
    assert gpu.rows_at_a_time(1000, 2**17) == 125  # eight even chunks
    assert gpu.rows_at_a_time(0, 65) == 1


def in_chunks(monkeypatch, plain=fused.gradient_of_rows):
    monkeypatch.setattr(gpu, "rows_at_a_time", lambda n, vocab: 2)
    monkeypatch.setattr(fused, "fast_gradient_of_rows", lambda *args: gpu.gradient_of_rows(*args, plain=plain))
    loss = nnjax.linear_cross_entropy()
    return loss._replace(
        fwd=lambda params, x, *, key=None: fused.linear_cross_entropy_fwd(params, x, of_rows=fused.fast_gradient_of_rows)
    )


def inputs(n=5):
    rng = np.random.default_rng(0)
    h, w = (jnp.asarray(rng.standard_normal(shape).astype(np.float32)) for shape in ((n, 3), (7, 3)))
    labels, weights = jnp.asarray(rng.integers(0, 7, n), jnp.int32), jnp.asarray(rng.random(n).astype(np.float32))
    return (h, w), labels, weights


@pytest.mark.parametrize("n", [5, 2, 0])
@pytest.mark.repeats
@pytest.mark.in_turn
def test_the_chunks_keep_to_the_definition(monkeypatch, n):
    loss = in_chunks(monkeypatch)
    if n:
        report = nnjax.check_layer(loss, (), inputs(n), dtypes=["float32", "bfloat16"], transforms=["jit", "vmap"])
        assert report.ok, report
    value, residuals = loss.fwd((), inputs(n))
    cts = loss.bwd(residuals, value)
    assert cts[1][0][0].shape == (n, 3)


def test_a_chunk_whose_rows_are_left_out_is_found(monkeypatch):
    def wrong(rows, w, labels, share):
        losses, ct_h, ct_w = fused.gradient_of_rows(rows, w, labels, share)
        return losses, ct_h, ct_w.at[0].set(0)

    report = nnjax.check_layer(in_chunks(monkeypatch, wrong), (), inputs(), dtypes=["float32"], transforms=["jit"])
    assert not report.ok


def test_a_program_for_a_gpu_loops_only_over_large_chunks():
    loss = nnjax.linear_cross_entropy()

    def loops(n, vocab):
        x = ((jax.ShapeDtypeStruct((n, 8), jnp.float32), jax.ShapeDtypeStruct((vocab, 8), jnp.float32)),
             jax.ShapeDtypeStruct((n,), jnp.int32))  # fmt: skip
        traced = jax.jit(lambda x: loss.fwd((), x)[1]).trace(x)
        return traced.lower(lowering_platforms=("cuda",)).as_text().count("stablehlo.while")

    assert loops(2048, 65) == 0
    assert loops(2048, 32768) == 1
