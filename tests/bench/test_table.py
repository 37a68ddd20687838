import jax
import numpy as np
import pytest

from nnjax import losses, models
from nnjax.bench import table
from nnjax.bench.table import entries, keys, scanned, step

TABLE = entries()
TARGETS = {  # time, temporary memory
    "max_pool 2x2, 64x28x28x32": (0.08, 0.10),
    "lenet, batch 128": (0.42, 0.20),
    "lenet, batch 10": (0.65, 0.75),
    "lenet, batch 128, 4 steps in a scan": (0.10, 0.40),
    "conv 5x5, 3 -> 16, 64x32x32": (0.50, 1.0),
    "conv 5x5, 16 -> 32, 64x16x16": (0.50, 1.0),
    "depthwise 3x3, 64, 16x56x56": (0.25, 1.7),
    "attention, S = 2048": (0.45, 0.10),
    "linear_cross_entropy, V = 32768, N = 2048": (0.92, 0.12),
    "tanh rnn, T = 800, batch 4": (0.45, 0.20),
    "tanh rnn, T = 800, batch 16": (0.66, 0.20),
    "tanh rnn, T = 800, batch 64": (0.80, 0.20),
    "lstm, T = 128, batch 16": (0.75, 0.55),
    "lstm, T = 128, batch 64": (0.95, 0.55),
    "gpt 4 x 128, T = 256, batch 8": (0.52, 0.40),
    "gpt 4 x 128, T = 256, 4 microbatches of 2": (0.52, 0.15),
    "layer_norm 4096 x 768": (1.02, 1.0),
    "dense 1024 -> 1024, batch 256": (1.02, 1.0),
}


def near(ours, theirs, relative=2e-3):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert np.linalg.norm(a - b) <= relative * np.linalg.norm(b) + 1e-6 * a.size**0.5


def test_names_are_unique_and_targets_stand_as_they_were_set():
    by_name = {entry.name: entry for entry in TABLE}
    assert len(by_name) == len(TABLE)
    assert {name: (by_name[name].time, by_name[name].temp) for name in TARGETS} == TARGETS


def test_an_accelerator_has_entries_in_kernels_besides():
    added = {entry.name: entry for entry in entries("cuda")[len(TABLE) :]}
    assert list(added) == [entry.name for entry in entries("tpu")[len(TABLE) :]]
    assert all(name.endswith(", in kernels") for name in added)
    assert added["linear_cross_entropy, V = 32768, N = 2048, in kernels"].temp == 0.02


def test_several_steps_in_a_scan_are_several_steps():
    make = step(models.mlp([4, 3]), losses.softmax_cross_entropy(), lambda k, l: (table._normal(5, 4)(k), table._ids(3, 5)(l)))
    hand, references, args = scanned(make, 2)()
    near(hand(*args), references["jax.grad"](*args))
    one, _, (params, *batch) = make()
    for _ in range(2):
        _, grads = one(params, *batch)
        params = jax.tree.map(lambda p, g: p - 0.01 * g, params, grads)
    near(hand(*args)[0], params)


def test_the_keys_are_the_same_in_every_run():
    assert (jax.random.key_data(keys(2)) == jax.random.key_data(keys(2))).all()


@pytest.mark.slow
@pytest.mark.parametrize("entry", TABLE, ids=lambda entry: entry.name)
@pytest.mark.in_turn
def test_hand_and_references_compute_the_same(entry):
    hand, references, args = entry.make()
    ours = jax.jit(hand)(*args)
    for reference in references.values():
        near(ours, jax.jit(reference)(*args))
    jax.clear_caches()


def test_every_whole_model_of_one_step_stands_beside_other_libraries():
    beside = {entry.name for entry in TABLE if entry.peers}
    whole = [entry.name for entry in TABLE if entry.name.startswith(("mlp", "lenet", "char_rnn", "gpt"))]
    assert beside == {name for name in whole if "in a scan" not in name}
    assert len(beside) == 7
