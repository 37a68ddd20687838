import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax import ops


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


Q, K, V = normal(2, 5, 4, 3), normal(2, 5, 2, 3, seed=1), normal(2, 5, 2, 3, seed=2)


def plain(q, k, v, causal, mask=None):
    if mask is not None:
        mask = mask[:, None, None]
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        return jax.nn.dot_product_attention(q, k, v, mask=mask, is_causal=causal)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("wrap", [jax.jit, pytest.param(lambda f: f, marks=pytest.mark.slow)], ids=["jit", "eager"])
@pytest.mark.in_turn
def test_attention_and_its_gradient_are_those_of_jax_nn(causal, wrap):
    def gradient(f):
        def squares(q, k, v):
            y = f(q, k, v)
            return jnp.square(y).sum(), y

        return wrap(jax.grad(squares, (0, 1, 2), has_aux=True))(Q, K, V)

    ours = gradient(lambda q, k, v: ops.attention(q, k, v, causal=causal))
    theirs = gradient(lambda q, k, v: plain(q, k, v, causal))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), ours, theirs)
    np.testing.assert_allclose(ours[1], theirs[1], atol=1e-5)


@pytest.mark.slow
@pytest.mark.in_turn
def test_attention_under_a_mask_vmap_and_other_numbers_of_keys():
    mask = jnp.array([[True, False, True, True, False], [False, True, True, True, True]])
    np.testing.assert_allclose(
        ops.attention(Q, K, V, causal=False, mask=mask), plain(Q, K, V, False, mask), atol=1e-5
    )  # fmt: skip
    one_by_one = jax.vmap(jax.grad(lambda q, k, v, m: ops.attention(q, k, v, mask=m).sum()))(Q, K, V, mask)
    together = jax.grad(lambda q: ops.attention(q, K, V, mask=mask).sum())(Q)
    np.testing.assert_allclose(one_by_one, together, atol=1e-6)
    np.testing.assert_allclose(ops.attention(Q[:, :2], K, V, causal=False), plain(Q[:, :2], K, V, False), atol=1e-5)


@pytest.mark.in_turn
def test_the_rules_pass_an_audit():
    def attend(q, k, v):
        return ops.attention(q, k, v).sum()

    nnjax.audit(attend, Q[:1, :3], K[:1, :3], V[:1, :3]).raise_if_failed()


@pytest.mark.parametrize(
    ("args", "options", "error", "message"),
    [
        ((Q[0, 0], K, V), {}, ValueError, r"q must have shape \(..., positions, heads, d\).*got float32 \(4, 3\)"),
        ((Q, K, V[:, :4]), {}, ValueError, r"v must have shape \(2, 5, 2, 3\), got float32 \(2, 4, 2, 3\)"),
        (
            (Q[:, :, :3], K, V),
            {},
            ValueError,
            r"k's heads divide q's, got q: float32 \(2, 5, 3, 3\), k: float32 \(2, 5, 2, 3\)",
        ),
        ((Q[:, :4], K, V), {}, ValueError, r"as many queries as keys, got 4 and 5; pass causal=False"),
        ((Q, K.astype(jnp.bfloat16), V), {}, TypeError, r"k and q must have the same dtype"),
        ((Q, K, V), {"mask": jnp.ones((2, 5))}, TypeError, r"mask must be boolean, .*got float32 \(2, 5\)"),
        ((Q, K, V), {"mask": jnp.ones((2, 4), bool)}, ValueError, r"mask must have shape \(2, 5\), got bool \(2, 4\)"),
    ],
)
def test_bad_arguments_are_refused(args, options, error, message):
    with pytest.raises(error, match=f"ops.attention: .*{message}"):
        ops.attention(*args, **options)


def in_float64(f):
    with jax.enable_x64(True), jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        return f()


OPTIONS = {
    "nothing": {},
    "bias of heads": {"bias": (1, 4, 5, 7)},
    "bias of queries": {"bias": (2, 1, 5, 1)},
    "mask": {"mask": (2, 1, 5, 7)},
    "mask of heads": {"mask": (1, 4, 1, 7), "scale": 0.3},
    "causal": {"is_causal": True},
    "window": {"local_window_size": 2},
    "causal window": {"is_causal": True, "local_window_size": (1, 3)},
    "lengths": {"query_seq_lengths": [3, 5], "key_value_seq_lengths": [7, 2]},
    "residual": {"return_residual": True, "bias": (2, 4, 5, 7)},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.repeats
def test_it_takes_the_place_of_jaxs_own_in_float64(options):
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal(shape) for shape in ((2, 5, 4, 3), (2, 7, 2, 3), (2, 7, 2, 3)))
    arrays = {name: rng.standard_normal(options[name]) for name in ("bias",) if name in options}
    if "mask" in options:
        arrays["mask"] = rng.random(options["mask"]) < 0.7
        arrays["mask"][..., 0] = True  # where no key is seen the two differ on purpose
    for name in ("query_seq_lengths", "key_value_seq_lengths"):
        if name in options:
            arrays[name] = np.asarray(options[name], np.int32)
    how = {name: value for name, value in options.items() if name not in arrays}

    def gradients(attend):
        def weighed(q, k, v, bias):
            given = arrays if bias is None else arrays | {"bias": bias}
            y = attend(q, k, v, **given, **how)
            leaves = jax.tree.leaves(y)
            return sum((jnp.sin(3.0 * jnp.arange(leaf.size)).reshape(leaf.shape) * leaf).sum() for leaf in leaves), y

        bias = jnp.asarray(arrays["bias"]) if "bias" in arrays else None
        over = (0, 1, 2) if bias is None else (0, 1, 2, 3)
        return jax.jit(jax.grad(weighed, over, has_aux=True))(*map(jnp.asarray, (q, k, v)), bias)

    ours, theirs = (in_float64(lambda f=f: gradients(f)) for f in (ops.dot_product_attention, jax.nn.dot_product_attention))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), ours, theirs)  # its softmax is in float32


@pytest.mark.in_turn
def test_without_leading_axes_and_under_vmap_it_is_the_same():
    bias, segments = normal(4, 5, 5, seed=3), jnp.array([0, 0, 1, 1, 1], jnp.int32)
    how = {"softcap": 2.0, "segment_ids": segments, "alibi_slopes": normal(4, seed=4)}
    one = ops.attention(Q[0], K[0], V[0], bias, **how)
    two = jax.vmap(lambda q, k, v: ops.attention(q, k, v, bias, **how))
    assert one.shape == (5, 4, 3)
    np.testing.assert_allclose(two(Q, K, V)[0], one, atol=1e-6)


@pytest.mark.in_turn
def test_values_may_have_other_features_and_dropout_needs_a_key():
    v = normal(2, 5, 2, 6, seed=5)
    y = ops.attention(Q, K, v)
    assert y.shape == (2, 5, 4, 6)
    np.testing.assert_allclose(y[..., :3], ops.attention(Q, K, v[..., :3]), atol=1e-6)
    np.testing.assert_allclose(ops.attention(Q, K, v, dropout_rate=0.5), y, atol=1e-6)
    a, b = (ops.attention(Q, K, v, dropout_rate=0.5, key=jax.random.key(n)) for n in (0, 1))
    assert not jnp.allclose(a, b)
    mean = jax.vmap(lambda key: ops.attention(Q, K, v, dropout_rate=0.5, key=key))(
        jax.random.split(jax.random.key(2), 4000)
    ).mean(0)
    np.testing.assert_allclose(mean, y, atol=0.12)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"bias": normal(2, 3, 5, 5)}, ValueError, r"bias.*\(2, 4, 5, 5\).*got float32 \(2, 3, 5, 5\)"),
        ({"bias": jnp.ones((2, 4, 5, 5), jnp.int32)}, TypeError, "bias.*int32"),
        ({"mask": normal(2, 5)}, TypeError, "mask.*boolean"),
        ({"mask": jnp.ones((2, 4), bool)}, ValueError, r"mask.*\(2, 5\)"),
        ({"scale": "1"}, ValueError, "scale"),
        ({"softcap": 0.0}, ValueError, "softcap.*above 0"),
        ({"local_window_size": (1, 2, 3)}, ValueError, "window.*pair"),
        ({"local_window_size": -1}, ValueError, "window.*0 or more"),
        ({"causal": "middle"}, ValueError, "start.*end"),
        ({"alibi_slopes": normal(2)}, ValueError, r"alibi_slopes.*\(4,\)"),
        ({"segment_ids": normal(2, 5)}, TypeError, "segment_ids.*integers"),
        ({"segment_ids": jnp.zeros((2, 4), jnp.int32)}, ValueError, r"segment_ids.*\(2, 5\)"),
        ({"query_seq_lengths": jnp.zeros((3,), jnp.int32)}, ValueError, r"query_seq_lengths.*\(2,\)"),
        ({"key_value_seq_lengths": jnp.zeros(2)}, TypeError, "key_value_seq_lengths.*integers"),
        ({"dropout_rate": 1.0}, ValueError, "rate"),
        ({"dropout_rate": 0.1, "key": 3}, TypeError, "key"),
    ],
)
def test_what_does_not_fit_is_named(options, error, words):
    with pytest.raises(error, match=words):
        ops.attention(Q, K, V, **options)


@pytest.mark.in_turn
def test_its_rule_passes_an_audit_with_a_bias_slopes_and_a_residual():
    bias, slopes = normal(1, 4, 3, 3), jnp.abs(normal(4))

    def attend(q, k, v, bias, slopes):
        y, log_z = ops.attention(q, k, v, bias, softcap=1.5, alibi_slopes=slopes, return_residual=True)
        return (y**2).sum() + (log_z**2).sum()

    nnjax.audit(attend, Q[:, :3], K[:, :3], V[:, :3], bias, slopes).raise_if_failed()
