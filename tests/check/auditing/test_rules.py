import contextlib
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import nnjax
from nnjax.check.auditing.rules import body_of, rule_of, same_rule, source, static_numbers

X = jnp.linspace(0.5, 2.0, 5)


def sine(factor, body=jnp.sin):
    @jax.custom_vjp
    def f(x):
        return body(x)

    f.defvjp(lambda x: (body(x), x), lambda x, ct: (factor * ct * jnp.cos(x),))
    return f


def test_a_rule_is_found_under_jit():
    rule = jax.custom_vjp(jnp.sin)
    assert rule_of(jax.jit(rule)) is rule
    assert body_of(jax.jit(rule)) is jnp.sin
    assert rule_of(jnp.sin) is None
    assert body_of(3) is None


def test_a_function_made_from_a_rule_is_a_different_one():
    rule = jax.custom_vjp(jnp.sin)
    rule.defvjp(lambda x: (jnp.sin(x), x), lambda x, ct: (ct * jnp.cos(x),))
    assert rule_of(jax.vmap(rule)) is None
    with pytest.raises(TypeError, match="reference"):
        nnjax.check_vjp(jax.vmap(rule), jnp.ones((2, 3)))


def test_static_arguments_are_known_by_number():
    assert static_numbers(jax.custom_vjp(lambda x, n: x, nondiff_argnums=(1,))) == (1,)
    assert static_numbers(jax.custom_jvp(lambda x: x)) == ()


def test_rules_with_the_same_code_and_closure_are_one():
    assert same_rule(sine(2.0), sine(2.0))
    assert not same_rule(sine(2.0), sine(3.0))
    assert not same_rule(sine(2.0), sine(2.0, jnp.tan))
    assert not same_rule(sine(2.0, partial(jnp.sum, axis=0)), sine(2.0, partial(jnp.sum, axis=1)))
    assert same_rule(sine(2.0, partial(jnp.sum, axis=0)), sine(2.0, partial(jnp.sum, axis=0)))
    assert not same_rule(sine(X[0]), sine(X[0] + 1))  # the content of arrays is ignored


def in_a_loop(factors):
    def program(x):
        for factor in factors:
            x = sine(factor)(x)
        return x

    return program


@pytest.mark.in_turn
def test_a_rule_made_at_each_call_counts_once_and_a_different_one_is_found():
    (note,) = nnjax.audit(in_a_loop([1.0] * 4), X).notes
    assert "4 calls, ok" in note
    notes = nnjax.audit(in_a_loop([1.0, 1.0, 1.1]), X).notes
    assert sorted(note.rpartition("): ")[2][:13] for note in notes) == ["1 call, FAULT", "2 calls, ok"]


def by_custom_gradient(factor):
    @jax.custom_gradient
    def wave(x):
        return jnp.sin(x), lambda ct: (factor * ct * jnp.cos(x),)

    return wave


def by_equinox(factor):
    @eqx.filter_custom_vjp
    def wave(x, n):
        return x**n

    @wave.def_fwd
    def fwd(perturbed, x, n):
        return x**n, None

    @wave.def_bwd
    def bwd(residuals, ct, perturbed, x, n):
        return factor * n * x ** (n - 1) * ct

    return lambda x: wave(x, 3)


def by_symbolic_zeros(factor):
    @jax.custom_vjp
    def wave(x, y):
        return x * y

    def bwd(residuals, ct):
        if isinstance(ct, jax.custom_derivatives.SymbolicZero):
            return None, None
        return factor * ct * residuals[1], ct * residuals[0]

    wave.defvjp(lambda x, y: (x.value * y.value, (x.value, y.value)), bwd, symbolic_zeros=True)
    return lambda x: wave(x, 2 * x)


def by_optimize_remat(factor):
    @jax.custom_vjp
    def wave(x):
        return jnp.sin(x)

    wave.defvjp(lambda x: (jnp.sin(x), x), lambda x, ct: (factor * ct * jnp.cos(x),), optimize_remat=True)
    return wave


def by_partial(factor):
    @partial(jax.custom_vjp, nondiff_argnums=(1,))
    def wave(x, n):
        return x**n

    wave.defvjp(lambda x, n: (x**n, x), lambda n, x, ct: (factor * ct * n * x ** (n - 1),))
    return lambda x: wave(x, n=3)


@pytest.mark.parametrize("make", [by_custom_gradient, by_equinox, by_symbolic_zeros, by_optimize_remat, by_partial])
@pytest.mark.repeats
@pytest.mark.in_turn
def test_whatever_a_rule_is_written_with_it_is_found_and_named_as_its_author_did(make):
    for factor, verdict in ((1.0, "ok"), (1.1, "FAULT")):
        report = nnjax.audit(make(factor), X)
        (note,) = [note for note in report.notes if f", {verdict}" in note]
        assert note.startswith("wave (")
        assert "test_rules.py:" in note
        assert report.ok == (verdict == "ok")


@contextlib.contextmanager
def flagged(name):
    if not hasattr(jax.config, name):
        pytest.skip(f"this JAX has no {name}")
    jax.config.update(name, True)
    try:
        yield
    finally:
        jax.config.update(name, False)


@pytest.mark.parametrize("flag", ["jax_custom_vjp3", "jax_custom_jvp3"])
@pytest.mark.in_turn
def test_an_audit_hears_rules_while_jax_makes_them_in_the_new_way(flag):
    with flagged(flag):
        for factor in (1.0, 1.1):
            rule = sine(factor)
            forward = jax.custom_jvp(jnp.sin)
            forward.defjvp(lambda p, t, factor=factor: (jnp.sin(p[0]), factor * jnp.cos(p[0]) * t[0]))
            for f in (rule, forward, jax.jit(lambda x, rule=rule: rule(x))):
                assert nnjax.audit(f, X).ok == (factor == 1), f
            assert nnjax.check_vjp(rule, X, dtypes=["float32"], transforms=["jit"], witnesses=()).ok == (factor == 1)


def test_the_line_is_that_of_the_rule():
    f = sine(1.0)
    name, where = source(f)
    assert name == "f"
    assert int(where.rpartition(":")[2]) == f.bwd.__code__.co_firstlineno > body_of(f).__code__.co_firstlineno


@pytest.mark.in_turn
def test_a_rule_written_as_a_hijax_primitive_is_heard_and_checked():
    hijax = pytest.importorskip("jax.experimental.hijax")
    base = getattr(hijax, "HiPrim", None) or getattr(hijax, "VJPHiPrimitive", None)
    assert base, "JAX has given its primitives another name again: an audit would not hear them"

    class Cube(base):
        def __init__(self, factor):
            aval = jax.typeof(X)
            self.in_avals, self.out_aval, self.params = (aval,), aval, {"factor": factor}
            super().__init__()

        def expand(self, x):
            return x**3

        def vjp_fwd(self, nzs_in, /, x):
            return self(x), x

        def vjp_bwd_retval(self, x, ct, /):
            return (self.factor * x**2 * ct,)

    for factor, verdict in ((3.0, "ok"), (3.3, "FAULT")):
        report = nnjax.audit(lambda x, factor=factor: jax.nn.relu(Cube(factor)(x)), X)
        (note,) = [note for note in report.notes if note.startswith("Cube (")]
        assert f"1 call, {verdict}" in note, note
        assert "test_rules.py" in note
