import jax
import optax

from nnjax.check.vjp import Difference
from nnjax.train import load
from nnjax.train.both import fit_both
from nnjax.train.recipe import make_recipe

DIGITS = load("digits")
NAMES = ("value", *(f"params[{i}].{p}" for i in (0, 2) for p in "wb"))


def test_it_stops_at_the_first_step_that_leaves_its_budget():
    recipe = make_recipe("mlp", DIGITS, hidden=(5,), key=jax.random.key(0))
    for budget, ended in ((1e-3, False), (-1.0, True)):
        first = [Difference(name, 0.0, budget, 1.0) for name in NAMES]
        seen = []
        done, broken = fit_both(recipe, DIGITS, optax.adam(0.01), 2, 32, jax.random.key(1), first, seen.append)
        assert bool(broken) == ended, broken
        assert len(done.history) == len(seen) == (1 if ended else 2)
        assert int(done.state.step) < 39 if ended else int(done.state.step) == 78
