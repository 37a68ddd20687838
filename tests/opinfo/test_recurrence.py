"""PyTorch's samples of RNN, GRU and LSTM, and sequences of several lengths and dropout against it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax

from . import modules
from .samples import agree, call, without

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
MAKE = {"RNN": nnjax.rnn, "GRU": nnjax.gru, "LSTM": nnjax.lstm}


class Recurrent(modules.Module):
    """The parts of an LSTM's state are arguments of their own."""

    def sample_inputs(self, *how, **options):
        for sample in super().sample_inputs(*how, **options):
            sample.args = modules.flat(sample.args)
            yield sample

    def __call__(self, module, x, *parts, **options):
        return super().__call__(module, x, *(parts if len(parts) < 2 else (parts,)), **options)


def layer_of(module, **more):
    name = type(module).__name__
    options = {"activation": module.nonlinearity} if name == "RNN" else {}
    return MAKE[name](
        module.input_size, module.hidden_size, carry=True, bidirectional=module.bidirectional, layers=module.num_layers,
        dropout=module.dropout, **options, **more,
    )  # fmt: skip


def _cell(module, named, suffix):
    """The parameters of one layer in one direction. PyTorch has two biases everywhere; here a GRU has, in its candidate."""
    name, n = type(module).__name__, module.hidden_size
    w, u = named[f"weight_ih_{suffix}"].T, named[f"weight_hh_{suffix}"].T
    zero = jnp.zeros(w.shape[1], w.dtype)
    b, b_u = (named.get(f"{part}_{suffix}", zero) for part in ("bias_ih", "bias_hh"))
    if name == "GRU":
        return nnjax.GRUParams(w, u, b.at[: 2 * n].add(b_u[: 2 * n]), b_u[2 * n :])
    return (nnjax.RNNParams if name == "RNN" else nnjax.LSTMParams)(w, u, b + b_u)


def by_layers(module, one):
    """one(level, direction) of each, in the tree that our layers have."""
    levels = [
        (one(i, 0), one(i, 1)) if module.bidirectional else one(i, 0)
        for i in range(module.num_layers)
    ]  # fmt: skip
    return levels[0] if module.num_layers == 1 else tuple(levels)


def params_of(module, named):
    return by_layers(module, lambda i, back: _cell(module, named, f"l{i}" + "_reverse" * back))


def state_of(module, hx):
    """PyTorch's state, (layers directions, ..., n) for each part, as ours."""
    if hx is None:
        return None
    at = lambda v, i, back: v[i * (1 + module.bidirectional) + back]  # noqa: E731
    if type(module).__name__ == "LSTM":
        return by_layers(module, lambda i, back: nnjax.LSTMState(*(at(v, i, back) for v in hx)))
    return by_layers(module, lambda i, back: at(hx, i, back))


def flat(module, y, state):
    """Our output and last state, in PyTorch's order, in one array."""
    per_cell = jax.tree.leaves(state, is_leaf=lambda s: isinstance(s, nnjax.LSTMState))
    parts = [jnp.stack(vs) for vs in zip(*per_cell)] if type(module).__name__ == "LSTM" else [jnp.stack(per_cell)]
    return jnp.concatenate([v.reshape(-1) for v in (y, *parts)])


def recurrent(module, x, *parts, **options):
    named, others = modules.parameters(options)
    hx = None if not parts else parts[0] if len(parts) == 1 else parts
    without(projections=(module.proj_size, 0), options=(others, {}))
    time = x.ndim - 2 if module.batch_first or x.ndim == 2 else 0
    y, last = call(layer_of(module), params_of(module, named), (jnp.moveaxis(x, time, -2), state_of(module, hx)))
    return flat(module, jnp.moveaxis(y, -2, time), last)


@pytest.fixture(scope="module")
def torch():
    pytest.importorskip("expecttest")
    return pytest.importorskip("torch")


@pytest.mark.parametrize("name", MAKE)
def test_samples_of_pytorch_give_the_same_output_states_and_gradients(torch, name, capsys):
    """A sample of an LSTM in two has a projection, which ours has not."""
    agree(Recurrent(name), name, recurrent, capsys, least=0.5 if name == "LSTM" else 1.0)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("name", MAKE)
def test_sequences_of_several_lengths_are_those_that_pytorch_packs(torch, name, bidirectional, x64):
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    torch.manual_seed(0)
    module = getattr(torch.nn, name)(3, 2, num_layers=2, batch_first=True, bidirectional=bidirectional).double()
    x, lengths = torch.randn(4, 6, 3, dtype=torch.float64, requires_grad=True), [6, 1, 4, 2]
    packed = pack_padded_sequence(x, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
    y, last = module(packed)
    outputs = (pad_packed_sequence(y, batch_first=True, total_length=6)[0], *(last if name == "LSTM" else (last,)))
    theirs = torch.cat([v.reshape(-1) for v in outputs])
    ct = np.random.default_rng(0).standard_normal(theirs.numel())
    named = dict(module.named_parameters())
    grads = torch.autograd.grad(theirs, [x, *named.values()], torch.tensor(ct))

    def ours(named, x):
        layer = layer_of(module, lengths=True)
        return flat(module, *call(layer, params_of(module, named), (x, None, jnp.array(lengths))))

    padded = x.detach().numpy().copy()
    padded[np.arange(6) >= np.array(lengths)[:, None]] = np.nan
    found, vjp = jax.vjp(ours, {n: jnp.asarray(p.detach().numpy()) for n, p in named.items()}, jnp.asarray(padded))
    np.testing.assert_allclose(found, theirs.detach(), atol=1e-12)
    cts, ct_x = vjp(jnp.asarray(ct))
    np.testing.assert_allclose(ct_x, grads[0], atol=1e-12)
    for (path, _), grad in zip(named.items(), grads[1:], strict=True):
        np.testing.assert_allclose(cts[path], grad, atol=1e-11, err_msg=path)


def test_a_share_of_the_outputs_between_layers_is_dropped_as_there(torch):
    """The masks differ, so the mean over many is compared: of a linear map of what is dropped (relu, all positive)."""
    torch.manual_seed(0)
    module = torch.nn.RNN(2, 64, num_layers=2, dropout=0.5, nonlinearity="relu", batch_first=True)
    with torch.no_grad():
        for p in module.parameters():
            p.abs_().mul_(0.2)
    x = torch.rand(1, 3, 2)
    theirs = torch.stack([module(x)[0] for _ in range(400)]).detach().numpy()
    named = {n: jnp.asarray(p.detach().numpy()) for n, p in module.named_parameters()}
    layer, params = layer_of(module), params_of(module, named)
    run = jax.vmap(lambda key: layer.apply(params, (jnp.asarray(x.numpy()), None), key=key)[0])
    ours = np.asarray(run(jax.random.split(jax.random.key(0), 400)))
    np.testing.assert_allclose(ours.mean(0), theirs.mean(0), rtol=0.05)
    np.testing.assert_allclose(ours.std(0).mean(), theirs.std(0).mean(), rtol=0.05)
