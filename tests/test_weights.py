import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.weights import load_weights, read_tensors, save_weights

MODEL = nnjax.serial(nnjax.dense(3, 4), nnjax.tanh(), nnjax.dense(4, 2, bias=False))


def test_what_is_saved_is_loaded_again_bit_for_bit_and_named_by_its_place(tmp_path):
    params = MODEL.init(jax.random.key(0))
    low = (params[0]._replace(w=params[0].w.astype(jnp.bfloat16)), *params[1:])
    for tree in (params, low):
        save_weights(tmp_path / "w.safetensors", tree)
        jax.tree.map(np.testing.assert_array_equal, load_weights(tmp_path / "w.safetensors", tree), tree)
    assert sorted(read_tensors(tmp_path / "w.safetensors")) == ["[0].b", "[0].w", "[2].w"]
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


def test_what_does_not_fit_is_named(tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(path, MODEL.init(jax.random.key(0)))
    other = nnjax.serial(nnjax.dense(3, 5), nnjax.tanh(), nnjax.dense(5, 2, bias=False))
    with pytest.raises(ValueError, match=r"expected float32 \(5,\) as \[0\]\.b, got float32 \(4,\); load it into"):
        load_weights(path, other.init(jax.random.key(0)))
    with pytest.raises(ValueError, match=r"expected nothing as \[2\]\.w, got float32 \(4, 2\)"):
        load_weights(path, nnjax.serial(nnjax.dense(3, 4)).init(jax.random.key(0)))
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ValueError, match=r"cannot be read as a safetensors file: .*; replace it with a sound copy"):
        read_tensors(path)
    with pytest.raises(ValueError, match=r"is not there; check the path"):
        read_tensors(tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match=r"cannot be written: .*; choose another place"):
        save_weights(tmp_path / "no folder" / "w.safetensors", ())
