import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import nnjax
from nnjax.data.text import make_text
from nnjax.train import Checkpoints, DataError, Text, fit_text, load, load_files, load_text
from nnjax.train.text import make_evaluate, windows

WORDS = "the cat sat on the mat and the rat sat on the cat. " * 40
TEXT = make_text("words", WORDS)
MODEL = nnjax.char_rnn(len(TEXT.vocabulary), 16, cell="gru")
HOW = {"optimizer": optax.adam(0.01), "context": 12, "batch_size": 8, "every": 20, "key": jax.random.key(1)}


def run(steps, **changes):
    value_and_grad = nnjax.value_and_grad(MODEL, nnjax.softmax_cross_entropy())
    params = MODEL.init(jax.random.key(0))
    return fit_text(value_and_grad, params, TEXT, predict=MODEL.apply, steps=steps, **{**HOW, **changes})


def test_windows_are_followed_by_what_comes_next():
    x, labels = windows(jnp.asarray(TEXT.train), jnp.array([0, 5], jnp.int32), 4)
    assert [TEXT.decode(row) for row in x] == ["the ", "at s"]
    assert [TEXT.decode(row) for row in labels] == ["he c", "t sa"]


@pytest.mark.in_turn
def test_the_evaluation_is_over_every_whole_window():
    evaluate = make_evaluate(MODEL.apply, TEXT.validation, 12)
    params = MODEL.init(jax.random.key(0))
    loss, accuracy = evaluate(params)
    n = (len(TEXT.validation) - 1) // 12
    x, y = TEXT.validation[: 12 * n].reshape(n, 12), TEXT.validation[1 : 12 * n + 1].reshape(n, 12)
    scores = MODEL.apply(params, jnp.asarray(x))
    expected = nnjax.softmax_cross_entropy().apply((), (scores, jnp.asarray(y)))
    assert loss == pytest.approx(float(expected), rel=1e-5)
    assert accuracy == pytest.approx(float((np.asarray(scores.argmax(-1)) == y).mean()))
    assert np.isnan(make_evaluate(MODEL.apply, TEXT.validation[:5], 12)(params)).all()


@pytest.mark.slow
@pytest.mark.in_turn
def test_a_small_network_learns_the_words_and_a_stopped_run_resumes_identically(tmp_path):
    whole = run(200)
    assert whole.history[-1].measured["validation_loss"] < 0.7
    assert whole.history[-1].validation_accuracy > 0.75
    run(100, checkpoints=Checkpoints(tmp_path))
    rest = run(200, checkpoints=Checkpoints(tmp_path, resume=True))
    jax.tree.map(np.testing.assert_array_equal, rest.state.params, whole.state.params)
    assert [r.measured for r in rest.history] == [r.measured for r in whole.history]


def test_bad_input_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="steps must be a multiple of every, got 30 and 20"):
        run(30)
    with pytest.raises(DataError, match=r"a window needs 5001 characters, got 1836 to train on; shorten"):
        run(20, context=5000)
    with pytest.raises(TypeError, match=r"text must be a train\.Text, got str"):
        fit_text(None, None, "text", predict=MODEL.apply, steps=20, **HOW)
    with pytest.raises(DataError, match="does not exist"):
        load_text(tmp_path / "none.txt")
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe" * 20)
    with pytest.raises(DataError, match="is not UTF-8"):
        load_text(tmp_path / "bad.txt")
    (tmp_path / "short.txt").write_text("too short")
    with pytest.raises(DataError, match="expected at least 20 characters, got 9"):
        load(str(tmp_path / "short.txt"))
    (tmp_path / "mine.txt").write_text(WORDS)
    found = load(str(tmp_path / "mine.txt"))
    assert isinstance(found, Text)
    assert found.name == "mine.txt"
    assert load_files(tmp_path / "mine.txt").vocabulary == TEXT.vocabulary


@pytest.mark.slow
@pytest.mark.in_turn
def test_the_evaluation_of_a_model_in_low_precision_is_summed_in_float32():
    text = make_text("long", WORDS * 20)

    def predict(params, x):
        return jnp.zeros((*x.shape, len(text.vocabulary)), jnp.float16).at[..., 0].set(30)

    loss, _ = make_evaluate(predict, text.train[:36_001], 1000)(None)
    expected = 30 * float(np.mean(text.train[1:36_001] != 0))
    assert loss == pytest.approx(expected, rel=1e-4)
