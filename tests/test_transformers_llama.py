"""Llama and Qwen-2 as `transformers` computes them, against ours with the same weights, read from its own files."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.models import llama_from_safetensors, llama_options

pytestmark = pytest.mark.slow

SIZES = {"vocab_size": 101, "hidden_size": 60, "intermediate_size": 77, "num_hidden_layers": 3, "num_attention_heads": 6,
         "num_key_value_heads": 3, "max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": None}  # fmt: skip
LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 32, "rope_theta": 500.0}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "rope_theta": 1000.0}
CASES = {
    "llama": ("Llama", {}),
    "llama, tied, one head of keys, eps": (
        "Llama",
        {"tie_word_embeddings": True, "num_key_value_heads": 1, "rms_norm_eps": 0.01},
    ),
    "llama3": ("Llama", {"rope_parameters": LLAMA3}),
    "linear": ("Llama", {"rope_parameters": {"rope_type": "linear", "factor": 3.0, "rope_theta": 300.0}}),
    "yarn": ("Llama", {"rope_parameters": YARN}),
    "dynamic": ("Llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 3.0, "rope_theta": 300.0}}),
    "wide heads": ("Llama", {"head_dim": 14, "num_key_value_heads": 6}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen2, windowed": ("Qwen2", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}),
}


@pytest.fixture(params=CASES)
def both(request, tmp_path):
    """(their model, our options, our model, our parameters, theirs by name)."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    family, options = CASES[request.param]
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**SIZES | options)
    theirs = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    with torch.no_grad():
        for p in theirs.parameters():  # biases and norms away from 0 and 1, weights large enough to matter
            p.add_((0.05 if p.ndim == 1 else 0.15) * torch.randn_like(p))
    theirs.save_pretrained(tmp_path, **({"max_shard_size": "100KB"} if options else {}))
    model, params = llama_from_safetensors(tmp_path, scan=False)
    return theirs, llama_options(tmp_path), model, params


def close(ours, reference, what):
    reference = reference.detach().numpy()
    error = np.linalg.norm(np.asarray(ours) - reference) / np.linalg.norm(reference)
    assert error <= 1e-5, f"{what}: {error}"


def by_their_names(grads, o):
    """Our gradients under the names and in the layout of their parameters."""
    embed, (blocks, norm), head = (grads.table, grads.body, None) if o["tie"] else grads
    d = o["head_dim"] or o["width"] // o["heads"]
    cuts = [o["heads"] * d, (o["heads"] + (o["kv_heads"] or o["heads"])) * d]
    found = {"model.embed_tokens.weight": embed.table, "model.norm.weight": norm.scale}
    found |= {} if head is None else {"lm_head.weight": head.table}
    for i, ((first, mix), (second, feed)) in enumerate(blocks):
        at = f"model.layers.{i}"
        found |= {f"{at}.input_layernorm.weight": first.scale, f"{at}.post_attention_layernorm.weight": second.scale}
        for name, w in zip("qkv", jnp.split(mix.qkv.w, cuts, -1)):
            found[f"{at}.self_attn.{name}_proj.weight"] = w.T
        if mix.qkv.b is not None:
            found |= {f"{at}.self_attn.{name}_proj.bias": b for name, b in zip("qkv", jnp.split(mix.qkv.b, cuts))}
        found[f"{at}.self_attn.o_proj.weight"] = mix.out.w.T
        found |= {f"{at}.mlp.{name}_proj.weight": getattr(feed, name).w.T for name in ("gate", "up", "down")}
    return found


def test_logits_all_gradients_and_fifty_greedy_tokens_are_those_of_transformers(both):
    import torch

    theirs, options, model, params = both
    ids = np.random.default_rng(0).integers(0, 101, (3, 22))
    out = theirs(torch.from_numpy(ids[:, :-1]))
    loss = torch.nn.functional.cross_entropy(out.logits.flatten(0, 1), torch.from_numpy(ids[:, 1:].copy()).flatten())
    loss.backward()
    x, labels = (jnp.asarray(a, jnp.int32) for a in (ids[:, :-1], ids[:, 1:]))
    value, grads = jax.jit(nnjax.value_and_grad(model, nnjax.softmax_cross_entropy()))(params, x, labels)
    close(jax.jit(model.apply)(params, x), out.logits, "logits")
    assert float(value) == pytest.approx(loss.item(), rel=1e-5)
    named = {name: p.grad for name, p in theirs.named_parameters()}
    found = by_their_names(grads, options)
    assert set(found) == set(named)
    for name, reference in named.items():
        close(found[name], reference, name)

    written = theirs.generate(torch.from_numpy(ids[:1, :9].copy()), max_new_tokens=50, do_sample=False, pad_token_id=0)
    ours = nnjax.generate_llama(params, jnp.asarray(ids[0, :9], jnp.int32), 50, options={**options, "scan": False})
    assert len(set(np.asarray(ours).tolist())) > 5
    np.testing.assert_array_equal(ours, written[0, 9:].numpy())
