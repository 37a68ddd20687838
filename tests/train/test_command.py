import pytest

from nnjax.train import command
from nnjax.train.command import Train

QUICK = {"epochs": 2, "hidden": (8,)}


@pytest.mark.parametrize("grad", ["hand", "jax", "both"])
@pytest.mark.parametrize("model", ["mlp", "nielsen"])
def test_every_gradient_trains_and_is_reported(capsys, grad, model):
    rate = {"mlp": 0.01, "nielsen": 0.1}[model]
    assert Train(grad=grad, model=model, learning_rate=rate, **QUICK).run() == 0
    out = capsys.readouterr().out
    assert "test accuracy" in out
    assert "an epoch (median)" in out
    assert out.count(": ok") == 2
    assert "first step: relative difference" in out


def test_both_gives_the_parameters_of_hand(capsys):
    losses = []
    for grad in ("hand", "both"):
        Train(grad=grad, **QUICK).run()
        losses.append([line.split("  ")[1] for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")])
    assert losses[0] == losses[1]


def test_a_wrong_gradient_fails_the_run(capsys, monkeypatch):
    right = command.make_recipe

    def wrong(*args, **kwargs):
        made = right(*args, **kwargs)

        def hand(params, x, labels, **rest):
            value, (first, *others) = made.hand(params, x, labels, **rest)
            return value, (first._replace(w=first.w * 1.001), *others)

        return made._replace(hand=hand)

    monkeypatch.setattr(command, "make_recipe", wrong)
    assert Train(grad="both", **QUICK).run() == 1
    out = capsys.readouterr().out
    assert "the gradient by hand left its error budget: params[0].w at step 1 differs by" in out
    assert "TOO FAR APART" in out
    assert Train(grad="hand", **QUICK).run() == 1
