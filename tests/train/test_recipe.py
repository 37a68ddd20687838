import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax.train import Dataset, Split, load, optimizers, recipe

DIGITS = load("digits")
DEFAULTS = {"hidden": (8,), "activation": None, "loss": None, "l2": 0.0, "key": jax.random.key(0)}


@pytest.mark.parametrize(
    ("model", "loss"), [*(("mlp", name) for name in recipe.LOSSES), *(("nielsen", name) for name in recipe.COSTS)]
)
@pytest.mark.repeats
def test_every_loss_has_a_hand_written_gradient_that_is_its_references(model, loss):
    made = recipe.make_recipe(model, DIGITS, **{**DEFAULTS, "loss": loss, "l2": 5.0})
    x, y = DIGITS.train.x[:6], DIGITS.train.y[:6]
    labels = jnp.asarray(made.encode(y) if made.encode else y)
    ours, theirs = (jax.jit(f)(made.params, jnp.asarray(x), labels) for f in (made.hand, made.reference))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), ours, theirs)
    assert made.predict(made.params, jnp.asarray(x)).shape == (6, 10)


@pytest.mark.parametrize("name", recipe.ACTIVATIONS)
def test_every_activation_makes_a_network(name):
    made = recipe.make_recipe("mlp", DIGITS, **{**DEFAULTS, "activation": name})
    assert jnp.isfinite(made.predict(made.params, jnp.asarray(DIGITS.test.x))).all()


@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
def test_every_optimizer_can_be_made(name):
    assert optimizers.make_optimizer(name, 0.01).init is not None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"activation": "rleu"}, r"unknown activation 'rleu'.*did you mean 'relu'\?"),
        ({"loss": "mean_square_error"}, r"unknown loss 'mean_square_error'.*did you mean 'mean_squared_error'\?"),
        ({"model": "nielson"}, r"unknown model 'nielson'.*did you mean 'nielsen'\?"),
        (
            {"model": "nielsen", "loss": "quadrtic"},
            r"unknown loss of the model nielsen 'quadrtic'.*did you mean 'quadratic'\?",
        ),
        ({"model": "nielsen", "activation": "relu"}, r"the model nielsen has sigmoid neurons only, got activation 'relu'"),
        ({"hidden": (8, 0)}, r"hidden: layer 1 must be a positive int, got 0"),
        ({"l2": -1.0}, r"l2 must be at least 0, got -1.0"),
    ],
)
def test_bad_names_and_sizes_are_refused(changes, message):
    changes = {"model": "mlp", **DEFAULTS, **changes}
    with pytest.raises(ValueError, match=message):
        recipe.make_recipe(changes.pop("model"), DIGITS, **changes)


def test_a_learning_rate_must_be_positive():
    with pytest.raises(ValueError, match=r"learning rate must be positive, got 0"):
        optimizers.make_optimizer("sgd", 0)
    with pytest.raises(ValueError, match=r"unknown optimizer 'addam'.*did you mean 'adam'\?"):
        optimizers.make_optimizer("addam", 0.1)


def numbers(shape=(16, 18, 3), targets=(2,)) -> Dataset:
    rng = np.random.default_rng(0)
    x = rng.random((8, int(np.prod(shape)))).astype(np.float32)
    part = Split(x, rng.normal(size=(8, *targets)).astype(np.float32))
    return Dataset("mine", part, part, part, shape=shape)


@pytest.mark.parametrize("model", ["mlp", "lenet"])
@pytest.mark.parametrize("targets", [(), (2,)])
@pytest.mark.in_turn
def test_numbers_have_mean_squared_error_and_an_output_for_each(model, targets):
    data = numbers(targets=targets)
    made = recipe.make_recipe(model, data, channels=(2, 3), **DEFAULTS)
    assert made.loss == "mean_squared_error"
    labels = made.encode(data.train.y)
    assert labels.shape == (8, data.outputs)
    x = jnp.asarray(data.train.x)
    assert made.predict(made.params, x).shape == labels.shape
    (value, ours), (_, theirs) = (jax.jit(f)(made.params, x, labels) for f in (made.hand, made.reference))
    np.testing.assert_allclose(value, ((made.predict(made.params, x) - labels) ** 2).mean(), rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), ours, theirs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "softmax_cross_entropy"}, "are numbers, so the loss must be mean_squared_error, got softmax_cross_entropy"),
        ({"loss": "binary_cross_entropy"}, "are numbers, so the loss must be mean_squared_error, got binary_cross_entropy"),
        ({"loss": "mean_square_error"}, "unknown loss .*did you mean 'mean_squared_error'"),
        ({"model": "nielsen"}, "the sigmoid outputs of the model nielsen cannot reach; use the model mlp"),
    ],
)
def test_models_and_losses_for_classes_are_refused_for_numbers(options, message):
    options = {"model": "mlp", **DEFAULTS, **options}
    with pytest.raises(ValueError, match=message):
        recipe.make_recipe(options.pop("model"), numbers(), **options)


@pytest.mark.parametrize(("shape", "words"), [((16, 18, 3), "16x18 RGB"), ((18, 16), "18x16"), ((20, 16, 1), "20x16")])
def test_a_lenet_takes_images_of_any_size_that_fits(shape, words):
    data = numbers(shape, ())
    made = recipe.make_recipe("lenet", data, channels=(2, 3), **DEFAULTS)
    assert made.sizes == f"{words}, conv [2, 3], dense [8, 1]"
    flat = made.predict(made.params, data.train.x)
    images = made.predict(made.params, data.train.x.reshape(8, *shape))
    np.testing.assert_array_equal(flat, images)
    small = numbers((15, 16, 3))
    with pytest.raises(ValueError, match=r"an image of 15 x 16 is too small .* at least 16 x 16"):
        recipe.make_recipe("lenet", small, channels=(2, 3), **DEFAULTS)


@pytest.mark.parametrize("compute_dtype", [None, "bfloat16"])
@pytest.mark.in_turn
def test_a_resnet_has_a_gradient_and_running_statistics(compute_dtype):
    how = {"channels": (2, 3), "compute_dtype": compute_dtype, "key": jax.random.key(0)}
    made = recipe.make_recipe("resnet", DIGITS, **how)
    x, y = jnp.asarray(DIGITS.train.x[:6]), jnp.asarray(DIGITS.train.y[:6])
    state = jax.jit(made.running.update)(made.running.init(made.params), made.params, x)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.statistics)} == {np.dtype(np.float32)}
    assert made.predict(made.running.frozen(made.params, state), x).shape == (6, 10)
    if compute_dtype is None:
        ours, theirs = (jax.jit(f)(made.params, x, y) for f in (made.hand, made.reference))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), ours, theirs)
    assert made.network.options["blocks"] == 1


@pytest.mark.parametrize("changes", [{"microbatches": 2}, {"feedback": "random"}, {"dropout": 0.5}], ids=str)
def test_a_resnet_sees_whole_batches_and_has_no_other_feedback(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        recipe.make_recipe("resnet", DIGITS, key=jax.random.key(0), **changes)


@pytest.mark.in_turn
def test_the_usual_channels_are_those_of_the_model():
    for model, channels in (("lenet", [20, 40]), ("resnet", [8, 16, 32])):
        shape = (28, 28)
        data = Dataset("grey", *(Split(np.zeros((2, 784), np.float32), np.arange(2, dtype=np.int32)),) * 3, 2, shape=shape)
        made = recipe.make_recipe(model, data, key=jax.random.key(0))
        assert list(made.network.options["channels"]) == channels
