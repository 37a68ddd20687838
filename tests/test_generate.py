import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax

MODEL = nnjax.char_rnn(5, 4, cell="lstm", layers=2, carry=True)
WHOLE = nnjax.char_rnn(5, 4, cell="lstm", layers=2)
PARAMS = jax.tree.map(lambda p: 2 * p, MODEL.init(jax.random.key(0)))
PROMPT = jnp.array([[1, 4, 0], [2, 2, 3]])


def test_it_generates_what_recomputing_the_whole_prefix_would():
    found = nnjax.generate(MODEL, PARAMS, PROMPT, 6)
    ids = PROMPT
    for _ in range(6):
        ids = jnp.concatenate([ids, WHOLE.apply(PARAMS, ids)[:, -1].argmax(-1).astype(jnp.int32)[:, None]], 1)
    np.testing.assert_array_equal(found, ids[:, 3:])
    assert found.dtype == jnp.int32
    np.testing.assert_array_equal(nnjax.generate(MODEL, PARAMS, PROMPT[0], 1), found[0, :1])


def test_one_key_one_text_under_jit_too():
    key = jax.random.key(3)
    found = nnjax.generate(MODEL, PARAMS, PROMPT, 20, key=key)
    again = jax.jit(lambda params, prompt, key: nnjax.generate(MODEL, params, prompt, 20, key=key))(PARAMS, PROMPT, key)
    np.testing.assert_array_equal(found, again)
    assert (found != nnjax.generate(MODEL, PARAMS, PROMPT, 20, key=jax.random.key(4))).any()
    assert ((found >= 0) & (found < 5)).all()


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
