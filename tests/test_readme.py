"""What the README says is so: its blocks run, its report is what is printed, and its table has the measured figures."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.S)
(REPORT,) = re.findall(r"```text\n(.*?)```", README, re.S)
ROWS = re.findall(r"^\| ([^|]+?) \|((?: [-\d.]+ \|){5})$", README, re.M)


def results(name):
    return json.loads((ROOT / "notebooks/results" / name).read_text())


def test_every_block_runs(run_blocks):
    assert len(BLOCKS) >= 3
    out, namespace = run_blocks("README.md", [("python", block) for block in BLOCKS])
    shown = REPORT.rstrip().removesuffix("...").splitlines()
    assert len(shown) >= 3
    assert [line for line in shown if line not in out.splitlines()] == []
    assert float(out.splitlines()[-1]) > 0.9
    assert namespace["value"] > 0


def test_the_two_commands_stand_in_it_word_for_word():
    assert "\n    python -m pip install -e '.[train]' && nnjax train\n" in README
    assert "\n    python -m pip install -e '.[test]' && python -m pytest\n" in README


def test_no_block_is_left_out():
    assert README.count("```") == 2 * (len(BLOCKS) + 1)


def test_it_is_short():
    assert len(README.splitlines()) < 150
    assert max(map(len, README.splitlines())) <= 200  # a badge, a row of the table


def test_every_link_leads_to_a_file():
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", README) if "://" not in link]
    assert len(links) > 10
    assert [link for link in links if not (ROOT / link.partition("#")[0]).exists()] == []


def test_the_table_holds_wins_and_losses():
    assert len(ROWS) >= 10
    cells = [float(cell) for _, row in ROWS for cell in row.replace("|", " ").split() if cell != "-"]
    assert min(cells) < 0.5 and max(cells) > 1.1  # noqa: PT018


@pytest.mark.parametrize(("case", "row"), ROWS, ids=[case for case, _ in ROWS])
def test_a_row_of_the_table_is_what_was_measured(case, row):
    measured = results("bench_cpu.json")["cases"][case]
    h100 = results("compiled.json")["targets"]["h100"][case]
    time, memory, torch, launches, compiled_memory = row.replace("|", " ").split()
    assert time == f"{measured['time_ratios']['jax.grad']:.2f}"
    assert memory == f"{measured['temp_ratio']:.2f}"
    peer = measured.get("peer_ratios", {}).get("torch")
    assert torch == ("-" if peer is None else f"{peer:.2f}")
    assert launches == f"{h100['hand']['launches'] / h100['jax.grad']['launches']:.2f}"
    temp = h100["jax.grad"]["temp_bytes"]
    assert compiled_memory == (f"{h100['hand']['temp_bytes'] / temp:.2f}" if temp else "-")
