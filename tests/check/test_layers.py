import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax

WIDE = nnjax.dense(4, 4)
MODEL = nnjax.serial(nnjax.dense(4, 4), nnjax.sigmoid(), nnjax.dense(4, 3))
X = jax.random.normal(jax.random.key(1), (8, 4))
QUICK = {"dtypes": ["float64", "float32"], "transforms": ["eager", "jit"], "witnesses": ()}
LOSS_X = (jax.random.normal(jax.random.key(2), (8, 5)), jnp.arange(8) % 5)


def params_of(layer):
    params = layer.init(jax.random.key(0))
    return jax.tree.map(lambda p: p + 0.1, params)


def planted(layer, change):
    """The layer with a wrong backward: change(right (ct_params, ct_x), residuals, ct_y)."""
    return layer._replace(bwd=lambda residuals, ct_y: change(layer.bwd(residuals, ct_y), residuals, ct_y))


def one_entry_of_ten_thousand(right, residuals, ct_y):
    (ct_params, ct_x) = right
    return ct_params._replace(w=ct_params.w.at[37, 61].set(0)), ct_x


def stale(layer):
    """Keeps the input of the forward pass with one row repeated, as a cache that was not refreshed would."""
    return layer._replace(fwd=lambda p, x, *, key=None: (layer.apply(p, x), (p, jnp.roll(x, 1, 0))))


def without_sigma_prime():
    sigmoid = planted(nnjax.sigmoid(), lambda right, residuals, ct_y: ((), ct_y))
    return nnjax.serial(nnjax.dense(4, 4), sigmoid, nnjax.dense(4, 3))


BIG = nnjax.dense(100, 100)
BIG_X = jax.random.normal(jax.random.key(3), (8, 100))
CE = nnjax.softmax_cross_entropy()
PLANTED = {
    "no transpose on a square w": (planted(WIDE, lambda c, r, ct: (c[0], ct @ r[0].w)), X, {"x"}),
    "missing sigma'": (without_sigma_prime(), X, {"params[0].w", "params[0].b", "x"}),
    "mean for sum": (planted(WIDE, lambda c, r, ct: (c[0]._replace(b=c[0].b / 8), c[1])), X, {"params.b"}),
    "sum for mean": (planted(CE, lambda c, r, ct: ((), (c[1][0] * 8, None))), LOSS_X, {"x[0]"}),
    "flipped sign": (planted(WIDE, lambda c, r, ct: (c[0], -c[1])), X, {"x"}),
    "times 1.001": (planted(WIDE, lambda c, r, ct: (c[0]._replace(w=1.001 * c[0].w), c[1])), X, {"params.w"}),
    "one entry of 10,000 zeroed": (planted(BIG, one_entry_of_ten_thousand), BIG_X, {"params.w"}),
    "stale residual": (stale(WIDE), X, {"params.w"}),
    "zero bias gradient": (planted(WIDE, lambda c, r, ct: (c[0]._replace(b=0 * c[0].b), c[1])), X, {"params.b"}),
}


@pytest.mark.parametrize("name", PLANTED)
@pytest.mark.repeats
@pytest.mark.in_turn
def test_planted_faults_are_rejected_and_their_leaf_is_named(name):
    layer, x, leaves = PLANTED[name]
    for seed in range(3):
        report = nnjax.check_layer(layer, params_of(layer), x, seed=seed, **QUICK)
        assert not report.ok
        assert {row.leaf for row in report.failures} == leaves
        assert all(leaf in str(report) for leaf in leaves)
        for transform in ("eager", "jit"):
            assert {r.leaf for r in report.failures if r.transform == transform and r.dtype == "float32"} == leaves


@pytest.mark.slow
@pytest.mark.in_turn
def test_the_right_backward_of_each_planted_fault_passes():
    for layer, x in ((WIDE, X), (MODEL, X), (CE, LOSS_X), (BIG, BIG_X)):
        report = nnjax.check_layer(layer, params_of(layer), x).raise_if_failed()
        assert {row.dtype for row in report.rows} == {"float64", "float32", "bfloat16", "float16"}


@pytest.mark.in_turn
def test_a_wrong_layer_inside_a_composition_is_named():
    bad = nnjax.serial(WIDE, nnjax.residual(planted(WIDE, lambda c, r, ct: (c[0]._replace(b=0 * c[0].b), c[1]))))
    report = nnjax.check_layer(bad, params_of(bad), X)
    assert {(row.leaf, row.layer) for row in report.failures} == {("params[1].b", "1/residual:dense(4, 4)")}


def test_a_wrong_value_of_fwd_is_reported():
    bad = WIDE._replace(fwd=lambda p, x, *, key=None: (WIDE.apply(p, x) * 1.01, (p, x)))
    report = nnjax.check_layer(bad, params_of(bad), X)
    assert {(row.leaf, row.diagnosis.kind) for row in report.failures if row.diagnosis} == {("output", "wrong_primal")}


@pytest.mark.parametrize(
    ("change", "leaf", "kind"),
    [
        (lambda c, r, ct: (c[0]._replace(b=ct), c[1]), "params.b", "wrong_shape"),
        (lambda c, r, ct: (tuple(c[0]), c[1]), "cotangents", "wrong_shape"),
        (lambda c, r, ct: (c[0], c[1].astype(jnp.float16)), "x", "wrong_dtype"),
        (lambda c, r, ct: (c[0], None), "x", "zero"),
        (lambda c, r, ct: (c[0], (c[1],)), "x", "wrong_shape"),
    ],
)
def test_shape_dtype_and_tree_of_cotangents_are_checked(change, leaf, kind):
    bad = planted(WIDE, change)
    report = nnjax.check_layer(bad, params_of(bad), X, dtypes=["float32"])
    assert (leaf, kind) in {(row.leaf, row.diagnosis.kind) for row in report.failures if row.diagnosis}


def test_residuals_must_be_arrays():
    bad = WIDE._replace(fwd=lambda p, x, *, key=None: (WIDE.apply(p, x), (p, x, 3.0)), bwd=lambda r, ct: WIDE.bwd(r[:2], ct))
    report = nnjax.check_layer(bad, params_of(bad), X, dtypes=["float32"], transforms=["eager"])
    assert [(row.leaf, row.diagnosis.kind) for row in report.failures if row.diagnosis] == [("residuals", "wrong_dtype")]
    assert "a residual is a float, not an array" in str(report)


@pytest.mark.slow
@pytest.mark.in_turn
def test_a_bias_before_a_normalisation_raises_no_alarm():
    centre = nnjax.serial(nnjax.dense(4, 3), nnjax.log_softmax(), nnjax.softmax())

    def apply(params, x, *, key=None):  # the mean over the batch is removed: the bias before it has no effect
        y = nnjax.dense(4, 3).apply(params, x)
        return y - jnp.broadcast_to(y.mean(0, keepdims=True), y.shape)

    def bwd(residuals, ct_y):
        return nnjax.dense(4, 3).bwd(residuals, ct_y - jnp.broadcast_to(ct_y.mean(0, keepdims=True), ct_y.shape))

    layer = nnjax.Layer("centred", nnjax.dense(4, 3).init, apply, lambda p, x, *, key=None: (apply(p, x), (p, x)), bwd)
    for seed in range(20):
        report = nnjax.check_layer(layer, params_of(layer), X, seed=seed, **QUICK).raise_if_failed()
        held = [row for row in report.rows if row.leaf == "params.b" and row.transform == "jit"]
        assert {row.status for row in held if row.witness == "reference"} == {"zero"}
    assert nnjax.check_layer(centre, params_of(centre), X).ok


@pytest.mark.in_turn
def test_a_check_of_a_saturated_input_alone_proves_nothing_and_says_so():
    report = nnjax.check_layer(nnjax.softmax(), (), jnp.array([[1000.0, -1000.0, 0.0]]), dtypes=["bfloat16", "float64"])
    assert not report.failures
    assert nnjax.check_layer(nnjax.softmax(), (), jnp.array([[1.0, -1.0, 0.0]])).ok
    nearly = nnjax.check_layer(nnjax.softmax(), (), jnp.array([[500.0, -500.0, 0.0]]))
    assert not nearly.ok
    assert "proves nothing" in str(nearly)


def test_the_verdict_does_not_depend_on_numpy_or_jax_inputs():
    assert nnjax.check_layer(WIDE, jax.tree.map(np.asarray, params_of(WIDE)), np.asarray(X)).ok
