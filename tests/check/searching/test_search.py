"""Rules that are right at the inputs that they are checked at, and wrong at others; and the same ones mended."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def rule(body, bwd):
    f = jax.custom_vjp(body)
    f.defvjp(lambda *args: (body(*args), args), bwd)
    return f


def top(x):
    return x.max(-1)


def top_bwd(right, residuals, ct):
    (x,) = residuals
    hit = (x == x.max(-1, keepdims=True)).astype(x.dtype)
    return (ct[:, None] * (hit / hit.sum(-1, keepdims=True) if right else hit),)


def grouped(x, w, sizes):
    return jax.lax.ragged_dot(x, w, sizes)


def grouped_bwd(right, residuals, ct):
    x, w, sizes = residuals
    group = jnp.searchsorted(jnp.cumsum(sizes), jnp.arange(x.shape[0], dtype=sizes.dtype), side="right")
    member = jax.nn.one_hot(group, w.shape[0], dtype=x.dtype)
    ct_w = jnp.einsum("mg,mk,mn->gkn", member, x, ct)
    if not right:
        ct_w = jnp.where((sizes == 0)[:, None, None], ct.sum(), ct_w)
    return jnp.einsum("mn,mg,gkn->mk", ct, member, w), ct_w, None


def softmax_bwd(right, residuals, ct):
    y = jax.nn.softmax(residuals[0])
    ct_x = y * (ct - (y * ct).sum(-1, keepdims=True))
    return (ct_x if right else ct_x.at[..., y.shape[-1] // 16 * 16 :].set(0),)


def attends(q, k, v, mask):
    weights = jax.nn.softmax(jnp.where(mask, q @ k.T, -1e30))
    return jnp.where(mask, weights, 0) @ v


def attends_bwd(right, residuals, ct):
    q, k, v, mask = residuals
    y = jax.nn.softmax(jnp.where(mask, q @ k.T, -1e30))
    weights, ct_weights = (jnp.where(mask, y, 0), jnp.where(mask, ct @ v.T, 0)) if right else (y, ct @ v.T)
    ct_scores = jnp.where(mask, y * (ct_weights - (y * ct_weights).sum(-1, keepdims=True)), 0)
    return ct_scores @ k, ct_scores.T @ q, weights.T @ ct, None


CASES = {
    "a maximum at ties": (top, top_bwd, (normal(4, 6),), "ties"),
    "a grouped product for empty groups": (grouped, grouped_bwd, (normal(8, 4), normal(3, 4, 5), np.int32([3, 2, 3])), "group"),
    "a kernel where no block fits": (lambda x: jax.nn.softmax(x), softmax_bwd, (normal(4, 128),), "length"),
    "attention for a row that is hidden": (
        attends, attends_bwd, (normal(5, 8), normal(5, 8), normal(5, 8), np.tri(5, dtype=bool)), "masked row"
    ),
}  # fmt: skip
ONCE = {"dtypes": ["float32"], "transforms": ["jit"]}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.repeats
@pytest.mark.in_turn
def test_a_rule_that_is_wrong_elsewhere_is_found(name):
    body, bwd, args, word = CASES[name]
    wrong = rule(body, functools.partial(bwd, False))
    assert nnjax.check_vjp(wrong, *args, **ONCE).ok
    report = nnjax.check_vjp(wrong, *args, **ONCE, search=True)
    assert not report.ok
    assert "not at your inputs" in report.finding
    assert word in report.finding


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
@pytest.mark.in_turn
def test_a_rule_that_is_right_everywhere_is_not_blamed(name):
    body, bwd, args, _ = CASES[name]
    report = nnjax.check_vjp(rule(body, functools.partial(bwd, True)), *args, **ONCE, search=True)
    assert report.ok, report
    assert "no fault at" in str(report)


@pytest.mark.in_turn
def test_what_is_found_is_small():
    report = nnjax.check_vjp(rule(top, functools.partial(top_bwd, False)), normal(4, 6), **ONCE, search=True)
    assert "x float32 (1, 2)" in report.failures[0].note


@pytest.mark.slow
@pytest.mark.in_turn
def test_a_pair_and_a_layer_are_searched_too():
    fwd = lambda x: (top(x), (x,))  # noqa: E731
    for right in (False, True):
        bwd = functools.partial(top_bwd, right)
        assert nnjax.check_pair(fwd, bwd, normal(4, 6), reference=top, **ONCE, search=5).ok == right
    layer = nnjax.layers.softmax()

    def at_ties(residuals, ct_y):
        (y,) = residuals
        ties = (y == y.max(-1, keepdims=True)).sum(-1, keepdims=True) > 1
        ct_x = layer.bwd(residuals, ct_y)[1]
        return (), jnp.where(ties, 2 * ct_x, ct_x)

    for bwd, right in ((layer.bwd, True), (at_ties, False)):
        assert nnjax.check_layer(layer._replace(bwd=bwd), (), normal(3, 4), **ONCE).ok
        assert nnjax.check_layer(layer._replace(bwd=bwd), (), normal(3, 4), **ONCE, search=5).ok == right


@pytest.mark.in_turn
def test_an_audit_searches_too():
    wrong = rule(top, functools.partial(top_bwd, False))
    assert nnjax.audit(wrong, normal(4, 6)).ok
    (note,) = nnjax.audit(wrong, normal(4, 6), search=5).notes
    assert "FAULT" in note
    assert "not at your inputs" in note


@pytest.mark.in_turn
def test_a_rule_that_raises_at_other_sizes_is_reported_but_not_blamed():
    def refuses(residuals, ct):
        if residuals[0].shape[-1] % 2:
            raise ValueError("only even sizes")
        return (2 * residuals[0] * ct,)

    report = nnjax.check_vjp(rule(lambda x: x * x, refuses), normal(4), **ONCE, search=5)
    assert report.ok, report
    assert str(report).count("only even sizes") == 1


def test_a_search_needs_time_and_no_mesh():
    f = rule(top, functools.partial(top_bwd, True))
    for search in ("yes", None):
        with pytest.raises(TypeError, match="search must be True, False or seconds"):
            nnjax.check_vjp(f, normal(4, 6), search=search)
    with pytest.raises(ValueError, match="positive number of seconds"):
        nnjax.check_vjp(f, normal(4, 6), search=-1.0)
    mesh = nnjax.distributed.make_mesh(data=2)
    with pytest.raises(ValueError, match="leave out search or mesh"):
        nnjax.check_vjp(f, normal(4, 6), search=True, mesh=mesh)
