import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.cases import jittered

QUICK = {"dtypes": ["float32"], "transforms": ["jit"], "witnesses": ()}


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def loop(params, x, h):
    """The unit in NumPy, in float64, step by step."""
    w, b, decay, x, h = (np.asarray(v, np.float64) for v in (*params, x, h))
    y = []
    for t in range(x.shape[1]):
        u, r, i = np.split(x[:, t] @ w + b, 3, -1)
        r, i = (1 / (1 + np.exp(-v)) for v in (r, i))
        a = np.exp(-8 * np.log1p(np.exp(decay)) * r)
        h = a * h + np.sqrt(1 - a**2) * i * u
        y.append(h)
    return np.stack(y, 1) if y else np.zeros((*x.shape[:2], decay.size)), h


@pytest.mark.parametrize("time", [0, 1, 7])
def test_it_is_the_loop_in_float64(time, x64):
    layer = jittered(nnjax.rg_lru(3, 4, carry=True))
    params = jax.tree.map(lambda p: p.astype(jnp.float64), layer.init(jax.random.key(0)))
    x, h = jnp.asarray(normal(1, 2, time, 3), jnp.float64), jnp.asarray(normal(2, 2, 4), jnp.float64)
    run = jax.jit(lambda *x: (layer.apply(*x), layer.fwd(*x)[0], nnjax.plain(layer).fwd(*x)[0]))
    right, right_last = loop(params, x, h)
    for y, last in run(params, (x, h)):
        np.testing.assert_allclose(y, right, rtol=1e-11, atol=1e-12)
        np.testing.assert_allclose(last, right_last, rtol=1e-11, atol=1e-12)


@pytest.mark.in_turn
def test_a_run_in_two_parts_is_one_run():
    whole, part = nnjax.rg_lru(3, 4), nnjax.rg_lru(3, 4, carry=True)
    params, x = whole.init(jax.random.key(0)), normal(3, 2, 7, 3)
    first, state = part.apply(params, (x[:, :4], None))
    second, _ = part.fwd(params, (x[:, 4:], state))[0]
    np.testing.assert_allclose(jnp.concatenate([first, second], 1), whole.apply(params, x), rtol=1e-5, atol=1e-6)


def test_decay_starts_between_a_tenth_and_a_thousandth_lost_in_a_step():
    params = nnjax.rg_lru(64, 64).init(jax.random.key(0))
    a = np.exp(-8 * np.log1p(np.exp(np.asarray(params.decay, np.float64))))
    assert 0.9 <= a.min() < 0.92
    assert 0.98 < a.max() <= 0.9991
    np.testing.assert_allclose([part.var() for part in jnp.split(params.w, 3, 1)], 2 / 128, rtol=0.1)


def shut(params, gate):
    """The parameters with the decay gate at this number before its sigmoid, whatever x is."""
    n = params.decay.size
    return params._replace(w=params.w.at[:, n : 2 * n].set(0), b=params.b.at[n : 2 * n].set(gate))


@pytest.mark.parametrize("gate", [-17.0, -40.0, -120.0])
def test_a_state_that_is_kept_for_long_loses_no_digits_and_no_gradient_is_nan(gate):
    """1 - a is 1e-8 or less: in float32 a itself is 1, and the share of the input would be 0."""
    layer = nnjax.rg_lru(3, 2)
    params, x = shut(layer.init(jax.random.key(0)), gate), normal(1, 2, 5, 3)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda p: p.astype(jnp.float64), (params, x))
        right, right_cts = jax.jit(lambda *x: jax.value_and_grad(lambda p, x: layer.apply(p, x).sum(), (0, 1))(*x))(*wide)

    @jax.jit
    def pulled(params, x):
        y, residuals = layer.fwd(params, x)
        return y.sum(), layer.bwd(residuals, jnp.ones_like(y))

    y, cts = pulled(params, x)
    np.testing.assert_allclose(y, right, rtol=1e-5, atol=1e-25)
    for ours, theirs in zip(jax.tree.leaves(cts), jax.tree.leaves(right_cts), strict=True):
        assert jnp.isfinite(ours).all()
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6 * np.abs(theirs).max() + 1e-25)


@pytest.mark.parametrize("carry", [False, True])
@pytest.mark.repeats
@pytest.mark.in_turn
def test_other_transforms_pass(carry):
    layer = jittered(nnjax.rg_lru(3, 2, carry=carry))
    only = {"dtypes": ["float32"], "transforms": ["vmap", "checkpoint", "second"], "witnesses": ()}
    x = (normal(4, 2, 3, 3), normal(5, 2, 2)) if carry else normal(4, 2, 3, 3)
    nnjax.check_layer(layer, layer.init(jax.random.key(0)), x, **only).raise_if_failed()


@pytest.mark.slow
@pytest.mark.in_turn
def test_everything_passes_over_many_steps():
    layer = jittered(nnjax.rg_lru(3, 4))
    nnjax.check_layer(layer, layer.init(jax.random.key(0)), normal(5, 2, 200, 3)).raise_if_failed()


def test_a_backward_that_drops_the_share_of_the_input_is_rejected():
    layer = nnjax.plain(jittered(nnjax.rg_lru(3, 2)))
    params, x = layer.init(jax.random.key(0)), normal(1, 2, 3, 3)
    assert not nnjax.check_layer(layer, params, x, **QUICK).failures

    def wrong(residuals, ct_y):
        ct_params, ct_x = layer.bwd(residuals, ct_y)
        return ct_params._replace(decay=ct_params.decay * 1.05), ct_x

    assert {row.leaf for row in nnjax.check_layer(layer._replace(bwd=wrong), params, x, **QUICK).failures} == {"params.decay"}


def test_bad_input_is_refused_by_name():
    layer = nnjax.rg_lru(3, 4)
    params = layer.init(jax.random.key(0))
    with pytest.raises(ValueError, match=r"rg_lru: x must have shape \(\.\.\., time, 3\)"):
        layer.apply(params, jnp.ones((2, 5, 4)))
    with pytest.raises(TypeError, match=r"rg_lru: params must be RGLRUParams\(w, b, decay\)"):
        layer.apply((), jnp.ones((2, 5, 3)))
    with pytest.raises(ValueError, match="rg_lru: n_hidden must be a positive int, got 0"):
        nnjax.rg_lru(3, 0)


@pytest.mark.slow
@pytest.mark.in_turn
def test_it_is_that_of_recurrent_gemma():
    """RG-LRU as `transformers` has it, whose input is u itself, and whose gates are matrices for heads: here one."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from transformers import RecurrentGemmaConfig
    from transformers.models.recurrent_gemma.modeling_recurrent_gemma import RecurrentGemmaRglru

    n, rng = 4, np.random.default_rng(0)
    theirs = RecurrentGemmaRglru(RecurrentGemmaConfig(num_attention_heads=1, lru_width=n, hidden_size=n)).double()
    with torch.no_grad():
        for p in theirs.parameters():
            p.copy_(torch.tensor(rng.standard_normal(p.shape)))
    x = torch.tensor(rng.standard_normal((2, 6, n)), requires_grad=True)
    y = theirs(x, torch.arange(1, 7).expand(2, 6))  # a position of 0 resets the state
    ct = rng.standard_normal(y.shape)
    y.backward(torch.tensor(ct))
    r_w, r_b = (getattr(theirs, f"recurrent_gate_{name}").detach().numpy() for name in ("weight", "bias"))
    i_w, i_b = (getattr(theirs, f"input_gate_{name}").detach().numpy() for name in ("weight", "bias"))
    with jax.enable_x64(True):
        w = jnp.asarray(np.concatenate([np.eye(n), r_w[0], i_w[0]], 1))
        b = jnp.asarray(np.concatenate([np.zeros(n), r_b[0], i_b[0]]))
        layer = nnjax.rg_lru(n, n)
        params = nnjax.RGLRUParams(w, b, jnp.asarray(theirs.recurrent_param.detach().numpy()))
        ours, residuals = layer.fwd(params, jnp.asarray(x.detach().numpy()))
        ct_params, ct_x = layer.bwd(residuals, jnp.asarray(ct))
    np.testing.assert_allclose(ours, y.detach(), atol=1e-6)  # its state is kept in float32
    np.testing.assert_allclose(ct_x, x.grad, atol=1e-5)
    np.testing.assert_allclose(ct_params.decay, theirs.recurrent_param.grad, atol=1e-5)
    np.testing.assert_allclose(ct_params.w[:, n : 2 * n], theirs.recurrent_gate_weight.grad[0], atol=1e-5)
    np.testing.assert_allclose(ct_params.b[2 * n :], theirs.input_gate_bias.grad[0], atol=1e-5)
