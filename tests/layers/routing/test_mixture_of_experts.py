from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.layers.routing.mixture_of_experts import MixtureParams, mixture_of_experts

QUICK = {"dtypes": ["float64", "float32"], "transforms": ["jit"]}


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


def made(n, hidden, experts, wide):
    return MixtureParams(
        normal(n, experts, seed=1), normal(experts, n, wide * hidden, seed=2), normal(experts, hidden, n, seed=3)
    )


def chosen_by(logits, top_k):
    """The experts of each token, one comparison after the other: the larger logit first, then the lower number."""
    return [sorted(range(len(row)), key=lambda e: (-float(row[e]), e))[:top_k] for row in np.asarray(logits)]


def one_expert(x, up, down, activation):
    z = x @ up
    if activation == "gelu":
        return jax.nn.gelu(z, approximate=True) @ down
    a, b = z[: len(z) // 2], z[len(z) // 2 :]
    return (a / (1 + jnp.exp(-a)) * b) @ down


def by_loops(params, x, ids, activation, over, balance=0.0, z=0.0):
    """(y, losses) token by token and expert by expert."""
    router, up, down = params
    experts, rows, mean = router.shape[1], [], jnp.zeros(router.shape[1])
    squares = 0.0
    for t, own in enumerate(ids):
        logits = x[t] @ router
        e = jnp.exp(logits - logits.max())
        p = e / e.sum()
        g = [p[i] if over == "all" else p[i] / sum(p[j] for j in own) for i in own]
        rows.append(sum(w * one_expert(x[t], up[i], down[i], activation) for w, i in zip(g, own)))
        mean, squares = mean + p / len(ids), squares + (jnp.log(e.sum()) + logits.max()) ** 2 / len(ids)
    load = np.bincount(np.concatenate(ids), minlength=experts) / np.size(ids)
    return jnp.stack(rows), balance * experts * (mean * load).sum() + z * squares


def agree(layer, params, x, activation, over, top_k, **weights):
    """The layer, its plain pair and its definition against the loops, values and gradients, in float64."""
    with jax.enable_x64(True), jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        params, x = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), (params, x))
        ids = chosen_by(x @ params.router, top_k)
        ct = (normal(*x.shape, seed=5), jnp.float64(0.7))

        @jax.jit
        def loops(params, x):
            y, pull = jax.vjp(lambda p, x: by_loops(p, x, ids, activation, over, **weights), params, x)
            return (*y, *pull(ct)) if weights else (y[0], *pull((ct[0], jnp.float64(0))))

        theirs, own = loops(params, x), ct if weights else ct[0]
    with jax.enable_x64(True):

        @jax.jit
        def ours(params, x):
            found = []
            for pair in (layer, nnjax.plain(layer)):
                y, residuals = pair.fwd(params, x)
                found.append((*(y if weights else (y,)), *pair.bwd(residuals, own)))
            return *found, layer.apply(params, x)

        *pairs, defined = ours(params, x)
    for found in pairs:
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(theirs), strict=True):
            assert jnp.isfinite(a).all()
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-11)
    for a, b in zip(jax.tree.leaves(defined), theirs):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-11)


@partial(jax.jit, static_argnums=0)
def pulled(pair, params, x):
    """(y, (ct_params, ct_x)) for y itself as the cotangent."""
    y, residuals = pair.fwd(params, x)
    return y, pair.bwd(residuals, y)


@pytest.mark.parametrize(
    ("experts", "top_k", "activation", "over", "weights"),
    [
        (4, 2, "swiglu", "chosen", {}),
        (3, 1, "gelu", "all", {"balance": 0.3, "z": 0.2}),
        (3, 3, "swiglu", "all", {"balance": 0.3}),
        (3, 3, "gelu", "chosen", {"z": 0.2}),
        (1, 1, "swiglu", "chosen", {}),
    ],
)
@pytest.mark.repeats
@pytest.mark.in_turn
def test_it_is_a_loop_over_tokens_and_experts(experts, top_k, activation, over, weights):
    layer = mixture_of_experts(4, 3, experts, top_k, activation=activation, over=over, **weights)
    params = made(4, 3, experts, 2 if activation == "swiglu" else 1)
    agree(layer, params, normal(6, 4), activation, over, top_k, **weights)


@pytest.mark.parametrize("favourite", [0, 2])
@pytest.mark.in_turn
def test_experts_without_a_token_have_no_gradient_and_one_may_get_all(favourite):
    layer, params = mixture_of_experts(4, 3, 3, 1), made(4, 3, 3, 2)
    params = params._replace(router=params.router.at[:, favourite].set(0).at[0, favourite].set(100))
    x = normal(5, 4).at[:, 0].set(jnp.abs(normal(5)) + 1)
    agree(layer, params, x, "swiglu", "all", 1)
    ct = pulled(layer, *jax.tree.map(lambda a: a.astype(jnp.float32), (params, x)))[1][0]
    for idle in {0, 1, 2} - {favourite}:
        assert not ct.up[idle].any()
        assert not ct.down[idle].any()
    assert ct.up[favourite].any()


@pytest.mark.in_turn
def test_one_token_and_none():
    layer, params = mixture_of_experts(4, 3, 3, 2, balance=0.1, z=0.1), made(4, 3, 3, 2)
    agree(layer, params, normal(1, 4), "swiglu", "chosen", 2, balance=0.1, z=0.1)
    params = jax.tree.map(lambda p: p.astype(jnp.float32), params)
    for pair in (layer, nnjax.plain(layer)):
        (y, losses), residuals = pair.fwd(params, jnp.zeros((2, 0, 4)))
        ct_params, ct_x = pair.bwd(residuals, (y, jnp.float32(1)))
        assert (y.shape, float(losses), ct_x.shape) == ((2, 0, 4), 0.0, (2, 0, 4))
        assert not any(ct.any() for ct in jax.tree.leaves(ct_params))


@pytest.mark.in_turn
def test_of_equal_logits_the_lower_number_goes_first():
    """In the definition, in both pairs and in the loops; a token of zeros has all logits equal."""
    layer, params = mixture_of_experts(4, 3, 4, 2), made(4, 3, 4, 2)
    params = params._replace(router=params.router.at[:, 3].set(params.router[:, 1]))
    x = normal(6, 4).at[2].set(0)
    agree(layer, params, x, "swiglu", "chosen", 2)
    alone = params._replace(router=jnp.zeros_like(params.router))
    ct = pulled(layer, *jax.tree.map(lambda a: a.astype(jnp.float32), (alone, x)))[1][0]
    assert [bool(ct.up[e].any()) for e in range(4)] == [True, True, False, False]


@pytest.mark.in_turn
def test_a_router_that_learns_nothing_is_rejected_and_the_layer_passes():
    layer = mixture_of_experts(3, 2, 3, 2, balance=0.5, z=0.5)
    params, x = layer.init(jax.random.key(0)), normal(7, 3).astype(jnp.float32)
    nnjax.check_layer(layer, params, x, **QUICK).raise_if_failed()

    def wrong(residuals, ct_y):
        ct_params, ct_x = layer.bwd(residuals, ct_y)
        return ct_params._replace(router=jnp.zeros_like(ct_params.router)), ct_x

    report = nnjax.check_layer(layer._replace(bwd=wrong), params, x, **QUICK)
    assert {row.leaf for row in report.failures} == {"params.router"}


@pytest.mark.slow
@pytest.mark.in_turn
def test_it_runs_under_vmap_over_tokens_alone_and_over_parameters_alone():
    layer = mixture_of_experts(3, 2, 3, 2)
    params, x = layer.init(jax.random.key(0)), normal(2, 5, 3).astype(jnp.float32)

    for pair in (layer, nnjax.plain(layer)):
        many = jax.jit(jax.vmap(lambda x, pair=pair: pulled(pair, params, x)))(x)
        several = jax.tree.map(lambda p: jnp.stack([p, 2 * p]), params)
        rows = jax.jit(jax.vmap(lambda p, pair=pair: pulled(pair, p, x[0])))(several)
        for i in range(2):
            for found, alone in ((many, (params, x[i])), (rows, ((params, several)[0], x[0])))[: 2 - i]:
                right = pulled(pair, *alone)
                jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-5, atol=1e-6), found, right)


@pytest.mark.in_turn
def test_every_expert_is_drawn_by_itself_as_a_dense_layer_would():
    params = mixture_of_experts(64, 32, 3, 2).init(jax.random.key(0))
    for matrix, sizes in ((params.up[:, :, :32], (64, 32)), (params.up[:, :, 32:], (64, 32)), (params.down, (32, 64))):
        deviation = np.sqrt(2 / sum(sizes))
        np.testing.assert_allclose(matrix.std((1, 2)), np.full(3, deviation), rtol=0.1)
        assert not np.allclose(matrix[0], matrix[1])
    params = mixture_of_experts(4, 3, 2, 1, activation="gelu", init_out=jax.nn.initializers.zeros).init(jax.random.key(0))
    assert params.up.shape == (2, 4, 3)
    assert not params.down.any()


@pytest.mark.parametrize(
    ("sizes", "options", "words"),
    [
        ((4, 3, 2, 3), {}, "top_k.*2.*3"),
        ((4, 3, 2, 1), {"over": "chosen"}, 'over="all"'),
        ((4, 3, 2, 2), {"over": "none"}, "chosen"),
        ((4, 3, 2, 2), {"activation": "relu"}, "gelu.*swiglu"),
        ((4, 3, 2, 2), {"balance": -1}, "balance.*-1"),
        ((4, 0, 2, 2), {}, "hidden.*0"),
    ],
)
def test_options_that_do_not_fit_are_refused(sizes, options, words):
    with pytest.raises(ValueError, match=words):
        mixture_of_experts(*sizes, **options)


@pytest.mark.in_turn
def test_inputs_that_do_not_fit_are_refused():
    layer = mixture_of_experts(4, 3, 2, 2)
    params = layer.init(jax.random.key(0))
    with pytest.raises(ValueError, match=r"4 features.*\(2, 3\)"):
        layer.apply(params, jnp.ones((2, 3)))
    with pytest.raises(ValueError, match=r"down.*\(2, 3, 4\)"):
        layer.fwd(params._replace(down=params.down[:1]), jnp.ones((2, 4)))
    with pytest.raises(TypeError, match="same dtype"):
        layer.fwd(params, jnp.ones((2, 4), jnp.bfloat16))
    with pytest.raises(TypeError, match="MixtureParams"):
        layer.apply((), jnp.ones((2, 4)))
