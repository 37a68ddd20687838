import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax import models
from nnjax.bench.peers import pytorch
from nnjax.bench.peers.steps import Unavailable

pytestmark = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
IDS = jnp.array([[1, 4, 2, 0], [3, 3, 0, 1]], jnp.int32)
X, LABELS = jnp.ones((3, 6)), jnp.array([1, 0, 2], jnp.int32)


def dense(name, p):
    return {f"{name}.weight": p.w.T, f"{name}.bias": p.b}


def norm(name, p):
    return {f"{name}.weight": p.scale, f"{name}.bias": p.offset}


def scores(model, arrays):
    """The scores of IDS, from a model with exactly these parameters."""
    import torch

    model.load_state_dict({name: torch.from_numpy(np.array(a)) for name, a in arrays.items()})
    return model(torch.from_numpy(np.array(IDS, np.int64))).detach().numpy()


def test_a_gpt_with_our_parameters_gives_our_scores():
    model = models.gpt(5, 4, 2, 2, 8, scan=False)
    params = jax.tree.map(lambda p: p + 0.3 * jax.random.normal(jax.random.key(p.size), p.shape), model.init(jax.random.key(0)))
    positions, blocks, last = params.body
    theirs = {"tokens.weight": params.table.table, "positions": positions.table, **norm("last", last)}
    for i, ((first, attend), (second, up, (_, down))) in enumerate(blocks):
        theirs |= norm(f"blocks.{i}.first", first) | norm(f"blocks.{i}.second", second) | dense(f"blocks.{i}.qkv", attend.qkv)
        theirs |= dense(f"blocks.{i}.out", attend.out) | dense(f"blocks.{i}.mlp.0", up) | dense(f"blocks.{i}.mlp.2", down)
    np.testing.assert_allclose(
        scores(pytorch.gpt(5, 4, 2, 2, 8), theirs), jax.jit(model.apply)(params, IDS), rtol=1e-4, atol=1e-5
    )


def test_a_char_rnn_with_our_parameters_gives_our_scores():
    model = models.char_rnn(5, 8)
    embed, lstm, head = params = model.init(jax.random.key(0))
    theirs = {"tokens.weight": embed.table, **dense("head", head), "lstm.weight_ih_l0": lstm.w.T, "lstm.weight_hh_l0": lstm.u.T}
    theirs |= {"lstm.bias_ih_l0": lstm.b, "lstm.bias_hh_l0": 0 * lstm.b}
    np.testing.assert_allclose(scores(pytorch.char_rnn(5, 8), theirs), jax.jit(model.apply)(params, IDS), rtol=1e-4, atol=1e-5)


def test_without_a_compiler_one_line_says_so(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(Unavailable, match=r"^it needs a C\+\+ compiler, and no-such-compiler is not found"):
        pytorch.compiled(pytorch.mlp([6, 5, 3]), X, LABELS)
    pytorch.compile_trouble.cache_clear()


def test_what_goes_wrong_in_compiling_is_one_line(monkeypatch):
    import torch

    def compile(*_, **__):
        raise RuntimeError("backend raised:\n\n  it is no program")

    monkeypatch.setenv("CXX", "sh")
    monkeypatch.setattr(torch, "compile", compile)
    pytorch.compile_trouble.cache_clear()
    with pytest.raises(Unavailable, match=r"^RuntimeError: backend raised: it is no program$"):
        pytorch.compiled(pytorch.mlp([6, 5, 3]), X, LABELS)
    pytorch.compile_trouble.cache_clear()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # PyTorch's own cache, for its compiler
@pytest.mark.parametrize("model", ["mlp", "char_rnn", "gpt"])
@pytest.mark.in_turn
def test_compiled_steps_are_the_eager_ones(model):
    import torch

    trouble = pytorch.compile_trouble("cpu")
    if trouble:
        pytest.skip(trouble)
    sizes, x, labels = {"mlp": (([6, 5, 3],), X, LABELS), "char_rnn": ((5, 8), IDS, IDS[::-1]),
                        "gpt": ((5, 4, 2, 2, 8), IDS, IDS[::-1])}[model]  # fmt: skip
    values = []
    for make in (pytorch.run, pytorch.compiled):
        torch.manual_seed(0)
        step = make(getattr(pytorch, model)(*sizes), x, labels)
        for _ in range(0 if make is pytorch.compiled else 1):  # it has taken a step, to compile
            step()
        values.append([float(step()[1]) for _ in range(5)])
    np.testing.assert_allclose(*values, rtol=1e-4)
    assert values[1][-1] < values[1][0]
