import os
import pty
import re
import subprocess
import sys

import numpy as np
import pytest

from nnjax import nielsen
from nnjax.cli import main
from nnjax.commands import explain
from nnjax.commands.explain import Explain, show
from nnjax.commands.explaining.numbers import Network, network, numbers, parse_weights, with_weights

NETS = [((2, 2, 2), None), ((3, 2, 4), None), ((2, 2), 1), ((4, 3, 3), 2), ((5, 1, 1), 3), ((2, 3, 4, 5, 5), 4), ((1, 5), 5)]

RUN = "from nnjax.cli import main; main(['explain'])"


def printed(capsys, *args, **how):
    assert Explain(*args, **how).run() == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert "\x1b" not in out
    assert "…" not in out
    return out


def row(out, label):
    """The numbers of the one line of a table that begins with this label."""
    (line,) = [line for line in out.splitlines() if line.startswith(f"  {label}  ")]
    return line.removeprefix(f"  {label}").split()


@pytest.mark.parametrize(("sizes", "seed"), NETS)
@pytest.mark.repeats
@pytest.mark.in_turn
def test_what_is_printed_are_these_numbers(sizes, seed, capsys):
    out = printed(capsys, ",".join(map(str, sizes)), seed)
    n = numbers(network(sizes, seed))
    for label, values in (
        ("w.T @ delta", n.sent), ("nudged by 0.001", n.nudged), ("sigmoid'(z_k)", n.slope), ("(1) sum over edges", n.by_sum),
        ("(2) transpose", n.by_sum), ("(3) jax.grad by z", n.by_sum),
    ):  # fmt: skip
        np.testing.assert_allclose(np.array(row(out, label), float), values, atol=0.51e-4)
    for label, values in (("inverse(w) @ delta", n.inverse_sent), ("(4) inverse", n.by_inverse)):
        assert row(out, label) == (["none"] * len(n.a) if values is None else [show(v) for v in values])
    rows = [line.split()[2:] for line in out.splitlines() if line.startswith("  to ")]
    by_row, by_column = np.array([r[: n.w.shape[1]] for r in rows], float).reshape(2, *n.w.shape)
    np.testing.assert_allclose(by_row, n.w)
    np.testing.assert_allclose(by_column, n.w)
    back = [line.split()[3 : 3 + len(n.b)] for line in out.splitlines() if line.startswith("  back to ")]
    np.testing.assert_allclose(np.array(back, float), n.w.T)
    for k in range(len(n.a)):
        flat = " ".join(out.split())
        terms = re.search(rf"dC/da_{k + 1} = ([^=]*) = (-?[\d.]+)", flat)
        assert terms
        pairs = [tuple(float(v.strip("()")) for v in term.split(" * ")) for term in terms[1].split(" + ")]
        np.testing.assert_allclose(np.array(pairs), np.stack([n.w[:, k], n.delta], 1), atol=0.51e-4)
        assert terms[2] == show(n.sent[k])


def test_the_example_of_the_question_by_hand(capsys):
    out = printed(capsys)
    assert "z_1 = 1.0 * 0.6225 + (-0.5) * 0.2689 + 0.0 = 0.4880, a_1 = 0.6196" in out
    assert "dC/da_1 = 1.0 * (-0.0896) + 2.0 * 0.1480 = 0.2064" in out
    assert row(out, "(2) transpose") == ["0.0485", "0.0525"]
    assert row(out, "(4) inverse") == ["-0.0057", "0.0257"]
    assert "(4) is wrong." in out
    assert "answer" not in out.replace("answers another question", "")  # none that a reader would look for in vain


@pytest.mark.in_turn
def test_where_w_is_not_square_a_sentence_stands_in_place_of_the_inverse(capsys):
    flat = " ".join(printed(capsys, "3,2,4").split())
    assert "(4) cannot be had: w must be square to have an inverse" in flat
    assert "is wrong" not in flat


def with_last_w(monkeypatch, w):
    w = np.array(w)
    params, x, y = network((2, 2, 2))
    net = Network(nielsen.Params((params.w[0], w), params.b), x, y)
    monkeypatch.setattr(explain, "network", lambda sizes, seed: net)


def test_a_singular_w_is_said(monkeypatch, capsys):
    with_last_w(monkeypatch, [[1.0, 2.0], [0.5, 1.0]])
    flat = " ".join(printed(capsys).split())
    assert "(4) cannot be had: w is singular, so it has no inverse" in flat
    assert row(printed(capsys), "(4) inverse") == ["none", "none"]


def test_an_orthogonal_w_is_said_to_be_one(monkeypatch, capsys):
    with_last_w(monkeypatch, [[0.6, -0.8], [0.8, 0.6]])
    out = printed(capsys)
    assert row(out, "(4) inverse") == row(out, "(2) transpose")
    assert "(4) agrees too: this w is orthogonal" in out
    assert "is wrong" not in out


def test_an_inverse_that_agrees_by_accident_does_not_make_w_orthogonal(x64, monkeypatch, capsys):
    params, x, _ = network((2, 2, 2))
    params = nielsen.Params((params.w[0], np.diag([1.0, 2.0])), params.b)
    y = np.array(nielsen.feedforward(params, x))
    y[0] = 0.0  # of the second neuron, which w stretches, the error is 0
    monkeypatch.setattr(explain, "network", lambda sizes, seed: Network(params, x, y))
    out = printed(capsys)
    assert "(4) agrees too, for this delta" in " ".join(out.split())
    assert row(out, "(4) inverse") == row(out, "(2) transpose")


@pytest.mark.in_turn
def test_one_neuron_in_each_layer_is_its_own_row_and_column(capsys):
    out = " ".join(printed(capsys, "1,1").split())
    assert "row and column are the same number, and w.T is w itself" in out
    assert "(4) is wrong." in out
    assert "its last two layers" not in out
    assert "same number" not in " ".join(printed(capsys, "1,2").split())
    weak = " ".join(printed(capsys, weights="[[0.25]]").split())
    assert "z_1 = 0.25 * " in weak
    zero = " ".join(printed(capsys, weights="[[0]]").split())
    assert "(4) cannot be had: w is singular" in zero
    assert "(4) agrees too: this w is orthogonal" in " ".join(printed(capsys, weights="[[-1]]").split())


@pytest.mark.parametrize("weights", ["[[0.8,-0.5],[0.3,1.2]]", "[[0.25,-0.125,12]]", "[[1],[-2.5],[0.0625]]"])
def test_own_weights_are_printed_with_all_their_decimals(weights, capsys):
    w = parse_weights(weights)
    out = printed(capsys, weights=weights)
    rows = [line.split()[2 : 2 + w.shape[1]] for line in out.splitlines() if line.startswith("  to ")]
    np.testing.assert_array_equal(np.array(rows[: len(w)], float), w)
    n = numbers(with_weights(w))
    np.testing.assert_allclose(np.array(row(out, "w.T @ delta"), float), n.sent, atol=0.51e-4)
    for k in range(w.shape[1]):
        terms = re.search(rf"dC/da_{k + 1} = ([^=]*) =", " ".join(out.split()))
        assert terms
        assert [float(t.split(" * ")[0].strip("()")) for t in terms[1].split(" + ")] == w[:, k].tolist()


def test_bad_weights_end_in_one_sentence_and_exit_code_2(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["explain", "--weights", "[[1,2],[3]]"])
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("nnjax: error: explain: --weights must be a matrix in JSON")


def test_web_opens_the_page_with_the_network_that_was_asked_for(monkeypatch, capsys):
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda address: opened.append(address) or True)
    assert Explain(web=True).run() == 0
    assert Explain(web=True, weights="[[0.25]]").run() == 0
    assert "open in a browser" in capsys.readouterr().out
    assert opened[0].endswith("/why_the_transpose.html")
    assert "#%7B%22w%22%3A%5B%5B0.25" in opened[1]
    with pytest.raises(ValueError, match="--weights must be"):
        Explain(web=True, weights="?").run()


def test_numbers_too_large_for_four_decimals_keep_the_page(monkeypatch, capsys):
    with_last_w(monkeypatch, [[1.0, 1.0], [1.0, 1.000001]])
    assert all("e+" in v for v in row(printed(capsys), "inverse(w) @ delta"))


def test_numbers_as_they_are_printed():
    assert show(0.04727) == "0.0473"
    assert show(-1e-9) == "0.0000"
    assert show(-0.5, 1) == "-0.5"
    assert show(-12345.6) == "-1.235e+04"


@pytest.mark.parametrize(
    "sizes", ["3", "3,x", "0,2", "", "2,,2", "-1,2", "2.5,2", "784,30,10", "9" * 5000 + ",2", "2,2,2,2,2,2"]
)
def test_bad_sizes_end_in_one_sentence_and_exit_code_2(sizes, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["explain", f"--sizes={sizes}"])
    err = capsys.readouterr().err
    assert caught.value.code == 2
    assert err.startswith("nnjax: error: explain: --sizes must be 2 to 5 layers of 1 to 5 neurons each")
    assert f"got {sizes!r}" in err or "999..." in err
    assert "pass e.g. --sizes 3,2,4" in err
    assert len(err) < 300


@pytest.mark.parametrize("seed", [-1, 2**32, 2**70])
@pytest.mark.parametrize("sizes", ["2,2,2", "3,2"])
def test_bad_seeds_are_one_sentence(seed, sizes):
    with pytest.raises(ValueError, match=f"--seed must be from 0 to 4294967295, got {seed}; pass"):
        Explain(sizes, seed).run()


def in_a_terminal(**environment):
    """The output of the command on a new terminal."""
    leader, follower = pty.openpty()
    clean = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "COLORTERM")}
    running = subprocess.Popen(
        [sys.executable, "-c", RUN], stdout=follower, env={**clean, "TERM": "xterm-256color", "COLUMNS": "80", **environment}
    )
    os.close(follower)
    written = b""
    while True:
        try:
            part = os.read(leader, 65536)
        except OSError:  # how Linux reports that the other end was closed
            break
        if not part:
            break
        written += part
    os.close(leader)
    assert running.wait() == 0
    return written.decode().replace("\r\n", "\n")


@pytest.mark.slow
@pytest.mark.in_turn
def test_a_terminal_gets_colours_by_row_and_by_column_and_no_color_gets_none(capsys):
    plain = printed(capsys)
    coloured = in_a_terminal()
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == plain
    first = {line[:12]: line for line in re.findall(r".*row \d makes.*", coloured)}
    assert len({re.search(r"\x1b\[([\d;]+)m", line)[1] for line in first.values()}) == 2  # type: ignore[index]
    columns = next(line for line in coloured.splitlines() if "column 1" in line and "column 2" in line)
    assert len(set(re.findall(r"\x1b\[([1-9][\d;]*)m", columns))) == 2
    assert in_a_terminal(NO_COLOR="1") == plain


def test_numbers_that_nobody_gave_are_said_to_be_drawn(capsys):
    assert "seed 0" in printed(capsys, weights="[[0.8,-0.5],[0.3,1.2]]")
    assert "drawn" not in printed(capsys)
