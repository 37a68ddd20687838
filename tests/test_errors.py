from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax import errors


def test_unknown_name_suggests_the_nearest():
    assert "did you mean 'adam'?" in str(errors.unknown_name("optimizer", "adm", ["sgd", "adam"]))
    assert "pick one" in str(errors.unknown_name("optimizer", "zzzz", ["sgd", "adam"]))


NO_NUMBERS = [
    True,
    np.True_,
    np.array(True),
    jnp.array(True),
    "3",
    None,
    [3],
    np.array([3]),
    1j,
    jax.random.key(0),
    jnp.float32,
]


@pytest.mark.parametrize("n", [0, -1, 2.0, np.int64(0), np.float64(2), jnp.array(-1), *NO_NUMBERS], ids=repr)
def test_sizes_must_be_positive_ints(n):
    with pytest.raises(ValueError, match=r"dense: n_in must be a positive int, got"):
        errors.expect_positive("dense", n_in=n)


@pytest.mark.parametrize("n", [3, np.int64(3), np.uint8(3), np.array(3), jnp.array(3), jnp.int8(3)], ids=repr)
def test_a_whole_number_of_any_kind_is_an_int(n):
    assert [type(m) for m in errors.expect_positive("dense", n_in=n, n_out=n)] == [int, int]
    assert errors.expect_positive("dense", n_in=n, n_out=4) == (3, 4)
    assert errors.whole_number(np.uint8(200)) == 200
    assert errors.expect_per_axis("conv", "stride", n, 2) == (3, 3)
    assert errors.expect_per_axis("conv", "stride", (n, 1)) == (3, 1)


@pytest.mark.parametrize(
    "x", [0.5, np.float64(0.5), np.float16(0.5), jnp.bfloat16(0.5), jnp.array(0.5), Fraction(1, 2)], ids=repr
)
def test_a_real_number_of_any_kind_is_a_float(x):
    assert type(errors.real_number(x)) is float
    assert errors.real_number(x) == 0.5
    assert errors.expect_not_negative("add_l2", coefficient=x) == (0.5,)
    assert errors.real_number(np.int8(-3)) == -3.0


@pytest.mark.parametrize("x", [*NO_NUMBERS, np.array([0.5]), 10**400, np.complex64(1)], ids=lambda x: repr(x)[:20])
def test_anything_but_a_real_number_is_none(x):
    assert errors.real_number(x) is None
    with pytest.raises(ValueError, match=r"add_l2: coefficient must be at least 0, got"):
        errors.expect_not_negative("add_l2", coefficient=x)


def test_a_traced_number_is_not_known():
    def f(x):
        assert errors.real_number(x) is None
        assert errors.whole_number(x.astype(jnp.int32)) is None
        return x

    jax.jit(f)(1.0)


@pytest.mark.parametrize("x", [-0.1, float("nan"), float("inf"), np.float32(-1)])
def test_amounts_are_finite_and_not_negative(x):
    with pytest.raises(ValueError, match=r"layer_norm: eps must be at least 0, got"):
        nnjax.layer_norm(3, eps=x)


WITH_NUMPY_NUMBERS = {
    "dropout": lambda n: nnjax.dropout(n(0.5)),
    "leaky_relu": lambda n: nnjax.leaky_relu(n(0.5)),
    "layer_norm": lambda n: nnjax.layer_norm(n(4), eps=n(1)),
    "rms_norm": lambda n: nnjax.rms_norm(n(4), eps=n(1)),
    "group_norm": lambda n: nnjax.group_norm(n(2), n(4), eps=n(1)),
    "batch_norm": lambda n: nnjax.batch_norm(n(4), eps=n(1)),
    "dense": lambda n: nnjax.dense(n(4), n(3)),
    "conv": lambda n: nnjax.conv(n(4), n(4), n(1), stride=n(2), padding=n(1), dilation=[n(1)], groups=n(2)),
    "conv_transpose": lambda n: nnjax.conv_transpose(
        n(4), n(4), n(3), stride=n(2), padding=n(1), output_padding=n(1), dilation=[n(1)], groups=n(2)
    ),
    "max_pool": lambda n: nnjax.max_pool([n(2)], n(1)),
    "max_pool, padded": lambda n: nnjax.max_pool(n(2), n(1), n(1), dilation=n(2)),
    "avg_pool": lambda n: nnjax.avg_pool((n(2),), [n(1)]),
    "avg_pool, padded": lambda n: nnjax.avg_pool(n(2), n(1), [n(1)], divisor=n(3)),
    "adaptive_avg_pool": lambda n: nnjax.adaptive_avg_pool(n(2)),
    "global_avg_pool": lambda n: nnjax.global_avg_pool(n(1)),
    "flatten": lambda n: nnjax.flatten(n(2)),
    "attention": lambda n: nnjax.attention(n(4), n(2), kv_heads=n(1)),
    "rnn": lambda n: nnjax.rnn(n(4), n(70)),
    "gru": lambda n: nnjax.gru(n(4), n(70)),
    "lstm": lambda n: nnjax.lstm(n(4), n(70)),
    "learned_positions": lambda n: nnjax.learned_positions(n(3), n(4)),
    "scan_layers": lambda n: nnjax.scan_layers(nnjax.dense(n(4), n(4)), n(2)),
}


@pytest.mark.parametrize("name", WITH_NUMPY_NUMBERS)
@pytest.mark.repeats
def test_numpy_numbers_do_not_widen_arrays(name):
    def made(n):
        layer = WITH_NUMPY_NUMBERS[name](n)

        @jax.jit
        def run(key):
            params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), layer.init(key))
            y, residuals = layer.fwd(params, jnp.ones((2, 3, 4), jnp.bfloat16), key=key)
            return y, layer.bwd(residuals, y)

        return layer, *run(jax.random.key(0))

    def of_numpy(n):  # narrow, so that a product of two of them would overflow
        return np.float64(n) if isinstance(n, float) else np.int8(n)

    (ours, y, cts), (theirs, expected, expected_cts) = made(of_numpy), made(lambda n: n)
    assert ours.name == theirs.name
    for a, b in zip(jax.tree.leaves((y, cts)), jax.tree.leaves((expected, expected_cts)), strict=True):
        assert a.dtype == jnp.bfloat16
        np.testing.assert_array_equal(a, b)


def test_describe_names_dtype_and_shape():
    assert errors.describe(jnp.zeros((2, 3))) == "float32 (2, 3)"
    assert errors.describe([1]) == "list"


def test_expectations_pass_what_is_right():
    x = jnp.zeros((2, 3))
    errors.expect_float("layer", "x", x)
    errors.expect_shape("layer", "x", x, (2, 3))
    errors.expect_same_dtype("layer", "x", x, "y", x)
    with pytest.raises(ValueError, match=r"must have shape \(3, 2\), got float32 \(2, 3\)"):
        errors.expect_shape("layer", "x", x, (3, 2))
    with pytest.raises(TypeError, match=r"same dtype, got float32 and bfloat16"):
        errors.expect_same_dtype("layer", "x", x, "y", x.astype(jnp.bfloat16))


def test_sizes_for_each_axis_are_one_number_or_one_for_each():
    assert errors.expect_per_axis("conv", "kernel", 3) == (3,)
    assert errors.expect_per_axis("conv", "kernel", [3, 2, 1]) == (3, 2, 1)
    assert errors.expect_per_axis("conv", "stride", 3, 2) == (3, 3)
    for wrong in (0, True, (1, 2, 3, 4), (1, -1), "3", None):
        with pytest.raises(ValueError, match=r"conv: kernel must be a positive int, or a tuple of one, two or three, got"):
            errors.expect_per_axis("conv", "kernel", wrong)
    with pytest.raises(ValueError, match=r"conv: stride must be a positive int, or a tuple of 2, got \(1,\)"):
        errors.expect_per_axis("conv", "stride", (1,), 2)
