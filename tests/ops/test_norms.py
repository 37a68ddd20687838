import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax import ops


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


def centred(x, axes, eps):
    mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    return (x - mean) / jnp.sqrt(var + eps)


def by_groups(x, scale, offset):
    return centred(x.reshape(2, 3, 2, 3), (1, 3), 1e-3).reshape(x.shape) * scale + offset


NORMS = {
    "layer_norm": (lambda x, s, o: ops.layer_norm(x, s, o, eps=1e-3), lambda x, s, o: centred(x, -1, 1e-3) * s + o),
    "layer_norm, bare": (lambda x, s, o: ops.layer_norm(x), lambda x, s, o: centred(x, -1, 1e-5)),
    "rms_norm": (lambda x, s, o: ops.rms_norm(x, s), lambda x, s, o: x / jnp.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * s),
    "group_norm": (lambda x, s, o: ops.group_norm(x, 2, s, o, eps=1e-3), by_groups),
    "batch_norm": (lambda x, s, o: ops.batch_norm(x, s, o), lambda x, s, o: centred(x, (0, 1), 1e-5) * s + o),
    "batch_norm, frozen": (
        lambda x, s, o: ops.batch_norm(x, s, None, o, s * s),
        lambda x, s, o: (x - o) / jnp.sqrt(s * s + 1e-5) * s,
    ),
}


@pytest.mark.parametrize("name", NORMS)
def test_values_and_all_gradients_in_float64(name):
    with jax.enable_x64(True), jax.numpy_rank_promotion("allow"):
        given = normal(2, 3, 6), normal(6, seed=1), normal(6, seed=2)
        ct = normal(2, 3, 6, seed=3)
        ours, theirs = (jax.jit(jax.value_and_grad(lambda *a, f=f: (f(*a) * ct).sum(), (0, 1, 2))) for f in NORMS[name])
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), ours(*given), theirs(*given))


@pytest.mark.in_turn
def test_they_work_under_vmap_and_pass_an_audit():
    x = normal(2, 3, 4).astype(jnp.float32)
    alone = jax.vmap(lambda row: ops.layer_norm(row))(x)
    np.testing.assert_allclose(alone, ops.layer_norm(x), atol=1e-6)
    nnjax.audit(lambda x: (ops.rms_norm(x) * ops.group_norm(x, 2) * ops.batch_norm(x)).sum(), x).raise_if_failed()


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda x: ops.layer_norm(x, jnp.ones(3)), ValueError, r"scale.*\(4,\)"),
        (lambda x: ops.rms_norm(x, jnp.ones(4, jnp.bfloat16)), TypeError, "bfloat16"),
        (lambda x: ops.group_norm(x, 3), ValueError, "groups must divide"),
        (lambda x: ops.group_norm(x, 0), ValueError, "groups"),
        (lambda x: ops.layer_norm(x, eps=-1.0), ValueError, "eps"),
        (lambda x: ops.batch_norm(x, mean=jnp.ones(4)), ValueError, "only mean"),
        (lambda x: ops.layer_norm(x[0, 0, 0]), ValueError, "single number"),
        (lambda x: ops.rms_norm(x.astype(jnp.int32)), TypeError, "real floating point"),
    ],
)
def test_what_does_not_fit_is_named(call, error, words):
    with pytest.raises(error, match=words):
        call(jnp.ones((2, 3, 4), jnp.float32))
