import jax
import numpy as np
import pytest

from nnjax.reproduce.rows import ROWS
from nnjax.train import Dataset, Split

BOOK = (95.42, 96.59, 97.92, 98.04, 97.80, 98.78, 99.06, 99.23, 99.37, 99.46, 99.43, 99.43, 99.48, 99.47, 99.60, 99.67)
X = np.random.default_rng(0).random((20, 784)).astype(np.float32)
SPLIT = Split(X, (np.arange(20) % 10).astype(np.int32))
DATA = Dataset("mnist", SPLIT, SPLIT, SPLIT, 10)


def test_the_table_is_the_books():
    assert tuple(row.book for row in ROWS) == BOOK
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert [row.name for row in ROWS if row.quick] == [row.name for row in ROWS[:5]]
    assert all(row.note for row in ROWS if row.expanded)
    assert not any(row.note for row in ROWS if not row.expanded)


@pytest.mark.parametrize("row", [r for r in ROWS if max(r.hidden) <= 100], ids=lambda r: r.name)
@pytest.mark.slow
@pytest.mark.in_turn
def test_every_row_is_a_network_whose_gradient_is_jax_grads(row):
    recipe = row.recipe(DATA, jax.random.key(0))
    labels = recipe.encode(SPLIT.y[:2]) if recipe.encode else SPLIT.y[:2]
    hand, reference = (f(recipe.params, X[:2], labels, key=jax.random.key(1)) for f in (recipe.hand, recipe.reference))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5), hand, reference)
    assert recipe.predict(recipe.params, X).shape == (20, 10)


def test_lambda_counts_minibatches_in_chapter_six():
    """Its cost has lambda / 2 sum w^2 over the number of minibatches: 0.1 / 5,000 on 50,000 images."""
    row = next(r for r in ROWS if r.name == "two conv-pool, ReLU")
    assert row.l2 / 50_000 == pytest.approx(0.1 / (50_000 / row.batch))
