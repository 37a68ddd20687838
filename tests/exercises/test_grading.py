import jax.numpy as jnp
import pytest

from nnjax import exercises
from nnjax.exercises.grading import EMPTY, RIGHT, WRONG


@pytest.mark.parametrize(
    "bwd",
    [
        lambda residuals, ct_y: (..., ..., ...),
        lambda residuals, ct_y: ...,
        lambda residuals, ct_y: None,
        lambda residuals, ct_y: (... - ct_y, ..., ct_y.sum(0)),
        lambda residuals, ct_y: (jnp.tanh(...), ..., ...),
        lambda residuals, ct_y: ((...).mean(0), ..., ...),
    ],
    ids=["ellipses", "one ellipsis", "None", "arithmetic", "a function", "a method"],
)
def test_what_is_not_filled_in_is_no_mistake(bwd):
    found = exercises.grade("batch_norm", bwd)
    assert (found.status, found.said, found.ok) == (EMPTY, {}, False)
    assert str(found) == f"batch_norm: {EMPTY}"


def test_a_function_that_is_not_written_yet_is_not_filled_in():
    def later(residuals, ct_y):
        raise NotImplementedError

    assert exercises.grade("attend", later).status == EMPTY


@pytest.mark.in_turn
def test_what_is_filled_in_is_graded_and_the_rest_is_not():
    found = exercises.grade("batch_norm", lambda residuals, ct_y: (..., 2 * (ct_y * residuals[0]).sum(0), ct_y.sum(0)))
    assert found.status == WRONG
    assert found.said == {"ct_x": EMPTY, "ct_gamma": "scaled: larger by 2", "ct_beta": RIGHT}
    assert {row.leaf for row in found.report.rows} == {"output", "gamma", "beta"}
    half = exercises.grade("batch_norm", lambda residuals, ct_y: (..., ..., ct_y.sum(0)))
    assert not half.ok
    assert half.report.ok


def test_what_is_raised_is_told_with_its_line():
    def crooked(residuals, ct_y):
        x, s = residuals
        return (ct_y[0] @ x,)

    found = exercises.grade("shares", crooked)
    assert found.status == WRONG
    assert "TypeError, in its line 3" in found.said["your function"]


def test_a_wrong_shape_and_a_wrong_number_of_cotangents_are_told():
    found = exercises.grade("batch_norm", lambda residuals, ct_y: (ct_y, (ct_y * residuals[0]).sum(0), ct_y))
    assert "broadcast" in found.said["ct_beta"]
    assert found.said["ct_gamma"] == RIGHT
    short = exercises.grade("batch_norm", lambda residuals, ct_y: (ct_y, ct_y.sum(0)))
    assert "a tuple of 3" in short.said["cotangents"]
    bare = exercises.grade("shares", lambda residuals, ct_y: ct_y[0])
    assert "a tuple of 1" in bare.said["cotangents"]


def test_a_term_without_the_cotangent_is_told():
    found = exercises.grade("cross_entropy", lambda residuals, ct_y: (ct_y * residuals[0] + 1, None))
    assert "not_linear" in found.said["ct_scores"]


def test_what_is_printed_has_a_line_for_each_cotangent_and_the_report():
    lines = str(exercises.grade("batch_norm", lambda residuals, ct_y: (..., ..., ct_y.mean(0)))).splitlines()
    assert lines[:3] == ["batch_norm: not right yet", f"  ct_x      {EMPTY}", f"  ct_gamma  {EMPTY}"]
    assert "a mean over the batch" in lines[3]
    assert "smaller by 6" in lines[5]


def test_names_and_functions_are_expected():
    with pytest.raises(ValueError, match=r"unknown exercise .*batch_norm"):
        exercises.grade("batchnorm", lambda residuals, ct_y: ...)
    with pytest.raises(ValueError, match="unknown exercise"):
        exercises.show("softmax")
    with pytest.raises(TypeError, match="must be a function"):
        exercises.grade("shares", (...,))


def test_show_prints_the_forward_and_the_shapes(capsys):
    exercises.show("convolve")
    printed = capsys.readouterr().out
    assert all(f"def {name}(" in printed for name in ("windows", "convolve", "convolve_fwd"))
    assert printed.splitlines()[-3:] == [
        "residuals: x (10, 2), w (3, 2, 4)", "ct_y:      (4, 4)", "to return: ct_x (10, 2), ct_w (3, 2, 4)",
    ]  # fmt: skip
    exercises.show("cross_entropy")
    assert capsys.readouterr().out.endswith("to return: ct_scores (5, 4), None\n")


def test_a_cotangent_that_is_no_array_is_named_with_the_shape_that_is_due():
    found = exercises.grade("shares", lambda residuals, ct_y: (ct_y,))
    assert found.status == WRONG
    assert "array of shape (4, 5)" in found.said["ct_x"]
    assert "tuple of 2" in found.said["ct_x"]
    assert "array of shape" in exercises.grade("shares", lambda residuals, ct_y: ("x",)).said["ct_x"]


def test_a_mean_in_place_of_a_sum_is_named():
    def averaged(residuals, ct_y):
        (x, s), (ct_share, ct_log) = residuals, ct_y
        ct_s = -(ct_share * x / s**2).mean(-1, keepdims=True) + ct_log / s
        return (ct_share / s + jnp.broadcast_to(ct_s, x.shape),)

    assert "mean" in exercises.grade("shares", averaged).said["ct_x"]
