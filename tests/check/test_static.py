"""Static arguments, by position and by keyword, in all kinds of checks."""

import enum
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.check.options import EVERYWHERE, IN_WIDE


class Mode(enum.Enum):
    TWICE = 2


def power(n, pad, dtype, name, how=Mode.TWICE):
    """A body with every kind of static argument, and a rule for it, with a wrong factor on request."""

    def body(x, n, pad, dtype, name, how, f):
        y = f(x.reshape(-1, n)).max(1) if name == "max" else f(x.reshape(-1, n)).sum(1)
        return jnp.pad(y, pad).astype(x.dtype) * jnp.asarray(how.value, dtype).astype(x.dtype)

    return body, (n, pad, dtype, name, how, jnp.sin)


STATIC = [(2, (1, 1), jnp.float32, "sum"), (2, (0, 1), np.float32, "max"), (1, ((2, 0),), np.dtype("float32"), "sum"),
          (True, (0, 0), "float32", "sum"), (np.int64(2), [(0, 1)], jnp.bfloat16, "max")]  # fmt: skip


@pytest.mark.parametrize("given", STATIC, ids=str)
@pytest.mark.parametrize("by", ["position", "keyword"])
@pytest.mark.slow
@pytest.mark.in_turn
def test_static_arguments_reach_a_function_as_they_are(given, by):
    body, args = power(*given)
    x = jnp.linspace(-1.0, 1.2, 8)
    args, kwargs = (args, {}) if by == "position" else ((), dict(zip(("n", "pad", "dtype", "name", "how", "f"), args)))
    how = {"dtypes": ["float64", "float32"], **kwargs}
    report = nnjax.check_vjp(body, x, *args, reference=body, **how).raise_if_failed()
    assert {row.leaf for row in report.rows} == {"output", "x"}
    assert {row.transform for row in report.rows} == {*EVERYWHERE, *IN_WIDE}
    doubled = nnjax.check_vjp(lambda x, *a, **k: 2 * body(x, *a, **k), x, *args, reference=body, **how)
    assert {row.leaf for row in doubled.failures} == {"output", "x"}


@pytest.mark.parametrize("given", STATIC[::2], ids=str)
@pytest.mark.parametrize("by", ["position", "keyword"])
@pytest.mark.repeats
@pytest.mark.in_turn
def test_static_arguments_of_a_pair(given, by):
    body, args = power(*given)
    x = jnp.linspace(-1.0, 1.2, 8)

    def fwd(x, *static):
        return body(x, *static), (x, body(x, *static))

    def named_fwd(x, n, pad, dtype, name, how, f):
        return fwd(x, n, pad, dtype, name, how, f)

    for factor in (1, 1.01):

        def bwd(kept, ct, factor=factor):
            _, pull = jax.vjp(lambda x: body(x, *power(*given)[1]), kept[0])
            return (factor * pull(ct)[0], *(None,) * 6)

        args_, kwargs = (args, {}) if by == "position" else ((), dict(zip(("n", "pad", "dtype", "name", "how", "f"), args)))
        report = nnjax.check_pair(named_fwd, bwd, x, *args_, reference=body, dtypes=["float32"], **kwargs)
        assert report.ok == (factor == 1), report
        assert "cotangents" not in {row.leaf for row in report.rows}


@pytest.mark.parametrize("where", ["argnums", "argnames"])
@pytest.mark.in_turn
def test_static_arguments_of_a_rule_by_position_and_by_keyword(where):
    def make(factor):
        def f(x, axis=None, keep=False, scale=1.0):
            return scale * jnp.sum(x * x, axis=axis, keepdims=keep)

        named = {"nondiff_argnums": (1, 2, 3)} if where == "argnums" else {"nondiff_argnames": ("axis", "keep", "scale")}
        rule = jax.custom_vjp(f, **named)

        def bwd(axis, keep, scale, x, ct):
            ct = ct if keep or axis is None else jnp.expand_dims(ct, axis)
            return (factor * 2 * scale * x * jnp.broadcast_to(ct if ct.ndim else ct[None, None], x.shape),)

        rule.defvjp(lambda x, axis, keep, scale: (f(x, axis, keep, scale), x), bwd)
        return rule

    x, how = jnp.arange(6.0).reshape(2, 3), {"transforms": ["jit", "vmap"], "dtypes": ["float64", "float32"]}
    for args, kwargs in (((1, False, 2.5), {}), ((), {"axis": 1, "scale": 2.5}), ((0,), {"keep": True}), ((), {})):
        report = nnjax.check_vjp(make(1), x, *args, **how, **kwargs)
        assert report.ok, report
        assert {row.leaf for row in report.rows} == {"output", "x"}
        assert not nnjax.check_vjp(make(1.01), x, *args, **how, **kwargs).ok


@pytest.mark.in_turn
def test_a_python_float_has_a_derivative_and_one_that_is_closed_over_has_none():
    def f(x, eps):
        return x / jnp.sqrt(jnp.square(x) + eps)

    x = jnp.linspace(-1.0, 1.0, 5)
    assert {row.leaf for row in nnjax.check_vjp(f, x, 0.5, reference=f).raise_if_failed().rows} == {"output", "x", "eps"}
    closed = functools.partial(f, eps=0.5)
    assert {row.leaf for row in nnjax.check_vjp(closed, x, reference=closed).raise_if_failed().rows} == {"output", "x"}
