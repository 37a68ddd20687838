import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax import models
from nnjax.models.llama_files import read_llama

CONFIG = {
    "model_type": "llama", "vocab_size": 13, "hidden_size": 12, "intermediate_size": 10, "num_hidden_layers": 3,
    "num_attention_heads": 6, "num_key_value_heads": 2, "max_position_embeddings": 16, "rms_norm_eps": 1e-5,
    "rope_theta": 100.0, "hidden_act": "silu", "torch_dtype": "float32", "architectures": ["LlamaForCausalLM"],
    "bos_token_id": 1, "tie_word_embeddings": False, "attention_bias": False, "mlp_bias": False, "rope_scaling": None,
}  # fmt: skip
QWEN = CONFIG | {"model_type": "qwen2", "use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 28}
IDS = jnp.array([1, 2, 3, 12, 1, 0, 7], jnp.int32)


def arrays(config=CONFIG, drop=""):
    """Random arrays with the names and shapes of this config."""
    n, hidden, vocab, heads = (config[k] for k in ("hidden_size", "intermediate_size", "vocab_size", "num_attention_heads"))
    d = config.get("head_dim", n // heads)
    q, kv = heads * d, config.get("num_key_value_heads", heads) * d
    shapes = {"model.embed_tokens.weight": (vocab, n), "model.norm.weight": (n,)}
    shapes |= {} if config.get("tie_word_embeddings") else {"lm_head.weight": (vocab, n)}
    for i in range(config["num_hidden_layers"]):
        at = f"model.layers.{i}"
        shapes |= {f"{at}.{name}_layernorm.weight": (n,) for name in ("input", "post_attention")}
        for name, rows in (("q", q), ("k", kv), ("v", kv)):
            shapes[f"{at}.self_attn.{name}_proj.weight"] = (rows, n)
            shapes |= {f"{at}.self_attn.{name}_proj.bias": (rows,)} if config["model_type"] == "qwen2" else {}
        shapes |= {f"{at}.self_attn.o_proj.weight": (n, q), f"{at}.mlp.down_proj.weight": (n, hidden)}
        shapes |= {f"{at}.mlp.{name}_proj.weight": (hidden, n) for name in ("gate", "up")}
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape).astype(np.float32) * 0.3 for name, shape in shapes.items() if name != drop}


def write(folder, config=CONFIG, found=None):
    library = pytest.importorskip("safetensors.numpy")
    library.save_file(arrays(config) if found is None else found, str(folder / "model.safetensors"))
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("scan", [True, False])
def test_weights_reach_their_places(tmp_path, scan):
    found = arrays(QWEN)
    _, params = models.llama_from_safetensors(write(tmp_path, QWEN), scan=scan)
    embed, (blocks, norm), head = params
    (first, mix), (second, feed) = jax.tree.map(lambda p: p[1], blocks) if scan else blocks[1]
    at = "model.layers.1"
    np.testing.assert_array_equal(mix.qkv.w[:, 12:16], found[f"{at}.self_attn.k_proj.weight"].T)
    np.testing.assert_array_equal(mix.qkv.b[16:], found[f"{at}.self_attn.v_proj.bias"])
    np.testing.assert_array_equal(mix.out.w, found[f"{at}.self_attn.o_proj.weight"].T)
    np.testing.assert_array_equal(second.scale, found[f"{at}.post_attention_layernorm.weight"])
    for name in ("gate", "up", "down"):
        np.testing.assert_array_equal(getattr(feed, name).w, found[f"{at}.mlp.{name}_proj.weight"].T)
    np.testing.assert_array_equal(first.scale, found[f"{at}.input_layernorm.weight"])
    np.testing.assert_array_equal(norm.scale, found["model.norm.weight"])
    for table, name in ((embed, "model.embed_tokens"), (head, "lm_head")):
        np.testing.assert_array_equal(table.table, found[f"{name}.weight"])


@pytest.mark.parametrize(
    ("config", "options"),
    [
        ({}, {"kv_heads": 2, "hidden": 10, "rope_theta": 100.0, "rope_scaling": None, "eps": 1e-5, "tie": False}),
        ({"rope_theta": None, "rope_parameters": {"rope_type": "default", "rope_theta": 77.0}}, {"rope_theta": 77.0}),
        ({"rope_scaling": {"type": "linear", "factor": 4.0}}, {"rope_scaling": {"type": "linear", "factor": 4.0}}),
        ({"rope_scaling": {"type": "dynamic", "factor": 4.0}}, {"rope_scaling": None}),
        (
            {"rope_scaling": {"rope_type": "yarn", "factor": None, "original_max_position_embeddings": 8}},
            {"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 8}},
        ),
        (
            {"rope_scaling": {"rope_type": "llama3", "factor": 2.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}},
            {"rope_scaling": {"rope_type": "llama3", "factor": 2.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                              "original_max_position_embeddings": 16}},
        ),
        ({"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
         {"sliding_window": 5, "full_layers": 1, "qkv_bias": True}),
        ({"model_type": "qwen2", "use_sliding_window": False, "sliding_window": 5}, {"sliding_window": None}),
        ({"tie_word_embeddings": True}, {"tie": True}),
        ({"head_dim": 4}, {"head_dim": 4}),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.repeats
@pytest.mark.in_turn
def test_options_are_those_of_the_config(tmp_path, config, options):
    write(tmp_path, CONFIG | config)
    found = models.llama_options(tmp_path)
    assert {name: found[name] for name in options} == options
    model, params = models.llama_from_safetensors(tmp_path)
    assert jax.eval_shape(model.apply, params, IDS).shape == (7, 13)
    assert nnjax.generate_llama(params, IDS, 1, options=found).shape == (1,)


@pytest.mark.in_turn
def test_shards_and_a_low_precision_load(tmp_path):
    library = pytest.importorskip("safetensors.numpy")
    found = {name: array.astype(jnp.bfloat16) for name, array in arrays().items()}
    names = sorted(found)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for shard, of in shards.items():
        library.save_file({name: found[name] for name in of}, str(tmp_path / shard))
    index = {"metadata": {"total_size": 1}, "weight_map": {name: shard for shard, of in shards.items() for name in of}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    model, params = models.llama_from_safetensors(tmp_path)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.bfloat16)}
    wide, wide_params = models.llama_from_safetensors(str(tmp_path), dtype="float32", scan=False)
    low, high = model.apply(params, IDS), wide.apply(wide_params, IDS)
    assert low.dtype == jnp.bfloat16
    assert np.abs(low.astype(jnp.float32) - high).max() < 0.1 * np.abs(high).max()
    np.testing.assert_array_equal(params[0].table.astype(jnp.float32), wide_params[0].table)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "mistral"}, r"needs model_type 'mistral', which llama does not support"),
        ({"hidden_act": "gelu"}, r"needs hidden_act 'gelu'"),
        ({"attention_bias": True}, r"needs attention_bias True"),
        ({"mlp_bias": True}, r"needs mlp_bias True"),
        ({"partial_rotary_factor": 0.5}, r"needs partial_rotary_factor 0\.5"),
        ({"logit_scale": 0.5}, r"has the option logit_scale 0\.5, which llama does not know"),
        ({"quantization_config": {"bits": 8}}, r"has the option quantization_config"),
        ({"num_attention_heads": "6"}, r"num_attention_heads must be a positive whole number, got '6'"),
        ({"vocab_size": None}, r"must say vocab_size"),
        ({"num_attention_heads": 5}, r"heads must divide n|expected shape"),
        ({"num_hidden_layers": 4}, r"layers\.3\.\S+ is missing"),
        ({"intermediate_size": 11}, r"expected shape \(11, 12\) for \S+gate_proj\.weight .*got float32 \(10, 12\)"),
        ({"num_hidden_layers": 2}, r"layers\.2\.\S+ has no place in a llama"),
        ({"tie_word_embeddings": True}, r"lm_head\.weight differs from embed_tokens\.weight"),
        ({"sliding_window": 4}, r"sliding_window, which the model_type llama does not have"),
        ({"layer_types": ["full_attention", "sliding_attention", "full_attention"]}, r"layer_types .*sliding_attention"),
        ({"rope_scaling": {"rope_type": "longrope", "factor": 2.0}}, r"unknown rope_type of attention 'longrope'"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 2.0, "beta": 1.0}}, r"linear has no beta"),
        (
            {"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_parameters": {"rope_type": "default"}},
            r"both rope_parameters and rope_scaling",
        ),
        ({"rope_scaling": 4}, r"rope_scaling must be an object"),
    ],
    ids=str,
)
def test_a_config_that_cannot_be_followed_is_refused_by_name(tmp_path, config, message):
    write(tmp_path, CONFIG | config, arrays())
    with pytest.raises(ValueError, match=message):
        models.llama_from_safetensors(tmp_path)


def test_files_that_are_missing_or_those_of_another_model_are_sentences(tmp_path):
    with pytest.raises(ValueError, match=r"config\.json cannot be read"):
        models.llama_from_safetensors(tmp_path)
    with pytest.raises(ValueError, match=r"must be a folder"):
        models.llama_from_safetensors(tmp_path / "model.safetensors")
    with pytest.raises(TypeError, match=r"llama: a path must be"):
        read_llama(3)
    write(tmp_path, CONFIG, arrays(drop="lm_head.weight"))
    with pytest.raises(ValueError, match=r"lm_head\.weight is missing"):
        models.llama_from_safetensors(tmp_path)
    write(tmp_path, QWEN, arrays())
    with pytest.raises(ValueError, match=r"q_proj\.bias is missing"):
        models.llama_from_safetensors(tmp_path)
    found = arrays()
    found["lm_head.weight"] = found["model.embed_tokens.weight"]
    found["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(1, "f4")  # as in older files
    write(tmp_path, CONFIG | {"tie_word_embeddings": True}, found)
    assert models.llama_options(tmp_path)["tie"]
    with pytest.raises(ValueError, match=r"llama: dtype must be"):
        models.llama_from_safetensors(tmp_path, dtype="int8")
