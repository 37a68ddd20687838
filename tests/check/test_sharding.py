from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.sharding import PartitionSpec as P

import nnjax

X = jax.random.normal(jax.random.key(1), (8, 3))
ONE = nnjax.dense(3, 2)
PARAMS = ONE.init(jax.random.key(0))._replace(b=jnp.arange(2.0))
SPECS = (P(), P("data"), P("data"))


@pytest.fixture
def mesh():
    return jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))


def copied(total):
    """The layer with a copy of its parameters on every device of the axis data, whose transpose is `total`."""

    def to_all(params):
        return jax.tree.map(lambda p: lax.pcast(p, "data", to="varying"), params)

    def bwd(residuals, ct_y):
        ct_params, ct_x = ONE.bwd(residuals, ct_y)
        return jax.tree.map(total, ct_params), ct_x

    return ONE._replace(
        apply=lambda p, x, *, key=None: ONE.apply(to_all(p), x), fwd=lambda p, x, *, key=None: ONE.fwd(to_all(p), x), bwd=bwd
    )


RIGHT = copied(lambda g: lax.psum(g, "data"))


@pytest.mark.slow
@pytest.mark.in_turn
def test_every_leaf_is_compared_by_hand_and_by_apply(mesh):
    report = nnjax.check_layer(RIGHT, PARAMS, X, mesh=mesh, specs=SPECS, reference=ONE).raise_if_failed()
    assert {row.leaf for row in report.rows} == {"output", "params.w", "params.b", "x"}
    assert {(row.case, row.transform) for row in report.rows} == {
        ("dense(3, 2) on data=4", "eager"), ("dense(3, 2) on data=4", "jit"), ("apply of dense(3, 2) on data=4", "jit"),
    }  # fmt: skip
    assert {row.dtype for row in report.rows} == {"float64", "float32", "bfloat16", "float16"}


@pytest.mark.slow
@pytest.mark.in_turn
def test_other_transforms_and_witnesses_on_demand(mesh):
    how: dict[str, Any] = {"mesh": mesh, "specs": SPECS, "reference": ONE, "dtypes": ["float32", "float64"]}
    report = nnjax.check_layer(RIGHT, PARAMS, X, **how, full=True, witnesses=["adjoint", "taylor"]).raise_if_failed()
    assert {row.transform for row in report.rows} == {"eager", "jit", "vmap", "scan", "checkpoint", "second"}
    assert {row.witness for row in report.rows} == {"reference", "adjoint", "taylor"}
    wrong = copied(lambda g: 1.01 * lax.psum(g, "data"))
    assert {row.leaf for row in nnjax.check_layer(wrong, PARAMS, X, **how).failures} == {"params.w", "params.b"}


@pytest.mark.in_turn
def test_a_missing_sum_is_a_row_in_every_transform_and_not_an_exception(mesh):
    report = nnjax.check_layer(
        copied(lambda g: g), PARAMS, X, mesh=mesh, specs=SPECS, reference=ONE, dtypes=["float32", "bfloat16"]
    )
    assert {(row.leaf, row.transform, row.dtype) for row in report.failures} == {
        (leaf, t, d) for leaf in ("params.w", "params.b") for t in ("eager", "jit") for d in ("float32", "bfloat16")
    }
    assert {row.diagnosis.kind for row in report.failures if row.diagnosis} == {"partial"}
    assert "missing a sum over mesh axis data" in str(report)


@pytest.mark.in_turn
def test_an_apply_that_is_wrong_is_found_though_the_pair_is_right(mesh):
    wrong = RIGHT._replace(apply=lambda p, x, *, key=None: RIGHT.apply(p, 2 * x))
    report = nnjax.check_layer(wrong, PARAMS, X, mesh=mesh, specs=SPECS, reference=ONE, transforms=["jit"])
    assert {row.case for row in report.failures} == {"apply of dense(3, 2) on data=4"}


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ({"mesh": None}, ValueError, r"specs= and reference= need a mesh; pass mesh= too"),
        ({"mesh": 4}, TypeError, r"mesh must be a jax.sharding.Mesh, got int; make one with jax.make_mesh"),
        ({"specs": None}, ValueError, r"specs must be \(specs of params, of x, of y\), got NoneType; pass"),
        ({"reference": None}, ValueError, r"with mesh=, a reference is needed; pass reference="),
        ({"reference": nnjax.dense}, TypeError, r"expected a Layer, got dense; call the factory"),
        ({"devices": [None]}, ValueError, r"a mesh has its own devices; pass mesh= or devices=, not both"),
        ({"specs": (P(), P(None, "data"), P())}, ValueError,
         r"x of shape \(8, 3\) cannot be split .*spec .*'data'.* mesh of data=4"),
        ({"specs": (P("rows"), P(), P())}, ValueError, r"params.w of shape \(3, 2\) cannot be split as its spec says"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(how, error, message, mesh):
    call: dict[str, Any] = {"mesh": mesh, "specs": SPECS, "reference": ONE, **how}
    with pytest.raises(error, match=message):
        nnjax.check_layer(RIGHT, PARAMS, X, **call)
