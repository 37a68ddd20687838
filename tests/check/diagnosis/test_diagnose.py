import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.check.diagnosis.diagnose import Context, diagnose
from nnjax.check.witness.oracle import Budget

T = np.random.default_rng(0).standard_normal((6, 6))


def budget(t=T):
    return Budget(t, t, np.isfinite(t), np.array([6.0, 3.0]), np.zeros(2), np.zeros(2), np.array([1e-6, 1e-6]), False, "")


def changed(i, value):
    h = T.copy()
    h[i] = value
    return h


@pytest.mark.parametrize(
    ("h", "kind", "words"),
    [
        (-T, "negated", "minus"),
        (8 * T, "scaled", "larger by 8, the batch size: a mean written as a sum?"),
        (T / 8, "scaled", "smaller by 8, the batch size: a sum written as a mean?"),
        (1.001 * T, "scaled", "larger by 1.001"),
        (1.00001 * T, "scaled", "larger by 1.00001"),
        (-2 * T, "scaled", "larger by 2, and negated"),
        (0 * T, "zero", "zero everywhere"),
        (T.T, "transposed", "the transpose"),
        (changed((2, 3), 0), "partial", "1 of 36 entries and zero elsewhere"),
        (changed((2, 3), 9), "partial", r"first at [2, 3], worst at [2, 3]: 9 instead of"),
        (np.roll(T, 1, 0), "permuted", "another order"),
        (changed((0, 1), np.nan), "not_finite", "1 of 36 entries not finite, though the reference is; first at [0, 1]"),
        (np.random.default_rng(1).standard_normal((6, 6)), "unknown", "36 of 36 entries wrong"),
    ],
)
def test_kinds(h, kind, words):
    found = diagnose("x", h, budget(), Context(sizes=[("the batch size", 8)]))
    assert found.kind == kind
    assert words in found.detail


def test_values_have_the_digits_in_which_they_differ():
    found = diagnose("x", changed((2, 3), T[2, 3] + 1e-11), budget()._replace(bound=np.full(2, 1e-15)))
    ours, truth = found.detail.rsplit(": ", 1)[1].split(" instead of ")
    assert ours != truth
    assert float(truth) == pytest.approx(T[2, 3], abs=1e-12)


def test_a_wrong_value_is_not_a_wrong_gradient():
    assert diagnose("output", 2 * T, budget(), primal=True).kind == "wrong_primal"


def test_another_leafs_gradient_is_named():
    other = np.random.default_rng(5).standard_normal((6, 6))
    found = diagnose("w", other, budget(), Context(found={"w": budget(), "u": budget(other)}))
    assert found == ("permuted", "equals the reference of another leaf, u")


def test_the_missing_transpose_of_a_square_matrix_is_named():
    through = np.random.default_rng(5).standard_normal((6, 6))
    mistake = ("transposed", "equals the reference with w instead of its transpose", {"x": through})
    assert diagnose("x", through, budget(), Context(mistaken=lambda: [mistake])) == mistake[:2]
    assert diagnose("u", through, budget(), Context(mistaken=lambda: [mistake])).kind == "unknown"


def test_what_the_wrong_entries_have_in_common_is_reported():
    x = np.random.default_rng(7).standard_normal((6, 6))
    h = np.where(x > 0, T, 0)
    found = diagnose("x", h, budget(), Context(inputs={"x": x}))
    assert found.kind == "partial"
    assert "and zero elsewhere (it is right where x > 0)" in found.detail


def test_the_batch_size_is_the_first_axis_of_an_array_that_is_not_a_parameter():
    context = Context.of(("params.w", "x"), [np.zeros((8, 3)), np.zeros((8, 4))], {})
    assert context.sizes[0] == ("the batch size", 8)
    assert ("axis 0 of params.w", 8) in context.sizes


def test_another_leafs_gradient_is_known_within_its_own_bound():
    other = np.random.default_rng(2).standard_normal((6, 6))
    found = {"x": budget(), "y": budget(other)._replace(bound=np.array([0.1, 0.02]))}
    d = diagnose("x", other + 0.01, budget(), Context(found=found))
    assert (d.kind, d.detail) == ("permuted", "equals the reference of another leaf, y")
    assert diagnose("x", other + 0.1, budget(), Context(found=found)).kind == "unknown"


@pytest.mark.in_turn
def test_a_forgotten_mean_is_an_error_that_is_constant_along_its_axis():
    @jax.custom_vjp
    def centred(x):
        return x - jnp.broadcast_to(x.mean(-1, keepdims=True), x.shape)

    centred.defvjp(lambda x: (centred(x), ()), lambda _, ct: (ct,))
    report = nnjax.check_vjp(centred, jnp.asarray(np.random.default_rng(0).standard_normal((4, 5)), jnp.float32))
    assert "axis -1" in report.finding
    assert "mean" in report.finding
    assert "second" not in report.finding


def test_one_wrong_row_of_a_gradient_that_is_constant_along_an_axis_is_not_a_forgotten_mean():
    alike = np.repeat(T[:, :1], 6, 1)
    h = alike.copy()
    h[2] = h[1]
    assert diagnose("x", h, budget(alike)).kind == "partial"
