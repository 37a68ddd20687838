import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax import generate_gpt

MODEL = nnjax.gpt(11, 12, 2, 2, 8, dropout=0.5)
# Larger than initial weights, so that the most probable id is not just the previous one.
PARAMS = jax.tree.map(lambda p: 8 * p if p.ndim > 1 else p, MODEL.init(jax.random.key(0)))
PROMPT = jnp.array([[3, 1, 4], [1, 5, 9]], jnp.int32)


def slowly(prompt, length):
    for _ in range(length):
        last = MODEL.apply(PARAMS, prompt)[..., -1, :].argmax(-1).astype(prompt.dtype)
        prompt = jnp.concatenate((prompt, last[..., None]), -1)
    return prompt[..., -length:]


@pytest.mark.slow
@pytest.mark.in_turn
def test_kept_keys_and_values_give_what_the_whole_prefix_gives():
    expected = slowly(PROMPT, 10)
    assert len(np.unique(expected)) > 2
    np.testing.assert_array_equal(generate_gpt(PARAMS, PROMPT, 10, heads=2), expected)
    one = jax.jit(lambda p, ids: generate_gpt(p, ids, 10, heads=2))(PARAMS, PROMPT[0])
    np.testing.assert_array_equal(one, expected[0])


@pytest.mark.slow
@pytest.mark.in_turn
def test_parameters_of_layers_in_a_row_serve_too():
    positions, empty, blocks, norm = PARAMS.body
    rows = tuple(jax.tree.map(lambda p, i=i: p[i], blocks) for i in range(2))
    params = PARAMS._replace(body=(positions, empty, rows, norm))
    np.testing.assert_array_equal(
        generate_gpt(params, PROMPT, 3, heads=2), generate_gpt(PARAMS, PROMPT, 3, heads=2)
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.in_turn
def test_a_mixture_of_experts_is_decoded_with_its_own_feed():
    model = nnjax.moe(11, 12, 2, 2, 8, 3, 2)
    params, ids = jax.tree.map(lambda p: 8 * p if p.ndim > 1 else p, model.init(jax.random.key(0))), PROMPT
    for _ in range(6):
        last = model.apply(params, ids)[..., -1, :].argmax(-1).astype(ids.dtype)
        ids = jnp.concatenate((ids, last[..., None]), -1)
    found = generate_gpt(params, PROMPT, 6, heads=2, feed=nnjax.models.moe_feed(8, 3, 2))
    np.testing.assert_array_equal(found, ids[..., 3:])


@pytest.mark.in_turn
def test_a_key_draws_and_temperature_zero_does_not():
    key = jax.random.key(0)
    drawn = [generate_gpt(PARAMS, PROMPT, 6, heads=2, key=k, temperature=3.0) for k in (key, key, jax.random.key(1))]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert (drawn[0] != drawn[2]).any()
    cold = generate_gpt(PARAMS, PROMPT, 6, heads=2, key=key, temperature=0.0)
    np.testing.assert_array_equal(cold, generate_gpt(PARAMS, PROMPT, 6, heads=2))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"length": 11}, ValueError, r"prompt must have shape \(..., s\), s from 1 to 2, .*context of 12, got int32 \(2, 3\)"),
        ({"prompt": PROMPT[:, :0]}, ValueError, r"prompt must have shape"),
        ({"prompt": PROMPT.astype(jnp.float32)}, TypeError, r"prompt must be integers, got float32"),
        ({"prompt": PROMPT.at[0, 0].set(11)}, ValueError, r"ids must lie in 0 \.\.\. 10, .*got 11"),
        ({"temperature": -1.0}, ValueError, r"temperature must be at least 0, got -1.0"),
        ({"length": 0}, ValueError, r"length must be a positive int, got 0"),
        ({"heads": 3}, ValueError, r"heads must divide n, got n=8, heads=3"),
        ({"key": 3}, TypeError, r"key must be a key of jax.random, got int"),
        ({"params": ()}, TypeError, r"params must be those of gpt\(...\), got tuple"),
    ],
)
def test_bad_arguments_are_refused(change, error, message):
    given = {"params": PARAMS, "prompt": PROMPT, "length": 2, "heads": 2} | change
    with pytest.raises(error, match=message):
        generate_gpt(**given)
