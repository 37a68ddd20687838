import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax import ops


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


Q, K, V = normal(2, 5, 4, 3), normal(2, 5, 2, 3, seed=1), normal(2, 5, 2, 3, seed=2)


def test_dir_shows_only_the_public_names():
    assert dir(ops) == ["attention", "conv", "dot_product_attention", "linear_cross_entropy", "max_pool"]


def plain(q, k, v, causal, mask=None):
    if mask is not None:
        mask = mask[:, None, None]
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        return jax.nn.dot_product_attention(q, k, v, mask=mask, is_causal=causal)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("wrap", [jax.jit, pytest.param(lambda f: f, marks=pytest.mark.slow)], ids=["jit", "eager"])
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
def test_attention_under_a_mask_vmap_and_other_numbers_of_keys():
    mask = jnp.array([[True, False, True, True, False], [False, True, True, True, True]])
    np.testing.assert_allclose(
        ops.attention(Q, K, V, causal=False, mask=mask), plain(Q, K, V, False, mask), atol=1e-5
    )  # fmt: skip
    one_by_one = jax.vmap(jax.grad(lambda q, k, v, m: ops.attention(q, k, v, mask=m).sum()))(Q, K, V, mask)
    together = jax.grad(lambda q: ops.attention(q, K, V, mask=mask).sum())(Q)
    np.testing.assert_allclose(one_by_one, together, atol=1e-6)
    np.testing.assert_allclose(ops.attention(Q[:, :2], K, V, causal=False), plain(Q[:, :2], K, V, False), atol=1e-5)


def test_the_rules_pass_an_audit():
    def attend(q, k, v):
        return ops.attention(q, k, v).sum()

    nnjax.audit(attend, Q[:1, :3], K[:1, :3], V[:1, :3]).raise_if_failed()


def test_linear_cross_entropy_serves_anyones_gradient():
    h, w, labels, weights = normal(6, 4), normal(9, 4), jnp.arange(6, dtype=jnp.int32), jnp.arange(6, dtype=jnp.float32)
    loss = nnjax.softmax_cross_entropy()
    for more in ((), (weights,)):
        theirs = jax.value_and_grad(lambda h, w, more=more: loss.apply((), (h @ w.T, labels, *more)), (0, 1))(h, w)
        given = {"weights": more[0]} if more else {}
        ours = jax.value_and_grad(lambda h, w, given=given: ops.linear_cross_entropy(h, w, labels, **given), (0, 1))(h, w)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), ours, theirs)


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


def _network(attend, pool, dense, x):
    """(batch, 6, 6, 4) -> (batch, 3): pooling, then attention over the remaining places."""
    places = pool(x).reshape(x.shape[0], 9, 4)
    q, k, v = (dense(i, places).reshape(x.shape[0], 9, 2, 2) for i in range(3))
    return dense(3, attend(q, k, v).reshape(x.shape[0], 36))


def _in_flax():
    from flax import linen as nn

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            with jax.numpy_rank_promotion("allow"):
                return _network(ops.attention, lambda x: ops.max_pool(x, (2, 2)), lambda i, h: nn.Dense((4, 4, 4, 3)[i])(h), x)

    model = Model()
    return model.init(jax.random.key(0), X), model.apply


def _in_equinox():
    import equinox as eqx

    class Model(eqx.Module):
        maps: list

        def __call__(self, x):
            def dense(i, h):
                flat = jax.vmap(self.maps[i])(h.reshape(-1, h.shape[-1]))
                return flat.reshape(*h.shape[:-1], flat.shape[-1])

            return _network(ops.attention, lambda x: ops.max_pool(x, (2, 2)), dense, x)

    keys = jax.random.split(jax.random.key(0), 4)
    maps = [eqx.nn.Linear(n_in, n_out, key=k) for n_in, n_out, k in zip((4, 4, 4, 36), (4, 4, 4, 3), keys)]
    return eqx.partition(Model(maps), eqx.is_array)[0], lambda params, x: eqx.combine(params, Model(maps))(x)


X, TARGETS = normal(5, 6, 6, 4, seed=3), jnp.array([0, 1, 2, 0, 1])


@pytest.mark.parametrize("build", [_in_flax, _in_equinox])
@pytest.mark.slow
def test_a_module_of_another_library_trains_and_passes_an_audit(build):
    params, apply = build()

    def loss(params):
        return -jnp.take_along_axis(jax.nn.log_softmax(apply(params, X)), TARGETS[:, None], 1).mean()

    step = jax.jit(lambda params: jax.tree.map(lambda p, g: p - 0.1 * g, params, jax.grad(loss)(params)))
    before = loss(params)
    notes = nnjax.audit(jax.grad(loss), params).raise_if_failed().notes
    assert {note.split(" ")[0] for note in notes} >= {"_attend", "max_pool((2,"}
    for _ in range(60):
        params = step(params)
    assert loss(params) < before / 4


@pytest.mark.parametrize("two", [2, [2, 2], (2, np.int64(2)), np.array([2, 2]), np.int8(2)], ids=repr)
def test_windows_are_numbers_or_lists_of_any_kind(two):
    x, w = normal(1, 4, 5, 2), normal(3, 2, 1, 4)
    window = [2, 2] if np.ndim(two) == 0 else two
    np.testing.assert_array_equal(ops.max_pool(x, window, two), ops.max_pool(x, (2, 2), (2, 2)))
    expected = ops.conv(x, w, stride=(2, 2), padding=((2, 2), (2, 2)), dilation=(2, 2), groups=2)
    got = ops.conv(x, w, stride=two, padding=two, dilation=two, groups=np.int64(2))
    np.testing.assert_array_equal(got, expected)


def test_a_bool_is_not_a_size_even_after_a_one():
    x, w = normal(1, 4, 5, 2), normal(3, 2, 2, 4)
    ops.conv(x, w, stride=1, groups=1)
    ops.max_pool(x, (1, 1), 1)
    for name in ("stride", "dilation", "padding", "groups"):
        with pytest.raises(ValueError, match=rf"conv: {name} must be"):
            ops.conv(x, w, **{name: True})
    with pytest.raises(ValueError, match="max_pool: stride must be"):
        ops.max_pool(x, (1, 1), True)


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


def test_without_leading_axes_and_under_vmap_it_is_the_same():
    bias, segments = normal(4, 5, 5, seed=3), jnp.array([0, 0, 1, 1, 1], jnp.int32)
    how = {"softcap": 2.0, "segment_ids": segments, "alibi_slopes": normal(4, seed=4)}
    one = ops.attention(Q[0], K[0], V[0], bias, **how)
    two = jax.vmap(lambda q, k, v: ops.attention(q, k, v, bias, **how))
    assert one.shape == (5, 4, 3)
    np.testing.assert_allclose(two(Q, K, V)[0], one, atol=1e-6)


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


def test_its_rule_passes_an_audit_with_a_bias_slopes_and_a_residual():
    bias, slopes = normal(1, 4, 3, 3), jnp.abs(normal(4))

    def attend(q, k, v, bias, slopes):
        y, log_z = ops.attention(q, k, v, bias, softcap=1.5, alibi_slopes=slopes, return_residual=True)
        return (y**2).sum() + (log_z**2).sum()

    nnjax.audit(attend, Q[:, :3], K[:, :3], V[:, :3], bias, slopes).raise_if_failed()
