import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax.data.dataset import DataError
from nnjax.models.decode_llama import generate_llama
from nnjax.models.generate import generate
from nnjax.train.trained.network import Network, layer_of
from nnjax.train.trained.writing import characters, writer

VOCABULARY = "\n abcdefghé"
CONTEXT, VOCAB = 6, len(VOCABULARY)
GPT = Network("gpt", {"vocab": VOCAB, "context": CONTEXT, "layers": 2, "heads": 2, "width": 8, "dropout": 0.5, "scan": True})
MOE_SIZES = {"vocab": VOCAB, "context": CONTEXT, "layers": 2, "heads": 2, "width": 8, "experts": 3, "top_k": 2}
MOE = Network("moe", {**MOE_SIZES, "balance": 0.1, "z": 0.1, "dropout": 0.5, "scan": False})
RNN = Network("char_rnn", {"vocab": VOCAB, "width": 8, "cell": "lstm", "layers": 2})
# Larger than initial weights, so that the most probable character is not just the previous one.
GPT_PARAMS = jax.tree.map(lambda p: 8 * p if p.ndim > 1 else p, layer_of(GPT).init(jax.random.key(0)))
RNN_PARAMS = jax.tree.map(lambda p: 3 * p, layer_of(RNN).init(jax.random.key(1)))
LLAMA = Network("llama", {"vocab": VOCAB, "context": CONTEXT, "layers": 2, "heads": 2, "width": 8, "kv_heads": 1, "tie": True})
LLAMA_PARAMS = jax.tree.map(lambda p: 8 * p if p.ndim > 1 else p, layer_of(LLAMA).init(jax.random.key(4)))
KEY = jax.random.key(2)


@pytest.fixture(scope="module")
def gpt():
    return writer(layer_of(GPT), GPT, VOCABULARY, "a.txt")


@pytest.fixture(scope="module")
def moe():
    return writer(layer_of(MOE), MOE, VOCABULARY, "a.txt")


@pytest.fixture(scope="module")
def rnn():
    return writer(layer_of(RNN), RNN, VOCABULARY, "a.txt")


def text(writer, params, prompt, n, temperature=0.0, top_k=None, key=KEY):
    return "".join(characters(writer, params, prompt, n, temperature, top_k, key))


@pytest.mark.parametrize("prompt", ["a", "abc", "abcdef", "abcdefghab"])
def test_a_gpt_writes_past_its_context_from_only_the_last_characters(gpt, prompt):
    apply, ids, wanted = jax.jit(layer_of(GPT).apply), [VOCABULARY.index(c) for c in prompt], []
    for _ in range(12):
        window = ids[-CONTEXT:]
        scores = apply(GPT_PARAMS, np.array([window + [0] * (CONTEXT - len(window))], np.int32))[0, len(window) - 1]
        ids.append(int(scores.argmax()))
        wanted.append(VOCABULARY[ids[-1]])
    assert len(set(wanted)) > 2
    assert text(gpt, GPT_PARAMS, prompt, 12) == "".join(wanted)


@pytest.mark.parametrize("prompt", ["abc", "abcdefghab"])
@pytest.mark.in_turn
def test_a_llama_does_so_too_and_as_generate_llama(prompt):
    made = writer(layer_of(LLAMA), LLAMA, VOCABULARY, "a.txt")
    ids = jnp.array([VOCABULARY.index(c) for c in prompt], jnp.int32)
    wanted = generate_llama(LLAMA_PARAMS, ids, 12, options=LLAMA.options)
    assert len(set(wanted.tolist())) > 2
    assert text(made, LLAMA_PARAMS, prompt, 12) == "".join(VOCABULARY[i] for i in wanted)


@pytest.mark.slow
@pytest.mark.in_turn
def test_a_mixture_of_experts_writes_as_its_definition_does_from_the_last_characters(moe):
    params = jax.tree.map(lambda p: 8 * p if p.ndim > 1 else p, layer_of(MOE).init(jax.random.key(3)))
    apply, ids = jax.jit(layer_of(MOE).apply), [VOCABULARY.index(c) for c in "abc"]
    for _ in range(8):
        window = ids[-CONTEXT:]
        scores = apply(params, np.array([window + [0] * (CONTEXT - len(window))], np.int32))[0, len(window) - 1]
        ids.append(int(scores.argmax()))
    wanted = "".join(VOCABULARY[i] for i in ids[3:])
    assert len(set(wanted)) > 2
    assert text(moe, params, "abc", 8) == wanted


@pytest.mark.parametrize("n", [1, 7])
@pytest.mark.in_turn
def test_a_recurrent_network_writes_what_generate_gives(rnn, n):
    prompt = "abcdeeh"[:n]
    ids = jnp.array([VOCABULARY.index(c) for c in prompt], jnp.int32)
    wanted = generate(layer_of(RNN, carry=True), RNN_PARAMS, ids, 10)
    assert text(rnn, RNN_PARAMS, prompt, 10) == "".join(VOCABULARY[i] for i in wanted)


def test_the_key_decides_and_a_longer_text_starts_with_the_shorter(gpt):
    ten = text(gpt, GPT_PARAMS, "ab", 10, 2.0)
    assert text(gpt, GPT_PARAMS, "ab", 20, 2.0)[:10] == ten
    assert "".join(itertools.islice(characters(gpt, GPT_PARAMS, "ab", None, 2.0, None, KEY), 10)) == ten
    assert text(gpt, GPT_PARAMS, "ab", 10, 2.0, key=jax.random.key(3)) != ten
    assert text(gpt, GPT_PARAMS, "ab", 10, 2.0, 1) == text(gpt, GPT_PARAMS, "ab", 10)
    assert text(gpt, GPT_PARAMS, None, 5) == text(gpt, GPT_PARAMS, "\n", 5)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("aßb€", 1, 1.0, None), DataError, r"'a\.txt' does not contain 'ß', '€'; use only"),
        (("", 1, 1.0, None), ValueError, r"at least one character, got an empty one"),
        ((3, 1, 1.0, None), ValueError, r"at least one character, got int"),
        (("a", 0, 1.0, None), ValueError, r"length must be a positive int, got 0"),
        (("a", 1, -1.0, None), ValueError, r"temperature must be at least 0"),
        (("a", 1, "hot", None), ValueError, r"temperature must be at least 0"),
        (("a", 1, 1.0, 0), ValueError, r"top_k must be a positive int"),
    ],
)
def test_invalid_requests_are_refused_before_the_first_character(gpt, arguments, error, message):
    with pytest.raises(error, match=message):
        characters(gpt, GPT_PARAMS, *arguments, KEY)
