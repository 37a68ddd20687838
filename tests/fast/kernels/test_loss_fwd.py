"""The kernel of the losses, interpreted: right at awkward sizes, and faults in it are found."""

from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.fast.kernels import loss_fwd as kernel
from nnjax.fast.kernels import loss_steps, steps
from nnjax.fast.kernels.loss_plan import plan_for
from nnjax.losses.fused import gradient_of_rows


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16], ids=lambda d: d.__name__)
@pytest.mark.slow
@pytest.mark.in_turn
def test_with_the_blocks_of_each_platform(drawn_rows, dtype):
    h, w, labels, _ = drawn_rows(150, 300, 20, dtype)
    right, *_ = gradient_of_rows(h, w, labels, jnp.ones(150, jnp.float32))
    for platform in ("cuda", "tpu"):
        plan = plan_for(platform, h, w)
        if plan is None:
            assert (platform, dtype) == ("tpu", jnp.float16)
            continue
        losses, log_z = jax.jit(kernel.loss_fwd, static_argnums=3)(h, w, labels, plan._replace(interpret=True))
        assert (losses.dtype, log_z.dtype) == (jnp.float32, jnp.float32)
        np.testing.assert_allclose(losses, right, rtol=1e-5, atol=1e-5, err_msg=platform)


@pytest.mark.parametrize("platform", ["tpu", pytest.param("cuda", marks=pytest.mark.slow)])
@pytest.mark.in_turn
def test_scores_of_minus_infinity_in_a_whole_block_are_not_nan(drawn_rows, rows_in_kernels, platform):
    h, w, labels, share = drawn_rows(n=3, v=9)
    h, w = jnp.abs(h) + 1, w.at[:4].set(-jnp.inf)
    labels = jnp.full_like(labels, 7)
    right = gradient_of_rows(h, w, labels, share)[0]
    assert jnp.isfinite(right).all()
    in_kernels = jax.jit(rows_in_kernels(platform))
    np.testing.assert_allclose(in_kernels(h, w, labels, share)[0], right, rtol=1e-5)
    assert jnp.isnan(in_kernels(h, jnp.full_like(w, -jnp.inf), labels, share)[0]).all()


def one_block_less(grid):
    return lambda plan, features: grid(plan, features)._replace(past=grid(plan, features).past - 1)


FAULTS = {
    "the block at the edge left out": (kernel, "rows_grid", one_block_less),
    "a sum over the wrong axis": (steps, "row_sum", lambda f: lambda x: f(x.T)),
    "nothing rescaled": (steps, "rescaled", lambda f: lambda x, factor: x),
    "padding seen": (loss_steps, "below", lambda f: lambda first, n, shape, axis: f(first, 1 << 20, shape, axis)),
    "the label of another block": (loss_steps, "hits", lambda f: lambda labels, j, *args: f(labels, 0 * j, *args)),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.repeats
@pytest.mark.in_turn
def test_faults_planted_in_it_are_found(monkeypatch, drawn_rows, interpreted_loss, fault):
    module, name, change = FAULTS[fault]
    right = kernel._losses

    def faulty(*refs, **how):
        with mock.patch.object(module, name, change(getattr(module, name))):
            return right(*refs, **how)

    h, w, labels, weights = drawn_rows()
    layer = interpreted_loss(programs=1)  # one part: what follows must be rescaled
    monkeypatch.setattr(kernel, "_losses", faulty)
    how = {"dtypes": ["float32"], "transforms": ["jit"], "witnesses": ()}
    report = nnjax.check_layer(layer, (), ((h, w), labels, weights), **how)
    assert "output" in {row.leaf for row in report.failures}
