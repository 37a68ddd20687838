import jax
import jax.numpy as jnp
import numpy as np

from nnjax.check.witness.question import asked, own_options

X = np.float32([0.5, 1.0, 2.0])


def ask(answer, body, x=X, unknown="unknown"):
    return asked(answer, body, body, (x,), {}, 0, unknown)


def test_value_and_gradient_are_of_one_function_in_float64():
    def slope(question):
        value, (gradient,), (x,) = question.value(), question.gradient(question.rule), question.diff
        assert x.dtype == np.float64
        step = 1e-6 * np.eye(3)[1]
        return (value([x + step]) - value([x - step])) / 2e-6, gradient[1]

    found, own = ask(slope, jnp.sin)
    np.testing.assert_allclose(found, own, rtol=1e-8)


def test_outputs_and_gradients_come_also_in_the_dtypes_of_the_call():
    def both(question):
        (y,), (gradient,) = question.pulled(question.rule, question.dtypes)
        (z,) = question.outputs(question.body, question.dtypes)
        return y, gradient, z, question.gradient(question.rule)[0]

    y, gradient, z, wide = ask(both, jnp.exp)
    np.testing.assert_array_equal(y, z)
    assert 0 < np.abs(y - np.exp(X.astype(np.float64))).max() < 1e-5
    assert 0 < np.abs(gradient - wide).max() < 1e-5


def test_without_an_answer_it_is_unknown():
    def body(x):
        raise ZeroDivisionError

    assert ask(lambda question: 1, body) == "unknown"
    assert ask(lambda question: question.gradient(question.rule), lambda x: jax.pure_callback(np.sin, x, x)) == "unknown"


def test_a_body_that_stops_gradients_is_known_also_inside():
    assert not ask(lambda question: question.stops, jnp.sin)
    assert ask(lambda question: question.stops, lambda x: jax.jit(lambda x: x * jax.lax.stop_gradient(x))(x))


def test_precision_is_that_of_the_body():
    assert ask(lambda question: question.eps, jnp.sin) == np.finfo(np.float64).eps
    assert ask(lambda question: question.eps, lambda x: jnp.sin(x).astype(jnp.float32)) == np.finfo(np.float32).eps


def test_options_of_a_caller_do_not_reach_inside():
    with jax.disable_jit(), jax.debug_nans(True), jax.numpy_dtype_promotion("strict"), own_options():
        assert not jax.config.jax_disable_jit
        assert np.isnan(jnp.log(-jnp.ones(2)) * np.arange(2)).all()
