import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from nnjax.commands.train import Train
from nnjax.commands.training.words import described


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, ("adam", "learning rate 0.002", "gradients by hand")),
        ({"optimizer": "sgd", "optimizer_args": {"momentum": 0.9}}, ("sgd momentum 0.9",)),
        ({"schedule": "cosine_decay_schedule", "clip": 1.0}, ("cosine_decay_schedule", "clipped to norm 1")),
        (
            {"l2": 5.0, "l1": 2.0, "weight_decay": 0.1},
            ("L2 in the loss, lambda 5", "L1 in the loss, 2", "0.1, not in the loss"),
        ),
        ({"average": 0.99, "compute_dtype": "bfloat16", "microbatches": 4}, ("0.99", "bfloat16", "4 microbatches")),
        ({"feedback": "random"}, ("sent back by random feedback",)),
        ({"grad": "both"}, ("compared with jax.grad at every step",)),
    ],
)
def test_only_the_given_options_are_described(given, told):
    words = described(Train(**given), None)
    assert all(word in words for word in told)
    assert ("clipped" in words) == ("clip" in given)
    assert "devices" not in words


def test_a_mesh_is_described():
    mesh = Mesh(np.asarray(jax.devices()[:1]), ("data",))
    assert described(Train(), mesh).splitlines()[-1] == "on 1 devices (cpu), mesh data=1"
