import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax


def test_it_has_the_layers_of_he_et_al():
    model = nnjax.resnet(10, channels=(16, 32, 64), blocks=3)
    params = jax.eval_shape(model.init, jax.random.key(0))
    kernels = [p.w.shape for p in jax.tree.leaves(params, is_leaf=lambda p: isinstance(p, nnjax.ConvParams)) if hasattr(p, "w")]
    threes = [k for k in kernels if k[:2] == (3, 3)]
    assert len(threes) == 19  # with the dense layer 20
    assert [k for k in kernels if k[:2] == (1, 1)] == [(1, 1, 16, 32), (1, 1, 32, 64)]
    assert [part.name for part in model.parts[-2:]] == ["global_avg_pool(2)", "dense(64, 10)"]
    x = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    assert jax.eval_shape(model.apply, params, x).shape == (2, 10)
    y, residuals = jax.eval_shape(model.fwd, params, x)
    assert sorted({r.shape[1:3] for r in jax.tree.leaves(residuals) if r.ndim == 4 and r.shape[0] == 2}) == [
        (8, 8),
        (16, 16),
        (32, 32),
    ]


@pytest.mark.in_turn
def test_a_block_is_the_sum_written_out():
    model = nnjax.resnet(3, channels=(2, 4), blocks=1, image=(6, 5, 1))
    params, x = model.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (3, 6, 5, 1))
    before = nnjax.serial(*model.parts[:5]).apply(params[:5], x)
    f, shortcut = params[5]
    conv = nnjax.ops.conv

    def normed(x):
        return nnjax.ops.batch_norm(x)

    h = jax.nn.relu(normed(conv(before, f[0].w, stride=2, padding=1)))
    y = normed(conv(before, shortcut[0].w, stride=2, padding=0)) + normed(conv(h, f[3].w, padding=1))
    np.testing.assert_allclose(nnjax.serial(*model.parts[:6]).apply(params[:6], x), y, rtol=1e-4, atol=1e-4)
    assert y.shape == (3, 3, 3, 4)


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"resnet: image must be \(height, width, channels\), got \(28, 28\)"):
        nnjax.resnet(image=(28, 28))
    with pytest.raises(ValueError, match=r"resnet: channels\[1\] must be a positive int, got 0"):
        nnjax.resnet(channels=(20, 0))
    with pytest.raises(ValueError, match="resnet: channels must hold at least one stage"):
        nnjax.resnet(channels=())
    with pytest.raises(ValueError, match="resnet: blocks must be a positive int"):
        nnjax.resnet(blocks=0)
    with pytest.raises(ValueError, match="resnet: blocks must be at most"):
        nnjax.resnet(blocks=10**6)
    with pytest.raises(TypeError, match="resnet: expected a Layer"):
        nnjax.resnet(activation=nnjax.relu)
