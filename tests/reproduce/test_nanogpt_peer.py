import numpy as np
import pytest

from nnjax.data.text import make_text
from nnjax.reproduce.nanogpt import Configuration, train_nanogpt
from nnjax.reproduce.nanogpt_peer import train_by_torch

TEXT = make_text("words", "the cat sat on the mat and the rat sat on the cat. " * 40)
SMALL = Configuration(
    layers=1, heads=2, width=32, context=12, batch_size=8, steps=200, every=100, warmup=20, learning_rate=0.01
)


def test_the_same_network_in_pytorch_learns_as_much():
    pytest.importorskip("torch")
    theirs, seconds = train_by_torch(TEXT, 0, SMALL)
    ours = train_nanogpt(TEXT, 0, SMALL).validation_loss
    assert seconds > 0
    assert np.isfinite(theirs)
    assert ours < 1.2
    assert theirs < 1.2
