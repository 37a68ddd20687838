import json
import re

import numpy as np
import pytest

from nnjax.commands.train import Train
from nnjax.commands.training import images as command

QUICK = {"epochs": 2, "hidden": (8,)}


@pytest.mark.slow
@pytest.mark.in_turn
def test_both_gives_the_parameters_of_hand(capsys):
    losses = []
    for grad in ("hand", "both"):
        Train(grad=grad, **QUICK).run()
        losses.append([line.split("  ")[1] for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")])
    assert losses[0] == losses[1]


@pytest.mark.in_turn
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
    assert "exceeded its error budget: at step 1 params[0].w differs by" in out
    assert Train(grad="hand", **QUICK).run() == 1
    assert "TOO FAR APART" in capsys.readouterr().out


def table(path, n=400):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 3))
    y = 5e5 + 1e5 * x @ [1.0, -2.0, 0.5]
    lines = [",".join(map(str, (*row, target))) for row, target in zip(x, y)]
    path.write_text("\n".join(["a,b,c,price", *lines]))
    return str(path)


@pytest.mark.in_turn
def test_a_table_is_predicted_and_reported(tmp_path, capsys):
    run = {"data": table(tmp_path / "mine.csv"), "hidden": (8,), "learning_rate": 0.01}
    assert Train(epochs=15, standardise_targets=True, folder=tmp_path / "run", **run).run() == 0
    out = capsys.readouterr().out
    assert "regression of one number 'price'" in out
    assert "mlp [3, 8, 1], mean_squared_error" in out
    assert "accuracy" not in out
    assert "note:" not in out
    assert float(re.search(r"^test R² +(\S+) \(best", out, re.M).group(1)) > 0.95
    assert float(re.search(r"^validation R² +(\S+) \(best", out, re.M).group(1)) > 0.95
    assert out.count(": ok") == 2
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert records[-1]["test_r2"] > 0.95
    assert records[-1]["test_accuracy"] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "softmax_cross_entropy"}, "are numbers, so the loss must be mean_squared_error"),
        ({"model": "nielsen"}, "use the model mlp"),
        ({"model": "lenet"}, "the model lenet needs images, got the columns of a table"),
        ({"expand": True}, "expand needs images, got the columns of a table"),
        ({"target": "prise"}, "unknown column 'prise'.*did you mean 'price'"),
    ],
)
def test_what_does_not_go_with_a_table_is_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        Train(data=table(tmp_path / "mine.csv", 40), epochs=1, **options).run()


@pytest.mark.in_turn
def test_your_own_rgb_images_train_a_lenet(tmp_path, capsys):
    rng = np.random.default_rng(0)
    y = np.arange(200) % 2
    x = rng.random((200, 10, 8, 3)) * 0.3
    x[y == 1, 2:6, 2:6, 0] += 0.6  # a red square
    np.savez(tmp_path / "mine.npz", x=x.astype(np.float32), y=y)
    run = {"data": str(tmp_path / "mine.npz"), "model": "lenet", "hidden": (8,)}
    assert Train(channels=(4,), epochs=5, **run).run() == 0
    out = capsys.readouterr().out
    assert "lenet 10x8 RGB, conv [4], dense [8, 2]" in out
    assert float(re.search(r"^test accuracy +(\S+)", out, re.M).group(1)) > 0.9
    with pytest.raises(ValueError, match=r"an image of 10 x 8 is too small for 2 convolutions .* at least 16 x 16"):
        Train(channels=(4, 4), epochs=1, **run).run()


@pytest.mark.slow
@pytest.mark.in_turn
def test_a_resnet_is_scored_with_running_statistics_and_predicts_what_it_reported(tmp_path, capsys):
    from nnjax.data.catalogue import load
    from nnjax.train import load_run

    folder = tmp_path / "run"
    how = {"model": "resnet", "channels": (4, 8), "batch_size": 64, "learning_rate": 0.01, "folder": folder, "quiet": True}
    assert Train(epochs=2, **how).run() == 0
    out = capsys.readouterr().out
    assert out.count(": ok") == 2
    reported = re.search(r"^test accuracy +(\S+)", out, re.M).group(1)
    run, test = load_run(folder), load("digits").test
    assert run.params[1].mean is not None
    assert f"{(run.predict(test.x).classes == test.y).mean():.4f}" == reported
    assert float(reported) > 0.5
    alone = run.predict(test.x[:1]).outputs  # nothing depends on what else is predicted with it
    np.testing.assert_allclose(alone, run.predict(test.x[:50]).outputs[:1], rtol=1e-4, atol=1e-5)
    assert Train(epochs=3, resume=True, **how).run() == 0
    assert load_run(folder).step > run.step


def test_a_resnet_needs_images_and_one_device(tmp_path):
    with pytest.raises(ValueError, match="the model resnet needs images, got the columns of a table"):
        Train(data=table(tmp_path / "mine.csv", 40), epochs=1, model="resnet").run()
    with pytest.raises(ValueError, match="--model resnet works on one device only"):
        Train(model="resnet", devices=2).run()
