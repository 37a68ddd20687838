import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.check.subject import split, vjp_of
from nnjax.check.witness.oracle import eps_of
from nnjax.check.witness.truth import support


def found(f, x):
    spec, diff, other = split((x,), {}, ("x",))
    return support(vjp_of(f, spec), diff, other, [np.ones(np.shape(f(x)), np.float32)])


def through(dtype):
    return lambda x: jnp.sin(x.astype(dtype)).astype(x.dtype)


@pytest.mark.parametrize(
    ("f", "dtype"),
    [
        (jnp.sin, jnp.float64),
        (through(jnp.float32), jnp.float32),
        (through(jnp.bfloat16), jnp.bfloat16),
        (jax.jit(through(jnp.bfloat16)), jnp.bfloat16),
        (lambda x: jax.lax.scan(lambda c, _: (through(jnp.float16)(c), None), x, None, length=2)[0], jnp.float16),
        (lambda x: jnp.where(jax.random.uniform(jax.random.key(0), x.shape, jnp.float32) > 0.5, x, 0), jnp.float64),
    ],
)
def test_the_narrowest_cast_inside_is_found(f, dtype):
    assert found(f, jnp.ones(3)) == eps_of(dtype)


def low_sine(wrong):
    @jax.custom_vjp
    def f(x):
        return through(jnp.bfloat16)(x)

    f.defvjp(lambda x: (f(x), x), lambda x, ct: ((ct * jnp.cos(x) * wrong).astype(x.dtype),))
    return f


@pytest.mark.in_turn
def test_a_function_that_casts_inside_is_checked_at_the_precision_its_truth_supports():
    x = jnp.linspace(-1, 1, 40)
    report = nnjax.check_vjp(low_sine(1.0), x).raise_if_failed()
    assert any(
        "casts to lower precision inside, so float32 is held to a relative rounding of 0.0078" in n for n in report.notes
    )
    assert not nnjax.check_vjp(low_sine(1.2), x).ok
    assert not nnjax.check_vjp(low_sine(-1.0), x).ok
