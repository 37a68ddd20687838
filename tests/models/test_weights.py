import os

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import nnjax
from nnjax.models.weights import load_weights, read_tensors, save_weights

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
    with pytest.raises(ValueError, match=r"\[0\]\.b must be float32 \(5,\), got float32 \(4,\)"):
        load_weights(path, other.init(jax.random.key(0)))
    with pytest.raises(ValueError, match=r"expected nothing as \[2\]\.w, got float32 \(4, 2\)"):
        load_weights(path, nnjax.serial(nnjax.dense(3, 4)).init(jax.random.key(0)))
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ValueError, match=r"cannot be read as a safetensors file: "):
        read_tensors(path)
    with pytest.raises(ValueError, match=r"does not exist; check the path"):
        read_tensors(tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match=r"cannot be written: .*; choose another place"):
        save_weights(tmp_path / "does not exist" / "w.safetensors", ())


W = np.arange(24, dtype=np.float32).reshape(4, 6)
VIEWS = {
    "transposed": W.T,
    "reversed": W[::-1, ::-1],
    "Fortran": np.asfortranarray(W),
    "broadcast": np.broadcast_to(W[0], (5, 6)),
    "broadcast along a new last axis": np.broadcast_to(W[:, :1], (4, 3)),
    "every other": W[1:, ::2],
    "a column": W[:, 2],
    "a window": np.lib.stride_tricks.sliding_window_view(W[0], 3),
    "three axes moved": np.moveaxis(W.reshape(2, 2, 6), 0, 2),
    "big-endian": W.astype(">f4"),
    "big-endian, transposed": W.astype(">f8").T,
    "of no axes": W[1, 1:2].reshape(()),
    "a NumPy number": np.float32(2.5),
    "empty": W[:0, ::2],
    "bfloat16": W.astype(ml_dtypes.bfloat16).T,
    "float16": W.astype(np.float16)[::-1],
    "flags": (W > 3).T,
    "bytes": W.astype(np.uint8)[:, ::-1],
    "a field": np.array([(1.0, 2), (3.0, 4)], [("a", "f4"), ("b", "i4")])["a"],
}


@pytest.mark.parametrize("kind", VIEWS)
def test_a_view_is_saved_as_the_numbers_that_it_shows(tmp_path, kind):
    view = VIEWS[kind]
    before = np.array(view)
    save_weights(tmp_path / "w", {"w": view, "after": W})
    found = load_weights(tmp_path / "w", {"w": view, "after": W})
    assert found["w"].shape == view.shape
    np.testing.assert_array_equal(np.asarray(found["w"], np.float64), np.asarray(before, np.float64))
    np.testing.assert_array_equal(found["after"], W)
    np.testing.assert_array_equal(view, before)


def test_float64_is_saved_whole_and_read_in_the_precision_of_the_moment(tmp_path):
    third = np.array([[1 / 3, 2 / 3]]).T[::-1]
    save_weights(tmp_path / "w", {"w": third})
    np.testing.assert_array_equal(load_weights(tmp_path / "w", {"w": jnp.zeros((2, 1))})["w"], third.astype(np.float32))
    with jax.enable_x64(True):
        np.testing.assert_array_equal(load_weights(tmp_path / "w", {"w": third})["w"], third)


def test_what_cannot_be_written_to_is_left_alone_and_memory_maps_and_arrays_on_devices_are_saved(tmp_path):
    frozen = W.copy().T
    frozen.setflags(write=False)
    np.save(tmp_path / "map.npy", W)
    mapped = np.load(tmp_path / "map.npy", mmap_mode="r")[:, 1:3]
    device = jax.device_put(jnp.asarray(W).T, jax.devices()[1])
    spread = jax.device_put(W, jax.sharding.NamedSharding(jax.make_mesh((2,), ("a",)), jax.sharding.PartitionSpec("a")))
    tree = {"frozen": frozen, "mapped": mapped, "device": device, "spread": spread}
    save_weights(tmp_path / "w", tree)
    jax.tree.map(np.testing.assert_array_equal, load_weights(tmp_path / "w", tree), tree)


def test_long_integers_come_whole_or_not_at_all(tmp_path):
    save_weights(tmp_path / "w", {"n": np.array([2**40, 1])})
    with pytest.raises(ValueError, match=r"\['n'\] holds integers of more than 32 bits; read it under jax\.enable_x64"):
        read_tensors(tmp_path / "w")
    with jax.enable_x64(True):
        assert read_tensors(tmp_path / "w")["['n']"].tolist() == [2**40, 1]
    save_weights(tmp_path / "w", {"n": np.array([-7, 1])})
    assert read_tensors(tmp_path / "w")["['n']"].tolist() == [-7, 1]


def gone():
    x = jnp.ones(3)
    x.delete()
    return x


@pytest.mark.parametrize(
    ("leaf", "message"),
    [
        (jax.random.key(0), r"\[1\] is a key of jax\.random; save jax\.random\.key_data"),
        ("words", r"\[1\] must be a concrete array, got str"),
        (0.5, r"\[1\] must be a concrete array, got float"),
        (jax.ShapeDtypeStruct((2,), jnp.float32), r"must be a concrete array, got float32 \(2,\)"),
        (nnjax.relu, r"must be a concrete array, got function"),
        (np.array([{}, None]), r"must have a dtype of safetensors .*, got object \(2,\)"),
        (np.array(["a"]), r"must have a dtype .*, got <U1 \(1,\)"),
        (np.zeros(2, "c16"), r"must have a dtype .*, got complex128 \(2,\)"),
        (np.zeros(2, "M8[s]"), r"must have a dtype .*, got datetime64"),
        (np.zeros(2, [("a", "f4"), ("b", "i4")]), r"must have a dtype"),
        (np.ma.masked_array(np.ones(2), [True, False]), r"not be a masked array, .*; fill it"),
        (gone(), r"was donated to a jitted function"),
    ],
)
def test_anything_but_a_plain_array_is_named_and_nothing_is_written(tmp_path, leaf, message):
    (tmp_path / "w").write_text("before")
    with pytest.raises((TypeError, ValueError), match=message):
        save_weights(tmp_path / "w", [W, leaf])
    assert (tmp_path / "w").read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["w"]


def test_tracers_have_no_numbers(tmp_path):
    with pytest.raises(TypeError, match=r"params must be a concrete array, got float32 \(3,\); .* outside jit"):
        jax.jit(lambda x: save_weights(tmp_path / "w", x))(jnp.ones(3))


def test_the_mode_of_the_file_is_that_of_any_other(tmp_path):
    for umask, mode in ((0o022, 0o644), (0o077, 0o600), (0o002, 0o664)):
        before = os.umask(umask)
        try:
            save_weights(tmp_path / "w", W)
        finally:
            os.umask(before)
        assert (tmp_path / "w").stat().st_mode & 0o777 == mode


def test_a_full_disk_and_invalid_places_are_sentences(tmp_path, monkeypatch):
    for wrong in (3, None):
        with pytest.raises(TypeError, match=r"save_weights: a path must be a str or a pathlib\.Path, got"):
            save_weights(wrong, W)
        with pytest.raises(TypeError, match=r"read_tensors: a path must be"):
            read_tensors(wrong)
    with pytest.raises(ValueError, match=r"is a folder; check the path"):
        read_tensors(tmp_path)
    (tmp_path / "w").write_text("before")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.numpy.serialize_file", full)
    with pytest.raises(ValueError, match=r"cannot be written: .*No space left on device; choose another place"):
        save_weights(tmp_path / "w", W)
    assert [p.name for p in tmp_path.iterdir()] == ["w"]
    assert (tmp_path / "w").read_text() == "before"
