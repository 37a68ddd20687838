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
