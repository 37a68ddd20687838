import numpy as np
import pytest

from nnjax.data.text import make_text
from nnjax.train import DataError, load, load_files, load_text

WORDS = "the cat sat on the mat and the rat sat on the cat. " * 40
TEXT = make_text("words", WORDS)


def test_a_text_is_split_in_order_and_encoded():
    assert TEXT.vocabulary == "".join(sorted(set(WORDS)))
    assert TEXT.decode(TEXT.train) + TEXT.decode(TEXT.validation) == WORDS
    assert len(TEXT.train) == int(0.9 * len(WORDS))
    with pytest.raises(DataError, match=r"does not contain 'X'; use only"):
        TEXT.encode("teXt")


def test_a_byte_order_mark_is_not_a_character(tmp_path):
    path = tmp_path / "mine.txt"
    for text in (WORDS, "\ufeff" + WORDS, "abc\ufeff" + WORDS):  # a second one belongs to the text
        path.write_bytes(b"\xef\xbb\xbf" + text.encode())
        found = load_files(path)
        assert found.decode(found.train) + found.decode(found.validation) == text
    path.write_bytes(WORDS.encode())
    np.testing.assert_array_equal(load_text(path).train, load_text(str(path)).train)
    assert "\ufeff" not in load_text(path).vocabulary


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"mine\.txt is empty; put at least 20 characters into it"),
        (b"\xef\xbb\xbf", r"mine\.txt is empty"),
        (b"\xef\xbb\xbfshort", r"expected at least 20 characters, got 5"),
        (WORDS.encode() + b"\xe9t\xe9" + WORDS.encode(), r"mine\.txt is not UTF-8: .*0xe9.*; convert it"),
        (WORDS.encode("utf-16"), r"mine\.txt is not UTF-8"),
        (WORDS.encode() + "ü".encode()[:1], r"mine\.txt is not UTF-8: .*unexpected end"),
        (b"\xed\xa0\x80" * 20, r"mine\.txt is not UTF-8"),
    ],
)
def test_a_file_that_is_not_text_is_a_sentence(tmp_path, content, message):
    (tmp_path / "mine.txt").write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_files(tmp_path / "mine.txt")


def test_a_folder_or_a_number_is_not_a_text(tmp_path):
    with pytest.raises(DataError, match="cannot be read: "):
        load_text(tmp_path)
    for f in (load_text, load_files, load):
        with pytest.raises(TypeError, match=r"a path must be a str or a pathlib\.Path, got int"):
            f(3)
