"""The factor traps of sharding, and eight planted faults: each is rejected and named."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.sharding import PartitionSpec as P

import nnjax
from nnjax.distributed import collectives as c
from nnjax.distributed import column_dense, fully_sharded, make_mesh, replicated, row_dense
from nnjax.distributed.cases import scored
from nnjax.distributed.check import check_draws
from nnjax.distributed.dense import row_dense_fwd
from nnjax.distributed.sharded import Sharded

MESH = {"data": 4, "model": 2}
KEY, ROWS = jax.random.key(0), P("data")
X = jax.random.normal(jax.random.key(1), (12, 6))
QUICK: dict[str, Any] = {"transforms": ["jit"], "dtypes": ["float32"]}


def plant(layer, change):
    """The layer whose bwd returns change(ct_params, ct_x)."""
    return layer._replace(bwd=lambda residuals, ct_y: change(*layer.bwd(residuals, ct_y)))


def held(sharded, layer, x_spec, y_spec, one, x=X):
    """The report on `layer`, and on the right one that it was made from."""
    how: dict[str, Any] = {"mesh": make_mesh(**MESH), "specs": (sharded.specs, x_spec, y_spec), "reference": one, **QUICK}
    params = jax.tree.map(lambda p: p + 0.1, sharded.layer.init(KEY))
    nnjax.check_layer(sharded.layer, params, x, **how).raise_if_failed()
    return nnjax.check_layer(layer, params, x, **how)


def named(report):
    assert not report.ok
    return {row.leaf: row.diagnosis.detail for row in report.failures if not row.case.startswith("apply")}


def of_copies(change):
    """replicated(dense) with another sum of its gradients."""
    one = nnjax.dense(6, 5)
    right = replicated(one, "data")
    wrong = right.layer._replace(bwd=lambda residuals, ct_y: change(*one.bwd(residuals, ct_y)))
    return held(right, wrong, ROWS, ROWS, one)


@pytest.mark.in_turn
def test_missing_psum():
    found = named(of_copies(lambda ct_params, ct_x: (ct_params, ct_x)))
    assert set(found) == {"params.w", "params.b"}
    for words in found.values():
        assert words.startswith("missing a sum over mesh axis data: devices differ")


def test_missing_psum_of_a_value():
    mesh, one = make_mesh(**MESH), nnjax.dense(6, 5)
    right = replicated(row_dense(6, 5, mesh), "data")
    wrong = right.layer._replace(fwd=lambda p, x, *, key=None: (x @ p.w, right.layer.fwd(p, x)[1]))
    found = named(held(right, wrong, P("data", "model"), ROWS, one))
    assert found["output"].startswith("missing a sum over mesh axis model")


def test_psum_twice():
    twice = of_copies(lambda ct_params, ct_x: (c.copy_to_t(c.copy_to(c.copy_to_t(ct_params, "data"), "data"), "data"), ct_x))
    found = named(twice)
    assert set(found) == {"params.w", "params.b"}
    assert all(words.startswith("larger by 4, the size of mesh axis data: summed twice?") for words in found.values())


def mean_over_devices(loss):
    """The mean over the devices' means, with the gradient of a single device's mean."""

    def apply(params, x, *, key=None):
        return lax.pmean(loss.apply(params, x), "data")

    def fwd(params, x, *, key=None):
        value, residuals = loss.fwd(params, x)
        return lax.pmean(value, "data"), residuals

    return loss._replace(apply=apply, fwd=fwd, bwd=lambda residuals, ct: loss.bwd(residuals, c.copy_to(ct, "data")))


@pytest.mark.in_turn
def test_pmean_of_an_already_summed_gradient():
    one, loss = nnjax.dense(6, 5), nnjax.softmax_cross_entropy()
    model = replicated(one, "data")
    wrong = plant(scored(model.layer, mean_over_devices(loss)), lambda ct, ct_x: (lax.pmean(ct, "data"), ct_x))
    labels = jax.random.randint(KEY, (12,), 0, 5, jnp.int32)
    report = nnjax.check_layer(
        wrong, one.init(KEY), (X, labels), mesh=make_mesh(**MESH), specs=(model.specs, (ROWS, ROWS), P()),
        reference=scored(one, loss), **QUICK,
    )  # fmt: skip
    found = named(report)
    for leaf in ("params.w", "params.b"):
        assert found[leaf].startswith("larger by 4, the size of mesh axis data: summed twice? or a pmean of what was")


@pytest.mark.in_turn
def test_wrong_axis():
    found = named(of_copies(lambda ct_params, ct_x: (c.copy_to_t(c.copy_to(ct_params, "model"), "model"), ct_x)))
    for leaf in ("params.w", "params.b"):
        assert found[leaf].startswith("missing a sum over mesh axis data")
        assert found[leaf].endswith("larger by 2, the size of mesh axis model: is it summed over the wrong axis?")


def test_unsharded_bias_summed_per_device():
    mesh, one = make_mesh(**MESH), nnjax.dense(6, 5)
    right = replicated(row_dense(6, 5, mesh), "data")

    def fwd(params, x, *, key=None):
        y = x @ params.w
        return c.reduce_from(y + params.b[None], "model"), row_dense_fwd(params, x, axis="model")[1]

    found = named(held(right, right.layer._replace(fwd=fwd), P("data", "model"), ROWS, one))
    assert set(found) == {"output"}
    assert found["output"].startswith("equals the reference with params.b times 2, the size of mesh axis model: is it added on")


def shift(pairs, transpose):
    """Sends the rows of every device on; transpose(ct_y) sends them back."""

    def apply(params, x, *, key=None):
        return lax.ppermute(x, "data", pairs)

    return nnjax.Layer(
        "shift", lambda key: (), apply, lambda p, x, *, key=None: (apply(p, x), None), lambda r, ct: ((), transpose(ct))
    )


def test_wrong_permutation():
    pairs = [(i, (i + 1) % 4) for i in range(4)]
    right = shift(pairs, lambda ct: lax.ppermute(ct, "data", [(b, a) for a, b in pairs]))
    wrong = shift(pairs, lambda ct: lax.ppermute(ct, "data", pairs))
    rolled = nnjax.Layer("roll", lambda key: (), lambda p, x, *, key=None: jnp.roll(x, 3, 0), right.fwd, right.bwd)
    report = held(Sharded(right, ()), wrong, ROWS, ROWS, rolled)
    assert {row.diagnosis.kind for row in report.failures if row.diagnosis} == {"permuted"}
    assert named(report)["x"].startswith("has every device's part 2 further along mesh axis data: sent on again instead")


@pytest.mark.in_turn
def test_gather_for_scatter():
    """gather_t takes the device's share, without the sum."""
    mesh, one = make_mesh(**MESH), nnjax.dense(6, 8)
    right = fully_sharded(one, mesh, "data")

    def bwd(residuals, ct_y):
        params, kept = residuals
        whole = c.gather(params, "data", [1, 0])
        (ct_w, ct_b), ct_x = one.bwd((whole, kept[1]), ct_y)
        at = lax.axis_index("data") * 2
        return nnjax.DenseParams(lax.dynamic_slice_in_dim(ct_w, at, 2, 1), lax.dynamic_slice_in_dim(ct_b, at, 2, 0)), ct_x

    report = held(right, right.layer._replace(bwd=bwd), ROWS, ROWS, one)
    found = named(report)
    assert set(found) == {"params.w", "params.b"}
    for words in found.values():
        assert words.startswith("every device along mesh axis data keeps only its part of its own gradient, without the sum")


@pytest.mark.in_turn
def test_dropout_key_equal_on_all_devices(monkeypatch):
    mesh, model = make_mesh(**MESH), replicated(nnjax.dropout(0.5), "data")
    right = check_draws(model, (), jnp.ones(64), mesh, key=KEY).raise_if_failed()
    assert [row.leaf for row in right.rows] == ["random numbers of apply", "random numbers of fwd"]
    monkeypatch.setattr("nnjax.distributed.mesh.jax.random.fold_in", lambda key, i: key)
    wrong = check_draws(model, (), jnp.ones(64), mesh, key=KEY)
    assert [row.error for row in wrong.failures] == [3.0, 3.0]
    for words in named(wrong).values():
        assert words.startswith("devices 0 and 1 along mesh axis data draw the same random numbers: is the key not folded")


def test_a_layer_that_draws_nothing_does_not_pass():
    mesh = make_mesh(**MESH)
    report = check_draws(replicated(nnjax.tanh(), "data"), (), jnp.ones(4), mesh, key=KEY)
    assert not report.ok
    assert "tanh on data=4: fwd draws no random numbers at this x" in str(report)


W, B = jnp.asarray(3.0), jnp.arange(1.0, 5.0)  # the loss is the mean of w b² / 2 over four devices


def whole(w, b):
    return w * (b * b).sum() / 8


def trap(gradient, check_vma):
    """A pair whose bwd is gradient(w, b of one device) inside jax.shard_map; the value is right."""
    mesh = make_mesh(data=4)
    run = jax.shard_map(gradient, mesh=mesh, in_specs=(P(), P("data")), out_specs=P(), check_vma=check_vma)
    return (lambda w, b: (whole(w, b), (w, b))), (lambda kept, ct: (ct * run(*kept), ct * kept[0] * kept[1] / 4)), mesh


def local(w, b):
    return w * (b * b).sum() / 2


def its_mean(w, b):
    return lax.pmean(local(w, b), "data")


TRAPS = {  # gradient on one device, check_vma, whether it is right
    "pmean of a gradient that is summed already": (lambda w, b: lax.pmean(jax.grad(local)(w, b), "data"), True, False),
    "grad of the mean": (lambda w, b: jax.grad(its_mean)(w, b), True, True),
    "grad of a psum without the books": (lambda w, b: lax.psum(jax.grad(its_mean)(w, b), "data"), False, False),
    "pmean of a gradient without the books": (lambda w, b: lax.pmean(jax.grad(local)(w, b), "data"), False, True),
}


@pytest.mark.parametrize("name", TRAPS)
def test_the_factor_traps(name):
    gradient, check_vma, right = TRAPS[name]
    fwd, bwd, mesh = trap(gradient, check_vma)
    report = nnjax.check_pair(fwd, bwd, W, B, reference=whole, mesh=mesh, witnesses=(), **QUICK)
    assert report.ok == right
    if not right:
        assert [row.leaf for row in report.failures] == ["w"]
        assert "larger by 4, the size of mesh axis data: summed twice?" in str(report)


def test_without_the_mesh_the_same_factor_has_no_name():
    fwd, bwd, _ = trap(TRAPS["pmean of a gradient that is summed already"][0], True)
    report = nnjax.check_pair(fwd, bwd, W, B, reference=whole, witnesses=(), **QUICK)
    assert "mesh axis" not in str(report)
    assert not report.ok


def test_a_cut_layer_whose_gradient_of_x_is_not_summed():
    mesh, one = make_mesh(**MESH), nnjax.dense(6, 4)
    right = replicated(column_dense(6, 4, mesh), "data")

    def bwd(residuals, ct_y):
        params, x = residuals
        ct_params, _ = right.layer.bwd(residuals, ct_y)
        return ct_params, ct_y @ params.w.T

    found = named(held(right, right.layer._replace(bwd=bwd), ROWS, P("data", "model"), one))
    assert set(found) == {"x"}
    assert found["x"].startswith("missing a sum over mesh axis model")
