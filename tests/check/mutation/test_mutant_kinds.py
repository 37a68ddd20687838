import jax
import jax.numpy as jnp
import pytest

import nnjax
from nnjax.check.mutation import mutants
from nnjax.check.mutation.mutant_kinds import KINDS


def test_there_are_at_least_sixteen_kinds_of_distinct_names():
    assert len({kind.name for kind in KINDS}) == len(KINDS) >= 16


def embedding():
    """The smallest embedding: rows of a table, whose transpose is a scatter-add."""

    def apply(params, x, *, key=None):
        return params.w[x]

    def bwd(residuals, ct_y):
        params, x = residuals
        return nnjax.DenseParams(jnp.zeros_like(params.w).at[x].add(ct_y), None), None

    init = nnjax.dense(4, 3, bias=False).init
    return nnjax.Layer("embedding(4, 3)", init, apply, lambda p, x, *, key=None: (apply(p, x), (p, x)), bwd)


def rnn():
    """y_t = tanh(x_t + y_{t-1}) over axis 1: the smallest recurrence."""

    def apply(params, x, *, key=None):
        first = jnp.zeros_like(x[:, 0])
        return jax.lax.scan(lambda h, x_t: 2 * (jnp.tanh(x_t + h),), first, x.swapaxes(0, 1))[1].swapaxes(0, 1)

    def bwd(residuals, ct_y):
        (y,) = residuals

        def step(ct_h, at):
            y_t, ct_t = at
            ct_z = (ct_t + ct_h) * (1 - y_t) * (1 + y_t)
            return ct_z, ct_z

        over_time = (y.swapaxes(0, 1), ct_y.swapaxes(0, 1))
        return (), jax.lax.scan(step, jnp.zeros_like(y[:, 0]), over_time, reverse=True)[1].swapaxes(0, 1)

    def fwd(params, x, *, key=None):
        y = apply(params, x)
        return y, (y,)

    return nnjax.Layer("rnn(3)", lambda key: (), apply, fwd, bwd)


def conv():
    """A 1-D convolution over (batch, width, channels), written as a sum over its kernel."""

    def apply(params, x, *, key=None):
        k = params.w.shape[0]
        return sum(x[:, i : x.shape[1] - k + 1 + i] @ params.w[i] for i in range(k))

    def bwd(residuals, ct_y):
        params, x = residuals
        k, n = params.w.shape[0], ct_y.shape[1]
        ct_w = jnp.stack([jnp.einsum("bni,bno->io", x[:, i : n + i], ct_y) for i in range(k)])
        ct_x = sum(jnp.pad(ct_y @ params.w[i].T, ((0, 0), (i, k - 1 - i), (0, 0))) for i in range(k))
        return nnjax.DenseParams(ct_w, None), ct_x

    def init(key):
        return nnjax.DenseParams(jax.random.normal(key, (3, 4, 2)), None)

    return nnjax.Layer("conv(4, 2, 3)", init, apply, lambda p, x, *, key=None: (apply(p, x), (p, x)), bwd)


@pytest.mark.parametrize(
    ("layer", "x", "kind"),
    [
        (embedding(), jnp.array([0, 2, 2, 1, 2]), "set for add on repeated ids"),
        (rnn(), jax.random.normal(jax.random.key(2), (4, 5, 3)), "time shifted by one"),
        (conv(), jax.random.normal(jax.random.key(2), (4, 6, 4)), "kernel not flipped"),
    ],
    ids=["embedding", "rnn", "conv"],
)
def test_kinds_for_tables_time_and_kernels(layer, x, kind, monkeypatch):
    monkeypatch.setattr(mutants, "KINDS", tuple(k for k in KINDS if k.name == kind))
    (outcome,) = mutants.hunt(layer, layer.init(jax.random.key(0)), x)
    assert (outcome.status, outcome.diagnosis) == ("killed", outcome.expected)
    assert nnjax.check_layer(layer, layer.init(jax.random.key(0)), x, transforms=["jit"]).ok
