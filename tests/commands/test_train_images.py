import pytest

from nnjax.commands import train_images as command
from nnjax.commands.train import Train

QUICK = {"epochs": 2, "hidden": (8,)}


@pytest.mark.slow
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
    assert "the gradient by hand left its error budget: at step 1 params[0].w differs by" in out
    assert Train(grad="hand", **QUICK).run() == 1
    assert "TOO FAR APART" in capsys.readouterr().out
