import jax
import numpy as np
import pytest

from nnjax.bench.table import entries

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


@pytest.mark.slow
@pytest.mark.parametrize("entry", TABLE, ids=lambda entry: entry.name)
@pytest.mark.in_turn
def test_hand_and_references_compute_the_same(entry):
    hand, references, args = entry.make()
    ours = jax.jit(hand)(*args)
    for reference in references.values():
        near(ours, jax.jit(reference)(*args))
    jax.clear_caches()
