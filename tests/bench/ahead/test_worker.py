import io
import json

import jax
import jax.numpy as jnp

from nnjax.bench.ahead import worker
from nnjax.bench.ahead.targets import Target

HERE = Target("here", "cpu", tuple(jax.devices("cpu")[:1]))


def answers(monkeypatch, *requests):
    def two(platform, scale):
        def bad(x):
            raise ValueError("what is wrong\nand more")

        return {"good": (lambda x: x * scale, (jnp.ones(3),)), "bad": (bad, (jnp.ones(3),))}

    def none(platform):
        raise KeyError("nothing of that name")

    monkeypatch.setattr(worker, "KINDS", {"two": two, "none": none})
    said = io.StringIO()
    worker.answer(HERE, [json.dumps(request) for request in requests], said)
    return [json.loads(line) for line in said.getvalue().splitlines()]


def test_labels_come_first_then_figures_or_a_sentence_for_each(monkeypatch):
    labels, good, bad, done = answers(monkeypatch, ["two", [2.0], []])
    assert labels == {"labels": ["good", "bad"]}
    assert good["label"] == "good"
    assert good["figures"]["argument_bytes"] == 12
    assert bad == {"label": "bad", "error": "what is wrong"}
    assert done == {"done": True}


def test_what_is_left_out_is_not_compiled_again(monkeypatch):
    said = answers(monkeypatch, ["two", [2.0], ["good"]])
    assert [answer.get("label") for answer in said] == [None, "bad", None]


def test_a_unit_that_cannot_be_made_is_reported_and_the_next_one_answered(monkeypatch):
    said = answers(monkeypatch, ["none", [], []], ["two", [1.0], ["good", "bad"]])
    assert said == [{"error": "'nothing of that name'"}, {"labels": ["good", "bad"]}, {"done": True}]
