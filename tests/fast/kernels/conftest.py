import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, use_abstract_mesh

import nnjax
from nnjax.fast.kernels import loss_plan
from nnjax.fast.kernels.attend import attend_bwd, attend_fwd
from nnjax.fast.kernels.loss import gradient_of_rows
from nnjax.fast.kernels.plan import Plan
from nnjax.layers.attend import attend_apply
from nnjax.losses.fused import linear_cross_entropy_apply, linear_cross_entropy_bwd, linear_cross_entropy_fwd


def small(platform, q, k, rows=4, columns=4):
    """A plan with small blocks, for any sizes, in interpreted mode."""
    return Plan(platform, q.shape[-2], k.shape[-2], q.shape[-1], rows, columns, q.shape[-1] + 1, interpret=True)


@pytest.fixture(scope="session")
def interpreted():
    """interpreted(platform, causal, rows, columns): attention as a layer of x = (q, k, v), with its pair in kernels."""

    def make(platform="cuda", causal=True, rows=4, columns=4):
        def fwd(params, x, *, key=None):
            y, log_z = attend_fwd(*x, causal, small(platform, *x[:2], rows, columns))
            return y, (x, y, log_z)

        def bwd(residuals, ct_y):
            x, y, log_z = residuals
            return (), attend_bwd(*x, y, log_z, ct_y, causal, small(platform, *x[:2], rows, columns))

        def apply(params, x, *, key=None):
            return attend_apply(*x, None, causal=causal)

        return nnjax.Layer("attend in kernels", lambda key: (), apply, fwd, bwd)

    return make


@pytest.fixture(scope="session")
def drawn():
    """drawn(b, h, g, s, d, t): (q, k, v) of these sizes; t: as many keys as queries, unless given."""

    def make(b=1, h=2, g=2, s=10, d=3, t=None, dtype=jnp.float32, seed=0):
        rng = np.random.default_rng(seed)
        shapes = (b, h, g, s, d), *((b, h, s if t is None else t, d),) * 2
        return tuple(jnp.asarray(rng.standard_normal(shape), dtype) for shape in shapes)

    return make


def small_loss(platform, rows, w, size=4, width=2, programs=5):
    """A plan with small blocks for the loss, for any sizes, in interpreted mode."""
    (n, d), v = rows.shape, w.shape[0]
    on_a_gpu = platform == "cuda"
    width, programs = (width, programs) if on_a_gpu else (d, 0)
    return loss_plan.Plan(platform, n, v, d, size, size, width, programs, interpret=True)


@pytest.fixture(scope="session")
def rows_in_kernels():
    """rows_in_kernels(platform, size, width, programs): `gradient_of_rows` in kernels, with blocks of these sizes."""

    def make(platform="cuda", **sizes):
        return lambda rows, w, labels, share: gradient_of_rows(rows, w, labels, share, small_loss(platform, rows, w, **sizes))

    return make


@pytest.fixture(scope="session")
def interpreted_loss(rows_in_kernels):
    """interpreted_loss(platform, **sizes): `linear_cross_entropy` in these kernels."""

    def make(platform="cuda", **sizes):
        fwd = partial(linear_cross_entropy_fwd, of_rows=rows_in_kernels(platform, **sizes))
        name = "linear_cross_entropy in kernels"
        return nnjax.Layer(name, lambda key: (), linear_cross_entropy_apply, fwd, linear_cross_entropy_bwd)

    return make


@pytest.fixture(scope="session")
def drawn_rows():
    """drawn_rows(n, v, d): (h, w, labels, weights) of these sizes, some weights 0."""

    def make(n=10, v=11, d=3, dtype=jnp.float32, seed=0):
        rng = np.random.default_rng(seed)
        h, w = (jnp.asarray(rng.standard_normal(shape), dtype) for shape in ((n, d), (v, d)))
        labels, weights = rng.integers(0, v, n), rng.integers(0, 4, n)
        return h, w, jnp.asarray(labels, jnp.int32), jnp.asarray(weights, dtype)

    return make


DEVICES = {"cuda": "NVIDIA H100 80GB HBM3", "tpu": "TPU v5 lite", "cpu": "cpu"}


@pytest.fixture(scope="session")
def kernels_for():
    """kernels_for(platform, f, *args): the number of kernels in the program of f for a platform that need not be here."""

    def count(platform, f, *args):
        device = AbstractDevice(device_kind=DEVICES[platform], num_cores=1, platform=platform)
        with warnings.catch_warnings(), use_abstract_mesh(AbstractMesh((1,), ("x",), abstract_device=device)):
            warnings.filterwarnings("ignore", "The Pallas Triton backend", DeprecationWarning)
            text = jax.jit(f).trace(*args).lower(lowering_platforms=(platform,)).as_text()
        return text.count("stablehlo.custom_call @")

    return count
