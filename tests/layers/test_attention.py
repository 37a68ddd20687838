import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.layers.attention import attention_step, expect_attention, join_heads, join_heads_t, split_heads, split_heads_t

QUICK = {"dtypes": ["float64", "float32"], "transforms": ["jit"]}


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def made(layer, seed=0):
    """Parameters with biases that are not zero."""
    return jax.tree.map(lambda p: p + 0.1 * normal(*p.shape, seed=3), layer.init(jax.random.key(seed)))


@pytest.mark.parametrize(("kv_heads", "causal"), [(4, True), (2, True), (1, False)])
@pytest.mark.repeats
@pytest.mark.in_turn
def test_forward_is_jax_nn_dot_product_attention_between_two_dense_maps(kv_heads, causal):
    layer = nnjax.attention(8, 4, kv_heads=kv_heads, causal=causal)
    params, x = made(layer), normal(2, 5, 8)

    @jax.jit
    def three(params, x):
        columns = x @ params.qkv.w + jnp.broadcast_to(params.qkv.b, (2, 5, params.qkv.b.size))
        q, k, v = jnp.split(columns.reshape(2, 5, -1, 2), (4, 4 + kv_heads), 2)
        with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
            y = jax.nn.dot_product_attention(q, k, v, is_causal=causal)
        expected = y.reshape(2, 5, 8) @ params.out.w + jnp.broadcast_to(params.out.b, x.shape)
        return expected, layer.apply(params, x), layer.fwd(params, x)[0]

    expected, *found = three(params, x)
    for y in found:
        np.testing.assert_allclose(y, expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.in_turn
def test_rotary_positions_make_scores_depend_only_on_the_distance():
    layer = nnjax.attention(4, 1, rope=True, causal=False, bias=False)
    params, x = made(layer), normal(6, 4)
    later = jnp.concatenate((jnp.zeros((3, 4)), x))
    mask = jnp.arange(9) >= 3
    shifted = nnjax.attention(4, 1, rope=True, causal=False, bias=False, key_mask=True).apply(params, (later, mask))
    np.testing.assert_allclose(shifted[3:], layer.apply(params, x), atol=1e-5)
    still = nnjax.attention(4, 1, causal=False, bias=False)
    order = jnp.array([2, 0, 1, 5, 4, 3])
    np.testing.assert_allclose(still.apply(params, x[order]), still.apply(params, x)[order], atol=1e-5)
    assert float(jnp.abs(layer.apply(params, x[order]) - layer.apply(params, x)[order]).max()) > 0.01


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({}, (1, 8)),  # one position, no leading axis
        ({"kv_heads": 1, "rope": True}, (0, 3, 8)),
        ({"kv_heads": 2, "causal": False}, (2, 1, 3, 8)),
        ({"rope": True, "bias": False}, (1, 67, 8)),  # two blocks, the second short
    ],
)
@pytest.mark.repeats
@pytest.mark.in_turn
def test_edge_shapes_pass_the_check(options, shape):
    layer = nnjax.attention(8, 4, **options)
    nnjax.check_layer(layer, made(layer), normal(*shape), **QUICK, witnesses=()).raise_if_failed()


@pytest.mark.slow
@pytest.mark.in_turn
def test_a_masked_layer_passes_and_a_row_that_sees_nothing_gives_the_bias():
    layer = nnjax.attention(6, 3, key_mask=True)
    params, x = made(layer), normal(3, 4, 6)
    mask = jnp.array([[False] * 4, [False, True, False, True], [True] * 4])
    nnjax.check_layer(layer, params, (x, mask), **QUICK).raise_if_failed()
    y = layer.apply(params, (x, mask))
    np.testing.assert_allclose(y[0], jnp.broadcast_to(params.out.b, (4, 6)), atol=1e-6)
    np.testing.assert_allclose(y[2], nnjax.attention(6, 3).apply(params, x[2]), atol=1e-6)
    _, residuals = layer.fwd(params, (x, mask))
    _, (ct_x, ct_mask) = layer.bwd(residuals, jnp.ones_like(y))
    assert ct_mask is None
    assert not ct_x[0].any()


def test_heads_are_split_and_joined_by_permutations():
    opts = expect_attention(12, 6, 3)
    x = normal(2, 5, 24)
    parts = split_heads(x, opts)
    assert [p.shape for p in parts] == [(2, 3, 2, 5, 2), (2, 3, 5, 2), (2, 3, 5, 2)]
    np.testing.assert_array_equal(split_heads_t(*parts), x)
    y = normal(2, 3, 2, 5, 2)
    np.testing.assert_array_equal(join_heads_t(join_heads(y), (3, 2)), y)


@pytest.mark.parametrize("options", [{"rope": False}, {"rope": True}, {"rope": True, "window": (2, 0), "head_dim": 6}], ids=str)
@pytest.mark.repeats
@pytest.mark.in_turn
def test_one_position_at_a_time_gives_the_same(options):
    layer, opts = nnjax.attention(8, 4, kv_heads=2, **options), expect_attention(8, 4, 2, **options)
    params, x = made(layer), normal(3, 5, 8)
    cache = (jnp.zeros((3, 2, 5, opts.d)),) * 2
    ys = []
    for t in range(5):
        y, cache = attention_step(params, x[:, t], cache, jnp.int32(t), opts=opts)
        ys.append(y)
    np.testing.assert_allclose(jnp.stack(ys, 1), layer.apply(params, x), atol=1e-5)


@pytest.mark.parametrize(
    ("args", "options", "message"),
    [
        ((8, 3), {}, r"attention: heads must divide n, got n=8, heads=3; pass .*1"),
        ((8, 4), {"kv_heads": 3}, r"attention: kv_heads must divide heads, got heads=4, kv_heads=3; pass .*1"),
        ((6, 2), {"rope": True}, r"attention: rope .*even number, got 3"),
        ((8, 2), {"rope_theta": 50.0}, r"attention: rope_theta and rope_scaling .* add rope=True"),
        ((8, 3), {"head_dim": 0}, r"attention: head_dim must be a positive int, got 0"),
        ((0, 2), {}, r"attention: n must be a positive int, got 0"),
        ((8, 2.0), {}, r"attention: heads must be a positive int, got 2.0"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(args, options, message):
    with pytest.raises(ValueError, match=message):
        nnjax.attention(*args, **options)


@pytest.mark.parametrize(
    ("masked", "x", "error", "message"),
    [
        (False, normal(2, 5, 7), ValueError, r"attention: x must have shape \(..., positions, 8\).*got float32 \(2, 5, 7\)"),
        (False, normal(8), ValueError, r"attention: x must have shape \(..., positions, 8\).*got float32 \(8,\)"),
        (False, normal(2, 0, 8), ValueError, r"attention: x must have shape .* with at least one position"),
        (False, jnp.ones((5, 8), int), TypeError, r"attention: x must be real floating point, got int32"),
        (False, normal(5, 8).astype(jnp.bfloat16), TypeError, r"dense: .*same dtype, got bfloat16 and float32"),
        (True, normal(5, 8), TypeError, r"attention: x must be the tuple \(x, mask\).*got float32 \(5, 8\)"),
        (True, (normal(5, 8), jnp.ones(5)), TypeError, r"attention: mask must be boolean, True where .*got float32 \(5,\)"),
        (True, (normal(5, 8), jnp.ones(4, bool)), ValueError, r"attention: mask must have shape \(5,\), got bool \(4,\)"),
    ],
)
def test_bad_input_is_refused(masked, x, error, message):
    layer = nnjax.attention(8, 2, key_mask=masked)
    with pytest.raises(error, match=message):
        layer.fwd(layer.init(jax.random.key(0)), x)
    with pytest.raises(TypeError, match=r"attention: params must be AttentionParams\(qkv, out\), got tuple"):
        layer.apply((), x)


EVERYTHING = {
    "kv_heads": 2, "rope": True, "segments": True, "key_mask": True, "alibi": True, "softcap": 3.0, "window": (2, 0),
    "scale": 0.6, "dropout": 0.25,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.in_turn
def test_all_that_is_done_to_scores_at_once_passes_and_a_forgotten_cap_does_not():
    layer, other = nnjax.attention(8, 4, **EVERYTHING), nnjax.attention(8, 4, **{**EVERYTHING, "softcap": None})
    segments = jnp.array([[0, 0, 0, 1, 1], [2, 2, 2, 2, 2]], jnp.int32)
    mask = jnp.array([[True, False, True, True, True], [False, True, True, True, True]])
    params, x, key = made(layer), (normal(2, 5, 8), mask, segments), jax.random.key(1)
    nnjax.check_layer(layer, params, x, key=key, **QUICK).raise_if_failed()
    wrong = layer._replace(bwd=other.bwd)
    assert not nnjax.check_layer(wrong, params, x, key=key, **QUICK).ok
    y, residuals = nnjax.plain(layer).fwd(params, x, key=key)
    np.testing.assert_allclose(layer.fwd(params, x, key=key)[0], y, atol=1e-5)
    (_, ct_x), (_, by_plain) = layer.bwd(layer.fwd(params, x, key=key)[1], y), nnjax.plain(layer).bwd(residuals, y)
    np.testing.assert_allclose(ct_x[0], by_plain[0], atol=1e-5)
    assert ct_x[1:] == (None, None)


@pytest.mark.in_turn
def test_segments_are_sequences_by_themselves():
    layer = nnjax.attention(8, 2, segments=True)
    params, x = made(layer), normal(5, 8)
    together = layer.apply(params, (x, jnp.array([0, 0, 1, 1, 1], jnp.int32)))
    plain = nnjax.attention(8, 2)
    apart = jnp.concatenate([plain.apply(params, x[:2]), plain.apply(params, x[2:])])
    np.testing.assert_allclose(together, apart, atol=1e-5)


@pytest.mark.in_turn
def test_a_mask_of_queries_and_keys_is_taken_where_one_of_keys_is():
    layer = nnjax.attention(8, 2, causal=False, key_mask=True)
    params, x = made(layer), normal(2, 4, 8)
    causal = jnp.broadcast_to(jnp.tril(jnp.ones((4, 4), bool)), (1, 1, 4, 4))
    np.testing.assert_allclose(layer.apply(params, (x, causal)), nnjax.attention(8, 2).apply(params, x), atol=1e-5)
    keys = jnp.array([[True, True, False, True]] * 2)
    expanded = jnp.broadcast_to(keys[:, None, None], (2, 1, 1, 4))
    np.testing.assert_allclose(layer.apply(params, (x, keys)), layer.apply(params, (x, expanded)), atol=1e-5)


def test_dropout_needs_a_key_and_a_window_of_all_is_none():
    dropped, plain = nnjax.attention(8, 2, dropout=0.5), nnjax.attention(8, 2)
    params, x = made(plain), normal(2, 4, 8)
    np.testing.assert_allclose(dropped.apply(params, x), plain.apply(params, x), atol=1e-6)
    assert not jnp.allclose(dropped.apply(params, x, key=jax.random.key(0)), plain.apply(params, x), atol=1e-3)
    wide = nnjax.attention(8, 2, window=3)
    np.testing.assert_allclose(wide.apply(params, x), plain.apply(params, x), atol=1e-5)


@pytest.mark.in_turn
def test_heads_may_be_wider_and_only_the_output_without_a_bias():
    layer = nnjax.attention(6, 2, kv_heads=1, head_dim=5, out_bias=False)
    params = made(layer)
    assert (params.qkv.w.shape, params.qkv.b.shape, params.out.w.shape, params.out.b) == ((6, 20), (20,), (10, 6), None)
    nnjax.check_layer(layer, params, normal(2, 3, 6), **QUICK, witnesses=()).raise_if_failed()
    assert nnjax.attention(6, 2, bias=False, out_bias=True).init(jax.random.key(0)).qkv.b is None
    with pytest.raises(TypeError, match=r"attention: out_bias must be True or False"):
        nnjax.attention(6, 2, out_bias="qkv")


@pytest.mark.in_turn
def test_theta_and_scaling_reach_the_angles():
    x, options = normal(2, 6, 8), {"rope": True, "rope_theta": 20.0}
    scaling = {"rope_type": "linear", "factor": 2.0}
    plain, stretched = (nnjax.attention(8, 2, **options, rope_scaling=how) for how in (None, scaling))
    params = made(plain)
    # every second position, without the texts between
    mask = jnp.broadcast_to(jnp.arange(6) % 2 == 0, (2, 6))
    sparse = nnjax.attention(8, 2, **options, rope_scaling=scaling, key_mask=True, causal=False).apply(params, (x, mask))
    dense = nnjax.attention(8, 2, **options, causal=False).apply(params, x[:, ::2])
    np.testing.assert_allclose(sparse[:, ::2], dense, atol=1e-5)
    assert float(jnp.abs(stretched.apply(params, x) - plain.apply(params, x)).max()) > 1e-3
