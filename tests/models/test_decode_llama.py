import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax import generate_llama

OPTIONS = {"vocab": 11, "context": 8, "layers": 3, "heads": 4, "width": 8, "kv_heads": 2, "hidden": 7, "qkv_bias": True,
           "rope_theta": 30.0, "rope_scaling": {"rope_type": "linear", "factor": 2.0}}  # fmt: skip
PROMPT = jnp.array([[3, 1, 4], [1, 5, 9]], jnp.int32)


def made(**options):
    """(options, params) with noise on them, so that the most probable id is not just the previous one, and biases are not 0."""
    options = OPTIONS | options
    leaves, treedef = jax.tree.flatten(nnjax.llama(**options).init(jax.random.key(3)))
    noise = [jax.random.normal(key, p.shape) for key, p in zip(jax.random.split(jax.random.key(1), len(leaves)), leaves)]
    return options, jax.tree.unflatten(treedef, [p + 0.5 * e for p, e in zip(leaves, noise)])


def slowly(params, options, prompt, length):
    """The definition on the last `context` ids, again for each new one."""
    apply = jax.jit(nnjax.llama(**options).apply)
    for _ in range(length):
        last = apply(params, prompt[..., -options["context"] :])[..., -1, :].argmax(-1).astype(prompt.dtype)
        prompt = jnp.concatenate((prompt, last[..., None]), -1)
    return prompt[..., -length:]


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"tie": True, "dropout": 0.5, "remat": True, "fused": False},
        pytest.param({"scan": False, "sliding_window": 3, "full_layers": 1}, marks=pytest.mark.slow),
        pytest.param({"sliding_window": 2, "head_dim": 6}, marks=pytest.mark.slow),
    ],
)
@pytest.mark.repeats
@pytest.mark.in_turn
def test_kept_keys_and_values_give_what_the_definition_gives_also_past_the_context(more):
    options, params = made(**more)
    expected = slowly(params, options, PROMPT, 12)
    assert len(np.unique(expected)) > 2
    np.testing.assert_array_equal(generate_llama(params, PROMPT, 12, options=options), expected)
    np.testing.assert_array_equal(generate_llama(params, PROMPT, 4, options=options), expected[:, :4])


@pytest.mark.slow
@pytest.mark.in_turn
def test_a_prompt_as_long_as_the_context_or_longer_is_cut_to_its_end():
    options, params = made()
    prompt = jax.random.randint(jax.random.key(0), (13,), 0, 11, jnp.int32)
    for n in (8, 13):
        np.testing.assert_array_equal(
            generate_llama(params, prompt[:n], 3, options=options), slowly(params, options, prompt[:n], 3)
        )
    one = jax.jit(lambda p, ids: generate_llama(p, ids, 6, options=options))(params, prompt[:5])
    np.testing.assert_array_equal(one, slowly(params, options, prompt[:5], 6))


@pytest.mark.in_turn
def test_a_key_draws_and_temperature_zero_does_not():
    options, params = made()
    keys = [jax.random.key(i) for i in (0, 0, 1)]
    drawn = [generate_llama(params, PROMPT, 9, options=options, key=k, temperature=3.0) for k in keys]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert (drawn[0] != drawn[2]).any()
    cold = generate_llama(params, PROMPT, 9, options=options, key=keys[0], temperature=0.0)
    np.testing.assert_array_equal(cold, generate_llama(params, PROMPT, 9, options=options))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"prompt": PROMPT[:, :0]}, ValueError, r"prompt must have shape \(..., s\) with at least one id"),
        ({"prompt": PROMPT.astype(jnp.float32)}, TypeError, r"prompt must be integers, got float32"),
        ({"prompt": PROMPT.at[0, 0].set(11)}, ValueError, r"ids must lie in 0 \.\.\. 10, .*got 11"),
        ({"length": 0}, ValueError, r"length must be a positive int, got 0"),
        ({"options": 4}, TypeError, r"options must be the arguments of llama, by name, got int"),
        ({"options": {"vocab": 11}}, TypeError, r"options must be the arguments of llama, by name: .*context"),
        ({"options": OPTIONS | {"head": 2}}, TypeError, r"options must be .*'head'"),
        ({"options": OPTIONS | {"layers": 2}}, TypeError, r"params must be those of llama\(\*\*options\)"),
        ({"options": OPTIONS | {"vocab": 12}}, TypeError, r"params must be those of llama\(\*\*options\)"),
        ({"params": ()}, TypeError, r"params must be those of llama\(\*\*options\), got tuple"),
        ({"key": 3}, TypeError, r"key must be a key of jax.random, got int"),
    ],
)
def test_bad_arguments_are_refused(change, error, message):
    options, params = made()
    with pytest.raises(error, match=message):
        generate_llama(**{"params": params, "prompt": PROMPT, "length": 2, "options": options} | change)
