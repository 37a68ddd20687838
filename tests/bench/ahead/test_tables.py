import json
import math

import pytest

from nnjax.bench.ahead.figures import Figures
from nnjax.bench.ahead.tables import draw, line, mean, plain_of, ratio, record, show, summary

MB = 1 << 20


def gpu(launches, temp):
    return Figures(launches, temp, 100, None, None, 1.0)


def tpu(size, temp):
    return Figures(None, temp, 100, 50.0, size, 1.0)


GPU = {
    "one": {"hand": gpu(10, 2 * MB), "jax.grad": gpu(20, 8 * MB), "checkpoint": gpu(25, 8 * MB)},
    "two": {"hand": gpu(30, 10), "jax.grad": gpu(20, 20)},
    "micro": {"hand": gpu(40, 4 * MB), "jax.grad": gpu(10, 4 * MB), "microbatches": gpu(40, 4 * MB)},
    "none": {"hand": "not compiled in 1 s", "jax.grad": gpu(1, 1)},
}
TPU = {"one": {"hand": tpu(90.0, 5), "jax.grad": tpu(100.0, 5)}}


def test_ratios_are_of_hand_over_the_reference_and_unknown_where_one_is():
    assert ratio(GPU["one"], "launches") == 0.5
    assert ratio(GPU["one"], "launches", to="checkpoint") == 0.4
    assert math.isnan(ratio(GPU["one"], "bytes"))
    assert math.isnan(ratio(GPU["none"], "launches"))
    nothing = {"hand": gpu(1, 0), "jax.grad": gpu(1, 0)}
    assert math.isnan(ratio(nothing, "temp_bytes"))
    assert plain_of(GPU["micro"]) == "microbatches"


def test_the_mean_is_geometric_and_of_what_is_known():
    assert mean([0.5, 2.0, math.nan]) == pytest.approx(1.0)
    assert math.isnan(mean([math.nan]))


def test_the_summary_says_the_means_what_is_above_and_what_did_not_compile():
    text = "\n".join(summary("h100", GPU))
    assert "3 of 4 cases compiled" in text
    assert f"launches {(0.5 * 1.5 * 1.0) ** (1 / 3):.3f}" in text
    assert "above 1.2: two 1.50" in text
    assert "temporary memory 0.500, over 2" in text  # 0.25 and 1; 20 bytes are in no mean
    assert "none, hand: not compiled in 1 s" in text
    assert "bytes 0.900" in "\n".join(summary("v5e:2x2", TPU))


def test_a_line_says_the_figures_of_its_kind_of_machine():
    assert line("one", GPU["one"]) == "one: launches 10 (0.50), temp 2.10 MB (0.25)"
    assert line("one", TPU["one"]) == "one: bytes 0.00 MB (0.90), temp 0.00 MB (1.00), flops 0.00 M (1.00)"
    assert line("none", GPU["none"]) == "none: not compiled in 1 s"


def test_the_table_has_every_case_and_a_dash_where_nothing_is_known(capsys):
    show("h100", GPU)
    show("v5e:2x2", TPU)
    text = capsys.readouterr().out
    assert all(case in text for case in GPU)
    assert "checkpoint 0.40, 0.25" in text
    show("h100", {"failed": {"hand": gpu(1, 1), "jax.grad": "out of memory"}})
    assert "(-)" in capsys.readouterr().out


def test_the_record_is_json_and_complete():
    found = json.loads(json.dumps(record({"h100": GPU})))
    assert found["targets"]["h100"]["one"]["hand"]["launches"] == 10
    assert found["targets"]["h100"]["none"]["hand"] == "not compiled in 1 s"


@pytest.mark.in_turn
def test_the_drawing_is_a_picture(tmp_path):
    draw({"h100": GPU, "v5e:2x2": {**TPU, **dict.fromkeys(("two", "micro", "none"), GPU["none"])}}, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
