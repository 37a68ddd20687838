"""The two backward kernels, interpreted: right at awkward sizes, and three faults in each are found."""

from contextlib import ExitStack
from functools import partial
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.fast.kernels import attend_bwd as kernels
from nnjax.fast.kernels import steps
from nnjax.fast.kernels.plan import plan_for
from nnjax.layers.attend import attend_bwd, attend_fwd

CASES = {
    "blocks that do not divide": ("cuda", True, {"s": 10}),
    "blocks that divide": ("tpu", True, {"s": 8, "b": 2}),
    "not causal": ("tpu", False, {"s": 5, "t": 7}),
    "one row": ("tpu", True, {"s": 1, "g": 3}),
    "one query": ("cuda", False, {"s": 1, "t": 6, "g": 1}),
    "one head": ("cuda", True, {"h": 1, "g": 1, "s": 7}),
    "one head of keys": ("tpu", False, {"h": 1, "g": 4, "s": 6}),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.repeats
@pytest.mark.in_turn
def test_they_give_what_the_plain_backward_gives(drawn, interpreted, name):
    platform, causal, sizes = CASES[name]
    x, ct = drawn(**sizes), drawn(**sizes, seed=1)[0]
    layer = interpreted(platform, causal, rows=4, columns=2)
    residuals = attend_fwd(*x, None, causal=causal)[1]
    _, found = jax.jit(lambda x, ct: layer.bwd((x, *residuals[-2:]), ct))(x, ct)
    for leaf, a, b in zip(("ct_q", "ct_k", "ct_v"), found, attend_bwd(residuals, ct, causal=causal), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5, err_msg=leaf)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16], ids=lambda d: d.__name__)
@pytest.mark.slow
@pytest.mark.in_turn
def test_with_the_blocks_of_each_platform(drawn, dtype):
    x, ct = drawn(s=150, d=20, dtype=dtype), drawn(s=150, d=20, dtype=dtype, seed=1)[0]
    residuals = attend_fwd(*x, None, causal=True)[1]
    right = attend_bwd(residuals, ct, causal=True)
    for platform in ("cuda", "tpu"):
        if (plan := plan_for(platform, *x[:2])) is None:
            assert (platform, dtype) == ("tpu", jnp.float16)
            continue
        f = jax.jit(partial(kernels.attend_bwd, causal=True, plan=plan._replace(interpret=True)))
        for a, b in zip(f(*x, *residuals[-2:], ct), right, strict=True):
            assert a.dtype == dtype
            error = jnp.abs(a.astype(jnp.float32) - b.astype(jnp.float32)).max() / jnp.abs(b.astype(jnp.float32)).max()
            assert float(error) <= 8 * float(jnp.finfo(dtype).eps), platform


def summed_otherwise(old, new):
    """contract, but summing over the other axis."""
    return lambda contract: lambda spec, a, b: contract(new if spec == old else spec, a, b)


def one_block_less(stop):
    return lambda *args: jnp.maximum(stop(*args) - 1, 1)


def one_block_later(first):
    return lambda *args: first(*args) + 1


def scores_alone(scaled):
    return lambda x, plan: x if x.shape[-1] == plan.width else scaled(x, plan)


def one_head(head_of):
    return lambda ref, head, i, plan: head_of(ref, 1, i, plan)


def every_second(less):
    """Subtracts log_z from the scores, but not delta from ct_p."""
    calls = []
    return lambda x, number: calls.append(x) or (less(x, number) if len(calls) % 2 else x)


# For each kernel: its body, and what is changed in which module while it is traced.
FAULTS = {
    "queries, the block at the edge left out": ("_queries", steps, "keys_behind", one_block_less),
    "queries, a sum over the wrong axis": ("_queries", kernels, "contract", summed_otherwise("qk,kd->qd", "kq,kd->qd")),
    "queries, nothing rescaled": ("_queries", steps, "scaled", scores_alone),
    "keys, the block at the edge left out": ("_keys", steps, "queries_from", one_block_later),
    "keys, a sum over the wrong axis": ("_keys", kernels, "contract", summed_otherwise("kq,qd->kd", "qk,qd->kd")),
    "keys, nothing rescaled": ("_keys", steps, "scaled", scores_alone),
    "keys, one head for all": ("_keys", steps, "head_of", one_head),
    "queries, delta left out": ("_queries", steps, "less", every_second),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.repeats
@pytest.mark.in_turn
def test_faults_planted_in_them_are_found(monkeypatch, drawn, interpreted, fault):
    body, module, name, change = FAULTS[fault]
    x, layer, right = drawn(d=2), interpreted(), getattr(kernels, body)

    def faulty(*refs, **how):
        with ExitStack() as stack:
            stack.enter_context(mock.patch.object(module, name, change(getattr(module, name))))
            return right(*refs, **how)

    monkeypatch.setattr(kernels, body, faulty)
    report = nnjax.check_layer(layer, (), x, dtypes=["float32"], transforms=["jit"], witnesses=())
    assert {row.leaf for row in report.failures} <= ({"x[0]"} if body == "_queries" else {"x[1]", "x[2]"})
    assert report.failures
