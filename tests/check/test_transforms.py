import jax.numpy as jnp
import numpy as np
import pytest

from nnjax.check import transforms
from nnjax.check.subject import split, vjp_of


@pytest.mark.parametrize("name", transforms.TRANSFORMS)
def test_every_transform_gives_the_same_cotangent(name):
    spec, diff, other = split((jnp.linspace(-1, 1, 5),), {}, ("x",))
    out = transforms.named(name)(vjp_of(jnp.sin, spec))(diff, other, [jnp.ones(5)])
    np.testing.assert_allclose(out.cotangents[0], np.cos(np.linspace(-1, 1, 5)), rtol=1e-6)


def test_an_unknown_transform_is_refused():
    with pytest.raises(ValueError, match=r"unknown transform 'eagre'.*did you mean 'eager'"):
        transforms.named("eagre")
