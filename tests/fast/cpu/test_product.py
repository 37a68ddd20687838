import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.fast.cpu import product


@pytest.mark.parametrize(
    ("rows", "n", "m"), [(256, 8, 4), (257, 9, 3), (255, 8, 4), (256, 7, 4), (0, 8, 4), (1, 1, 1), (300, 1, 1)]
)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_it_is_the_product_whatever_the_sizes(rows, n, m, dtype):
    rng = np.random.default_rng(0)
    x, ct_y = (jnp.asarray(rng.integers(-2, 3, shape), dtype) for shape in ((rows, n), (rows, m)))  # whole numbers: exact
    found = product.adjoint(x.T, ct_y)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found.astype(np.float32), x.T.astype(np.float32) @ ct_y.astype(np.float32))


def test_the_transposed_result_is_formed_only_if_it_is_tall():
    def barriers(rows, n, m):
        text = str(jax.make_jaxpr(product.adjoint)(jnp.zeros((n, rows)), jnp.zeros((rows, m))))
        return text.count("optimization_barrier")

    assert barriers(product.ROWS, product.TALL * 3, 3) == 1
    assert barriers(product.ROWS - 1, product.TALL * 3, 3) == barriers(product.ROWS, product.TALL * 3 - 1, 3) == 0


@pytest.mark.in_turn
def test_a_dense_layer_takes_it_on_a_cpu_and_has_second_derivatives():
    layer = nnjax.dense(8, 2)
    x = jnp.asarray(np.random.default_rng(1).standard_normal((300, 8)), jnp.float32)
    params = layer.init(jax.random.key(0))

    def gradient(layer):
        f = nnjax.as_custom_vjp(layer)
        return jax.grad(lambda p: (f(p, x) ** 2).sum())

    def again(layer):
        return jax.grad(lambda p: sum((g**2).sum() for g in jax.tree.leaves(gradient(layer)(p))))(params)

    for a, b in zip(
        jax.tree.leaves(gradient(layer)(params)), jax.tree.leaves(gradient(nnjax.plain(layer))(params)), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    for a, b in zip(jax.tree.leaves(again(layer)), jax.tree.leaves(again(nnjax.plain(layer))), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3)
    program = jax.jit(gradient(layer)).lower(params)
    assert "optimization_barrier" in program.as_text()
    assert "conditional(" not in program.compile().as_text()  # no choice is left at run time
