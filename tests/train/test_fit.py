import jax
import numpy as np
import optax
import pytest

import nnjax
from nnjax.train import DataError, Dataset, Split, fit, load, one_hot
from nnjax.train.fit import make_accuracy

MODEL = nnjax.mlp([64, 32, 10], nnjax.relu())


def run(data, value_and_grad=None, **changes):
    options = {
        "predict": MODEL.apply,
        "optimizer": optax.adam(0.003),
        "epochs": 3,
        "batch_size": 32,
        "key": jax.random.key(1),
    }
    value_and_grad = value_and_grad or nnjax.value_and_grad(MODEL, nnjax.softmax_cross_entropy())
    return fit(value_and_grad, MODEL.init(jax.random.key(0)), data, **{**options, **changes})


def test_digits_are_learned_and_the_record_is_complete():
    seen = []
    done = run(load("digits"), epochs=15, on_epoch=seen.append)
    assert done.history[-1].test_accuracy > 0.95
    assert done.history[-1].loss < done.history[0].loss
    assert tuple(seen) == done.history
    assert [record.epoch for record in seen] == list(range(1, 16))
    assert int(done.state.step) == 15 * (1257 // 32)


def test_hand_written_and_jax_gradients_train_to_the_same_loss():
    loss = nnjax.softmax_cross_entropy()
    ours = run(load("digits"), nnjax.value_and_grad(MODEL, loss))
    theirs = run(load("digits"), nnjax.reference_value_and_grad(MODEL, loss))
    np.testing.assert_allclose([r.loss for r in ours.history], [r.loss for r in theirs.history], rtol=1e-4)


def test_targets_other_than_class_numbers_are_encoded():
    done = run(load("digits"), nnjax.value_and_grad(MODEL, nnjax.mean_squared_error()), encode=one_hot(10), epochs=10)
    assert done.history[-1].test_accuracy > 0.9


def test_the_same_key_gives_the_same_parameters_bit_for_bit():
    a, b = (run(load("digits"), epochs=2).state.params for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_an_empty_split_has_no_accuracy():
    x = np.zeros((0, 64), np.float32)
    assert np.isnan(make_accuracy(MODEL.apply)(MODEL.init(jax.random.key(0)), Split(x, np.zeros(0, np.int32))))


def test_bad_sizes_bad_data_and_divergence_are_one_sentence():
    digits = load("digits")
    with pytest.raises(ValueError, match=r"batch_size must be at most the 1257 training examples of 'digits', got 2000"):
        run(digits, batch_size=2000)
    with pytest.raises(
        ValueError, match=r"one score for each of the 10 classes of 'digits', got 5; make the last layer as wide"
    ):
        run(digits, predict=lambda params, x: MODEL.apply(params, x)[:, :5])
    with pytest.raises(TypeError, match=r"fit: optimizer must be one of optax's, got str"):
        run(digits, optimizer="adam")
    with pytest.raises(TypeError, match=r"fit: data must be a train.Dataset, got tuple"):
        run((digits.train.x, digits.train.y))
    with pytest.raises(ValueError, match=r"fit: epochs must be a positive int, got 0"):
        run(digits, epochs=0)
    x = digits.train.x.copy()
    x[5, 3] = np.nan
    with pytest.raises(DataError, match="NaN or infinity in 1 examples, the first at row 5"):
        run(Dataset("digits", Split(x, digits.train.y), digits.validation, digits.test, 10))
    with pytest.raises(FloatingPointError, match=r"the mean loss of epoch 1 is (nan|inf), so training has diverged"):
        run(digits, optimizer=optax.sgd(1e30))


def test_a_seed_in_the_place_of_a_key_is_refused():
    with pytest.raises(TypeError, match=r"fit: key must be a key of jax.random, got int; pass jax.random.key\(7\)"):
        run(load("digits"), key=7)
