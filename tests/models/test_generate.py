import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.models.generate import pick

MODEL = nnjax.char_rnn(5, 4, cell="lstm", layers=2, carry=True)
WHOLE = nnjax.char_rnn(5, 4, cell="lstm", layers=2)
PARAMS = jax.tree.map(lambda p: 2 * p, MODEL.init(jax.random.key(0)))
PROMPT = jnp.array([[1, 4, 0], [2, 2, 3]])


@pytest.mark.in_turn
def test_it_generates_what_recomputing_the_whole_prefix_would():
    found = nnjax.generate(MODEL, PARAMS, PROMPT, 6)
    ids = PROMPT
    for _ in range(6):
        ids = jnp.concatenate([ids, WHOLE.apply(PARAMS, ids)[:, -1].argmax(-1).astype(jnp.int32)[:, None]], 1)
    np.testing.assert_array_equal(found, ids[:, 3:])
    assert found.dtype == jnp.int32
    np.testing.assert_array_equal(nnjax.generate(MODEL, PARAMS, PROMPT[0], 1), found[0, :1])


@pytest.mark.in_turn
def test_one_key_one_text_under_jit_too():
    key = jax.random.key(3)
    found = nnjax.generate(MODEL, PARAMS, PROMPT, 20, key=key)
    again = jax.jit(lambda params, prompt, key: nnjax.generate(MODEL, params, prompt, 20, key=key))(PARAMS, PROMPT, key)
    np.testing.assert_array_equal(found, again)
    assert (found != nnjax.generate(MODEL, PARAMS, PROMPT, 20, key=jax.random.key(4))).any()
    assert ((found >= 0) & (found < 5)).all()


@pytest.mark.in_turn
def test_ids_are_drawn_with_the_models_probabilities_and_the_temperature_sharpens_them():
    many = jnp.broadcast_to(PROMPT[:1], (4000, 3))
    logits = WHOLE.apply(PARAMS, PROMPT[:1])[0, -1]
    for temperature in (1.0, 0.25):
        ids = nnjax.generate(MODEL, PARAMS, many, 1, key=jax.random.key(0), temperature=temperature)[:, 0]
        share = np.bincount(ids, minlength=5) / 4000
        np.testing.assert_allclose(share, jax.nn.softmax(logits / temperature), atol=0.03)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"prompt": PROMPT[:, :0]}, ValueError, r"prompt must have shape \(\.\.\., time\) with at least one id, got int32"),
        ({"prompt": PROMPT.astype(jnp.float32)}, TypeError, r"prompt must be integers, got float32 \(2, 3\)"),
        ({"prompt": PROMPT + 3}, ValueError, r"embedding: ids must lie in 0 \.\.\. 4"),
        ({"length": 0}, ValueError, r"generate: length must be a positive int, got 0"),
        ({"temperature": -0.5}, ValueError, r"generate: temperature must be at least 0, got -0.5; 0 takes the most"),
        ({"key": 3}, TypeError, r"generate: key must be a key of jax.random, got int"),
        ({"model": nnjax.char_rnn}, TypeError, r"generate: expected a Layer, got char_rnn"),
        ({"model": WHOLE}, TypeError, r"ids must be integers, got tuple|carry=True"),
    ],
)
def test_bad_input_is_refused(change, error, message):
    arguments = {"model": MODEL, "params": PARAMS, "prompt": PROMPT, "length": 2} | change
    with pytest.raises(error, match=message):
        nnjax.generate(**arguments)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.slow
@pytest.mark.in_turn
def test_equal_logits_are_drawn_equally_often_in_any_dtype(dtype):
    drawn = np.bincount(np.asarray(pick(jnp.zeros((20_000, 256), dtype), jax.random.key(0), 1.0)), minlength=256)
    np.testing.assert_allclose(drawn.reshape(4, 64).sum(1) / 20_000, 0.25, atol=0.02)
    logits = jnp.array([0.0, 1.0, 2.0, 3.0], dtype)
    ids = pick(jnp.broadcast_to(logits, (20_000, 4)), jax.random.key(1), 2.0)
    np.testing.assert_allclose(
        np.bincount(ids, minlength=4) / 20_000, jax.nn.softmax(logits.astype(jnp.float32) / 2), atol=0.02
    )
    np.testing.assert_array_equal(ids, pick(jnp.broadcast_to(logits.astype(jnp.float32), (20_000, 4)), jax.random.key(1), 2.0))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("temperature", [1e-4, 1e-30, 1e-45, 1e-300])
@pytest.mark.parametrize("shift", [-1000.0, 0.0, 1000.0])
def test_a_tiny_temperature_takes_the_largest_and_draws_among_equals(dtype, temperature, shift):
    logits = jnp.broadcast_to(jnp.array([1.0, 8.0, -jnp.inf, 8.0], dtype) + jnp.array(shift, dtype), (4000, 4))
    share = np.bincount(pick(logits, jax.random.key(0), temperature), minlength=4) / 4000
    np.testing.assert_allclose(share, [0, 0.5, 0, 0.5], atol=0.03)
    assert (pick(logits, jax.random.key(0), 0.0) == 1).all()


@pytest.mark.parametrize("temperature", [1e30, 1e300, np.inf, np.float64(1e30)])
def test_a_huge_temperature_draws_alike_from_what_is_possible(temperature):
    logits = jnp.broadcast_to(jnp.array([1.0, 8.0, -jnp.inf, -300.0], jnp.bfloat16), (4000, 4))
    share = np.bincount(pick(logits, jax.random.key(0), temperature), minlength=4) / 4000
    np.testing.assert_allclose(share, [1 / 3, 1 / 3, 0, 1 / 3], atol=0.03)


@pytest.mark.in_turn
def test_top_k_draws_only_among_the_most_probable():
    logits = jnp.asarray([[0.0, 3.0, 2.9, -1.0, 2.8], [5.0, 5.0, 5.0, 5.0, 5.0]])
    keys = jax.random.split(jax.random.key(0), 200)
    few = jax.vmap(lambda key: pick(logits, key, 1.0, 3))(keys)
    assert set(few[:, 0].tolist()) == {1, 2, 4}
    assert set(few[:, 1].tolist()) == {0, 1, 2}  # the first of equal ones
    assert (pick(logits, keys[0], 1.0, 1) == logits.argmax(-1)).all()
    whole, more = (jax.vmap(lambda key, k=k: pick(logits, key, 1.0, k))(keys) for k in (None, 99))
    assert (whole == more).all()
    assert len(set(whole[:, 1].tolist())) == 5
