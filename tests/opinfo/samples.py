"""PyTorch's own samples of its operations (OpInfo), in float64: output and gradients against ours, where we support them."""

from collections import Counter
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from nnjax.layer import as_custom_vjp

MOST = 1e-10  # relative to the size of the compared numbers


class CannotExpress(Exception):
    """A sample with an option that nnjax does not have; the message is the option."""


def without(**options) -> None:
    """Raise for the first option with a value that has an effect."""
    for name, (value, nothing) in options.items():
        if value != nothing:
            raise CannotExpress(name)


def call(layer, params, x):
    return as_custom_vjp(layer)(params, x)


def channels_last(x):
    return jnp.moveaxis(x, 1, -1)


def channels_first(x):
    return jnp.moveaxis(x, -1, 1)


def agree(op, name: str, ours: Callable, capsys, least: float = 0.0) -> None:
    """Every sample of the operation that `ours` can express, which is this share of them at least, agrees."""
    import torch

    torch.manual_seed(0)
    agreed, left = 0, Counter()
    with jax.enable_x64(True):
        for number, sample in enumerate(op.sample_inputs("cpu", torch.float64, requires_grad=True)):
            try:
                _same(op, ours, sample, f"{name}, sample {number}")
            except CannotExpress as option:
                left[str(option)] += 1
            else:
                agreed += 1
    with capsys.disabled():
        without_us = ", ".join(f"{option} {n}" for option, n in left.most_common())
        print(f"\n{name}: {agreed} agree" + (f"; not expressible: {without_us}" if left else ""))
    assert agreed > 0
    assert agreed >= least * (agreed + left.total())


def _same(op, ours: Callable, sample, where: str) -> None:
    import torch

    given = [sample.input, *sample.args, *sample.kwargs.values()]
    tensors = [x for x in given if torch.is_tensor(x)]
    places = {id(x): i for i, x in enumerate(tensors)}
    floats = [i for i, x in enumerate(tensors) if x.is_floating_point() and x.requires_grad]  # the others are constants
    arrays = [jnp.asarray(x.detach().resolve_conj().numpy()) for x in tensors]

    def run(some):
        values = dict(zip(floats, some))

        def of(x):
            return x if not torch.is_tensor(x) else values.get(places[id(x)], arrays[places[id(x)]])

        return ours(of(sample.input), *map(of, sample.args), **{name: of(x) for name, x in sample.kwargs.items()})

    y, vjp = jax.vjp(run, [arrays[i] for i in floats])
    expected = op(sample.input, *sample.args, **sample.kwargs)
    _close(y, expected, where)
    ct = np.random.default_rng(0).standard_normal(y.shape)
    grads = torch.autograd.grad(expected, [tensors[i] for i in floats], torch.from_numpy(np.asarray(ct)), allow_unused=True)
    (cts,) = vjp(jnp.asarray(ct))
    for i, ours_ct, grad in zip(floats, cts, grads):
        _close(ours_ct, torch.zeros_like(tensors[i]) if grad is None else grad, f"{where}, tensor {i}")


def _close(ours, theirs, where: str) -> None:
    theirs = theirs.detach().to_dense().numpy() if theirs.is_sparse else theirs.detach().numpy()
    assert ours.shape == theirs.shape, f"{where}: {ours.shape} against {theirs.shape}"
    finite = np.isfinite(theirs)
    np.testing.assert_array_equal(np.where(finite, 0, ours), np.where(finite, 0, theirs), err_msg=where)
    scale = max(np.abs(theirs[finite]).max(initial=0), 1.0)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=MOST * scale, err_msg=where)
