"""GPT-2 in the Hugging Face layout: read the model and its arrays from a folder of config.json and safetensors files.

Nothing is ignored silently: an option of the config that `gpt` does not have raises an error that names it, and so does an
array that has no place in `gpt`.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from ..data.files import expect_path
from ..errors import describe, expect_positive, unknown_name
from ..layer import Layer
from ..layers.activation import gelu, silu
from ..linear import widened
from .folder import cast, expect_kinds, read_arrays, read_object
from .gpt import gpt

# Of one block, in the order of our leaves. Its linear maps are (in, out), like ours.
BLOCK = (
    "ln_1.weight", "ln_1.bias", "attn.c_attn.weight", "attn.c_attn.bias", "attn.c_proj.weight", "attn.c_proj.bias",
    "ln_2.weight", "ln_2.bias", "mlp.c_fc.weight", "mlp.c_fc.bias", "mlp.c_proj.weight", "mlp.c_proj.bias",
)  # fmt: skip
TABLE, POSITIONS, NORM, HEAD = "wte.weight", "wpe.weight", ("ln_f.weight", "ln_f.bias"), "lm_head.weight"
CONSTANTS = (".attn.bias", ".attn.masked_bias")  # the causal mask, which older files store

ACTIVATIONS: dict[str, Callable[[], Layer]] = {
    **dict.fromkeys(("gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_accurate"), lambda: gelu(approximate=True)),
    **dict.fromkeys(("gelu", "gelu_python"), gelu),
    **dict.fromkeys(("silu", "swish"), silu),
}
ALIASES = {
    "hidden_size": "n_embd", "max_position_embeddings": "n_positions", "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
}  # fmt: skip
# Options that change the numbers and that `gpt` lacks: refused unless they have the value here, or are missing.
WITHOUT: dict[str, Any] = {"model_type": "gpt2", "add_cross_attention": False, "pruned_heads": {}, "quantization_config": {}}


def read_gpt2(path: str | Path, heads: int | None = None, dtype: Any = None) -> tuple[dict[str, Any], dict[str, jax.Array]]:
    """(the options of `gpt` that make this model, its arrays by name) from a folder, a safetensors file in it, or the index of
    its shards; heads: used if no config gives their number.

    `gpt` divides all attention scores by sqrt(width / heads). If the config has another scale, the arrays of the queries are
    multiplied by the ratio, which gives the same scores.
    Raises ValueError, which says why, for files that cannot be read, contradict each other, or need options that `gpt` lacks.
    """
    path = expect_path("gpt2", path)
    folder = path if path.is_dir() else path.parent
    config = _config(folder / "config.json")
    arrays = {name.removeprefix("transformer."): array for name, array in read_arrays(path).items()}
    arrays = {name: array for name, array in arrays.items() if not name.endswith(CONSTANTS)}
    layers = sum(name.startswith("h.") and name.endswith(".ln_1.weight") for name in arrays)
    if TABLE not in arrays or POSITIONS not in arrays or not layers:
        some = ", ".join(sorted(arrays)[:3]) or "nothing"
        raise ValueError(f"{path}: expected the arrays of GPT-2, wte.weight, wpe.weight, h.0.ln_1.weight, ..., got {some}; "
                         "pass a model.safetensors of the gpt2 family, or the folder of its shards.")  # fmt: skip
    tie = _tied(path, config, arrays)
    _expect_all(path, arrays, layers, tie)
    (vocab, width), context = arrays[TABLE].shape, arrays[POSITIONS].shape[0]
    hidden = arrays["h.0.mlp.c_fc.weight"].shape[-1]
    sizes = {"vocab_size": vocab, "n_positions": context, "n_layer": layers, "n_embd": width, "n_inner": hidden}
    for name, size in sizes.items():
        if config.get(name) not in (None, size):
            raise ValueError(f"{path}: config.json says {name} {config[name]!r}, but the arrays {size}; use the files of one "
                             "model.")  # fmt: skip
    heads = _heads(path, config, heads, width)
    activation = config.get("activation_function", "gelu_new")
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        raise unknown_name(f"activation_function in {folder / 'config.json'}", activation, ACTIVATIONS)
    scale = 1.0 if config.get("scale_attn_weights", True) else (width / heads) ** 0.5
    by_layer = config.get("scale_attn_by_inverse_layer_idx", False)
    for i in range(layers):
        for name in (f"h.{i}.attn.c_attn.weight", f"h.{i}.attn.c_attn.bias"):
            arrays[name] = _queries_scaled(arrays[name], scale / (i + 1 if by_layer else 1))
    options = {"vocab": vocab, "context": context, "layers": layers, "heads": heads, "width": width, "hidden": hidden,
               "activation": ACTIVATIONS[activation](), "eps": float(config.get("layer_norm_epsilon", 1e-5)),
               "tie": tie}  # fmt: skip
    return options, cast("gpt2", path, arrays, dtype)


def _queries_scaled(array: jax.Array, scale: float) -> jax.Array:
    """Columns of queries, keys and values, the first third times `scale`, rounded once."""
    if scale == 1:
        return array
    queries, rest = jnp.split(array, [array.shape[-1] // 3], -1)
    return jnp.concatenate([(widened(queries) * scale).astype(array.dtype), rest], -1)


def _config(path: Path) -> dict[str, Any]:
    """config.json, {} if there is none. Raises ValueError for options that are not supported."""
    if not path.exists():
        return {}
    config = {str(ALIASES.get(name, name)): value for name, value in read_object(path).items()}
    for name, value in WITHOUT.items():
        if config.get(name) and config[name] != value:
            raise ValueError(
                f"{path} needs {name} {config[name]!r}, which gpt does not support; load a plain model of the gpt2 family."
            )
    expect_kinds(path, config, {
        "a positive whole number": ("vocab_size", "n_positions", "n_layer", "n_embd", "n_inner", "n_head"),
        "a positive number": ("layer_norm_epsilon",),
        "true or false": ("scale_attn_weights", "scale_attn_by_inverse_layer_idx", "tie_word_embeddings"),
        "a name": ("activation_function",),
    })  # fmt: skip
    return config


def _tied(path: Path, config: Mapping[str, Any], arrays: Mapping[str, jax.Array]) -> bool:
    """Whether the head is the embedding's table."""
    if HEAD not in arrays:
        if config.get("tie_word_embeddings", True):
            return True
        raise ValueError(f"{path}: config.json says tie_word_embeddings false, but {HEAD} is missing; replace the file with "
                         "an intact copy.")  # fmt: skip
    head, table = arrays[HEAD], arrays[TABLE]
    same = describe(head) == describe(table) and bool((head == table).all())
    if not same and config.get("tie_word_embeddings", bool(config)):  # true is the default of a config
        raise ValueError(f"{path}: {HEAD} differs from {TABLE}, but config.json does not say tie_word_embeddings false; add it "
                                 f"there, or remove {HEAD}.")  # fmt: skip
    return config.get("tie_word_embeddings", same)


def array_names(layers: int, tie: bool, scan: bool) -> list[str]:
    """The arrays in the order of the leaves of a `gpt`; with `scan` each array of all blocks, one after another."""
    blocks = [[f"h.{i}.{name}" for name in BLOCK] for i in range(layers)]
    inner = [name for row in (zip(*blocks) if scan else blocks) for name in row]
    return [TABLE, POSITIONS, *inner, *NORM, *([] if tie else [HEAD])]


def _expect_all(path: Path, arrays: Mapping[str, jax.Array], layers: int, tie: bool) -> None:
    wanted = array_names(layers, tie, scan=True)
    missing = [name for name in wanted if name not in arrays]
    if missing:
        raise ValueError(
            f"{path}: {missing[0]} is missing; replace the file with an intact copy, or pass the folder of its shards."
        )
    left = sorted(set(arrays) - {*wanted, HEAD})
    if left:
        raise ValueError(f"{path}: {left[0]} has no place in a gpt, {describe(arrays[left[0]])}; load a plain model of the "
                         "gpt2 family, or remove it from the file.")  # fmt: skip


def _heads(path: Path, config: Mapping[str, Any], heads: int | None, width: int) -> int:
    told = config.get("n_head")
    if heads is not None and told is not None and heads != told:
        raise ValueError(
            f"{path}: config.json says n_head {told}, got heads={heads!r}; leave heads out, or correct one of them."
        )
    if heads is None and told is None and width % 64:
        raise ValueError(f"{path}: a width of {width} is not a multiple of 64, so the number of heads is unknown; pass heads.")
    heads = next(n for n in (heads, told, width // 64) if n is not None)
    return expect_positive("gpt2", heads=heads)[0]


def gpt2_options(path: str | Path, *, heads: int | None = None) -> dict[str, Any]:
    """The options with which `gpt` makes the model of these files, see `gpt2_from_safetensors`.

    `generate_gpt` takes three of them: heads, activation and eps. See `gpt2_from_safetensors`.
    """
    return read_gpt2(path, heads)[0]


def gpt2_from_safetensors(
    path: str | Path, *, heads: int | None = None, dtype: Any = None, dropout: float = 0.0, fused: bool = False,
    remat: bool = False, scan: bool = True,
) -> tuple[Layer, Any]:  # fmt: skip
    """(gpt, params) from GPT-2 weights in the Hugging Face layout: gpt2, gpt2-medium, ...

    path: a folder with model.safetensors, or its shards and their index; or one of these files.  A config.json beside it sets
    activation, epsilon, scale of attention, heads, width of the mlp, and an untied head.  Without one, heads is width / 64, as
    in all models of OpenAI, unless given.  The scale of attention goes into the weights of the queries, which then differ from
    those in the file.  dtype: of the parameters, by default that of the file.  dropout, fused, remat, scan: as in `gpt`; the
    dropout of the config is ignored.
    Raises ValueError for files that cannot be read, contradict each other, lack an array, or need options that `gpt` lacks.

    >>> nnjax.models.gpt2_from_safetensors("a folder that is not there")
    Traceback (most recent call last):
    ValueError: ...
    """
    options, found = read_gpt2(path, heads, dtype)
    model = gpt(**options, dropout=dropout, fused=fused, remat=remat, scan=scan)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    layers, names = options["layers"], iter(array_names(options["layers"], options["tie"], scan))
    leaves = []
    for leaf in jax.tree.leaves(shapes):
        stacked = scan and 2 <= len(leaves) < 2 + len(BLOCK)
        of = [next(names) for _ in range(layers if stacked else 1)]
        for name in of:
            if found[name].shape != leaf.shape[stacked:]:
                raise ValueError(f"{path}: expected shape {leaf.shape[stacked:]} for {name}, got {describe(found[name])}; "
                                 "replace it with an intact copy.")  # fmt: skip
        leaves.append(jnp.stack([found[name] for name in of]) if stacked else found[of[0]])
    return model, jax.tree.unflatten(jax.tree.structure(shapes), leaves)
