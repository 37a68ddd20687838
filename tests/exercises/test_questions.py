"""The solutions that are folded away in the notebook are right, and its cells to fill in are told so."""

import itertools
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import nbformat
import numpy as np
import pytest

from nnjax import exercises
from nnjax.exercises.grading import SAME
from nnjax.linear import broadcast

NOTEBOOK = nbformat.read(Path(__file__).parents[2] / "notebooks" / "08_exercises.ipynb", as_version=4)


def names():
    return {"jax": jax, "jnp": jnp, "broadcast": broadcast, "exercises": exercises}


def solutions():
    """{exercise: its backward}, from the folded blocks."""
    text = "\n".join(cell.source for cell in NOTEBOOK.cells if cell.cell_type == "markdown")
    found = names()
    for block in re.findall(r"<details>.*?</details>", text, re.DOTALL):
        (code,) = re.findall(r"```python\n(.*?)```", block, re.DOTALL)
        exec(code, found)
    return {name.removesuffix("_bwd"): f for name, f in found.items() if name.endswith("_bwd")}


def test_every_exercise_has_a_solution_in_the_notebook():
    assert list(solutions()) == list(exercises.EXERCISES)
    assert len(exercises.EXERCISES) >= 7


@pytest.mark.parametrize("name", exercises.EXERCISES)
@pytest.mark.repeats
@pytest.mark.in_turn
def test_the_solution_is_right(name):
    found = exercises.grade(name, solutions()[name])
    assert found.ok, str(found)
    assert set(found.said.values()) == {"right"}


@pytest.mark.in_turn
def test_every_cell_to_fill_in_is_graded_as_not_filled_in(capsys):
    cells = [cell.source for cell in NOTEBOOK.cells if cell.cell_type == "code" and "_bwd(" in cell.source]
    for cell, name in zip(cells, exercises.EXERCISES, strict=True):
        exec(cell, names())
        assert capsys.readouterr().out == f"{name}: not filled in yet\n"


@pytest.mark.parametrize("name", exercises.EXERCISES)
@pytest.mark.in_turn
def test_known_mistakes_are_far_from_the_truth_and_from_each_other(name):
    exercise = exercises.EXERCISES[name]
    args = exercise.arguments()
    y, pull = jax.vjp(exercise.forward, *args)
    rng = np.random.default_rng(4)
    ct_y = jax.tree.map(lambda v: jnp.asarray(rng.uniform(0.5, 1.5, v.shape), v.dtype), y)
    truth = dict(zip(exercise.names, pull(ct_y)))
    known = exercise.mistakes(exercise.fwd(*args)[1], ct_y)
    assert len([words for cases in known.values() for words in cases]) >= 4
    for leaf, cases in known.items():
        values = [np.asarray(truth[leaf]), *map(np.asarray, cases.values())]
        assert {value.shape for value in values} == {truth[leaf].shape}
        apart = [np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in itertools.permutations(values, 2)]
        assert min(apart) > 100 * SAME, leaf


@pytest.mark.parametrize("name", exercises.EXERCISES)
def test_what_is_kept_has_a_name_and_arguments_are_the_same_each_time(name):
    exercise = exercises.EXERCISES[name]
    assert len(exercise.kept) == len(exercise.fwd(*exercise.arguments())[1])
    for a, b in zip(exercise.arguments(), exercise.arguments()):
        np.testing.assert_array_equal(a, b)
