import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.cases import hard, jittered

QUICK = {"dtypes": ["float32", "bfloat16"], "transforms": ["jit"], "witnesses": ()}
PLAIN = nnjax.serial(jittered(nnjax.conv(2, 3, 2)), nnjax.tanh(), nnjax.flatten(2), nnjax.dense(12, 2))


@pytest.mark.parametrize("lead", [(), (0,), (1,), (6,), (7,), (2, 4)], ids=str)
@pytest.mark.repeats
@pytest.mark.in_turn
def test_the_same_layer_whatever_the_size(lead):
    params, x = PLAIN.init(jax.random.key(0)), hard(np.random.default_rng(0), (*lead, 4, 2))
    layer = nnjax.in_chunks(PLAIN, 3, axes=2)
    y, residuals = layer.fwd(params, x)
    np.testing.assert_allclose(y, PLAIN.apply(params, x), rtol=1e-5, atol=1e-6)
    _, expected = PLAIN.fwd(params, x)
    ct_y = jnp.asarray(np.random.default_rng(1).standard_normal(y.shape), y.dtype)
    for ours, theirs in zip(*map(jax.tree.leaves, (layer.bwd(residuals, ct_y), PLAIN.bwd(expected, ct_y))), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.in_turn
def test_it_passes_its_check_and_a_chunk_that_is_left_out_does_not():
    params, x = PLAIN.init(jax.random.key(0)), hard(np.random.default_rng(0), (6, 4, 2))
    layer = nnjax.in_chunks(PLAIN, 3, axes=2)
    nnjax.check_layer(layer, params, x, **QUICK).raise_if_failed()

    def bwd(residuals, ct_y):
        return layer.bwd(residuals, ct_y.at[:3].set(0))

    assert nnjax.check_layer(layer._replace(bwd=bwd), params, x, **QUICK).failures


def test_only_a_chunk_exists_at_a_time():
    wide = nnjax.serial(nnjax.dense(4, 512), nnjax.tanh(), nnjax.dense(512, 1))
    params, x = wide.init(jax.random.key(0)), jnp.ones((1024, 4))

    def temps(layer):
        program = jax.jit(lambda p, x: layer.fwd(p, x)[0]).lower(params, x).compile()
        return program.memory_analysis().temp_size_in_bytes

    assert temps(nnjax.in_chunks(wide, 32, axes=1)) < temps(wide) / 8


@pytest.mark.parametrize(("on", "together"), [(None, [1]), ("cpu", [2]), ("cuda", [1])])
def test_chunks_go_side_by_side_on_a_cpu_for_which_they_are_cut_and_nowhere_else(on, together):
    layer = nnjax.in_chunks(nnjax.serial(nnjax.dense(3, 2), nnjax.tanh()), 2, axes=1, on=on)
    params, x = layer.init(jax.random.key(0)), jnp.ones((8, 3))

    def unrolled(f, *args):
        return [int(n) for n in re.findall(r"unroll=(\d+)", str(jax.make_jaxpr(f)(*args)))]

    y, residuals = layer.fwd(params, x)
    assert unrolled(layer.fwd, params, x) == unrolled(layer.bwd, residuals, y) == together


def test_invalid_arguments_are_refused():
    with pytest.raises(ValueError, match=r"in_chunks: size must be a positive int, got 0"):
        nnjax.in_chunks(PLAIN, 0, axes=2)
    with pytest.raises(TypeError, match=r"in_chunks: expected a Layer, got dense"):
        nnjax.in_chunks(nnjax.dense, 2, axes=2)


def scaled_by_its_largest():
    """y = 3 x, with a residual that is one number for all rows, not a row for each example."""

    def fwd(params, x, *, key=None):
        return 3 * x, (jnp.full((), 3.0, x.dtype),)

    return nnjax.Layer("triple", lambda key: (), lambda p, x, *, key=None: 3 * x, fwd, lambda r, ct: ((), ct * r[0]))


@pytest.mark.parametrize("on", [None, "cpu", "tpu"])
@pytest.mark.parametrize("inner", [nnjax.tanh(), scaled_by_its_largest()], ids=lambda layer: layer.name)
def test_it_is_the_same_on_every_platform_and_whatever_is_kept(on, inner, x64):
    part = nnjax.serial(nnjax.dense(4, 3), inner)
    params = jax.tree.map(lambda p: p.astype(jnp.float64), part.init(jax.random.key(0)))
    x = jnp.asarray(np.random.default_rng(0).standard_normal((6, 4)))
    layer = nnjax.in_chunks(part, 2, axes=1, on=on)
    ct_y = jnp.ones((6, 3))
    found = layer.bwd(layer.fwd(params, x)[1], ct_y)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(part.bwd(part.fwd(params, x)[1], ct_y)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_an_unknown_platform_is_refused():
    with pytest.raises(ValueError, match=r"unknown platform of in_chunks 'gpus'"):
        nnjax.in_chunks(PLAIN, 2, axes=2, on="gpus")
