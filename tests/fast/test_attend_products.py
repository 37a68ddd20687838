import jax.numpy as jnp
import numpy as np

from nnjax.fast.attend_products import contract, exp_less


def test_products_of_low_precision_are_summed_in_float32():
    a = jnp.full((1, 4096), 1.0, jnp.bfloat16)
    y = contract("ik,jk->ij", a, a)
    assert y.dtype == jnp.float32
    assert y[0, 0] == 4096


def test_exp_less_takes_one_number_from_each_row():
    np.testing.assert_allclose(exp_less(jnp.array([[1.0, 3.0]]), jnp.array([1.0]))[0], [1, np.exp(2)], rtol=1e-6)
