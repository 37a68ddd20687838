import json
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax.train.watching.plain import plain


class Pair(NamedTuple):
    a: float
    b: object


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float32(0.5), 0.5),
        (np.float64(0.1), 0.1),
        (np.longdouble(0.25), 0.25),
        (np.float16(0.5), 0.5),
        (jnp.bfloat16(0.5), 0.5),
        (np.asarray(jnp.ones(2, jnp.bfloat16)), [1.0, 1.0]),
        (np.int64(3), 3),
        (np.uint8(255), 255),
        (np.bool_(True), True),
        (np.str_("word"), "word"),
        (jnp.float32(0.5), 0.5),
        (jnp.arange(3, dtype=jnp.int32), [0, 1, 2]),
        (np.zeros((2, 0)), [[], []]),
        (Path("a") / "b", "a/b"),
        ({"x": (1, np.float32(2.0)), np.int64(4): [Path("c")]}, {"x": [1, 2.0], 4: ["c"]}),
        (Pair(1.5, {"y": jnp.int32(7)}), [1.5, {"y": 7}]),
        (None, None),
    ],
    ids=repr,
)
def test_numbers_arrays_and_paths_become_those_that_json_carries(value, expected):
    found = plain("save: metrics", value)
    assert found == expected
    assert type(found) is type(expected)
    json.dumps(found)


def test_what_is_not_finite_stays_so():
    assert plain("x", {"a": np.float32("nan")})["a"] != plain("x", {"a": np.float32("nan")})["a"]
    assert plain("x", jnp.float32(jnp.inf)) == float("inf")


@pytest.mark.parametrize(
    ("value", "entry", "came"),
    [
        ({"a": {1, 2}}, r"metrics\['a'\]", "set"),
        ({"a": {"b": [1, object()]}}, r"metrics\['a'\]\['b'\]\[1\]", "object"),
        ({"key": jax.random.key(0)}, r"metrics\['key'\]", r"key<fry> \(\)"),
        ({"z": np.complex64(1j)}, r"metrics\['z'\]", r"complex64 \(\)"),
        ({"at": np.datetime64("2020-01-01")}, r"metrics\['at'\]", "datetime64"),
        ({"o": np.array([object()])}, r"metrics\['o'\]", r"object \(1,\)"),
        ({"b": b"bytes"}, r"metrics\['b'\]", "bytes"),
        ({"f": plain}, r"metrics\['f'\]", "function"),
    ],
)
def test_anything_else_is_named(value, entry, came):
    with pytest.raises(TypeError, match=rf"save: {entry} cannot be saved as JSON, got {came}.*; pass numbers, text"):
        plain("save: metrics", value)


def test_an_invalid_name_is_refused():
    with pytest.raises(TypeError, match=r"save: metrics: a name must be a str, got \(1, 2\); use text as names"):
        plain("save: metrics", {(1, 2): 3})
