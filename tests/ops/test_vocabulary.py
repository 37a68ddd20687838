import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax import ops


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


@pytest.mark.in_turn
def test_linear_cross_entropy_serves_anyones_gradient():
    h, w, labels, weights = normal(6, 4), normal(9, 4), jnp.arange(6, dtype=jnp.int32), jnp.arange(6, dtype=jnp.float32)
    loss = nnjax.softmax_cross_entropy()
    for more in ((), (weights,)):
        theirs = jax.value_and_grad(lambda h, w, more=more: loss.apply((), (h @ w.T, labels, *more)), (0, 1))(h, w)
        given = {"weights": more[0]} if more else {}
        ours = jax.value_and_grad(lambda h, w, given=given: ops.linear_cross_entropy(h, w, labels, **given), (0, 1))(h, w)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), ours, theirs)


LABELS = jnp.array([0, 8, -100, 1, 2, 2])
WEIGHTS = jnp.array([1.0, 0, 2, 1, 0.5, 1])


def same(ours, theirs, *arrays):
    """Values and gradients in all arrays, jitted."""
    at = tuple(range(len(arrays)))
    pair = (jax.jit(jax.value_and_grad(lambda *a, f=f: f(*a).sum(), at))(*arrays) for f in (ours, theirs))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), *pair)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_linear_cross_entropy_takes_a_bias_and_the_options_of_the_loss(reduction):
    h, w, b, m = normal(6, 4), normal(9, 4, seed=1), normal(9, seed=2), np.abs(normal(9, seed=3))
    options = {"label_smoothing": 0.1, "z_loss": 0.1, "softcap": 3.0, "reduction": reduction}
    loss = nnjax.softmax_cross_entropy(class_weights=m, **options)
    same(
        lambda h, w, b, v: ops.linear_cross_entropy(h, w, LABELS, bias=b, weights=v, class_weights=m, **options),
        lambda h, w, b, v: loss.apply((), (h @ w.T + jnp.broadcast_to(b, (6, 9)), LABELS, v)),
        h, w, b, WEIGHTS,
    )  # fmt: skip


@pytest.mark.parametrize("beta", [None, 0.5])
def test_distillation_serves_anyones_gradient(beta):
    h, w, b, taught, table = normal(6, 4), normal(9, 4), normal(9), normal(6, 3, seed=1), normal(9, 3, seed=2)
    f = ops.linear_kl_divergence if beta is None else ops.linear_jensen_shannon
    how = {"temperature": np.float32(2.0), **({} if beta is None else {"beta": jnp.float32(beta)})}
    loss = nnjax.linear_jensen_shannon(beta=beta or 0.0, temperature=2.0)
    same(
        lambda h, w, b: f(h, w, taught, table, bias=b, teacher_bias=b, weights=WEIGHTS, **how),
        lambda h, w, b: loss.apply((), ((h, w, b), (taught, table, jax.lax.stop_gradient(b)), WEIGHTS)),
        h, w, b,
    )  # fmt: skip


def test_preferences_serve_anyones_gradient():
    h, w, labels, reference = normal(3, 2, 2, 4), normal(9, 4), LABELS[:4].reshape(1, 2, 2), normal(3, 2)
    labels = jnp.broadcast_to(labels, (3, 2, 2))
    loss = nnjax.linear_dpo(beta=0.3)
    same(
        lambda h, w: ops.linear_dpo(h, w, labels, reference, beta=0.3),
        lambda h, w: loss.apply((), ((h, w), (labels, reference))),
        h, w,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda h, w: ops.linear_cross_entropy(h, w, LABELS, reduction={}), "ops.linear_cross_entropy: reduction"),
        (lambda h, w: ops.linear_cross_entropy(h, w, LABELS, bias=w[:, 0][:3]), "b must have shape"),
        (lambda h, w: ops.linear_jensen_shannon(h, w, h, w, beta=[1]), "beta must lie in 0"),
        (lambda h, w: ops.linear_kl_divergence(h, w, h, w, temperature=-1), "temperature"),
        (lambda h, w: ops.linear_dpo(h, w, LABELS, LABELS), "chosen before rejected"),
    ],
)
def test_what_does_not_fit_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call(normal(6, 4), normal(9, 4))


@pytest.mark.slow
@pytest.mark.in_turn
def test_a_program_of_all_of_them_passes_an_audit():
    h, w, labels, pairs = normal(6, 4), normal(9, 4), LABELS, LABELS[jnp.array([0, 1, 3, 4])].reshape(1, 2, 2)

    def f(h, w):
        fused = ops.linear_cross_entropy(h, w, labels, reduction="none", softcap=2.0).sum() + ops.linear_kl_divergence(
            h, w, 2 * h, w
        )
        return (
            fused
            + ops.linear_jensen_shannon(h, w, h, 2 * w)
            + ops.linear_dpo(h[:4].reshape(1, 2, 2, 4), w, pairs, (h[2:].reshape(1, 2, 2, 4), w))
        )

    nnjax.audit(f, h, w).raise_if_failed()


def test_a_value_alone_forms_no_more_scores_at_once():
    n, vocab, shape = 2**13, 2**13, jax.ShapeDtypeStruct
    h, w = shape((n, 8), jnp.float32), shape((vocab, 8), jnp.float32)
    compiled = jax.jit(ops.linear_cross_entropy).lower(h, w, shape((n,), jnp.int32)).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 0.3 * 4 * n * vocab
    assert compiled.as_text().count(" dot(") == 1  # what is for the gradient alone is gone
