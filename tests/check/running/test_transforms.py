import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax.check.running import transforms
from nnjax.check.subject import Subject, split, vjp_of

X, X2 = np.linspace(-1, 1, 5), np.linspace(-2, 3, 5)
SPEC, _, _ = split((X,), {}, ("x",))
RUN, REMAT = vjp_of(jnp.sin, SPEC), vjp_of(jnp.sin, SPEC, jax.checkpoint)
SUBJECT = Subject(case="sin", spec=SPEC, definition=jnp.sin, reference=RUN, hand=RUN, rematerialised=REMAT)


@pytest.mark.parametrize("name", transforms.TRANSFORMS)
def test_every_transform_gives_value_and_cotangent_at_its_points(name):
    points = [([jnp.asarray(x, jnp.float32)], [jnp.full(5, c, jnp.float32)]) for x, c in ((X, 1.0), (X2, -2.0))]
    out = transforms.named(name)(SUBJECT)(points, [])
    assert len(out) == (2 if name in ("vmap", "scan") else 1)
    for (value, ct_x), (x, c) in zip(out, ((X, 1.0), (X2, -2.0))):
        np.testing.assert_allclose(value, np.sin(x), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(ct_x, c * np.cos(x), rtol=1e-5, atol=1e-6)


def test_second_order_is_the_derivative_of_the_cotangent():
    x, v, ct = (jnp.asarray(a, jnp.float32) for a in (X, X2, np.ones(5)))
    (found,) = transforms.second_order(RUN)([x], [], [v, ct])
    np.testing.assert_allclose(found, -np.sin(X) * X2, rtol=1e-5, atol=1e-6)


def test_an_unknown_transform_is_refused():
    with pytest.raises(ValueError, match=r"unknown transform 'eagre'.*did you mean 'eager'"):
        transforms.named("eagre")
