"""The same weights in PyTorch, in float64: an implementation that shares nothing with JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax

torch = pytest.importorskip("torch", reason="the comparison with PyTorch needs torch")
pytestmark = pytest.mark.slow


def wide(params, rng):
    """The parameters in float64, with noise: a bias of 0 or a scale of 1 would hide that it was forgotten."""
    return jax.tree.map(lambda p: jnp.asarray(np.asarray(p, np.float64) + 0.1 * rng.standard_normal(p.shape)), params)


def torch_lenet(params, x):
    f = torch.nn.functional
    (first, _, _, second, *_), dense, _, out = params
    x = x.permute(0, 3, 1, 2)
    for w, b in (first, second):
        x = f.relu(f.max_pool2d(f.conv2d(x, w.permute(3, 2, 0, 1), b), 2))
    return f.relu(x.permute(0, 2, 3, 1).flatten(1) @ dense.w + dense.b) @ out.w + out.b


def torch_resnet(params, x):
    f = torch.nn.functional

    def normed(x, conv, norm, stride=1):
        x = f.conv2d(x, conv.w.permute(3, 2, 0, 1), stride=stride, padding=conv.w.shape[0] // 2)
        return f.batch_norm(x, None, None, norm.scale, norm.offset, training=True)

    def block(x, p, stride=1):
        return normed(f.relu(normed(x, *p[:2], stride)), *p[3:])

    conv, norm, _, first, _, (second, shortcut), _, _, out = params
    x = f.relu(normed(x.permute(0, 3, 1, 2), conv, norm))
    x = f.relu(x + block(x, first))
    x = f.relu(normed(x, *shortcut, 2) + block(x, second, 2))
    return x.mean((2, 3)) @ out.w + out.b


def torch_recurrent(kind):
    def run(params, ids):
        table, cell, out = params
        n_in, n_hidden = cell.w.shape[0], cell.u.shape[0]
        bias_hh = torch.zeros_like(cell.b)
        if kind == "GRU":  # its candidate has a separate bias for the state
            bias_hh = torch.cat([bias_hh[: 2 * n_hidden], cell.b_u])
        given = {"weight_ih_l0": cell.w.T, "weight_hh_l0": cell.u.T, "bias_ih_l0": cell.b, "bias_hh_l0": bias_hh}
        module = getattr(torch.nn, kind)(n_in, n_hidden, batch_first=True).double()
        y, _ = torch.func.functional_call(module, given, (table.table[ids],))
        return y @ out.w + out.b

    return run


def torch_gpt(heads):
    f = torch.nn.functional

    def norm(p, h):
        return f.layer_norm(h, h.shape[-1:], p.scale, p.offset, 1e-5)

    def run(params, ids):
        table, (positions, blocks, last) = params.table.table, params.body
        h = table[ids] + positions.table[: ids.shape[1]]
        n = h.shape[-1]
        leaves, treedef = jax.tree.flatten(blocks)
        for i in range(leaves[0].shape[0]):
            (norm1, attention), (norm2, wide_in, (_, wide_out)) = jax.tree.unflatten(treedef, [leaf[i] for leaf in leaves])
            qkv = norm(norm1, h) @ attention.qkv.w + attention.qkv.b
            q, k, v = qkv.unflatten(-1, (3, heads, n // heads)).permute(2, 0, 3, 1, 4)
            seen = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool).tril()
            scores = (q @ k.mT / (n // heads) ** 0.5).masked_fill(~seen, -torch.inf)
            h = h + (scores.softmax(-1) @ v).transpose(1, 2).flatten(-2) @ attention.out.w + attention.out.b
            h = h + f.gelu(norm(norm2, h) @ wide_in.w + wide_in.b, approximate="tanh") @ wide_out.w + wide_out.b
        return norm(last, h) @ table.T

    return run


MODELS = {
    "lenet": (nnjax.lenet(channels=(4, 6), hidden=12), torch_lenet),
    "resnet": (nnjax.resnet(channels=(3, 4), blocks=1, image=(7, 6, 2)), torch_resnet),
    "lstm": (nnjax.char_rnn(11, 8, cell="lstm"), torch_recurrent("LSTM")),
    "gru": (nnjax.char_rnn(11, 8, cell="gru"), torch_recurrent("GRU")),
    "gpt": (nnjax.gpt(11, 9, 4, 2, 8), torch_gpt(2)),
}


@pytest.mark.parametrize("name", MODELS)
def test_value_and_gradient_are_those_of_pytorch(name, x64):
    model, forward = MODELS[name]
    rng = np.random.default_rng(0)
    params = wide(model.init(jax.random.key(0)), rng)
    if name == "lenet":
        x, labels = rng.standard_normal((20, 28, 28, 1)), rng.integers(0, 10, 20)  # more images than a chunk
    elif name == "resnet":
        x, labels = rng.standard_normal((5, 7, 6, 2)), rng.integers(0, 10, 5)
    else:
        x, labels = rng.integers(0, 11, (3, 9)), rng.integers(0, 11, (3, 9))
    ours = jax.jit(nnjax.value_and_grad(model, nnjax.softmax_cross_entropy()))(params, jnp.asarray(x), jnp.asarray(labels))

    leaves, treedef = jax.tree.flatten(params)
    given = [torch.tensor(np.asarray(p), requires_grad=True) for p in leaves]
    logits = forward(jax.tree.unflatten(treedef, given), torch.tensor(x))
    value = torch.nn.functional.cross_entropy(logits.flatten(0, -2), torch.tensor(labels).flatten())
    value.backward()

    assert float(ours[0]) == pytest.approx(value.item(), rel=1e-12)
    for path_grad, p in zip(jax.tree_util.tree_leaves_with_path(ours[1]), given, strict=True):
        path, g = path_grad
        theirs = p.grad.numpy()
        assert g.dtype == np.float64
        assert np.linalg.norm(g - theirs) <= 1e-9 * np.linalg.norm(theirs), jax.tree_util.keystr(path)
