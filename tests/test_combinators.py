import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.layer import add_cotangents


def test_serial_runs_its_backward_in_reverse():
    order = []

    def spy(name):
        layer = nnjax.tanh()
        return layer._replace(
            fwd=lambda p, x, *, key=None: (order.append(f"fwd {name}"), layer.fwd(p, x, key=key))[1],
            bwd=lambda r, ct: (order.append(f"bwd {name}"), layer.bwd(r, ct))[1],
        )

    model = nnjax.serial(spy("a"), spy("b"), spy("c"))
    y, residuals = model.fwd(model.init(jax.random.key(0)), jnp.ones(3))
    model.bwd(residuals, y)
    assert order == ["fwd a", "fwd b", "fwd c", "bwd c", "bwd b", "bwd a"]


def test_a_copy_is_transposed_by_a_sum():
    model = nnjax.parallel(nnjax.tanh(), nnjax.tanh())
    x = jnp.array([0.3, -0.2])
    _, residuals = model.fwd(((), ()), x)
    _, one = nnjax.tanh().bwd(nnjax.tanh().fwd((), x)[1], jnp.ones(2))
    np.testing.assert_allclose(model.bwd(residuals, (jnp.ones(2), jnp.ones(2)))[1], 2 * one)


def test_none_adds_nothing():
    a = jnp.ones(2)
    assert add_cotangents(None, a) is a
    assert add_cotangents(a, None) is a
    assert add_cotangents(None, None) is None
    assert add_cotangents((a, None), (a, None))[1] is None


def _linear_embedding(n_in, n_out):
    """x W without bias, and W.T as the head: the smallest tied pair."""
    embed = nnjax.dense(n_in, n_out, bias=False)
    head = nnjax.dense(n_in, n_out, bias=False)

    def flip(p):
        return p._replace(w=p.w.T)

    def bwd(residuals, ct_y):
        ct_p, ct_x = head.bwd(residuals, ct_y)
        return flip(ct_p), ct_x

    return embed, nnjax.Layer(
        "head",
        head.init,
        lambda p, x, *, key=None: head.apply(flip(p), x),
        lambda p, x, *, key=None: head.fwd(flip(p), x),
        bwd,
    )


def test_tied_adds_the_two_cotangents_of_its_table():
    embed, head = _linear_embedding(5, 3)
    model = nnjax.tied(embed, nnjax.serial(nnjax.dense(3, 3), nnjax.tanh()), head)
    params = model.init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (4, 5))
    report = nnjax.check_layer(model, params, x, transforms=["jit"], witnesses=()).raise_if_failed()
    assert "params.table.w" in {row.leaf for row in report.rows}

    def forgetful(residuals, ct_y):
        ct_params, ct_x = model.bwd(residuals, ct_y)
        ct_in, _ = embed.bwd(residuals[0], model.parts[1].bwd(residuals[1], head.bwd(residuals[2], ct_y)[1])[1])
        return ct_params._replace(table=ct_in), ct_x

    wrong = nnjax.check_layer(model._replace(bwd=forgetful), params, x, transforms=["jit"], witnesses=())
    assert {row.leaf for row in wrong.failures} == {"params.table.w"}


@pytest.mark.parametrize("remat", [False, True])
def test_scan_layers_equals_the_same_layers_in_a_row(remat):
    block = nnjax.serial(nnjax.dense(4, 4), nnjax.tanh())
    scanned = nnjax.scan_layers(block, 3, remat=remat)
    params = scanned.init(jax.random.key(0))
    rows = tuple(jax.tree.map(lambda p, i=i: p[i], params) for i in range(3))
    x = jax.random.normal(jax.random.key(1), (5, 4))
    plain = nnjax.serial(block, block, block)
    np.testing.assert_allclose(scanned.apply(params, x), plain.apply(rows, x), rtol=1e-5)
    ct_s, ct_x_s = scanned.bwd(scanned.fwd(params, x)[1], x)
    ct_p, ct_x_p = plain.bwd(plain.fwd(rows, x)[1], x)
    np.testing.assert_allclose(ct_x_s, ct_x_p, rtol=1e-5, atol=1e-6)
    for i in range(3):
        np.testing.assert_allclose(ct_s[0].w[i], ct_p[i][0].w, rtol=1e-5, atol=1e-6)


def test_scan_layers_keeps_no_second_copy_of_its_parameters():
    block = nnjax.serial(nnjax.dense(4, 4), nnjax.tanh())
    scanned = nnjax.scan_layers(block, 3)
    params, x = scanned.init(jax.random.key(0)), jnp.ones((2, 4))
    for run in (scanned.fwd, jax.jit(scanned.fwd)):
        _, (kept_params, kept) = run(params, x)
        assert jax.tree.map(jnp.shape, kept_params) == jax.tree.map(jnp.shape, params)
        assert [r.shape for r in jax.tree.leaves(kept)] == [(3, 2, 4), (3, 2, 4)]  # the input of dense and the output of tanh

    wide = nnjax.scan_layers(nnjax.serial(nnjax.dense(256, 256), nnjax.tanh()), 8)

    def step(params, x):
        y, residuals = wide.fwd(params, x)
        return wide.bwd(residuals, y)

    shapes = jax.eval_shape(wide.init, jax.random.key(0))
    memory = jax.jit(step).lower(shapes, jax.ShapeDtypeStruct((2, 256), jnp.float32)).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 8 * 256 * 256 * 4 / 2


def test_recompute_keeps_only_the_input_and_runs_fwd_again_with_the_same_key():
    layer = nnjax.serial(nnjax.dense(4, 4), nnjax.dropout(0.5), nnjax.tanh())
    params, x, key = layer.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (3, 4)), jax.random.key(2)
    y, residuals = layer.fwd(params, x, key=key)
    again, kept = nnjax.recompute(layer).fwd(params, x, key=key)
    np.testing.assert_array_equal(y, again)
    assert kept == (params, x, key)
    jax.tree.map(np.testing.assert_array_equal, layer.bwd(residuals, x), nnjax.recompute(layer).bwd(kept, x))
    with pytest.raises(TypeError, match="recompute: expected a Layer, got tanh"):
        nnjax.recompute(nnjax.tanh)


def test_the_same_key_gives_the_same_mask_in_apply_and_fwd():
    drop = nnjax.dropout(0.5)
    scanned = nnjax.scan_layers(nnjax.serial(drop, nnjax.dense(8, 8)), 2)
    for model in (nnjax.serial(drop, drop), nnjax.residual(drop), nnjax.parallel(drop, drop), scanned):
        params, x = model.init(jax.random.key(0)), jnp.ones((4, 8))
        for seed in range(3):
            applied = model.apply(params, x, key=jax.random.key(seed))
            jax.tree.map(np.testing.assert_array_equal, applied, model.fwd(params, x, key=jax.random.key(seed))[0])
    first, second = nnjax.parallel(drop, drop).apply(((), ()), jnp.ones(1000), key=jax.random.key(0))
    assert (first != second).any()


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_as_custom_vjp_serves_anyones_grad(wrap):
    model = nnjax.mlp([4, 5, 3], nnjax.tanh())
    params, x = model.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (6, 4))
    f = nnjax.as_custom_vjp(model)
    ours = wrap(jax.grad(lambda p: jnp.square(f(p, x)).sum()))(params)
    theirs = jax.grad(lambda p: jnp.square(model.apply(p, x)).sum())(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), ours, theirs)
    per_example = jax.vmap(jax.grad(lambda p, x: f(p, x).sum()), (None, 0))(params, x)
    assert per_example[0].w.shape == (6, 4, 5)


def test_as_custom_vjp_takes_keys_and_integer_labels():
    loss = nnjax.as_custom_vjp(nnjax.softmax_cross_entropy())
    y, labels = jax.random.normal(jax.random.key(0), (4, 3)), jnp.array([0, 1, 2, 0])
    theirs = jax.grad(lambda y: nnjax.softmax_cross_entropy().apply((), (y, labels)))(y)
    np.testing.assert_allclose(jax.grad(lambda y: loss((), (y, labels)))(y), theirs, atol=1e-6)
    drop = nnjax.as_custom_vjp(nnjax.dropout(0.5))
    key = jax.random.key(1)
    np.testing.assert_array_equal(
        jax.grad(lambda x: drop((), x, key).sum())(y), nnjax.dropout(0.5).apply((), jnp.ones_like(y), key=key)
    )


def test_a_factory_that_was_not_called_is_named():
    with pytest.raises(TypeError, match=r"serial of 2: expected a Layer, got relu; call the factory, as in relu\(\.\.\.\)"):
        nnjax.serial(nnjax.dense(4, 3), nnjax.relu)
    with pytest.raises(TypeError, match=r"residual: expected a Layer, got int; make one with a factory"):
        nnjax.residual(3)


def test_params_that_do_not_fit_the_parts_are_refused():
    model = nnjax.serial(nnjax.dense(4, 3), nnjax.relu())
    with pytest.raises(
        TypeError, match=r"serial of 2: params must be a tuple with one entry for each of its 2 parts, got 1 entries"
    ):
        model.apply(((),), jnp.ones(4))
    with pytest.raises(TypeError, match=r"parallel of 1: params must be a tuple.*got dict"):
        nnjax.parallel(nnjax.relu()).apply({}, jnp.ones(4))
    embed, head = _linear_embedding(5, 3)
    with pytest.raises(TypeError, match=r"tied: params must be TiedParams\(table, body\), got tuple"):
        nnjax.tied(embed, nnjax.tanh(), head).apply((), jnp.ones(5))


def test_shapes_that_a_combinator_cannot_combine_are_refused():
    layer = nnjax.residual(nnjax.dense(4, 3))
    with pytest.raises(
        ValueError,
        match=r"residual\(dense\(4, 3\)\): f\(x\) must have the shape of x, float32 \(4,\), got float32 \(3,\)",
    ):
        layer.apply(layer.init(jax.random.key(0)), jnp.ones(4))
    scanned = nnjax.scan_layers(nnjax.dense(4, 3), 2)
    with pytest.raises(ValueError, match=r"scan_layers\(dense\(4, 3\)\): the block must keep the shape and dtype of x"):
        scanned.fwd(scanned.init(jax.random.key(0)), jnp.ones(4))
    with pytest.raises(ValueError, match=r"stacked along a first axis of length 2, got \(4, 4\), \(4,\)"):
        scanned.apply(nnjax.dense(4, 4).init(jax.random.key(0)), jnp.ones(4))
    with pytest.raises(ValueError, match=r"scan_layers: n must be a positive int, got 0"):
        nnjax.scan_layers(nnjax.relu(), 0)
    with pytest.raises(ValueError, match=r"parallel: expected at least one layer, got none"):
        nnjax.parallel()


def test_loops_within_loops_give_each_its_own_parameters_back():
    inner = nnjax.scan_layers(nnjax.serial(nnjax.dense(3, 3), nnjax.tanh()), 2)
    for layer in (
        nnjax.scan_layers(inner, 3),
        nnjax.scan_layers(nnjax.in_chunks(nnjax.serial(inner, nnjax.dense(3, 3)), 2, axes=1), 3),
    ):
        params, x = layer.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (4, 3))
        nnjax.check_layer(layer, params, x, dtypes=("float32",), transforms=("jit",), witnesses=()).raise_if_failed()


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
