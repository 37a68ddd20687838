import contextlib
import subprocess
import sys

import jax
import numpy as np
import optax
import pytest

import nnjax
from nnjax.train import CheckpointError, Checkpoints, DataError, Dataset, Split, fit, init_state, load, one_hot, restore, save
from nnjax.train import run as run_module
from nnjax.train.checkpoint_folder import steps
from nnjax.train.fit import make_accuracy

MODEL = nnjax.mlp([64, 32, 10], nnjax.relu())


def run(data, value_and_grad=None, **changes):
    options = {
        "predict": MODEL.apply,
        "optimizer": optax.adam(0.003),
        "epochs": 3,
        "batch_size": 32,
        "key": jax.random.key(1),
    }
    value_and_grad = value_and_grad or nnjax.value_and_grad(MODEL, nnjax.softmax_cross_entropy())
    return fit(value_and_grad, MODEL.init(jax.random.key(0)), data, **{**options, **changes})


@pytest.mark.in_turn
def test_digits_are_learned_and_the_record_is_complete():
    seen = []
    done = run(load("digits"), epochs=15, on_epoch=seen.append)
    assert done.history[-1].test_accuracy > 0.95
    assert done.history[-1].loss < done.history[0].loss
    assert tuple(seen) == done.history
    assert [record.epoch for record in seen] == list(range(1, 16))
    assert int(done.state.step) == 15 * (1257 // 32)


@pytest.mark.in_turn
def test_hand_written_and_jax_gradients_train_to_the_same_loss():
    loss = nnjax.softmax_cross_entropy()
    ours = run(load("digits"), nnjax.value_and_grad(MODEL, loss))
    theirs = run(load("digits"), nnjax.reference_value_and_grad(MODEL, loss))
    np.testing.assert_allclose([r.loss for r in ours.history], [r.loss for r in theirs.history], rtol=1e-4)


def test_targets_other_than_class_numbers_are_encoded():
    done = run(load("digits"), nnjax.value_and_grad(MODEL, nnjax.mean_squared_error()), encode=one_hot(10), epochs=10)
    assert done.history[-1].test_accuracy > 0.9


def test_the_same_key_gives_the_same_parameters_bit_for_bit():
    a, b = (run(load("digits"), epochs=2).state.params for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_an_empty_split_has_no_accuracy():
    x = np.zeros((0, 64), np.float32)
    assert np.isnan(make_accuracy(MODEL.apply)(MODEL.init(jax.random.key(0)), Split(x, np.zeros(0, np.int32))))


def test_bad_sizes_bad_data_and_divergence_are_one_sentence():
    digits = load("digits")
    with pytest.raises(ValueError, match=r"batch_size must be at most the 1257 training examples of 'digits', got 2000"):
        run(digits, batch_size=2000)
    with pytest.raises(
        ValueError, match=r"one score for each of the 10 classes of 'digits', got float32 \(1, 5\); make the last layer as wide"
    ):
        run(digits, predict=lambda params, x: MODEL.apply(params, x)[:, :5])
    with pytest.raises(TypeError, match=r"fit: optimizer must be one of optax, got str"):
        run(digits, optimizer="adam")
    with pytest.raises(TypeError, match=r"fit: data must be a train.Dataset, got tuple"):
        run((digits.train.x, digits.train.y))
    with pytest.raises(ValueError, match=r"fit: epochs must be a positive int, got 0"):
        run(digits, epochs=0)
    x = digits.train.x.copy()
    x[5, 3] = np.nan
    with pytest.raises(DataError, match="NaN or infinity in 1 examples, the first at row 5"):
        run(Dataset("digits", Split(x, digits.train.y), digits.validation, digits.test, 10))
    with pytest.raises(
        FloatingPointError,
        match=r"the loss of epoch 1 is (nan|inf), so training has diverged; the first "
        r"parameter that is not finite is params\[0\]\.w; lower",
    ):
        run(digits, optimizer=optax.sgd(1e30))


def test_a_seed_instead_of_a_key_is_refused():
    with pytest.raises(TypeError, match=r"fit: key must be a key of jax.random, got int; pass jax.random.key\(7\)"):
        run(load("digits"), key=7)


def keep(folder, **changes):
    return Checkpoints(folder, **{"every": 10, "configuration": {"batch size": 32}, **changes})


def stop_after(monkeypatch, calls):
    """Make the run believe that SIGTERM came during its calls-th scan."""
    asked = []

    @contextlib.contextmanager
    def stoppable():
        yield lambda: "SIGTERM" if asked.append(1) or len(asked) >= calls else ""

    monkeypatch.setattr(run_module, "stoppable", stoppable)


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, (a.params, a.opt_state, a.step), (b.params, b.opt_state, b.step))


@pytest.mark.parametrize("calls", [1, 3, 4, 5])
@pytest.mark.repeats
@pytest.mark.in_turn
def test_a_run_that_was_stopped_and_resumed_ends_like_an_uninterrupted_one(tmp_path, monkeypatch, calls):
    """Scans of 10, 10, 10 and 9 steps: within an epoch, at its end, and in the next one."""
    whole = run(load("digits"), checkpoints=keep(tmp_path / "whole"))
    stop_after(monkeypatch, calls)
    seen = []
    first = run(load("digits"), checkpoints=keep(tmp_path / "cut"), on_epoch=seen.append)
    assert first.stopped == "SIGTERM"
    assert int(first.state.step) == {1: 10, 3: 30, 4: 39, 5: 49}[calls]
    monkeypatch.undo()
    second = run(load("digits"), checkpoints=keep(tmp_path / "cut", resume=True), on_epoch=seen.append)
    assert second.stopped == ""
    assert_same(second.state, whole.state)
    assert [(r.epoch, r.loss, r.test_accuracy) for r in seen] == [(r.epoch, r.loss, r.test_accuracy) for r in whole.history]
    assert [r.epoch for r in second.history] == [1, 2, 3]
    done = run(load("digits"), checkpoints=keep(tmp_path / "cut", resume=True))  # there is nothing left to do
    assert_same(done.state, whole.state)
    assert done.history == second.history


@pytest.mark.in_turn
def test_a_damaged_checkpoint_is_named_and_the_run_resumes_from_the_previous_one(tmp_path):
    notes = []
    whole = run(load("digits"), checkpoints=keep(tmp_path, resume=True, on_note=notes.append))
    assert notes == [f"no checkpoint in {tmp_path} yet: starting from the beginning"]
    manifest = tmp_path / f"{int(whole.state.step):08d}" / "manifest.json"
    manifest.write_bytes(manifest.read_bytes() + b" ")
    notes.clear()
    again = run(load("digits"), checkpoints=keep(tmp_path, resume=True, on_note=notes.append))
    assert_same(again.state, whole.state)
    assert len(notes) == 2
    assert "00000117 is damaged: manifest.json has changed" in notes[0]
    assert notes[1] == "resuming from step 108"


@pytest.mark.in_turn
def test_a_folder_with_checkpoints_needs_resume_and_one_in_use_is_refused(tmp_path):
    run(load("digits"), epochs=1, checkpoints=keep(tmp_path))
    with pytest.raises(CheckpointError, match=r"39; resume from them \(--resume\), or choose another folder"):
        run(load("digits"), checkpoints=keep(tmp_path))
    with pytest.raises(CheckpointError, match=r"batch size was 32, is 16"):
        run(load("digits"), checkpoints=keep(tmp_path, resume=True, configuration={"batch size": 16}))
    with run_module.alone(tmp_path), pytest.raises(CheckpointError, match=r"is in use by another run; wait"):
        run(load("digits"), checkpoints=keep(tmp_path, resume=True))
    save(tmp_path / "other", init_state(MODEL.init(jax.random.key(0)), optax.adam(0.003), jax.random.key(1)), step=5)
    with pytest.raises(CheckpointError, match=r"run of fit, got checkpoints of train\.save; choose another folder"):
        run(load("digits"), checkpoints=keep(tmp_path / "other", resume=True, configuration={}))
    with pytest.raises(ValueError, match="checkpoints: every must be a positive int, got 0"):
        run(load("digits"), checkpoints=keep(tmp_path, every=0))


@pytest.mark.in_turn
def test_divergence_leaves_the_valid_checkpoint(tmp_path):
    schedule = optax.piecewise_constant_schedule(0.1, {20: 1e30})
    with pytest.raises(FloatingPointError, match=r"the first parameter that is not finite is params\[0\]\.w"):
        run(load("digits"), optimizer=optax.sgd(schedule), checkpoints=keep(tmp_path))
    found = restore(tmp_path, init_state(MODEL.init(jax.random.key(0)), optax.sgd(schedule), jax.random.key(1)))
    assert found.step == 20
    assert all(np.isfinite(p).all() for p in jax.tree.leaves(found.state.params))


def test_a_place_that_cannot_be_written_to_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(CheckpointError, match=r"cannot be written to: .*; choose another folder"):
        run(load("digits"), checkpoints=keep(tmp_path / "file"))


@pytest.mark.in_turn
def test_nothing_is_traced_or_compiled_after_the_start(tmp_path):
    traces, compiled = [], []
    gradient = nnjax.value_and_grad(MODEL, nnjax.softmax_cross_entropy())

    def counted(*args, **how):
        traces.append(1)
        return gradient(*args, **how)

    def listen(name, seconds, **how):
        if name.endswith("backend_compile_duration"):
            compiled.append(1)

    jax.monitoring.register_event_duration_secs_listener(listen)
    counts = []
    run(
        load("digits"),
        counted,
        epochs=4,
        checkpoints=keep(tmp_path),
        on_epoch=lambda _: counts.append((len(traces), len(compiled))),
    )
    assert counts[1] == counts[2] == counts[3]


PROGRAM = """
import sys
import jax, numpy as np, optax
import nnjax
from nnjax.train import Checkpoints, fit, load
model = nnjax.mlp([64, 32, 10], nnjax.relu())
done = fit(
    nnjax.value_and_grad(model, nnjax.softmax_cross_entropy()), model.init(jax.random.key(0)), load("digits"),
    predict=model.apply, optimizer=optax.adam(0.003), epochs=6, batch_size=32, key=jax.random.key(1),
    on_epoch=lambda record: print(record.epoch, flush=True), checkpoints=Checkpoints(sys.argv[1], every=10, resume=True),
)
np.savez(sys.argv[2], *jax.tree.leaves((done.state.params, done.state.opt_state)))
"""


def _killed(folder, out, seconds):
    """Run the program and kill it this long after its first epoch; whether it was still running."""
    with subprocess.Popen([sys.executable, "-c", PROGRAM, folder, out], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            return True
    return False


@pytest.mark.slow
@pytest.mark.in_turn
@pytest.mark.parametrize("part", range(5))  # of 25 runs
def test_runs_killed_at_random_moments_end_like_the_uninterrupted_one(tmp_path, part):
    runs = 5
    subprocess.run([sys.executable, "-c", PROGRAM, tmp_path / "whole", tmp_path / "whole.npz"], check=True, capture_output=True)
    rng = np.random.default_rng(part)
    killed = 0
    with np.load(tmp_path / "whole.npz") as whole:
        for number in range(runs):
            folder, out = tmp_path / str(number), tmp_path / f"{number}.npz"
            killed += _killed(folder, out, float(rng.uniform(0, 0.8)))
            before = max(steps(folder))
            subprocess.run([sys.executable, "-c", PROGRAM, folder, out], check=True, capture_output=True)
            assert before >= 30  # the first epoch had ended: only what came after the last save is lost
            with np.load(out) as found:
                assert found.files == whole.files
                for name in whole.files:
                    np.testing.assert_array_equal(found[name], whole[name])
    assert killed


def numbers(targets: tuple[int, ...] = (), n: int = 400) -> Dataset:
    """A linear function of three features, and noise that is a hundredth of it."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 3)).astype(np.float32)
    y = x @ rng.normal(size=(3, *(targets or (1,)))) + 1.0 + 0.01 * rng.normal(size=(n, *(targets or (1,))))
    y = y.reshape(n, *targets).astype(np.float32)
    parts = (slice(300), slice(300, 350), slice(350, None))
    return Dataset("line", *(Split(x[p], y[p]) for p in parts))


def foretold(data, **changes):
    model = nnjax.mlp([3, 16, data.outputs], nnjax.tanh())
    options = {"predict": model.apply, "optimizer": optax.adam(0.01), "epochs": 20, "batch_size": 20, "key": jax.random.key(1)}
    f = nnjax.value_and_grad(model, nnjax.mean_squared_error())
    return fit(f, model.init(jax.random.key(0)), data, **{**options, **changes})


@pytest.mark.parametrize("targets", [(), (2,)])
@pytest.mark.in_turn
def test_numbers_are_predicted_and_scored_by_r2(targets):
    done = foretold(numbers(targets))
    last = done.history[-1]
    assert last.measured["test_r2"] > 0.98
    assert last.score == last.measured["validation_r2"] > 0.98
    assert np.isnan(last.validation_accuracy)
    assert np.isnan(last.test_accuracy)
    assert last.loss < 0.1 * done.history[0].loss


@pytest.mark.in_turn
def test_numbers_are_streamed_to_the_same_parameters():
    a, b = (foretold(numbers(), epochs=2, streaming=streaming).state.params for streaming in (False, True))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), a, b)


@pytest.mark.in_turn
def test_a_run_on_numbers_stops_by_patience_is_saved_and_resumes(tmp_path):
    data = numbers()
    whole = foretold(data, epochs=4, measure=lambda state: {"mine": 1.0})
    foretold(data, epochs=2, checkpoints=Checkpoints(tmp_path))
    again = foretold(data, epochs=4, checkpoints=Checkpoints(tmp_path, resume=True))
    jax.tree.map(np.testing.assert_array_equal, whole.state.params, again.state.params)
    assert [r.measured["test_r2"] for r in again.history] == [r.measured["test_r2"] for r in whole.history]
    assert whole.history[0].measured["mine"] == 1.0
    idle = foretold(data, epochs=50, patience=2, optimizer=optax.sgd(1e-12))
    assert (idle.stopped, len(idle.history)) == ("patience", 3)


def test_an_undefined_r2_is_nan_and_does_not_stop_the_run(tmp_path):
    data = numbers()
    lone = data._replace(validation=Split(data.test.x[:0], data.test.y[:0]), test=Split(data.test.x[:1], data.test.y[:1]))
    done = foretold(lone, epochs=3, patience=2, checkpoints=Checkpoints(tmp_path))
    assert len(done.history) == 3
    assert all(np.isnan(r.measured["test_r2"]) and np.isnan(r.score) for r in done.history)
    assert restore(tmp_path, done.state).step == int(done.state.step)


def test_a_network_of_another_width_than_the_targets_is_refused():
    with pytest.raises(ValueError, match=r"one number for each of the 2 targets of 'line', got float32 \(1, 3\)"):
        foretold(numbers((2,)), predict=lambda params, x: x)
    with pytest.raises(DataError, match="target 0 is 1 in every example"):
        foretold(numbers()._replace(train=Split(np.zeros((40, 3), np.float32), np.ones(40, np.float32))))


@pytest.mark.in_turn
def test_a_model_with_batch_norm_is_scored_with_its_running_statistics():
    model = nnjax.serial(nnjax.dense(64, 16, bias=False), nnjax.batch_norm(16), nnjax.relu(), nnjax.dense(16, 10))
    running, digits = nnjax.running_statistics(model), load("digits")
    done = fit(
        nnjax.value_and_grad(model, nnjax.softmax_cross_entropy()), model.init(jax.random.key(0)), digits,
        predict=model.apply, optimizer=optax.adam(0.01), epochs=5, batch_size=32, key=jax.random.key(1), running=running,
    )  # fmt: skip
    params = running.frozen(done.state.params, done.state.running)
    one_by_one = jax.vmap(lambda x: model.apply(params, x[None])[0].argmax())(digits.test.x)  # no batch to take them from
    accuracy = float((one_by_one == digits.test.y).mean())
    assert done.history[-1].test_accuracy == pytest.approx(accuracy)
    assert accuracy > 0.9
    assert int(done.state.running.count) == int(done.state.step)


@pytest.mark.in_turn
def test_running_statistics_are_saved_and_resumed(tmp_path):
    model = nnjax.serial(nnjax.batch_norm(64), nnjax.dense(64, 10))
    running = nnjax.running_statistics(model)

    def trained(folder, epochs, **how):
        return fit(
            nnjax.value_and_grad(model, nnjax.softmax_cross_entropy()), model.init(jax.random.key(0)), load("digits"),
            predict=model.apply, optimizer=optax.sgd(0.1), epochs=epochs, batch_size=64, key=jax.random.key(1),
            running=running, checkpoints=Checkpoints(folder, **how),
        )  # fmt: skip

    whole = trained(tmp_path / "whole", 2)
    trained(tmp_path / "parts", 1)
    parts = trained(tmp_path / "parts", 2, resume=True)
    jax.tree.map(np.testing.assert_array_equal, whole.state.running, parts.state.running)
