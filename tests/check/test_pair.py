import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.check.pair import pair_run, paired
from nnjax.check.subject import split, vjp_of


def test_a_pair_gives_what_the_reference_gives():
    layer = nnjax.dense(3, 2)
    params, x = layer.init(jax.random.key(0)), jnp.ones((4, 3))
    spec, diff, other = split((params, x), {}, ("params", "x"))
    ct = jax.random.normal(jax.random.key(1), (4, 2))
    run, problems = pair_run(layer.fwd, layer.bwd, spec)
    ours, theirs = run(diff, other, [ct]), vjp_of(layer.apply, spec)(diff, other, [ct])
    assert problems.found == []
    for a, b in zip(ours.cotangents, theirs.cotangents, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_fwd_must_return_a_pair():
    spec, diff, other = split((jnp.ones(2),), {}, ("x",))
    run, _ = pair_run(lambda x: x, lambda r, ct: (ct,), spec)
    with pytest.raises(TypeError, match=r"fwd must return \(y, residuals\), got float32 \(2,\)"):
        run(diff, other, [jnp.ones(2)])


@pytest.mark.parametrize(
    ("returned", "kind", "words"),
    [
        (lambda ct: ct, "wrong_shape", "bwd must return a tuple of 1"),
        (lambda ct: (ct, ct), "wrong_shape", "got 2 entries"),
        (lambda ct: (ct[:1],), "wrong_shape", r"shape (1,), its primal (2,)"),
    ],
)
def test_what_bwd_returns_must_mirror_the_arguments(returned, kind, words):
    spec, diff, other = split((jnp.ones(2),), {}, ("x",))
    run, problems = pair_run(lambda x: (x, ()), lambda r, ct: returned(ct), spec)
    run(diff, other, [jnp.ones(2)])
    assert [p.kind for p in problems.found] == [kind]
    assert words in problems.found[0].detail


def test_what_fwd_returns_must_be_what_the_reference_returns():
    spec, diff, other = split((jnp.ones(2),), {}, ("x",))
    for returned, words in (
        (lambda x: x[:1], "fwd returns float32 (1,), but the reference returns float32 (2,)"),
        (lambda x: (x, x), "fwd returns float32 (2,), float32 (2,), but the reference returns float32 (2,)"),
        (lambda x: jnp.int32(3), "fwd returns nothing, but the reference returns float32 (2,)"),
    ):
        run, problems = pair_run(lambda x, f=returned: (f(x), ()), lambda r, ct: (ct,), spec)
        with pytest.raises(ValueError, match="different outputs"):
            run(diff, other, [jnp.ones(2)])
        assert [tuple(p) for p in problems.found] == [("output", "wrong_primal", words)]


def test_the_function_of_a_pair_closes_over_what_is_static():
    def fwd(p, shape, how):
        y = jnp.sin(p["w"]) * p["n"] if how == "sin" else p["w"]
        return y.reshape(shape), p["w"]

    def bwd(w, ct):
        return {"w": 3 * jnp.cos(w) * ct.ravel(), "n": None}, None, None

    f = paired(fwd, bwd)
    w, ct = jnp.linspace(-1.0, 1.0, 6), jnp.arange(6.0).reshape(2, 3)
    y, pull = jax.vjp(lambda w: f({"w": w, "n": 3}, (2, 3), "sin"), w)
    np.testing.assert_allclose(y, 3 * jnp.sin(w).reshape(2, 3), rtol=1e-6)
    np.testing.assert_allclose(pull(ct)[0], 3 * jnp.cos(w) * ct.ravel(), rtol=1e-6)
    short = paired(fwd, lambda w, ct: (w,))
    with pytest.raises(TypeError, match="bwd rule"):
        jax.vjp(lambda w: short({"w": w, "n": 3}, (2, 3), "sin"), w)[1](ct)
