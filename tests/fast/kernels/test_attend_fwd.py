"""The forward kernel, interpreted: right at awkward sizes, and three faults in it are found."""

from functools import partial
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.fast.kernels import attend_fwd as kernel
from nnjax.fast.kernels import steps
from nnjax.fast.kernels.plan import plan_for
from nnjax.layers.attend import attend_fwd

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
def test_it_gives_what_the_plain_forward_gives(drawn, interpreted, name):
    platform, causal, sizes = CASES[name]
    x = drawn(**sizes)
    layer = interpreted(platform, causal, rows=4, columns=2)
    y, (_, _, log_z) = jax.jit(lambda x: layer.fwd((), x))(x)
    right, (*_, right_z) = attend_fwd(*x, None, causal=causal)
    assert log_z.dtype == right_z.dtype
    np.testing.assert_allclose(y, right, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(log_z, right_z, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16], ids=lambda d: d.__name__)
@pytest.mark.slow
@pytest.mark.in_turn
def test_with_the_blocks_of_each_platform(drawn, dtype):
    x = drawn(s=150, d=20, dtype=dtype)
    right, _ = attend_fwd(*x, None, causal=True)
    for platform in ("cuda", "tpu"):
        plan = plan_for(platform, *x[:2])
        if plan is None:
            assert (platform, dtype) == ("tpu", jnp.float16)
            continue
        y, _ = jax.jit(partial(kernel.attend_fwd, causal=True, plan=plan._replace(interpret=True)))(*x)
        assert y.dtype == dtype
        error = jnp.abs(y.astype(jnp.float32) - right.astype(jnp.float32)).max()
        assert float(error) <= 8 * float(jnp.finfo(dtype).eps), platform


FAULTS = {
    "the block at the edge left out": {"keys_behind": lambda f: lambda *args: jnp.maximum(f(*args) - 1, 1)},
    "a sum over the wrong axis": {"row_sum": lambda f: lambda x: f(x.T)},
    "nothing rescaled": {"rescaled": lambda f: lambda x, factor: x},
    "padding seen": {"seen": lambda f: lambda i, j, plan, *args: f(i, j, plan._replace(keys=12), *args)},
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.repeats
@pytest.mark.in_turn
def test_faults_planted_in_it_are_found(drawn, interpreted, fault):
    x, layer = drawn(g=1, d=2), interpreted(causal=fault != "padding seen")

    def fwd(params, x, *, key=None):
        with mock.patch.multiple(steps, **{name: change(getattr(steps, name)) for name, change in FAULTS[fault].items()}):
            return layer.fwd(params, x)

    how = {"dtypes": ["float32"], "transforms": ["jit"], "witnesses": ()}
    assert "output" in {row.leaf for row in nnjax.check_layer(layer._replace(fwd=fwd), (), x, **how).failures}
