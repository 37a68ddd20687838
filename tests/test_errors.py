import jax.numpy as jnp
import pytest

from nnjax import errors


def test_unknown_name_suggests_the_nearest():
    assert "did you mean 'adam'?" in str(errors.unknown_name("optimizer", "adm", ["sgd", "adam"]))
    assert "pick one" in str(errors.unknown_name("optimizer", "zzzz", ["sgd", "adam"]))


@pytest.mark.parametrize("n", [0, -1, 2.0, "3", True, None])
def test_sizes_must_be_positive_ints(n):
    with pytest.raises(ValueError, match=r"dense: n_in must be a positive int, got"):
        errors.expect_positive("dense", n_in=n)


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
    with pytest.raises(TypeError, match=r"one dtype, got float32 and bfloat16"):
        errors.expect_same_dtype("layer", "x", x, "y", x.astype(jnp.bfloat16))


def test_sizes_for_each_axis_are_one_number_or_one_for_each():
    assert errors.expect_per_axis("conv", "kernel", 3) == (3,)
    assert errors.expect_per_axis("conv", "kernel", [3, 2]) == (3, 2)
    assert errors.expect_per_axis("conv", "stride", 3, 2) == (3, 3)
    for wrong in (0, True, (1, 2, 3), (1, -1), "3", None):
        with pytest.raises(ValueError, match=r"conv: kernel must be a positive int, or a tuple of one or two, got"):
            errors.expect_per_axis("conv", "kernel", wrong)
    with pytest.raises(ValueError, match=r"conv: stride must be a positive int, or a tuple of 2, got \(1,\)"):
        errors.expect_per_axis("conv", "stride", (1,), 2)
