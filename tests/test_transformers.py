"""GPT-2 as `transformers` computes it, against ours with the same weights, read from its own file."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.models.gpt2 import array_names, gpt2_from_safetensors

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"activation_function": "silu", "layer_norm_epsilon": 0.01, "n_inner": 48},
        {"activation_function": "gelu", "tie_word_embeddings": False},
        {"activation_function": "gelu_fast", "scale_attn_weights": False},
        {"scale_attn_by_inverse_layer_idx": True, "reorder_and_upcast_attn": True, "n_head": 8},
    ],
    ids=lambda options: ", ".join(options) or "as OpenAI's",
)
def test_logits_and_gradients_are_those_of_transformers(tmp_path, options):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        bos_token_id=0,
        eos_token_id=0,
        vocab_size=101,
        n_positions=32,
        n_embd=128,
        n_layer=3,
        **{"n_head": 4, **options},
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    theirs = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for p in theirs.parameters():  # biases and norms away from 0 and 1
            p.add_(0.05 * torch.randn_like(p))
    theirs.save_pretrained(tmp_path, **({"max_shard_size": "300KB"} if options else {}))
    model, params = gpt2_from_safetensors(tmp_path if options else tmp_path / "model.safetensors", scan=False)

    rng = np.random.default_rng(0)
    ids = rng.integers(0, 101, (3, 21))
    out = theirs(torch.from_numpy(ids[:, :-1]))
    loss = torch.nn.functional.cross_entropy(out.logits.flatten(0, 1), torch.from_numpy(ids[:, 1:].copy()).flatten())
    loss.backward()
    x, labels = (jnp.asarray(a, jnp.int32) for a in (ids[:, :-1], ids[:, 1:]))
    value, grads = nnjax.value_and_grad(model, nnjax.softmax_cross_entropy())(params, x, labels)

    def close(ours, reference, what):
        reference = reference.detach().numpy()
        error = np.linalg.norm(np.asarray(ours) - reference) / np.linalg.norm(reference)
        assert error <= 1e-5, f"{what}: {error}"

    close(model.apply(params, x), out.logits, "logits")
    assert float(value) == pytest.approx(loss.item(), rel=1e-5)
    named = {n.removeprefix("transformer."): p.grad for n, p in theirs.named_parameters()}
    scale = 1.0 if config.scale_attn_weights else (128 / config.n_head) ** 0.5
    for name, ours in zip(array_names(3, config.tie_word_embeddings, scan=False), jax.tree.leaves(grads), strict=True):
        ours = np.array(ours)
        if "c_attn" in name:  # our queries are theirs times this factor, so their gradient is larger by it
            ours[..., :128] *= scale / (int(name.split(".")[1]) + 1 if config.scale_attn_by_inverse_layer_idx else 1)
        close(ours, named[name], name)
