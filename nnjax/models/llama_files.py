"""Llama and Qwen-2 in the Hugging Face layout: read model and arrays from a folder of config.json and safetensors files.

Nothing is ignored silently: an option of the config that is not known to leave the numbers alone raises an error that names it,
and so does an array that has no place in `llama`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from ..data.files import expect_path
from ..errors import describe
from ..layer import Layer
from ..layers.attending.rotary import THETA
from .folder import cast, expect_kinds, read_arrays, read_object
from .llama import LlamaOptions, expect_llama, llama

TABLE, NORM, HEAD = "embed_tokens.weight", "norm.weight", "lm_head.weight"
CONSTANTS = ".rotary_emb.inv_freq"  # which older files store
PROJECTIONS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
MAPS = ("self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
NORMS = ("input_layernorm", "post_attention_layernorm")

KINDS = {
    "a positive whole number": ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                                "num_key_value_heads", "head_dim", "max_position_embeddings"),
    "a whole number": ("sliding_window", "max_window_layers"),
    "a positive number": ("rms_norm_eps", "rope_theta"),
    "true or false": ("tie_word_embeddings", "use_sliding_window"),
    "a name": ("model_type", "hidden_act"),
    "an object": ("rope_parameters", "rope_scaling"),
    "a list": ("layer_types",),
}  # fmt: skip
NEEDED = (
    "model_type", "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings",
)  # fmt: skip
# Options that change the numbers and that `llama` lacks: refused unless they have one of the values here, or are missing.
WITHOUT: dict[str, tuple[Any, ...]] = {
    "model_type": ("llama", "qwen2"), "hidden_act": ("silu", "swish"), "attention_bias": (False,), "mlp_bias": (False,),
    "partial_rotary_factor": (1, 1.0), "use_mrope": (False,), "pruned_heads": ({},), "add_cross_attention": (False,),
    "is_decoder": (False, True), "is_encoder_decoder": (False,), "tie_encoder_decoder": (False,),
}  # fmt: skip
# Options that leave logits and gradients as they are: how the file came about, how to sample, what to return.
HARMLESS = {
    "architectures", "attention_dropout", "bos_token_id", "chunk_size_feed_forward", "dtype", "eos_token_id", "id2label",
    "initializer_range", "label2id", "max_length", "min_length", "do_sample", "temperature", "top_k", "top_p", "name_or_path",
    "_name_or_path", "output_attentions", "output_hidden_states", "pad_token_id", "pretraining_tp", "problem_type",
    "return_dict", "tokenizer_class", "torch_dtype", "transformers_version", "unk_token_id", "use_cache",
}  # fmt: skip


def read_llama(path: str | Path, dtype: Any = None) -> tuple[LlamaOptions, dict[str, jax.Array]]:
    """(the options of `llama` that make this model, its arrays by name) from a folder of config.json and safetensors files.

    Raises ValueError, which says why, for files that cannot be read, contradict each other, or need options that `llama` lacks.
    """
    folder = expect_path("llama", path)
    if not folder.is_dir():
        raise ValueError(f"{folder} must be a folder of config.json and model.safetensors, or its shards with their index; "
                         "pass that folder.")  # fmt: skip
    config = _config(folder / "config.json")
    arrays = {name.removeprefix("model."): array for name, array in read_arrays(folder).items()}
    arrays = {name: array for name, array in arrays.items() if not name.endswith(CONSTANTS)}
    o = _options(folder, config)
    _expect_all(folder, arrays, o)
    if o.tie and HEAD in arrays and not _same(arrays[HEAD], arrays[TABLE]):
        raise ValueError(f"{folder}: {HEAD} differs from {TABLE}, but config.json says tie_word_embeddings true; correct it, "
                         f"or remove {HEAD}.")  # fmt: skip
    return o, cast("llama", folder, arrays, dtype)


def _same(a: jax.Array, b: jax.Array) -> bool:
    return describe(a) == describe(b) and bool((a == b).all())


def _config(path: Path) -> dict[str, Any]:
    """config.json. Raises ValueError for options that are not supported."""
    config = read_object(path)
    expect_kinds(path, config, KINDS)
    for name in NEEDED:
        if name not in config:
            raise ValueError(f"{path} must say {name}; replace it with an intact copy.")
    known = {name for names in KINDS.values() for name in names} | HARMLESS
    for name, value in config.items():
        if name in WITHOUT:
            if value not in WITHOUT[name]:
                raise ValueError(f"{path} needs {name} {value!r}, which llama does not support; load a plain model of the "
                                 "llama or qwen2 family.")  # fmt: skip
        elif name not in known and value is not None:
            raise ValueError(f"{path} has the option {name} {value!r}, which llama does not know; if it changes nothing that "
                             "the model computes, remove it.")  # fmt: skip
    return config


def _options(path: Path, config: Mapping[str, Any]) -> LlamaOptions:
    qwen = config["model_type"] == "qwen2"
    layers, context = config["num_hidden_layers"], config["max_position_embeddings"]
    theta, scaling = _rope(path, config)
    window, full = _window(path, config, layers)
    return expect_llama(LlamaOptions(
        config["vocab_size"], context, layers, config["num_attention_heads"], config["hidden_size"],
        kv_heads=config.get("num_key_value_heads"), head_dim=config.get("head_dim"),
        hidden=config.get("intermediate_size", 22016 if qwen else 11008), rope_theta=theta, rope_scaling=scaling,
        eps=float(config.get("rms_norm_eps", 1e-6)), qkv_bias=qwen, sliding_window=window, full_layers=full,
        tie=config.get("tie_word_embeddings", False),
    ))  # fmt: skip


def _rope(path: Path, config: Mapping[str, Any]) -> tuple[float, dict[str, Any] | None]:
    """(rope_theta, rope_scaling) of either layout: newer files have both in rope_parameters."""
    if config.get("rope_parameters") and config.get("rope_scaling"):
        raise ValueError(f"{path}: config.json has both rope_parameters and rope_scaling; remove one of them.")
    given = {k: v for k, v in (config.get("rope_parameters") or config.get("rope_scaling") or {}).items() if v is not None}
    theta = float(given.pop("rope_theta", config.get("rope_theta", THETA)))
    if given.get("partial_rotary_factor") == 1:
        del given["partial_rotary_factor"]
    kind = given.get("rope_type", given.get("type", "default"))
    if kind == "dynamic" or (kind == "default" and not set(given) - {"rope_type", "type"}):
        return theta, None  # a dynamic one changes the angles of texts beyond max_position_embeddings alone, the context here
    if kind in ("llama3", "yarn"):
        given.setdefault("original_max_position_embeddings", config["max_position_embeddings"])
    if kind == "yarn" and "factor" not in given:
        given["factor"] = config["max_position_embeddings"] / given["original_max_position_embeddings"]
    return theta, given


def _window(path: Path, config: Mapping[str, Any], layers: int) -> tuple[int | None, int]:
    """(sliding_window, full_layers)."""
    if config["model_type"] == "qwen2":
        window = (config.get("sliding_window", 4096) or None) if config.get("use_sliding_window", False) else None
    elif any(config.get(name) for name in ("use_sliding_window", "sliding_window")):
        raise ValueError(
            f"{path}: config.json asks for a sliding_window, which the model_type llama does not have; correct it."
        )
    else:
        window = None
    full = config.get("max_window_layers", 28) if window else layers
    wanted = ["full_attention" if i < full else "sliding_attention" for i in range(layers)]
    if config.get("layer_types", wanted) != wanted:
        raise ValueError(f"{path}: config.json says layer_types {config['layer_types']}, but its other options mean {wanted}; "
                         "llama has full attention in its first layers, and may have a window in the rest.")  # fmt: skip
    return window, full if window else 0


def _shapes(o: LlamaOptions) -> dict[str, tuple[int, ...]]:
    """The name and shape of every array: those of linear maps are (out, in)."""
    d = o.width // o.heads if o.head_dim is None else o.head_dim
    kv, hidden = o.heads if o.kv_heads is None else o.kv_heads, o.hidden or 0
    maps = {
        "self_attn.q_proj": (o.heads * d, o.width), "self_attn.k_proj": (kv * d, o.width),
        "self_attn.v_proj": (kv * d, o.width), "self_attn.o_proj": (o.width, o.heads * d),
        "mlp.gate_proj": (hidden, o.width), "mlp.up_proj": (hidden, o.width), "mlp.down_proj": (o.width, hidden),
    }  # fmt: skip
    found: dict[str, tuple[int, ...]] = {TABLE: (o.vocab, o.width), NORM: (o.width,)}
    found |= {} if o.tie else {HEAD: (o.vocab, o.width)}
    for i in range(o.layers):
        found |= {f"layers.{i}.{name}.weight": (o.width,) for name in NORMS}
        found |= {f"layers.{i}.{name}.weight": shape for name, shape in maps.items()}
        found |= {f"layers.{i}.{name}.bias": maps[name][:1] for name in PROJECTIONS} if o.qkv_bias else {}
    return found


def _expect_all(path: Path, arrays: Mapping[str, jax.Array], o: LlamaOptions) -> None:
    shapes = _shapes(o)
    for name, shape in shapes.items():
        if name not in arrays:
            raise ValueError(f"{path}: {name} is missing; replace the files with intact copies, or correct config.json.")
        if arrays[name].shape != shape:
            raise ValueError(f"{path}: expected shape {shape} for {name} by config.json, got {describe(arrays[name])}; use the "
                             "files of one model.")  # fmt: skip
    left = sorted(set(arrays) - {*shapes, HEAD})
    if left:
        raise ValueError(f"{path}: {left[0]} has no place in a llama, {describe(arrays[left[0]])}; load a plain model of the "
                         "llama or qwen2 family, or remove it from the file.")  # fmt: skip


def _leaves(found: Mapping[str, jax.Array], i: int, bias: bool) -> list[jax.Array]:
    """The arrays of block i in the order of our leaves: linear maps the other way, queries, keys and values side by side."""
    first, second = (found[f"layers.{i}.{name}.weight"] for name in NORMS)
    qkv = jnp.concatenate([found[f"layers.{i}.{name}.weight"].T for name in PROJECTIONS], -1)
    biases = [jnp.concatenate([found[f"layers.{i}.{name}.bias"] for name in PROJECTIONS])] if bias else []
    out, *rest = (found[f"layers.{i}.{name}.weight"].T for name in MAPS)
    return [first, qkv, *biases, out, second, *rest]


def llama_options(path: str | Path) -> dict[str, Any]:
    """The options with which `llama` makes the model of these files, as `generate_llama` takes them too.

    See `llama_from_safetensors`.
    """
    return read_llama(path)[0]._asdict()


def llama_from_safetensors(
    path: str | Path, *, dtype: Any = None, dropout: float = 0.0, fused: bool = False, remat: bool = False, scan: bool = True,
    kernel: bool = False,
) -> tuple[Layer, Any]:  # fmt: skip
    """(llama, params) from weights of the Llama or Qwen-2 family in the Hugging Face layout.

    path: a folder of config.json and model.safetensors, or its shards and model.safetensors.index.json.  dtype: of the
    parameters, by default that of the files, such as bfloat16.  dropout, fused, remat, scan, kernel: as in `llama`; the dropout
    of the config is ignored.  Of the scalings of rotary positions it takes linear, llama3, yarn, and dynamic, which changes
    nothing within max_position_embeddings, the context.
    Raises ValueError for files that cannot be read, contradict each other, lack an array, or need what `llama` lacks.

    >>> nnjax.models.llama_from_safetensors("a folder that is not there")
    Traceback (most recent call last):
    ValueError: ...
    """
    o, found = read_llama(path, dtype)
    options = {**o._asdict(), "dropout": dropout, "scan": scan}
    model = llama(**options, fused=fused, remat=remat, kernel=kernel)
    blocks, counts = [_leaves(found, i, o.qkv_bias) for i in range(o.layers)], [n for n, _ in o.stacks()]
    leaves = [found[TABLE]]
    for n in counts:
        stack, blocks = blocks[:n], blocks[n:]
        leaves += [jnp.stack(row) for row in zip(*stack)] if scan else [array for block in stack for array in block]
    leaves += [found[NORM]] if o.tie else [found[NORM], found[HEAD]]
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    return model, jax.tree.unflatten(jax.tree.structure(shapes), leaves)
