import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.models.llama import LlamaOptions, expect_llama

SIZES = {"vocab": 7, "context": 9, "layers": 2, "heads": 2, "width": 8}
IDS, LABELS = jnp.array([[1, 4, 2, 0], [6, 6, 3, 5]], jnp.int32), jnp.array([[4, 2, 1, 1], [6, 3, 3, 0]], jnp.int32)


def large(model, seed=0):
    """Parameters larger than initial ones, so that no part hides behind the residual sum."""
    return jax.tree.map(lambda p: 8 * p if p.ndim > 1 else p, model.init(jax.random.key(seed)))


def in_float64(params, ids, heads, kv_heads, theta, eps):
    """Llama in NumPy and float64 from our parameters, one sequence and one head at a time."""
    params = jax.tree.map(lambda p: np.asarray(p, np.float64), params)
    embed, (stack, last), head = params
    n = len(ids)

    def norm(x, p):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * p.scale

    def turned(x):
        half = x.shape[-1] // 2
        angle = np.arange(n)[:, None] * theta ** (-np.arange(half) / half)[None]
        z = (x[:, :half] + 1j * x[:, half:]) * np.exp(1j * angle)
        return np.concatenate([z.real, z.imag], -1)

    x = embed.table[ids]
    d = x.shape[-1] // heads
    for i in range(len(stack[0][0].scale)):
        (first, mix), (second, feed) = jax.tree.map(lambda p, i=i: p[i], stack)
        columns = norm(x, first) @ mix.qkv.w
        parts = [columns[:, j * d : (j + 1) * d] for j in range(heads + 2 * kv_heads)]
        heads_out = []
        for h in range(heads):
            g = h // (heads // kv_heads)
            s = turned(parts[h]) @ turned(parts[heads + g]).T / np.sqrt(d)
            s = np.where(np.tri(n, dtype=bool), s, -np.inf)
            p = np.exp(s - s.max(-1, keepdims=True))
            heads_out.append(p / p.sum(-1, keepdims=True) @ parts[heads + kv_heads + g])
        x = x + np.concatenate(heads_out, -1) @ mix.out.w
        z = norm(x, second)
        gate = z @ feed.gate.w
        x = x + (gate / (1 + np.exp(-gate)) * (z @ feed.up.w)) @ feed.down.w
    return norm(x, last) @ head.table.T


@pytest.mark.in_turn
def test_it_is_the_llama_of_numpy(x64):
    model = nnjax.llama(11, 9, 3, 4, 8, kv_heads=2, hidden=5, rope_theta=70.0, eps=0.01)
    params = jax.tree.map(lambda p: p.astype(jnp.float64), large(model))
    ids = np.array([1, 4, 10, 0, 4, 2])
    wanted = in_float64(params, ids, 4, 2, 70.0, 0.01)
    for y in (model.apply(params, jnp.asarray(ids)), model.fwd(params, jnp.asarray(ids))[0]):
        np.testing.assert_allclose(y, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
@pytest.mark.in_turn
def test_the_forms_of_llama_agree():
    loss, fused = nnjax.softmax_cross_entropy(), nnjax.linear_cross_entropy()
    options = {"kv_heads": 1, "hidden": 5, "sliding_window": 3, "full_layers": 1, "layers": 3}
    model = nnjax.llama(**SIZES | options)
    params = large(model)
    embed, (first, second, norm), head = params
    assert [p[0][0].scale.shape[0] for p in (first, second)] == [1, 2]
    rows = [jax.tree.map(lambda p, i=i: p[i], s) for s, n in ((first, 1), (second, 2)) for i in range(n)]
    value, grads = jax.jit(nnjax.value_and_grad(model, loss))(params, IDS, LABELS)
    expected, theirs = jax.jit(nnjax.reference_value_and_grad(model, loss))(params, IDS, LABELS)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), grads, theirs)
    for form, given, by in (
        ({"remat": True}, params, loss),
        ({"fused": True}, params, fused),
        ({"scan": False}, (embed, (tuple(rows), norm), head), loss),
        ({"kernel": True}, params, loss),
    ):
        again, others = jax.jit(nnjax.value_and_grad(nnjax.llama(**SIZES | options, **form), by))(given, IDS, LABELS)
        np.testing.assert_allclose(again, value, rtol=1e-5)
        np.testing.assert_allclose(others[0].table, grads[0].table, atol=1e-4)
        np.testing.assert_allclose(others[2].table, grads[2].table, atol=1e-4)


@pytest.mark.in_turn
def test_a_position_sees_as_many_as_its_window_in_each_layer():
    model = nnjax.llama(**SIZES | {"layers": 1}, sliding_window=2)
    params, ids = large(model), jnp.array([1, 4, 2, 0, 3], jnp.int32)
    y = model.apply(params, ids)
    for i in range(5):
        changed = np.abs(model.apply(params, ids.at[i].set(6)) - y).max(-1) > 1e-6
        assert changed.tolist() == [i <= j <= i + 1 for j in range(5)]
    whole = nnjax.llama(**SIZES | {"layers": 1})
    np.testing.assert_array_equal(
        nnjax.llama(**SIZES | {"layers": 1}, sliding_window=9).apply(params, ids), whole.apply(params, ids)
    )


def test_there_are_no_biases_but_those_asked_for_and_about_as_many_parameters_as_a_gpt_has():
    def shapes(model):
        return jax.tree_util.tree_leaves_with_path(jax.eval_shape(model.init, jax.random.key(0)))

    def names(model):
        return {jax.tree_util.keystr(path).rsplit(".", 1)[-1] for path, _ in shapes(model)}

    plain, biased = nnjax.llama(**SIZES), nnjax.llama(**SIZES, qkv_bias=True)
    assert names(plain) == {"table", "scale", "w"}
    assert [leaf.shape for path, leaf in shapes(biased) if jax.tree_util.keystr(path).endswith(".b")] == [(2, 24)]
    ours, gpts = (
        sum(leaf.size for _, leaf in shapes(model))
        for model in (nnjax.llama(65, 64, 4, 4, 128, tie=True), nnjax.gpt(65, 64, 4, 4, 128))
    )
    assert abs(ours / gpts - 1) < 0.02


def test_the_8b_model_has_its_published_size():
    shapes = jax.eval_shape(nnjax.llama(128256, 8192, 32, 32, 4096, kv_heads=8, hidden=14336).init, jax.random.key(0))
    assert sum(p.size for p in jax.tree.leaves(shapes)) == 8_030_261_248


@pytest.mark.in_turn
def test_a_tied_llama_shares_its_table():
    params = nnjax.llama(**SIZES, tie=True).init(jax.random.key(0))
    assert type(params).__name__ == "TiedParams"
    embed, _, head = nnjax.llama(**SIZES).init(jax.random.key(0))
    assert embed.table.shape == head.table.shape == (7, 8)
    assert not (embed.table == head.table).any()


@pytest.mark.in_turn
def test_dropout_needs_a_key_and_then_differs():
    model = nnjax.llama(**SIZES, dropout=0.5)
    params = model.init(jax.random.key(0))
    a, b = (model.apply(params, IDS, key=jax.random.key(i)) for i in (1, 2))
    assert (a != b).any()
    plain = nnjax.llama(**SIZES)
    embed, (stack, norm), head = plain.init(jax.random.key(0))
    assert len(params[1]) == 3  # dropout of the embedding comes first
    assert jax.tree.structure(params[1][1]) != jax.tree.structure(stack)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": 0}, r"llama: layers must be a positive int, got 0"),
        ({"hidden": 0}, r"llama: hidden must be a positive int, got 0"),
        ({"heads": 3}, r"heads must divide n, got n=8, heads=3"),
        ({"kv_heads": 3}, r"kv_heads must divide heads, got heads=2, kv_heads=3"),
        ({"heads": 8}, r"rope.*even number, got 1"),
        ({"head_dim": 3}, r"rope.*even number, got 3"),
        ({"sliding_window": 0}, r"llama: sliding_window must be a positive int, got 0"),
        ({"full_layers": -1}, r"llama: full_layers must be a whole number"),
        ({"eps": -1.0}, r"llama: eps must be at least 0"),
        ({"dropout": 1.5}, r"llama: .*dropout|llama: rate"),
        ({"remat": True, "scan": False}, r"llama: remat needs the scan"),
        ({"rope_scaling": {"rope_type": "longrope"}}, r"unknown rope_type of attention 'longrope'"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        nnjax.llama(**SIZES | options)


def test_ids_beyond_the_context_or_the_vocabulary_are_refused():
    model = nnjax.llama(**SIZES)
    params = model.init(jax.random.key(0))
    for run in (model.apply, model.fwd):
        with pytest.raises(ValueError, match=r"llama: ids must have at most 9 positions"):
            run(params, jnp.zeros((1, 10), jnp.int32))
    with pytest.raises(ValueError, match=r"embedding: ids must lie in 0 ... 6"):
        model.apply(params, jnp.full(3, 7, jnp.int32))


def test_options_are_completed():
    o = expect_llama(LlamaOptions(7, 9, 4, 2, 128, sliding_window=3, full_layers=np.int64(9)))
    assert (o.hidden, o.full_layers, o.stacks()) == (344, 9, [(4, None)])
    assert o._replace(full_layers=1).stacks() == [(1, None), (3, (2, 0))]
