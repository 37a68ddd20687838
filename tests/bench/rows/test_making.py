import jax
import numpy as np
import pytest

from nnjax import losses, models
from nnjax.bench.rows.making import ids, keys, normal, scanned, step


def near(ours, theirs, relative=2e-3):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert np.linalg.norm(a - b) <= relative * np.linalg.norm(b) + 1e-6 * a.size**0.5


@pytest.mark.in_turn
def test_several_steps_in_a_scan_are_several_steps():
    make = step(models.mlp([4, 3]), losses.softmax_cross_entropy(), lambda k, l: (normal(5, 4)(k), ids(3, 5)(l)))
    hand, references, args = scanned(make, 2)()
    near(hand(*args), references["jax.grad"](*args))
    one, _, (params, *batch) = make()
    for _ in range(2):
        _, grads = one(params, *batch)
        params = jax.tree.map(lambda p, g: p - 0.01 * g, params, grads)
    near(hand(*args)[0], params)


def test_the_keys_are_the_same_in_every_run():
    assert (jax.random.key_data(keys(2)) == jax.random.key_data(keys(2))).all()
