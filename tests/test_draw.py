import matplotlib.pyplot as plt
import numpy as np
import pytest

from nnjax import draw


@pytest.fixture
def ax():
    with plt.rc_context():
        draw.use_style()
        figure, ax = plt.subplots()
        yield ax
        plt.close(figure)


def test_a_matrix_is_white_at_zero_with_its_numbers_and_a_frame(ax):
    image = draw.matrix(ax, [[0.0, 2.0], [-0.5, 1.0]], "w", rows=["a", "b"], columns="in", row=1)
    np.testing.assert_allclose(image.cmap(image.norm(0.0))[:3], 1, atol=0.01)
    assert image.norm.vmax == -image.norm.vmin == 2
    assert [t.get_text() for t in ax.texts] == ["0", "2", "-0.5", "1"]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a", "b"]
    assert (ax.get_xlabel(), ax.get_title()) == ("in", "w")
    assert [p.get_bbox().bounds for p in ax.patches] == [(-0.5, 0.5, 2, 1)]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda ax: draw.matrix(ax, [[[1.0]]]),
            r"draw.matrix: values must be a matrix or a vector of numbers.*got .*\(1, 1, 1\)",
        ),
        (lambda ax: draw.matrix(ax, []), r"draw.matrix: .*, with at least one"),
        (lambda ax: draw.matrix(ax, [[1.0], [2.0, 3.0]]), r"draw.matrix: values must be a matrix"),
        (lambda ax: draw.matrix(ax, [[1j]]), r"draw.matrix: values must be a matrix"),
        (lambda ax: draw.layers(ax, [1.0, 2.0]), r"draw.layers: w must be a matrix of numbers.*got .*\(2,\)"),
        (lambda ax: draw.layers(ax, [["a"]]), r"draw.layers: w must be a matrix"),
        (lambda ax: draw.transposes([ax, ax], 3.0), r"draw.transposes: values must be a matrix"),
        (lambda ax: draw.arrows(ax, [1.0, 2.0, 3.0]), r"draw.arrows: vectors must have shape .*got .*3"),
        (
            lambda ax: draw.contours(ax, lambda p: p, (0, 1), (0, 1)),
            r"draw.contours: f must return one number for each of 6561",
        ),
    ],
)
def test_what_is_no_matrix_is_refused_before_anything_is_drawn(ax, call, words):
    before = len(ax.get_children())
    with pytest.raises(ValueError, match=words):
        call(ax)
    assert len(ax.get_children()) == before


def test_large_matrices_and_zeros_have_no_numbers_and_no_fault(ax):
    draw.matrix(ax, np.zeros((9, 9)))
    assert not ax.texts
    draw.matrix(ax, [np.nan, 1.0], numbers=False)
    assert not ax.texts


def test_two_layers_have_an_arrow_for_each_weight_and_numbers_on_those_in_colour(ax):
    w = np.array([[0.1, -0.2, 0.3], [0.4, 0.5, 0.6]])
    draw.layers(ax, w, into=1, left=["a", "b", "c"], right=["y", "z"])
    arrows = [t for t in ax.texts if t.get_text() == ""]
    assert len(arrows) == 6
    assert [t.get_text() for t in ax.texts if t.get_text()] == ["0.4", "0.5", "0.6", "a", "b", "c", "y", "z"]
    assert len(ax.lines) == 5


def test_backward_arrows_point_back_and_a_column_is_in_colour(ax):
    draw.layers(ax, np.array([[0.1, -0.2], [0.3, 0.4]]), backward=True, out_of=1)
    assert [t.get_text() for t in ax.texts if t.get_text()] == ["-0.2", "0.4"]
    assert all(t.xy[0] < t.xyann[0] for t in ax.texts if t.get_text() == "")


def test_a_figure_is_shown_with_its_words_and_closed(ax, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda figure, metadata: shown.append((figure, metadata)))
    ax.plot([1, 2])
    draw.show("a line that rises")
    assert shown == [(ax.figure, {"image/png": {"alt": "a line that rises"}})]
    assert not plt.fignum_exists(ax.figure.number)
    with pytest.raises(ValueError, match="cannot see"):
        draw.show(" ")


def test_text_too_small_for_a_phone_is_not_shown(ax, monkeypatch):
    monkeypatch.setattr("IPython.display.display", lambda figure, metadata: None)
    ax.figure.set_size_inches(8, 3)
    ax.text(0.5, 0.5, "small", fontsize=8)
    assert draw.smallest_text(ax.figure) == pytest.approx(8 * 500 / (72 * 8), rel=0.05)
    with pytest.raises(ValueError, match=r"pixels .*larger"):
        draw.show("a small word")
    ax.figure.set_size_inches(6, 3)
    draw.show("the same word in a narrower figure")


def test_text_that_is_hidden_or_empty_does_not_count(ax):
    before = draw.smallest_text(ax.figure)
    ax.text(0.5, 0.5, "", fontsize=2)
    ax.text(0.5, 0.5, "hidden", fontsize=2).set_visible(False)
    assert draw.smallest_text(ax.figure) == pytest.approx(before, rel=0.01)
    assert before > 8
