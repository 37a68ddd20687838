import math

import jax
import jax.numpy as jnp
import pytest

from nnjax.bench.measure import compiled
from nnjax.bench.table import entries
from nnjax.trees.products import product_flops

A, B = jnp.ones((8, 16)), jnp.ones((16, 4))


@pytest.mark.parametrize(
    ("f", "args"),
    [
        (jnp.matmul, (A, B)),
        (lambda a, b: jnp.einsum("bij,bjk->bik", a, b), (jnp.ones((3, 8, 16)), jnp.ones((3, 16, 4)))),
        (jax.jit(lambda a, b: (a @ b).sum()), (A, B)),
    ],
)
def test_products_are_counted_as_xla_counts_them_where_it_can(f, args):
    counted = jax.jit(f).lower(*args).cost_analysis()["flops"]
    assert product_flops(f, args, "cpu") == pytest.approx(counted, rel=0.05)


@pytest.mark.parametrize(("groups", "padding"), [(1, "VALID"), (2, "VALID"), (4, "VALID")])
def test_convolutions_are_counted(groups, padding):
    def f(x, w):
        return jax.lax.conv_general_dilated(
            x, w, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups
        )

    x, w = jnp.ones((2, 9, 9, 4)), jnp.ones((3, 3, 4 // groups, 8))
    assert product_flops(f, (x, w), "cpu") == 2 * (2 * 7 * 7 * 8) * (3 * 3 * 4 // groups)
    assert product_flops(f, (x, w), "cpu") == pytest.approx(compiled(f, (x, w)).flops, rel=0.05)


def test_a_loop_counts_as_often_as_it_runs_and_one_of_unknown_length_is_nan():
    square = jnp.ones((4, 4))

    def scanned(x):
        return jax.lax.scan(lambda x, _: (x @ square, None), x, None, 10)[0]

    def until(x):
        return jax.lax.while_loop(lambda x: x.sum() < 3, lambda x: x @ square, x)

    def adding(x):
        return jax.lax.while_loop(lambda x: x.sum() < 3, lambda x: x + x, x @ square)

    assert product_flops(scanned, (square,), "cpu") == 10 * 2 * 4**3
    assert math.isnan(product_flops(until, (square,), "cpu"))
    assert product_flops(adding, (square,), "cpu") == 2 * 4**3
    assert product_flops(jnp.tanh, (square,), "cpu") == 0


def test_the_branch_of_the_platform_is_counted_and_of_others_the_longest():
    def f(x):
        return jax.lax.platform_dependent(x, cpu=lambda x: x @ x, cuda=lambda x: x @ x @ x, default=lambda x: x)

    def g(x):
        return jax.lax.cond(x.sum() > 0, lambda x: x @ x @ x, lambda x: x @ x, x)

    x = jnp.ones((4, 4))
    assert [product_flops(f, (x,), p) / 128 for p in ("cpu", "gpu", "tpu")] == [1, 2, 0]
    assert product_flops(g, (x,), "cpu") == 256


def test_the_gradient_of_a_model_takes_three_times_its_forward_less_that_to_the_images():
    mlp = next(entry for entry in entries() if entry.name == "mlp [784, 30, 10], batch 10")
    hand, references, args = mlp.make()
    sizes = 784 * 30, 30 * 10
    expected = 2 * 10 * (2 * sizes[0] + 3 * sizes[1])
    assert expected <= product_flops(hand, args, "cpu") <= expected + 2 * 10 * sizes[0]
    assert product_flops(references["jax.grad"], args, "gpu") == expected
