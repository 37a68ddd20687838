import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.fast.kernels.attend import attend_bwd, attend_fwd
from nnjax.fast.kernels.plan import Plan
from nnjax.layers.attend import attend_apply


def small(platform, q, k, rows=4, columns=4):
    """A plan of small blocks, for any sizes, to be interpreted."""
    return Plan(platform, q.shape[-2], k.shape[-2], q.shape[-1], rows, columns, q.shape[-1] + 1, interpret=True)


@pytest.fixture(scope="session")
def interpreted():
    """interpreted(platform, causal, rows, columns): attention proper as a layer of x = (q, k, v), its pair in kernels."""

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
