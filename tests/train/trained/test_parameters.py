import jax
import jax.numpy as jnp
import pytest

from nnjax.train import CheckpointError
from nnjax.train.trained.network import Network, layer_of
from nnjax.train.trained.parameters import read_parameters
from nnjax.train.trained.record import CLASSES, Record

NETWORK = Network("mlp", {"sizes": [3, 2], "activation": "relu"})
MODEL = layer_of(NETWORK)
RECORD = Record(CLASSES, "mine", NETWORK, "softmax_cross_entropy")
PARAMS = MODEL.init(jax.random.key(0))


def times(found):
    """Which multiple of PARAMS these parameters are."""
    ratio = found.params[0].w / PARAMS[0].w
    assert jnp.ptp(ratio) == 0
    return int(ratio[0, 0])


@pytest.fixture
def run(tmp_path, save_run):
    return save_run(tmp_path / "run", RECORD, PARAMS, (2, 4, 8), (0.5, 0.9, 0.7)) / "checkpoints"


@pytest.mark.in_turn
def test_the_newest_the_best_and_the_one_of_a_step(run):
    found = read_parameters(run, MODEL, "params")
    assert (times(found), found.step, len(found.history), found.skipped) == (8, 8, 3, ())
    best = read_parameters(run, MODEL, "params", best=True)
    assert (times(best), best.step, best.history[-1].test_accuracy) == (4, 4, 0.9)
    assert times(read_parameters(run, MODEL, "params", step=2)) == 2
    assert found.params[0].w.sharding.device_set == jnp.zeros(()).sharding.device_set


def test_damaged_checkpoints_are_skipped_and_named(run):
    file = next(p for p in (run / "00000008" / "state").rglob("*") if p.is_file() and p.stat().st_size > 20)
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    found = read_parameters(run, MODEL, "params")
    assert (times(found), len(found.skipped)) == (4, 1)
    assert "00000008 is damaged" in found.skipped[0]
    with pytest.raises(CheckpointError, match=r"no valid checkpoint: .*00000008 is damaged"):
        read_parameters(run, MODEL, "params", step=8)
    for step in (2, 4):
        (run / f"{step:08d}" / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match=r"no valid checkpoint: .*; .*; .*manifest\.json is missing"):
        read_parameters(run, MODEL, "params")


def test_a_run_without_saved_or_scored_checkpoints_says_so(tmp_path, save_run):
    with pytest.raises(CheckpointError, match=r"no valid checkpoint: none was saved"):
        read_parameters(tmp_path, MODEL, "params")
    run = save_run(tmp_path / "run", RECORD, PARAMS, (1,), (float("nan"),)) / "checkpoints"
    with pytest.raises(CheckpointError, match=r"no checkpoint with a known accuracy: no epoch has ended"):
        read_parameters(run, MODEL, "params", best=True)


def test_parameters_of_another_network_are_refused(run):
    wider = layer_of(Network("mlp", {"sizes": [4, 2], "activation": "relu"}))
    with pytest.raises(CheckpointError, match=r"has float32 \(3, 2\) as params\[0\]\.w, expected float32 \(4, 2\)"):
        read_parameters(run, wider, "params")
    with pytest.raises(CheckpointError, match=r"lacks opt_state\[1\]\.average\[0\]\.w"):
        read_parameters(run, MODEL, "opt_state[1].average")


def test_the_average_is_read_where_the_run_was_scored_with_it(tmp_path, save_run):
    run = save_run(tmp_path / "run", RECORD, PARAMS, (2,), average=0.9) / "checkpoints"
    assert times(read_parameters(run, MODEL, "opt_state[1].average")) == 1
    assert times(read_parameters(run, MODEL, "params")) == 2


@pytest.mark.in_turn
def test_running_statistics_are_put_into_the_parameters(tmp_path):
    from nnjax.layers import running_statistics
    from nnjax.train import init_state, make_optimizer
    from nnjax.train.run import Checkpoints, Progress, keep

    model = layer_of(Network("resnet", {"classes": 2, "channels": (2,), "blocks": 1, "image": (4, 4, 1), "activation": "relu"}))
    running, params = running_statistics(model), model.init(jax.random.key(0))
    state = init_state(params, make_optimizer("sgd", 0.1), jax.random.key(0), running)
    state = state._replace(running=running.update(state.running, params, jax.random.normal(jax.random.key(1), (3, 4, 4, 1))))
    keep(Checkpoints(tmp_path, configuration={}), state, 1, Progress())
    found = read_parameters(tmp_path, model, "params", statistics="running").params
    expected = running.frozen(params, state.running)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, found, expected))
    with pytest.raises(CheckpointError, match="lacks statistics"):
        read_parameters(tmp_path, model, "params", statistics="statistics")
