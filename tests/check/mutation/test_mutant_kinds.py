import jax
import jax.numpy as jnp
import pytest

import nnjax
from nnjax.check.mutation import mutants
from nnjax.check.mutation.mutant_kinds import KINDS


def test_there_are_at_least_sixteen_kinds_of_distinct_names():
    assert len({kind.name for kind in KINDS}) == len(KINDS) >= 16


@pytest.mark.parametrize(
    ("layer", "x", "kind"),
    [
        (nnjax.embedding(4, 3), jnp.array([0, 2, 2, 1, 2]), "set for add on repeated ids"),
        (nnjax.rnn(3, 3), jax.random.normal(jax.random.key(2), (4, 5, 3)), "time shifted by one"),
        (nnjax.conv(4, 2, 3), jax.random.normal(jax.random.key(2), (4, 6, 4)), "kernel not flipped"),
    ],
    ids=["embedding", "rnn", "conv"],
)
@pytest.mark.slow
@pytest.mark.in_turn
def test_kinds_for_tables_time_and_kernels(layer, x, kind, monkeypatch):
    monkeypatch.setattr(mutants, "KINDS", tuple(k for k in KINDS if k.name == kind))
    (outcome,) = mutants.hunt(layer, layer.init(jax.random.key(0)), x)
    assert (outcome.status, outcome.diagnosis) == ("killed", outcome.expected)
    assert nnjax.check_layer(layer, layer.init(jax.random.key(0)), x, transforms=["jit"]).ok
