import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.linear import broadcast, broadcast_t, fold, fold_t

W = jnp.asarray(np.random.default_rng(0).standard_normal((5, 3)), jnp.float32)


def times(w):
    return lambda x: x @ w.astype(x.dtype)


@pytest.mark.parametrize(
    ("linear", "transpose", "shape"),
    [
        (times(W), times(W.T), (7, 5)),
        (lambda x: broadcast(x, (4, 2, 3)), lambda y: broadcast_t(y, (2, 1)), (2, 1)),
        (fold, lambda y: fold_t(y, (2, 4, 3)), (2, 4, 3)),
        (lambda x: jnp.pad(x, 2), lambda y: y[2:-2], (6,)),
        (lambda x: {"sum": x.sum(), "twice": 2 * x}, lambda y: y["sum"] + 2 * y["twice"], (3,)),
    ],
    ids=["matrix", "broadcast", "fold", "pad", "a tree"],
)
@pytest.mark.repeats
@pytest.mark.in_turn
def test_maps_and_their_transposes(linear, transpose, shape):
    report = nnjax.check_transpose(linear, transpose, jnp.ones(shape)).raise_if_failed()
    assert {"reference", "adjoint", "linearity"} <= {row.witness for row in report.rows}


@pytest.mark.parametrize(
    ("linear", "transpose", "shape"),
    [
        (times(W @ W.T), times(W @ W.T + jnp.eye(5)), (7, 5)),
        (times(W @ jnp.ones((3, 5))), times(W @ jnp.ones((3, 5))), (7, 5)),
        (lambda x: broadcast(x, (4, 3)), lambda y: y.mean(0), (3,)),
        (lambda x: jnp.roll(x, 1), lambda y: jnp.roll(y, 1), (6,)),
    ],
    ids=["another matrix", "no transpose", "mean for sum", "wrong permutation"],
)
@pytest.mark.repeats
@pytest.mark.in_turn
def test_wrong_transposes_are_rejected(linear, transpose, shape):
    for seed in range(3):
        report = nnjax.check_transpose(linear, transpose, jnp.ones(shape), seed=seed)
        assert {row.witness for row in report.failures} >= {"reference", "adjoint"}


@pytest.mark.in_turn
def test_a_map_that_is_not_linear_is_rejected():
    report = nnjax.check_transpose(lambda x: 2 * x, lambda y: 2 * y, jnp.ones(4))
    assert report.ok
    report = nnjax.check_transpose(jnp.sin, lambda y: y, jnp.ones(4))
    assert not report.ok
    assert "the map is not linear" in str(report)
    assert any("Transpose rule" in cause for cause in report.missing)
    affine = nnjax.check_transpose(lambda x: jax.lax.stop_gradient(jnp.ones(4, x.dtype)) + 2 * x, lambda y: 2 * y, jnp.ones(4))
    assert [row.witness for row in affine.failures] == ["linearity"]
    assert "the map is not linear" in str(affine)


def test_bad_input_is_refused():
    with pytest.raises(TypeError, match=r"check_transpose: transpose must be a function, got int"):
        nnjax.check_transpose(jnp.sin, 3, jnp.ones(3))
    with pytest.raises(ValueError, match=r"y must have the shape of linear\(x\), \(7, 3\), got \(7, 5\)"):
        nnjax.check_transpose(times(W), times(W.T), jnp.ones((7, 5)), jnp.ones((7, 5)))
