"""Exercises in backpropagation: a forward pass is given, the backward is yours, and `grade` says what is wrong with it.

>>> print(nnjax.exercises.grade("shares", lambda residuals, ct_y: ...))
shares: not filled in yet
>>> "batch_norm" in nnjax.exercises.EXERCISES
True
"""

from .grading import Grade, grade, show
from .questions import EXERCISES, Exercise

__all__ = ["EXERCISES", "Exercise", "Grade", "grade", "show"]
