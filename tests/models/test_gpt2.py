import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax import generate_gpt, models
from nnjax.models.gpt2 import ACTIVATIONS, BLOCK, read_gpt2

VOCAB, CONTEXT, WIDTH = 50, 16, 128


def arrays(vocab=VOCAB, context=CONTEXT, width=WIDTH, layers=2, hidden=None, drop="", head=False):
    """Random arrays with the names and shapes of GPT-2."""
    hidden = 4 * width if hidden is None else hidden
    shapes = {"wte.weight": (vocab, width), "wpe.weight": (context, width), "ln_f.weight": (width,), "ln_f.bias": (width,)}
    maps = {"attn.c_attn": (width, 3 * width), "attn.c_proj": (width, width), "mlp.c_fc": (width, hidden),
            "mlp.c_proj": (hidden, width)}  # fmt: skip
    for i in range(layers):
        shapes |= {f"h.{i}.{norm}.{p}": (width,) for norm in ("ln_1", "ln_2") for p in ("weight", "bias")}
        for name, shape in maps.items():
            shapes |= {f"h.{i}.{name}.weight": shape, f"h.{i}.{name}.bias": shape[1:]}
    shapes |= {"lm_head.weight": (vocab, width)} if head else {}
    rng = np.random.default_rng(0)
    return {n: rng.standard_normal(s).astype(np.float32) * 0.2 for n, s in shapes.items() if n != drop}


def write(folder, found=None, config=None, name="model.safetensors"):
    """The folder with these arrays and this config in it."""
    library = pytest.importorskip("safetensors.numpy")
    library.save_file(arrays() if found is None else found, str(folder / name))
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def erf(x):
    return np.vectorize(math.erf)(x)


TANH_GELU = lambda x: x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2  # noqa: E731
EXPECTED = {
    "gelu_new": TANH_GELU, "gelu_pytorch_tanh": TANH_GELU, "gelu_fast": TANH_GELU, "gelu_accurate": TANH_GELU,
    "gelu": lambda x: x * (1 + erf(x / np.sqrt(2))) / 2, "gelu_python": lambda x: x * (1 + erf(x / np.sqrt(2))) / 2,
    "silu": lambda x: x / (1 + np.exp(-x)), "swish": lambda x: x / (1 + np.exp(-x)),
}  # fmt: skip


def logits(found, ids, config, heads):
    """GPT-2 in NumPy and float64, one sequence at a time."""
    a = {name: np.asarray(array, np.float64) for name, array in found.items()}
    layers = sum(name.endswith(".ln_1.weight") for name in a)
    eps, act = config.get("layer_norm_epsilon", 1e-5), EXPECTED[config.get("activation_function") or "gelu_new"]

    def norm(x, name):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)
        return x * a[f"{name}.weight"] + a[f"{name}.bias"]

    def linear(x, name):
        return x @ a[f"{name}.weight"] + a[f"{name}.bias"]

    n = len(ids)
    x = a["wte.weight"][ids] + a["wpe.weight"][:n]
    for i in range(layers):
        q, k, v = (
            np.stack(np.split(p, heads, -1)) for p in np.split(linear(norm(x, f"h.{i}.ln_1"), f"h.{i}.attn.c_attn"), 3, -1)
        )
        scores = q @ k.swapaxes(1, 2)
        scores /= np.sqrt(q.shape[-1]) if config.get("scale_attn_weights", True) else 1
        scores /= i + 1 if config.get("scale_attn_by_inverse_layer_idx", False) else 1
        scores = np.where(np.tri(n, dtype=bool), scores, -np.inf)
        p = np.exp(scores - scores.max(-1, keepdims=True))
        y = (p / p.sum(-1, keepdims=True)) @ v
        x = x + linear(np.concatenate(list(y), -1), f"h.{i}.attn.c_proj")
        x = x + linear(act(linear(norm(x, f"h.{i}.ln_2"), f"h.{i}.mlp.c_fc")), f"h.{i}.mlp.c_proj")
    return norm(x, "ln_f") @ (a["wte.weight"] if "lm_head.weight" not in a else a["lm_head.weight"]).T


WITHOUT = {"activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "scale_attn_weights": True,
           "scale_attn_by_inverse_layer_idx": False}  # fmt: skip
IDS = np.array([1, 2, 3, 49, 1, 0, 7])


@pytest.mark.parametrize(
    ("config", "sizes"),
    [
        ({}, {}),
        ({"model_type": "gpt2", "n_head": 4, "n_embd": 64, "n_layer": 2, "n_positions": CONTEXT, "vocab_size": VOCAB}, {}),
        ({"n_head": 8, "layer_norm_epsilon": 0.03, "n_inner": None, "resid_pdrop": 0.1, "activation_function": None}, {}),
        ({"scale_attn_weights": False}, {}),
        ({"scale_attn_by_inverse_layer_idx": True, "n_head": 1}, {"layers": 3}),
        ({"scale_attn_weights": False, "scale_attn_by_inverse_layer_idx": True, "reorder_and_upcast_attn": True}, {}),
        ({"n_inner": 20, "activation_function": "gelu"}, {"hidden": 20}),
        ({"tie_word_embeddings": False, "num_attention_heads": 4}, {"head": True}),
        *(({"activation_function": name}, {"layers": 1}) for name in EXPECTED),
    ],
)
@pytest.mark.repeats
@pytest.mark.in_turn
def test_the_model_of_the_config_equals_numpy(tmp_path, config, sizes):
    found = arrays(width=64, **sizes)
    found = {name: 0.3 * array if "c_attn" in name else array for name, array in found.items()}  # no saturated scores
    write(tmp_path, found, config)
    heads = config.get("n_head", config.get("num_attention_heads", 1))
    expected = logits(found, IDS, config, heads)
    with jax.enable_x64(True):
        model, params = models.gpt2_from_safetensors(tmp_path, dtype=jnp.float64)
        found_by = [np.asarray(y) for y in (model.apply(params, jnp.asarray(IDS)), model.fwd(params, jnp.asarray(IDS))[0])]
    for y in found_by:  # queries are scaled in the file's float32
        np.testing.assert_allclose(y, expected, atol=1e-6 * np.abs(expected).max())
    for name, value in WITHOUT.items():  # unlike an option that is not read
        if name in config and EXPECTED.get(config[name]) is not TANH_GELU and config[name] not in (None, value):
            assert np.abs(found_by[0] - logits(found, IDS, {**config, name: value}, heads)).max() > 1e-5


def test_every_activation_is_tested():
    assert set(EXPECTED) == set(ACTIVATIONS)


@pytest.mark.slow
@pytest.mark.in_turn
def test_generation_is_that_of_the_config(tmp_path):
    for config, sizes in (
        ({"activation_function": "silu", "layer_norm_epsilon": 0.5, "n_head": 4}, {"hidden": 24}),
        ({"tie_word_embeddings": False}, {"head": True}),
    ):
        write(tmp_path, arrays(width=64, **sizes), config)
        model, params = models.gpt2_from_safetensors(tmp_path)
        options = models.gpt2_options(tmp_path)
        ids = jnp.asarray(IDS, jnp.int32)
        for _ in range(8):
            ids = jnp.concatenate([ids, model.apply(params, ids)[-1:].argmax(-1).astype(jnp.int32)])
        told = {name: options[name] for name in ("heads", "activation", "eps")}
        np.testing.assert_array_equal(generate_gpt(params, ids[:7], 8, **told), ids[7:])
    assert (options["layers"], options["hidden"], options["tie"]) == (2, 256, False)


@pytest.mark.parametrize("prefix", ["", "transformer."])
@pytest.mark.parametrize("kind", ["folder", "index", "one of another name"])
def test_a_folder_and_shards_load(tmp_path, kind, prefix):
    found = {prefix + name: array for name, array in arrays(width=64).items()}
    found[f"{prefix}h.0.attn.bias"] = np.tri(CONTEXT, dtype=bool)[None, None]  # as in older files
    names = sorted(found)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for shard, of in shards.items():
        write(tmp_path, {name: found[name] for name in of}, name=shard)
    index = {"metadata": {"total_size": 1}, "weight_map": {name: shard for shard, of in shards.items() for name in of}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    path = {"folder": tmp_path, "index": tmp_path / "model.safetensors.index.json"}.get(kind)
    if path is None:
        path = write(tmp_path, found, name="mine.safetensors") / "mine.safetensors"
    model, params = models.gpt2_from_safetensors(str(path))
    expected = logits({n.removeprefix(prefix): a for n, a in found.items() if not n.endswith(".attn.bias")}, IDS, {}, 1)
    np.testing.assert_allclose(model.apply(params, jnp.asarray(IDS, jnp.int32)), expected, atol=1e-3)


@pytest.mark.parametrize("scan", [True, False])
def test_weights_reach_their_places(tmp_path, scan):
    found = arrays()
    _, params = models.gpt2_from_safetensors(write(tmp_path, found) / "model.safetensors", scan=scan)
    block = params.body[1]
    second = jax.tree.map(lambda p: p[1], block) if scan else block[1]
    np.testing.assert_array_equal(second[0][1].qkv.w, found["h.1.attn.c_attn.weight"])
    np.testing.assert_array_equal(second[1][2][1].b, found["h.1.mlp.c_proj.bias"])
    np.testing.assert_array_equal(params.body[0].table, found["wpe.weight"])


@pytest.mark.parametrize("stored", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("dtype", [None, "float32", jnp.bfloat16, np.dtype("float16")])
@pytest.mark.slow
@pytest.mark.in_turn
def test_dtype_says_in_which_precision(tmp_path, stored, dtype):
    low = {name: array.astype(jnp.dtype(stored)) for name, array in arrays(width=64).items()}
    model, params = models.gpt2_from_safetensors(write(tmp_path, low), dtype=dtype)
    wanted = jnp.dtype(stored if dtype is None else dtype)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {wanted}
    np.testing.assert_array_equal(params.table.table, low["wte.weight"].astype(wanted))
    y = model.apply(params, jnp.asarray(IDS, jnp.int32))
    assert y.dtype == wanted
    expected = logits(low, IDS, {}, 1)
    assert np.abs(np.asarray(y, np.float64) - expected).max() < {2: 0.1, 4: 1e-4}[wanted.itemsize] * np.abs(expected).max()


def test_a_head_equal_to_the_table_is_tied_and_without_a_config_a_different_one_is_used(tmp_path):
    found = arrays(width=64, head=True)
    same = {**found, "lm_head.weight": found["wte.weight"]}
    for config in (None, {}, {"n_head": 1}, {"tie_word_embeddings": True}):
        write(tmp_path, same, config)
        model, params = models.gpt2_from_safetensors(tmp_path)
        assert type(params).__name__ == "TiedParams"
    (tmp_path / "config.json").unlink()
    model, params = models.gpt2_from_safetensors(write(tmp_path, found))
    np.testing.assert_array_equal(params[2].table, found["lm_head.weight"])
    np.testing.assert_allclose(model.apply(params, jnp.asarray(IDS, jnp.int32)), logits(found, IDS, {}, 1), atol=1e-3)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"activation_function": "gelu_nwe"},
            r"unknown activation_function in .*config.json 'gelu_nwe': .*did you mean 'gelu_new'",
        ),
        ({"activation_function": "relu"}, r"unknown activation_function in .*'relu': known are gelu, gelu_acc"),
        ({"activation_function": "quick_gelu"}, r"unknown activation_function in .*'quick_gelu': known are gelu, gelu_acc"),
        ({"activation_function": ["relu"]}, r"activation_function must be a name, got \['relu'\]; correct it"),
        ({"add_cross_attention": True}, r"needs add_cross_attention True"),
        ({"pruned_heads": {"0": [1]}}, r"needs pruned_heads \{'0': \[1\]\}"),
        ({"quantization_config": {"bits": 8}}, r"needs quantization_config"),
        ({"model_type": "gpt_bigcode"}, r"needs model_type 'gpt_bigcode'"),
        ({"n_head": 3}, r"heads must divide n, got n=64, heads=3"),
        ({"n_head": "4"}, r"n_head must be a positive whole number, got '4'; correct it"),
        ({"n_head": True}, r"n_head must be a positive whole number, got True"),
        ({"layer_norm_epsilon": -1e-5}, r"layer_norm_epsilon must be a positive number, got -1e-05"),
        ({"layer_norm_epsilon": "1e-5"}, r"layer_norm_epsilon must be a positive number, got '1e-5'"),
        ({"scale_attn_weights": "no"}, r"scale_attn_weights must be true or false, got 'no'"),
        ({"n_embd": 65}, r"config.json says n_embd 65, but the arrays 64"),
        ({"n_layer": 12}, r"config.json says n_layer 12, but the arrays 2"),
        ({"n_inner": 64}, r"config.json says n_inner 64, but the arrays 256"),
        ({"vocab_size": 51}, r"config.json says vocab_size 51, but the arrays 50"),
        ({"n_positions": 1024}, r"config.json says n_positions 1024, but the arrays 16"),
        ({"tie_word_embeddings": False}, r"says tie_word_embeddings false, but lm_head.weight is missing"),
        ([1], r"config.json must hold a JSON object of options, got list"),
    ],
)
def test_a_config_that_cannot_be_followed_is_refused_by_name(tmp_path, config, message):
    with pytest.raises(ValueError, match=message):
        models.gpt2_from_safetensors(write(tmp_path, arrays(width=64), config))


def test_the_number_of_heads_must_not_contradict_the_config(tmp_path):
    write(tmp_path, arrays(width=64), {"n_head": 4})
    assert models.gpt2_options(tmp_path, heads=4)["heads"] == 4
    with pytest.raises(ValueError, match=r"config.json says n_head 4, got heads=2; leave heads out"):
        models.gpt2_from_safetensors(tmp_path, heads=2)
    (tmp_path / "config.json").unlink()
    assert models.gpt2_options(tmp_path, heads=np.int64(2))["heads"] == 2
    with pytest.raises(ValueError, match=r"gpt2: heads must be a positive int, got 0"):
        models.gpt2_from_safetensors(tmp_path, heads=0)
    write(tmp_path, arrays(width=24))
    with pytest.raises(ValueError, match=r"a width of 24 is not a multiple of 64, .*; pass heads"):
        models.gpt2_from_safetensors(tmp_path)
    assert models.gpt2_from_safetensors(tmp_path, heads=3)[0].name == "gpt"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"h.1.mlp.c_fc.bias": None},
            r"h\.1\.mlp\.c_fc\.bias is missing; .* or pass the folder",
        ),
        ({"wpe.weight": None}, r"expected the arrays of GPT-2, wte\.weight, .*, got h\.0\.attn"),
        ({"h.1.crossattention.q_attn.weight": np.zeros((2, 2))}, r"h\.1\.crossattention\.q_attn\.weight has no place in a gpt"),
        ({"score.weight": np.zeros((2, 64))}, r"score\.weight has no place in a gpt, float64 \(2, 64\)|float32 \(2, 64\)"),
        ({"h.1.ln_2.bias": np.zeros(63, "f4")}, r"shape \(64,\) for h\.1\.ln_2\.bias, got float32 \(63,\)"),
        ({"h.0.mlp.c_fc.weight": np.zeros((64, 256), "i1")}, r"c_fc\.weight must be floating point, got int8 .*not quantised"),
        ({"ln_f.bias": np.zeros(64, "f2")}, r"holds arrays of float16 and float32; pass the dtype"),
        ({"lm_head.weight": np.ones((VOCAB, 64), "f4")}, r"lm_head\.weight differs from wte\.weight, but config\.json"),
    ],
)
def test_arrays_that_are_not_those_of_gpt_2_are_refused_by_name(tmp_path, change, message):
    found = {name: array for name, array in {**arrays(width=64), **change}.items() if array is not None}
    with pytest.raises(ValueError, match=message):
        models.gpt2_from_safetensors(write(tmp_path, found, {"n_head": 1}))


def test_missing_or_damaged_files_are_sentences(tmp_path):
    with pytest.raises(ValueError, match=r"must hold model\.safetensors, or its shards .*, got nothing"):
        models.gpt2_from_safetensors(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ValueError, match=r"got pytorch_model\.bin; .*pickled files are never read"):
        models.gpt2_from_safetensors(tmp_path)
    with pytest.raises(ValueError, match=r"does not exist; check the path of the index"):
        models.gpt2_from_safetensors(tmp_path / "model.safetensors.index.json")
    with pytest.raises(TypeError, match=r"gpt2: a path must be a str or a pathlib\.Path, got int"):
        models.gpt2_from_safetensors(3)
    index = tmp_path / "model.safetensors.index.json"
    for content, message in (
        ("{", r"cannot be read as an index of shards"),
        ("[]", r"cannot be read as an index of shards"),
        ('{"weight_map": [1]}', r"cannot be read as an index of shards"),
        ('{"weight_map": {"wte.weight": "../model.safetensors"}}', r"shards must lie beside the index, got '\.\./model"),
        ('{"weight_map": {"wte.weight": "a.safetensors"}}', r"a\.safetensors does not exist; check the path"),
    ):
        index.write_text(content)
        with pytest.raises(ValueError, match=message):
            models.gpt2_from_safetensors(tmp_path)
    write(tmp_path, {"wpe.weight": np.zeros((2, 2), "f4")}, name="a.safetensors")
    with pytest.raises(ValueError, match=r"says that wte\.weight is in a\.safetensors, but it is missing"):
        models.gpt2_from_safetensors(tmp_path)
    (write(tmp_path) / "config.json").write_text("{'n_head': 2}")
    with pytest.raises(ValueError, match=r"config\.json cannot be read as JSON: "):
        models.gpt2_from_safetensors(tmp_path)


def test_an_invalid_dtype_is_refused(tmp_path):
    write(tmp_path, arrays(width=64))
    for wrong in ("float31", jnp.int32, 32, jnp.float64):
        with pytest.raises(ValueError, match=r"gpt2: dtype must be float32, bfloat16 or float16, or under jax\.enable_x64"):
            read_gpt2(tmp_path, dtype=wrong)


def test_the_block_has_twelve_arrays():
    assert len(BLOCK) == 12
    assert models.BLOCK is BLOCK
