import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax import ops

RNG = np.random.default_rng(0)
Y, LABELS = jnp.asarray(RNG.standard_normal((6, 4)), jnp.float32), jnp.array([0, 3, -100, 1, 2, 2])
Q, M = jnp.asarray(RNG.random((6, 4)), jnp.float32), jnp.asarray(RNG.random(4), jnp.float32)
WEIGHTS = jnp.array([1.0, 0, 2, 1, 0.5, 1])


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("labels", [LABELS, Q], ids=["numbers", "probabilities"])
def test_it_serves_anyones_gradient_with_class_weights_that_are_traced(labels, reduction):
    options = {"label_smoothing": 0.1, "z_loss": 0.1, "softcap": 3.0, "reduction": reduction}

    def ours(y, q, w, m):
        q = labels if labels is LABELS else q
        return ops.softmax_cross_entropy(y, q, weights=w, class_weights=m, **options).sum()

    def theirs(y, q, w):
        q = labels if labels is LABELS else q
        return nnjax.softmax_cross_entropy(class_weights=np.asarray(M), **options).apply((), (y, q, w)).sum()

    value, (*cts, ct_m) = jax.jit(jax.value_and_grad(ours, (0, 1, 2, 3)))(Y, Q, WEIGHTS, M)
    right, right_cts = jax.jit(jax.value_and_grad(theirs, (0, 1, 2)))(Y, Q, WEIGHTS)
    np.testing.assert_allclose(value, right, rtol=1e-6)
    for a, b in zip(cts, right_cts):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert not ct_m.any()


@pytest.mark.in_turn
def test_it_works_under_vmap():
    alone = jax.vmap(lambda y, l: ops.softmax_cross_entropy(y[None], l[None], reduction="sum"))(Y, LABELS)
    np.testing.assert_allclose(alone, ops.softmax_cross_entropy(Y, LABELS, reduction="none"), atol=1e-6)


@pytest.mark.slow
@pytest.mark.in_turn
def test_it_passes_an_audit():
    nnjax.audit(lambda y, m: ops.softmax_cross_entropy(y, LABELS, class_weights=m, label_smoothing=0.1), Y, M).raise_if_failed()


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"reduction": ["mean"]}, ValueError, "reduction"),
        ({"label_smoothing": 2}, ValueError, "label_smoothing"),
        ({"class_weights": M[:2]}, ValueError, "class_weights"),
        ({"weights": WEIGHTS[:2]}, ValueError, "weights"),
    ],
)
def test_what_does_not_fit_is_named(options, error, words):
    with pytest.raises(error, match=f"ops.softmax_cross_entropy: {words}"):
        ops.softmax_cross_entropy(Y, LABELS, **options)
