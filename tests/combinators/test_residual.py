import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax


def test_shapes_that_cannot_be_added_are_refused():
    layer = nnjax.residual(nnjax.dense(4, 3))
    with pytest.raises(
        ValueError,
        match=r"residual\(dense\(4, 3\)\): f\(x\) must have the shape of x, float32 \(4,\), got float32 \(3,\)",
    ):
        layer.apply(layer.init(jax.random.key(0)), jnp.ones(4))


@pytest.mark.in_turn
def test_a_shortcut_takes_its_own_share_of_the_cotangent_back():
    f, shortcut = nnjax.serial(nnjax.dense(3, 2), nnjax.tanh()), nnjax.dense(3, 2, bias=False)
    model = nnjax.residual(f, shortcut)
    params, x = model.init(jax.random.key(0)), jnp.array([[0.3, -1.0, 2.0]])
    np.testing.assert_allclose(model.apply(params, x), jnp.tanh(x @ params[0][0].w) + x @ params[1].w, rtol=1e-6)
    nnjax.check_layer(model, params, x, dtypes=["float64"], transforms=["jit"]).raise_if_failed()

    def forgets(residuals, ct_y):
        (ct_f, ct_shortcut), _ = model.bwd(residuals, ct_y)
        return (ct_f, ct_shortcut), f.bwd(residuals[0], ct_y)[1]

    wrong = model._replace(bwd=forgets)
    assert {r.leaf for r in nnjax.check_layer(wrong, params, x, dtypes=["float64"], transforms=["jit"]).failures} == {"x"}


def test_a_shortcut_is_walked_and_composed_again():
    from nnjax.layer import met, plain

    model = nnjax.residual(nnjax.conv(2, 3, (3, 3), groups=1), nnjax.conv(2, 3, (1, 1)))
    params, x = model.init(jax.random.key(0)), jnp.ones((1, 3, 3, 2))
    assert [part.name for part in met(model, params, x)] == ["residual", "shortcut"]
    assert plain(model).parts[1] is model.parts[1].plain
    uneven = nnjax.residual(nnjax.dense(3, 2), nnjax.dense(3, 4))
    with pytest.raises(ValueError, match=r"f\(x\) must have the shape of shortcut\(x\)"):
        uneven.apply(uneven.init(jax.random.key(0)), jnp.ones((1, 3)))
    with pytest.raises(TypeError, match="residual: expected a Layer"):
        nnjax.residual(nnjax.dense(3, 2), nnjax.dense)
    with pytest.raises(TypeError, match="one entry for each of its 2 parts"):
        model.apply((*params, ()), x)
