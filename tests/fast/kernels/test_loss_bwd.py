"""The kernels of the loss's gradient, interpreted: right in every dtype and platform's blocks, and faults in them are found."""

from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.fast.kernels import loss_bwd as kernels
from nnjax.fast.kernels import loss_steps, steps
from nnjax.fast.kernels.loss import gradient_of_rows as in_kernels
from nnjax.fast.kernels.loss_plan import plan_for
from nnjax.losses.fused import gradient_of_rows


@pytest.mark.parametrize("programs", [2, 1, 100])
@pytest.mark.repeats
@pytest.mark.in_turn
def test_any_number_of_parts_gives_what_the_plain_gradient_gives(drawn_rows, rows_in_kernels, programs):
    x = drawn_rows()
    found = jax.jit(rows_in_kernels(programs=programs))(*x)
    for leaf, a, b in zip(("losses", "ct_h", "ct_w"), found, gradient_of_rows(*x), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6, err_msg=leaf)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16], ids=lambda d: d.__name__)
@pytest.mark.parametrize("d", [20, 300])
@pytest.mark.slow
@pytest.mark.in_turn
def test_with_the_blocks_of_each_platform(drawn_rows, d, dtype):
    h, w, labels, share = drawn_rows(150, 300, d, dtype)
    h, share = h / d**0.5, share.astype(jnp.float32)
    right = gradient_of_rows(h, w, labels, share)
    for platform in ("cuda", "tpu"):
        if (plan := plan_for(platform, h, w)) is None:
            assert (platform, dtype) == ("tpu", jnp.float16)
            continue
        found = jax.jit(in_kernels, static_argnums=4)(h, w, labels, share, plan._replace(interpret=True))
        for a, b in zip(found, right, strict=True):
            assert a.dtype == b.dtype == jnp.float32
            assert float(jnp.abs(a - b).max() / jnp.abs(b).max()) <= 8 * float(jnp.finfo(dtype).eps), platform


def one_block_less(grid):
    return lambda plan, features: grid(plan, features)._replace(past=grid(plan, features).past - 1)


def summed_otherwise(old, new):
    """contract, but summing over the other axis."""
    return lambda contract: lambda spec, a, b: contract(new if spec == old else spec, a, b)


def unshared(ct_scores):
    return lambda s, log_z, share, hit: ct_scores(s, log_z, jnp.ones_like(share), hit)


def undivided(less):
    return lambda x, number: x


def no_label(hits):
    return lambda *args: hits(*args) & False


# For each kernel: its body, and what is changed in which module while it is traced.
FAULTS = {
    "rows, the block at the edge left out": ("_rows", kernels, "rows_grid", one_block_less),
    "rows, a sum over the wrong axis": ("_rows", kernels, "contract", summed_otherwise("rc,cd->rd", "cr,cd->rd")),
    "rows, nothing rescaled": ("_rows", steps, "less", undivided),
    "rows, no share": ("_rows", loss_steps, "ct_scores", unshared),
    "table, the block at the edge left out": ("_table", kernels, "classes_grid", one_block_less),
    "table, a sum over the wrong axis": ("_table", kernels, "contract", summed_otherwise("cr,rd->cd", "rc,rd->cd")),
    "table, nothing rescaled": ("_table", steps, "less", undivided),
    "table, no label": ("_table", loss_steps, "hits", no_label),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.repeats
@pytest.mark.in_turn
def test_faults_planted_in_them_are_found(monkeypatch, drawn_rows, interpreted_loss, fault):
    body, module, name, change = FAULTS[fault]
    right = getattr(kernels, body)

    def faulty(*refs, **how):
        with mock.patch.object(module, name, change(getattr(module, name))):
            return right(*refs, **how)

    h, w, labels, weights = drawn_rows()
    layer = interpreted_loss(programs=1)
    monkeypatch.setattr(kernels, body, faulty)
    how = {"dtypes": ["float32"], "transforms": ["jit"], "witnesses": ()}
    report = nnjax.check_layer(layer, (), ((h, w), labels, weights), **how)
    assert {row.leaf for row in report.failures} == {"x[0][0]" if body == "_rows" else "x[0][1]"}
