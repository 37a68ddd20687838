import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax.bench import peers
from nnjax.bench.peers import steps

X, LABELS = jax.random.normal(jax.random.key(0), (3, 6)), jnp.array([1, 0, 2], jnp.int32)


@pytest.mark.slow
@pytest.mark.in_turn
def test_our_own_step_is_plain_descent():
    model, loss = nnjax.mlp([6, 5, 3]), nnjax.softmax_cross_entropy()
    params = model.init(jax.random.key(1))
    hand = nnjax.value_and_grad(model, loss)
    run = peers.descent(hand, params, X, LABELS)
    (after, _), value = run()
    expected, grads = hand(params, X, LABELS)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    for a, p, g in zip(*map(jax.tree.leaves, (after, params, grads)), strict=True):
        np.testing.assert_allclose(a, p - peers.RATE * g, atol=1e-6)


@pytest.mark.in_turn
def test_the_cross_entropy_is_ours():
    scores = 3 * X[:, :3]
    expected = nnjax.softmax_cross_entropy().apply((), (scores, LABELS))
    np.testing.assert_allclose(steps.cross_entropy(scores, LABELS), expected, rtol=1e-6)


class Clock:
    """A clock that only programs move, each call by its next duration (the last one repeats); it records the order."""

    def __init__(self, monkeypatch, **takes):
        self.now, self.order, self.takes = 0.0, [], {name: list(seconds) for name, seconds in takes.items()}
        monkeypatch.setattr(steps.time, "perf_counter", lambda: self.now)

    def program(self, name):
        def run():
            self.order.append(name)
            took = self.takes[name]
            self.now += took.pop(0) if len(took) > 1 else took[0]

        return run


def test_a_program_is_timed_after_warm_up_calls(monkeypatch):
    clock = Clock(monkeypatch, small=[0.009, 0.008, 0.006, 0.002, 0.001], large=[0.5, 0.2])
    assert steps.settled(clock.program("small")) == pytest.approx(0.001)
    assert steps.settled(clock.program("large")) == pytest.approx(0.2)
    assert clock.order[-2:] == ["large", "large"]
    assert clock.order.count("large") == 2


def test_all_are_built_and_compiled_before_a_pair_is_timed(capsys, monkeypatch):
    clock = Clock(monkeypatch, ours=[5.0, 1.0], numpy=[30.0, 0.5], jax=[40.0, 40.0, 2.0])  # the first ones compile

    def built(name):
        clock.order.append(f"{name} built")
        return clock.program(name)

    def broken():
        raise steps.Unavailable("no compiler was found")

    builders = {"no_such_library.fast": None, "numpy": lambda: built("numpy"), "jax.none": lambda: None,
                "jax": lambda: built("jax"), "numpy.compile": broken}  # fmt: skip
    found = steps.ratios(clock.program("ours"), builders, 0.0)
    assert found == {"numpy": pytest.approx(2.0), "jax": pytest.approx(0.5)}
    warm = steps.WARM
    assert clock.order[: 2 + 3 * warm] == ["numpy built", "jax built", *["ours"] * warm, *["numpy"] * warm, *["jax"] * warm]
    assert capsys.readouterr().out == "numpy.compile is left out: no compiler was found\n"
