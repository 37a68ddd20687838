import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.check.subject import argument_names, layer_owner, pair_run, split, vjp_of


def test_arguments_are_sorted_into_derivative_other_and_static():
    args = ({"w": jnp.ones(2), "n": 3}, jnp.arange(2), jax.random.key(0), None, "mode", 1.5)
    spec, diff, other = split(args, {"scale": jnp.ones(())}, ("params", "ids", "key", "none", "mode", "rate"))
    assert spec.names == ("params['w']", "rate", "scale")
    assert len(other) == 2
    assert spec.static == (3, "mode")
    again, kwargs = spec.merge(diff, other)
    assert again[3:5] == (None, "mode")
    assert again[0]["n"] == 3
    assert kwargs["scale"].shape == ()
    assert hash(spec) == hash(split(args, {"scale": jnp.ones(())}, ("params", "ids", "key", "none", "mode", "rate"))[0])


def test_names_come_from_the_signature():
    assert argument_names(lambda x, y, *rest: x, 3) == ("x", "y")
    spec, _, _ = split((jnp.ones(1), jnp.ones(1)), {}, ("x",))
    assert spec.names == ("x", "args[1]")


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


def test_the_owner_of_a_leaf_is_the_innermost_layer():
    model = nnjax.serial(nnjax.dense(2, 2), nnjax.residual(nnjax.serial(nnjax.relu(), nnjax.dense(2, 2))))
    assert layer_owner(model, "params[0].w") == "0:dense(2, 2)"
    assert layer_owner(model, "params[1][1].b") == "1/residual/1:dense(2, 2)"
    assert layer_owner(model, "x") == ""
    assert layer_owner(nnjax.dense(2, 2), "params.w") == ""
