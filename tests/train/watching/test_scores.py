import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax.linear import broadcast
from nnjax.train import Split
from nnjax.train.watching.scores import EXAMPLES, as_columns, make_accuracy, make_r2


def test_accuracy_is_the_share_of_right_classes_in_any_number_of_parts():
    accuracy = make_accuracy(lambda params, x: x)
    n = EXAMPLES + 100
    x = np.eye(4, dtype=np.float32)[np.arange(n) % 4]
    y = np.where(np.arange(n) < n // 2, np.arange(n) % 4, (np.arange(n) + 1) % 4).astype(np.int32)
    assert accuracy((), Split(x, y)) == pytest.approx(0.5)
    assert np.isnan(accuracy((), Split(x[:0], y[:0])))


def by_definition(y, p):
    y, p = np.asarray(y, np.float64), np.asarray(p, np.float64)
    return 1 - ((y - p) ** 2).sum(0) / ((y - y.mean(0)) ** 2).sum(0)


@pytest.mark.parametrize("n", [7, EXAMPLES + 5])
@pytest.mark.parametrize("targets", [(), (1,), (3,)])
def test_r2_is_what_its_formula_says(n, targets):
    rng = np.random.default_rng(0)
    y = rng.normal(3.0, 2.0, (n, *targets)).astype(np.float32)
    p = (y + rng.normal(0, 0.7, y.shape)).astype(np.float32)
    x = p.reshape(n, -1)
    found = make_r2(lambda scale, x: scale * x)(jnp.float32(1), Split(jnp.asarray(x), jnp.asarray(y)), y)
    assert found == pytest.approx(np.mean(by_definition(y, p)), rel=1e-4)


def test_r2_is_1_for_the_targets_0_for_their_mean_and_knows_no_size():
    y = np.linspace(0.0, 1.0, 11, dtype=np.float32)
    for size in (1.0, 1e30, 1e-30):
        split = Split((size * y[:, None]).astype(np.float32), (size * y).astype(np.float32))
        assert make_r2(lambda params, x: x)((), split, split.y) == 1.0
        mean = make_r2(lambda params, x: broadcast(params, x.shape))
        assert mean(jnp.float32(size * 0.5), split, split.y) == pytest.approx(0.0, abs=1e-5)


def test_a_target_that_never_varies_has_no_r2_and_is_left_out():
    r2 = make_r2(lambda params, x: x)
    x = np.stack([np.linspace(0, 1, 5), np.full(5, 0.1)], 1).astype(np.float32)
    y = x.copy()
    assert r2((), Split(x, y), y) == 1.0
    assert np.isnan(r2((), Split(x[:, 1:], y[:, 1]), y[:, 1]))
    assert np.isnan(r2((), Split(x[:1], y[:1]), y[:1]))
    assert np.isnan(r2((), Split(x[:0], y[:0]), y[:0]))


def test_targets_are_columns_of_float32():
    for y in (np.arange(3.0), jnp.arange(3, dtype=jnp.float32)):
        assert as_columns(y).shape == (3, 1)
        assert as_columns(y).dtype == np.float32
    assert as_columns(np.zeros((3, 2))).shape == (3, 2)
    assert jax.eval_shape(as_columns, jnp.zeros(4)).shape == (4, 1)
