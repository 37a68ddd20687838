import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.check.auditing.listening import SHAPES, Drawn, listening


def sine():
    @jax.custom_vjp
    def sine(x):
        return jnp.sin(x)

    sine.defvjp(lambda x: (jnp.sin(x), x), lambda x, ct: (jnp.cos(x) * ct,))
    return sine


def heard_of(program, keep=None):
    heard = []
    with listening(heard, keep):
        program()
    return heard


def test_calls_are_counted_and_values_kept_until_listening_ends():
    rule = sine()
    (entry,) = heard_of(lambda: [rule(jnp.ones(n)) for n in (2, 2, 3)])
    rule(jnp.ones(7))
    assert entry.calls == [3]
    assert entry.title.name == "sine"
    assert [call.leaves[0].shape for call in entry.samples] == [(2,), (2,), (3,)]
    assert not entry.samples[0].drawn


def test_what_is_traced_is_drawn_later_in_several_ways():
    rule = sine()
    (entry,) = heard_of(lambda: jax.jit(rule)(jnp.ones((2, 3))))
    (call,) = entry.samples
    assert call.leaves == (Drawn((2, 3), np.dtype(np.float32)),)
    assert call.drawn
    drawn = [args[0] for args, _ in call.filled(0)]
    assert {x.shape for x in drawn} == {(2, 3)}
    assert (drawn[0] < 0).any()
    assert ((drawn[1] > 0) & (drawn[1] < 1)).all()
    assert (drawn[2] >= 1).all()


@pytest.mark.parametrize("dtype", [np.complex64, np.int32, bool, jax.random.key(0).dtype], ids=str)
def test_every_dtype_can_be_drawn(dtype):
    rule = jax.custom_jvp(lambda x: x)
    rule.defjvp(lambda p, t: (p[0], t[0]))
    (entry,) = heard_of(lambda: jax.eval_shape(rule, jax.ShapeDtypeStruct((3,), dtype)))
    args, _ = next(entry.samples[0].filled(0))
    assert args[0].dtype == dtype
    assert args[0].shape == (3,)


def test_arguments_are_copied_where_a_program_may_give_them_away():
    rule = sine()

    def program():
        x = jnp.ones(4)
        rule(x)
        x.delete()

    (entry,) = heard_of(program, keep=1000)
    np.testing.assert_array_equal(entry.samples[0].leaves[0], np.ones(4))


def test_only_the_shape_of_large_arguments_is_kept():
    rule = sine()
    (entry,) = heard_of(lambda: (rule(jnp.ones(4)), rule(jnp.ones(400))), keep=1000)
    assert [call.drawn for call in entry.samples] == [False, True]


@pytest.mark.in_turn
def test_only_a_few_of_many_shapes_are_kept():
    rule = sine()
    (entry,) = heard_of(lambda: [jax.eval_shape(rule, jnp.ones(n)) for n in range(40)], keep=1000)
    assert entry.calls == [40]
    assert len(entry.samples) == SHAPES


@pytest.mark.in_turn
def test_no_tracer_is_kept():
    kept = []

    def program():
        def scaled(a):
            kept.append(weakref.ref(a))
            times = jax.custom_jvp(lambda x: x * a)
            times.defjvp(lambda p, t: (times(*p), a * t[0]))
            return times(jnp.ones(3)) + statically(lambda x: x * a, jnp.ones(3))

        statically = jax.custom_jvp(lambda f, x: f(x), nondiff_argnums=(0,))
        statically.defjvp(lambda f, p, t: (f(*p), f(*t)))
        jax.make_jaxpr(scaled)(2.0)

    heard = heard_of(program, keep=1000)
    assert [len(entry.samples) for entry in heard] == [0, 0]
    assert heard[0].rule is None
    gc.collect()
    assert kept[0]() is None


@jax.tree_util.register_pytree_node_class
class Box:
    """A pytree node that takes only arrays."""

    def __init__(self, value):
        self.value = value if type(value) is object or value is None else jnp.asarray(value)

    def tree_flatten(self):
        return (self.value,), None

    @classmethod
    def tree_unflatten(cls, aux, children):
        return cls(*children)


@pytest.mark.parametrize("keep", [None, 1000])
def test_a_node_that_takes_only_arrays_is_kept(keep):
    rule = jax.custom_vjp(lambda box: box.value**2)
    rule.defvjp(lambda box: (box.value**2, box), lambda box, ct: (Box(2 * box.value * ct),))
    (entry,) = heard_of(lambda: (rule(Box(jnp.arange(3.0))), jax.jit(rule)(Box(jnp.ones(2)))), keep)
    assert [call.drawn for call in entry.samples] == [False, True]
    (box,), _ = next(entry.samples[1].filled(0))
    assert box.value.shape == (2,)


def test_calls_that_differ_only_in_a_static_argument_are_kept():
    rule = jax.custom_jvp(lambda x, mode: x, nondiff_argnums=(1,))
    rule.defjvp(lambda mode, p, t: (p[0], t[0]))
    (entry,) = heard_of(lambda: [rule(jnp.ones(2), mode) for mode in "abcdef"])
    assert len(entry.samples) == 6


def test_values_under_grad_and_vmap_are_those_of_the_program():
    rule = sine()
    with jax.disable_jit():
        (entry,) = heard_of(lambda: jax.grad(lambda x: rule(x * 3).sum())(jnp.ones(2)))
    np.testing.assert_array_equal(entry.samples[0].leaves[0], [3, 3])
    with jax.disable_jit():
        (entry,) = heard_of(lambda: jax.vmap(rule)(jnp.arange(6.0).reshape(3, 2)))
    np.testing.assert_array_equal(entry.samples[0].leaves[0], [0, 1])
    assert entry.samples[0].mapped


def test_a_buffer_that_a_program_writes_into_is_copied():
    rule, buffer = sine(), np.ones(2, np.float32)

    def program():
        rule(buffer)
        buffer[:] = 5

    (entry,) = heard_of(program)
    np.testing.assert_array_equal(entry.samples[0].leaves[0], [1, 1])


def test_what_cannot_be_kept_is_reported_and_does_not_disturb_the_program(monkeypatch):
    def refuses(*args):
        raise ZeroDivisionError("not kept")

    for name in ("_kept", "source"):
        with monkeypatch.context() as patched:
            patched.setattr(f"nnjax.check.auditing.listening.{name}", refuses)
            report = nnjax.audit(sine(), jnp.ones(3))
        assert not report.ok
        assert "not checked: not kept: ZeroDivisionError" in report.notes[0]
