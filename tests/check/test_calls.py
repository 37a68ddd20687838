import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax.check.calls import argument_names, bound, expect_arguments, positional


def scaled(x, scale=1.0, *, shift=0):
    return x * scale + shift


def test_names_come_from_the_signature():
    assert argument_names(lambda x, y, *rest: x, 3) == ("x", "y")
    assert argument_names(scaled) == ("x", "scale")
    assert argument_names(scaled, 1) == ("x",)
    assert argument_names(jnp.ndarray.__add__, 1) in ((), ("self",))


def test_keywords_become_positions_as_in_jax():
    def f(x, axis=None, keepdims=False):
        return x

    assert positional(f, (1,), {"axis": 2}) == ((1, 2), {})
    assert positional(f, (1,), {"keepdims": True}) == ((1, None, True), {})  # the default that stands before it
    assert positional(f, (1,), {}) == ((1,), {})
    assert positional(scaled, (1,), {"shift": 2, "scale": 3}) == ((1, 3), {"shift": 2})


@pytest.mark.parametrize(
    ("args", "kwargs", "free"),
    [((3.0, 2.0), {}, (3.0,)), ((3.0,), {"scale": 2.0}, (3.0,)), ((), {"x": 3.0, "scale": 2.0}, ())],
)
@pytest.mark.parametrize("numbers", [(1,), (-1,)])
def test_what_nondiff_argnums_names_is_closed_over_by_position_and_by_keyword(args, kwargs, free, numbers):
    def f(x, scale):
        return x * scale

    rule = jax.custom_vjp(f, nondiff_argnums=numbers)
    call = bound(rule, f, args, kwargs)
    assert call.args == free
    assert "scale" not in call.kwargs
    assert call.names == ("x",)[: len(free)]
    assert call.functions[1](*call.args, **call.kwargs) == 6.0


def test_without_static_arguments_every_argument_stays():
    call = bound(jnp.sin, jnp.cos, (1.0,), {"out": None})
    assert call.args == (1.0,)
    assert call.kwargs == {"out": None}
    assert call.functions[1](0.0) == 1.0


def test_complex_arrays_are_pairs_of_real_ones():
    z = np.array([1 + 2j, 3j], np.complex64)
    call = bound(jnp.square, jnp.square, (z,), {})
    np.testing.assert_array_equal(call.args[0], (z.real, z.imag))
    np.testing.assert_array_equal(call.functions[0](*call.args), ([-3, -9], [4, 0]))


def test_a_call_that_does_not_fit_is_reported_with_the_arguments():
    expect_arguments("check", scaled, (1,), {"shift": 2})
    with pytest.raises(TypeError, match=r"check: scaled\(x, scale=1\.0, .*\) cannot be called with \(int, wrong=int\)"):
        expect_arguments("check", scaled, (1,), {"wrong": 2})
