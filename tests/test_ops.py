import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax import ops


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def test_dir_shows_only_the_public_names():
    assert {"attention", "conv", "dot_product_attention", "layer_norm", "linear_cross_entropy"} <= set(dir(ops))
    assert all(inspect.isfunction(getattr(ops, name)) for name in dir(ops))


def _network(attend, pool, dense, x):
    """(batch, 6, 6, 4) -> (batch, 3): pooling, then attention over the remaining places."""
    places = pool(x).reshape(x.shape[0], 9, 4)
    q, k, v = (dense(i, places).reshape(x.shape[0], 9, 2, 2) for i in range(3))
    return dense(3, attend(q, k, v).reshape(x.shape[0], 36))


def _in_flax():
    from flax import linen as nn

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            with jax.numpy_rank_promotion("allow"):
                return _network(ops.attention, lambda x: ops.max_pool(x, (2, 2)), lambda i, h: nn.Dense((4, 4, 4, 3)[i])(h), x)

    model = Model()
    return model.init(jax.random.key(0), X), model.apply


def _in_equinox():
    import equinox as eqx

    class Model(eqx.Module):
        maps: list

        def __call__(self, x):
            def dense(i, h):
                flat = jax.vmap(self.maps[i])(h.reshape(-1, h.shape[-1]))
                return flat.reshape(*h.shape[:-1], flat.shape[-1])

            return _network(ops.attention, lambda x: ops.max_pool(x, (2, 2)), dense, x)

    keys = jax.random.split(jax.random.key(0), 4)
    maps = [eqx.nn.Linear(n_in, n_out, key=k) for n_in, n_out, k in zip((4, 4, 4, 36), (4, 4, 4, 3), keys)]
    return eqx.partition(Model(maps), eqx.is_array)[0], lambda params, x: eqx.combine(params, Model(maps))(x)


X, TARGETS = normal(5, 6, 6, 4, seed=3), jnp.array([0, 1, 2, 0, 1])


@pytest.mark.parametrize("build", [_in_flax, _in_equinox])
@pytest.mark.slow
@pytest.mark.in_turn
def test_a_module_of_another_library_trains_and_passes_an_audit(build):
    params, apply = build()

    def loss(params):
        return -jnp.take_along_axis(jax.nn.log_softmax(apply(params, X)), TARGETS[:, None], 1).mean()

    step = jax.jit(lambda params: jax.tree.map(lambda p, g: p - 0.1 * g, params, jax.grad(loss)(params)))
    before = loss(params)
    notes = nnjax.audit(jax.grad(loss), params).raise_if_failed().notes
    assert {note.split(" ")[0] for note in notes} >= {"_attend", "max_pool((2,"}
    for _ in range(60):
        params = step(params)
    assert loss(params) < before / 4
