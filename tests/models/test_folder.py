import json

import jax.numpy as jnp
import numpy as np
import pytest

from nnjax.models.folder import KINDS, cast, expect_kinds, read_arrays, read_object


def test_shards_are_read_as_one_and_a_damaged_index_is_a_sentence(tmp_path):
    library = pytest.importorskip("safetensors.numpy")
    parts = {"a.safetensors": {"x": np.ones(2, "f4")}, "b.safetensors": {"y": np.zeros(3, "f4")}}
    for name, arrays in parts.items():
        library.save_file(arrays, str(tmp_path / name))
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}))
    assert {name: a.shape for name, a in read_arrays(tmp_path).items()} == {"x": (2,), "y": (3,)}
    index.write_text(json.dumps({"weight_map": {"z": "a.safetensors"}}))
    with pytest.raises(ValueError, match=r"z is in a\.safetensors, but it is missing"):
        read_arrays(tmp_path)


def test_an_object_is_an_object(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"a": 1}')
    assert read_object(path) == {"a": 1}
    for content, message in (("[1]", r"JSON object of options, got list"), ("{", r"cannot be read as JSON")):
        path.write_text(content)
        with pytest.raises(ValueError, match=message):
            read_object(path)
    with pytest.raises(ValueError, match=r"cannot be read"):
        read_object(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [
        ("a positive whole number", [1, 9], [0, True, 1.0, "1"]),
        ("a whole number", [0, 3], [-1, False, 2.5]),
        ("a positive number", [0.5, 3], [0, -1.0, True, "1", float("inf")]),
        ("true or false", [True, False], [0, 1, "no"]),
        ("a name", ["relu"], [1, ["relu"]]),
        ("an object", [{}], [[], "a"]),
        ("a list", [[], [1]], [{}, "a"]),
    ],
)
def test_a_value_of_another_kind_is_named(tmp_path, kind, right, wrong):
    assert kind in KINDS
    for value in right:
        expect_kinds(tmp_path, {"a": value}, {kind: ("a", "b")})
    for value in wrong:
        with pytest.raises(ValueError, match=f"a must be {kind}, got"):
            expect_kinds(tmp_path, {"a": value}, {kind: ("a",)})
    config = {"a": None, "b": None}
    expect_kinds(tmp_path, config, {kind: ("a",)})
    assert config == {"b": None}


def test_arrays_are_cast_or_share_a_dtype(tmp_path):
    arrays = {"x": jnp.ones(2), "y": jnp.ones(2, jnp.bfloat16)}
    assert {a.dtype for a in cast("test", tmp_path, arrays, "float16").values()} == {jnp.dtype("float16")}
    with pytest.raises(ValueError, match=r"holds arrays of bfloat16 and float32"):
        cast("test", tmp_path, arrays, None)
    with pytest.raises(ValueError, match=r"test: dtype must be"):
        cast("test", tmp_path, arrays, "int8")
    with pytest.raises(ValueError, match=r"z must be floating point, got int32"):
        cast("test", tmp_path, {"z": jnp.ones(2, jnp.int32)}, None)
