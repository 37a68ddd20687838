"""GPT-2 as `transformers` computes it, against ours with the same weights, read from its own file."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.models import BLOCK, gpt2_from_safetensors

pytestmark = pytest.mark.slow


def test_logits_and_gradients_are_those_of_transformers(tmp_path):
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
        n_head=4,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    theirs = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for p in theirs.parameters():  # biases and norms away from 0 and 1
            p.add_(0.05 * torch.randn_like(p))
    theirs.save_pretrained(tmp_path)
    model, params = gpt2_from_safetensors(tmp_path / "model.safetensors", heads=4, scan=False)

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
    names = ["wte.weight", "wpe.weight", *(f"h.{i}.{n}" for i in range(3) for n in BLOCK), "ln_f.weight", "ln_f.bias"]
    for name, ours in zip(names, jax.tree.leaves(grads), strict=True):
        close(ours, named[name], name)
