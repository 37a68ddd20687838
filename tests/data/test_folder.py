import numpy as np
import pytest
from PIL import Image

from nnjax.train import DataError, load, load_files


def pixels(i: int, mode: str = "RGB", size: tuple[int, int] = (7, 5)) -> Image.Image:
    shape = (size[1], size[0], {"RGB": 3, "L": 1, "RGBA": 4}[mode])
    values = np.full(shape, i, np.uint8)
    values[0, 0, 0] = 200  # so that height and width differ
    return Image.fromarray(values.squeeze(), mode=None)


def folder(path, mode="RGB", suffix=".png"):
    for k, name in enumerate(("cat", "ant", "dog")):
        (path / name).mkdir(parents=True)
        for i in range(10):
            pixels(10 * k + i, mode).save(path / name / f"{i}{suffix}")
    return path


@pytest.mark.parametrize(("mode", "shape"), [("RGB", (5, 7, 3)), ("L", (5, 7))])
def test_each_subfolder_is_a_class_and_pixels_lie_from_0_to_1(tmp_path, mode, shape):
    found = load(folder(tmp_path / "mine", mode))
    assert (found.name, found.classes, found.shape) == ("mine", 3, shape)
    assert found.class_names == ("ant", "cat", "dog")
    assert [s.x.shape for s in found[1:4]] == [(24, np.prod(shape)), (3, np.prod(shape)), (3, np.prod(shape))]
    seen = []
    for x, y in found[1:4]:
        assert (x.dtype, y.dtype) == (np.float32, np.int32)
        images = x.reshape(-1, *shape) * 255
        np.testing.assert_array_equal(np.round(images[:, 0, 0].reshape(len(y), -1)[:, 0]), 200)
        values = np.round(images[:, 1, 1].reshape(len(y), -1)[:, 0]).astype(int)
        assert [found.class_names[k] for k in y] == [("cat", "ant", "dog")[v // 10] for v in values]
        seen += values.tolist()
    assert sorted(seen) == list(range(30))
    assert seen != list(range(30))
    np.testing.assert_array_equal(load_files(tmp_path / "mine").train.x, found.train.x)


def test_grey_images_among_rgb_ones_become_rgb_and_hidden_files_are_skipped(tmp_path):
    path = folder(tmp_path / "mine")
    pixels(50, "L").save(path / "ant" / "0.png")
    Image.fromarray(np.full((5, 7, 4), 255, np.uint8)).save(path / "ant" / "1.png")  # with an alpha channel that hides nothing
    (path / ".DS_Store").write_text("x")
    (path / "ant" / ".DS_Store").write_text("x")
    (path / "readme.txt").write_text("beside the classes")
    assert load_files(path).shape == (5, 7, 3)


def test_jpeg_images_are_read_and_suffixes_may_be_upper_case(tmp_path):
    path = folder(tmp_path / "mine", suffix=".jpg")
    (path / "ant" / "0.jpg").rename(path / "ant" / "0.JPG")
    assert load_files(path).train.x.shape == (24, 105)


def _one_of_another_size(path):
    pixels(3, size=(9, 5)).save(path / "cat" / "3.png")


def _no_image(path):
    (path / "cat" / "3.png").write_text("hello")


def _cut_short(path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (5, 7, 3), np.uint8)).save(path / "cat" / "3.png")
    (path / "cat" / "3.png").write_bytes((path / "cat" / "3.png").read_bytes()[:90])


def _transparent(path):
    pixels(3, "RGBA").save(path / "cat" / "3.png")


def _deep(path):
    Image.fromarray(np.full((5, 7), 1000, np.uint16)).save(path / "cat" / "3.png")


def _text(path):
    (path / "cat" / "notes.txt").write_text("hello")


def _nested(path):
    (path / "cat" / "more").mkdir()


def _empty(path):
    (path / "eel").mkdir()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_one_of_another_size, "same size, got 5 x 7 in ant/0.png and 5 x 9 in cat/3.png; resize"),
        (_no_image, "cat/3.png cannot be read as an image: it is truncated or damaged"),
        (_cut_short, "cat/3.png cannot be read as an image"),
        (_transparent, "cat/3.png must be opaque"),
        (_deep, "cat/3.png must have 8 bits in a pixel"),
        (_text, "cat/notes.txt must be an image"),
        (_nested, "got the folder 'more'"),
        (_empty, "eel must hold images"),
    ],
)
def test_folders_that_cannot_be_used_are_refused(tmp_path, spoil, message):
    path = folder(tmp_path / "mine")
    load_files(path)
    spoil(path)
    with pytest.raises(DataError, match=message):
        load_files(path)


def test_a_folder_needs_two_classes_and_images_that_memory_holds(tmp_path, monkeypatch):
    (tmp_path / "one" / "cat").mkdir(parents=True)
    pixels(1).save(tmp_path / "one" / "cat" / "1.png")
    with pytest.raises(DataError, match="subfolder for each of two or more classes, got 1"):
        load_files(tmp_path / "one")
    path = folder(tmp_path / "mine")
    monkeypatch.setattr("nnjax.data.folder.memory", lambda: 1000)
    with pytest.raises(DataError, match="30 images of 5 x 7 do not fit into memory"):
        load_files(path)


def test_several_images_in_one_file_are_refused(tmp_path):
    path = folder(tmp_path / "mine", suffix=".tif")
    pixels(1).save(path / "cat" / "3.tif", save_all=True, append_images=[pixels(2)])
    with pytest.raises(DataError, match="must hold one image, got 2"):
        load_files(path)
