import enum

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.check.subject import is_passed_on, layer_owner, split


def test_arguments_are_sorted_into_derivative_other_and_static():
    args = ({"w": jnp.ones(2), "n": 3}, jnp.arange(2), jax.random.key(0), None, "mode", 1.5)
    spec, diff, other = split(args, {"scale": jnp.ones(())}, ("params", "ids", "key", "none", "mode", "rate"))
    assert spec.names == ("params['w']", "rate", "scale")
    assert len(other) == 2
    assert spec.static == (3, "mode")
    again, kwargs = spec.merge(diff, other)
    assert again[3:5] == (None, "mode")
    assert again[0]["n"] == 3
    assert kwargs["scale"].shape == ()
    assert hash(spec) == hash(split(args, {"scale": jnp.ones(())}, ("params", "ids", "key", "none", "mode", "rate"))[0])


def test_names_come_from_the_signature():
    spec, _, _ = split((jnp.ones(1), jnp.ones(1)), {}, ("x",))
    assert spec.names == ("x", "args[1]")


def test_the_owner_of_a_leaf_is_the_innermost_layer():
    model = nnjax.serial(nnjax.dense(2, 2), nnjax.residual(nnjax.serial(nnjax.relu(), nnjax.dense(2, 2))))
    assert layer_owner(model, "params[0].w") == "0:dense(2, 2)"
    assert layer_owner(model, "params[1][1].b") == "1/residual/1:dense(2, 2)"
    assert layer_owner(model, "x") == ""
    assert layer_owner(nnjax.dense(2, 2), "params.w") == ""


class Mode(enum.Enum):
    SUM = 1


@pytest.mark.parametrize(
    "static",
    [3, True, "mean", None, Mode.SUM, np.int64(3), np.bool_(True), jnp.float32, np.float32, np.dtype("float32"), jnp.sin,
     slice(1, 2), {1, 2}, np.array(["a"]), object(), jax.ShapeDtypeStruct((2,), jnp.float32)],
    ids=lambda v: type(v).__name__,
)  # fmt: skip
def test_what_jax_does_not_accept_as_an_array_is_static(static):
    assert not is_passed_on(static)
    spec, diff, other = split((jnp.ones(2), (static, [static])), {"how": static}, ("x", "y"))
    assert (len(diff), other) == (1, [])
    (_, (one, (two,))), kwargs = spec.merge(diff, other)
    assert one is two is kwargs["how"] is static
    assert spec == split((jnp.ones(2), (static, [static])), {"how": static}, ("x", "y"))[0]
    hash(spec)


@pytest.mark.parametrize("moving", [np.float64(2.0), np.ones(2, bool), jnp.arange(2), jnp.bfloat16(1), jax.random.key(0)])
def test_arrays_numbers_of_numpy_with_a_derivative_and_keys_are_passed_on(moving):
    assert is_passed_on(moving)
    spec, diff, other = split((1.0, moving), {}, ("x", "y"))
    assert len(diff) + len(other) == 2
    assert spec.static == ()


def test_a_flag_and_a_one_are_different_arguments():
    specs = [split((jnp.ones(2), n), {}, ("x", "n"))[0] for n in (1, True, 2, 1)]
    assert specs[0] == specs[3]
    assert specs[0] not in (specs[1], specs[2])
    assert {specs[0]: "found"}[specs[3]] == "found"
    assert specs[0] != "a spec"
