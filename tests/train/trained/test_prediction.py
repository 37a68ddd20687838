import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax.data.dataset import Moments
from nnjax.train.trained import prediction
from nnjax.train.trained.network import Network, layer_of
from nnjax.train.trained.record import CLASSES, NUMBERS, Record, Rows, Targets

NETWORK = Network("mlp", {"sizes": [4, 3], "activation": "relu"})
MODEL = layer_of(NETWORK)
PARAMS = MODEL.init(jax.random.key(0))
X = np.random.default_rng(0).normal(size=(23, 4))
RECORD = Record(CLASSES, "mine", NETWORK, "softmax_cross_entropy", rows=Rows((4,)), classes=3)
READ = {"softmax_cross_entropy": jax.nn.softmax, "binary_cross_entropy": jax.nn.sigmoid,
        "mean_squared_error": lambda y: jnp.clip(y, 0, 1)}  # fmt: skip


@pytest.mark.parametrize("loss", READ)
def test_outputs_are_read_as_the_loss_reads_them(loss):
    found = prediction.predictor(MODEL, RECORD._replace(loss=loss))(PARAMS, X)
    y = MODEL.apply(PARAMS, jnp.asarray(X, jnp.float32))
    np.testing.assert_allclose(found.outputs, y, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.probabilities, READ[loss](y), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found.classes, y.argmax(-1))
    assert [a.dtype.name for a in found] == ["int32", "float32", "float32"]
    assert all(type(a) is np.ndarray for a in found)


def test_any_number_of_rows_gives_what_each_alone_gives(monkeypatch):
    monkeypatch.setattr(prediction, "BLOCK", 8)
    predict = prediction.predictor(MODEL, RECORD)
    whole = predict(PARAMS, X)
    for n in (0, 1, 2, 8, 9):
        some = predict(PARAMS, X[:n])
        assert [a.shape for a in some] == [(n,), (n, 3), (n, 3)]
        np.testing.assert_allclose(some.outputs, whole.outputs[:n], rtol=1e-6)
    alone = predict(PARAMS, X[20])
    assert [np.shape(a) for a in alone] == [(), (3,), (3,)]
    assert alone.classes == whole.classes[20]
    np.testing.assert_allclose(alone.probabilities, whole.probabilities[20], rtol=1e-6)
    X2 = X.copy()
    X2[17] = np.nan
    with pytest.raises(ValueError, match=r"the first is row 17"):
        predict(PARAMS, X2)


@pytest.mark.in_turn
def test_images_go_to_a_lenet_as_images():
    network = Network(
        "lenet", {"classes": 3, "channels": [2], "hidden": [4], "activation": "relu", "image": [8, 8, 1], "dropout": 0.5}
    )
    model = layer_of(network)
    params = model.init(jax.random.key(0))
    x = np.random.default_rng(1).integers(0, 17, (5, 8, 8), np.uint8)
    record = RECORD._replace(network=network, rows=Rows((8, 8), 16))
    found = prediction.predictor(model, record)(params, x)
    wanted = model.apply(params, jnp.asarray(x, jnp.float32)[..., None] / 16)
    np.testing.assert_allclose(found.outputs, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("image", [(9, 8, 3), (8, 8, 1)])
def test_images_with_any_channels_come_in_a_batch_or_alone(image):
    options = {"classes": 3, "channels": [2], "hidden": [4], "activation": "relu", "image": list(image), "dropout": 0.0}
    network = Network("lenet", options)
    model = layer_of(network)
    params = model.init(jax.random.key(0))
    x = np.random.default_rng(1).integers(0, 256, (5, *image), np.uint8)
    predict = prediction.predictor(model, RECORD._replace(network=network, rows=Rows(image, 255)))
    wanted = model.apply(params, jnp.asarray(x, jnp.float32) / 255)
    for given in (x, x.reshape(5, -1), x.squeeze()):
        np.testing.assert_allclose(predict(params, given).outputs, wanted, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(predict(params, given[3]).outputs, wanted[3], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(), (1,), (3,)])
@pytest.mark.parametrize("standardised", [True, False])
def test_numbers_come_in_the_units_of_the_targets(shape, standardised):
    width = int(np.prod(shape))
    model = layer_of(Network("mlp", {"sizes": [4, width], "activation": "relu"}))
    params = model.init(jax.random.key(0))
    r = np.random.default_rng(2)
    known = Moments(r.normal(size=shape) * 1e3, r.uniform(1, 100, shape)) if standardised else None
    targets = Targets(shape, known)
    record = Record(NUMBERS, "mine", Network("mlp", {}), "mean_squared_error", rows=Rows((4,)), targets=targets)
    predict = prediction.predictor(model, record)
    found = predict(params, X)
    y = np.asarray(model.apply(params, jnp.asarray(X, jnp.float32))).reshape(23, *shape)
    wanted = known.mean + known.deviation * y if known else y
    np.testing.assert_allclose(found.numbers, wanted, rtol=1e-5, atol=1e-5)
    assert [(a.shape, a.dtype.name) for a in found] == [((23, *shape), "float32"), ((23, width), "float32")]
    alone = predict(params, X[20])
    assert np.shape(alone.numbers) == shape
    np.testing.assert_allclose(alone.numbers, found.numbers[20], rtol=1e-5)
    assert predict(params, X[:0]).numbers.shape == (0, *shape)
    truth = wanted + r.normal(size=wanted.shape)
    part = 1 - ((truth - wanted) ** 2).sum(0) / ((truth - truth.mean(0)) ** 2).sum(0)
    assert prediction.r2(found, truth, targets) == pytest.approx(part.mean(), abs=1e-3)
    assert np.isnan(prediction.r2(predict(params, X[:0]), truth[:0], targets))
