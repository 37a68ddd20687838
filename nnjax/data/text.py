"""Text as characters: files, and what is done with a text before training."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import describe, is_array
from .dataset import DataError
from .files import expect_path

SHOWN = 200  # characters of a vocabulary in an error
SHARE = 0.9  # of a text, from its start, to train on; the rest is for validation


class Text(NamedTuple):
    """train, validation: int32 ids of consecutive characters; vocabulary[id] is the character."""

    name: str
    train: np.ndarray
    validation: np.ndarray
    vocabulary: str

    def encode(self, text: str) -> np.ndarray:
        """The ids of these characters. Raises DataError for characters that are not in the vocabulary."""
        if not isinstance(text, str):
            raise TypeError(f"encode: text must be a str, got {describe(text)}; pass its characters.")
        number = {c: i for i, c in enumerate(self.vocabulary)}
        strange = sorted(set(text) - set(number))
        if strange:
            known = self.vocabulary if len(self.vocabulary) <= SHOWN else f"{self.vocabulary[:SHOWN]}..."
            raise DataError(f"text {self.name!r} does not contain {', '.join(map(repr, strange))}; use only {known!r}.")
        return np.array([number[c] for c in text], np.int32)

    def decode(self, ids: Any) -> str:
        """The characters with these ids. Raises TypeError unless they are integers, DataError for unknown ids."""
        try:
            found = np.asarray(ids) if isinstance(ids, (list, tuple)) or is_array(ids) else None
        except (TypeError, ValueError):  # a key, or rows of different lengths
            found = None
        if found is None or (found.size and not np.issubdtype(found.dtype, np.integer)):
            raise TypeError(
                f"decode: ids must be integers, got {describe(ids if found is None else found)}; take logits.argmax(-1)."
            )
        if found.size and not 0 <= found.min() <= found.max() < len(self.vocabulary):
            raise DataError(f"text {self.name!r}: ids must lie in 0 ... {len(self.vocabulary) - 1}, got {found.min()} to "
                            f"{found.max()}; pass ids of this text.")  # fmt: skip
        return "".join(self.vocabulary[i] for i in found.ravel())


def make_text(name: str, text: str) -> Text:
    """A text as characters, with a sorted vocabulary. Raises DataError if there is too little to split."""
    if len(text) < 20:
        raise DataError(f"text {name!r}: expected at least 20 characters, got {len(text)}; give it more.")
    empty = Text(name, np.zeros(0, np.int32), np.zeros(0, np.int32), "".join(sorted(set(text))))
    ids, cut = empty.encode(text), int(SHARE * len(text))
    return empty._replace(train=ids[:cut], validation=ids[cut:])


def load_text(path: str | Path) -> Text:
    """The text in your own UTF-8 file: 90 % to train on, the last 10 % to validate. Raises DataError if it cannot be read."""
    path = expect_path("load_text", path)
    try:
        text = path.read_text(encoding="utf-8-sig")  # without the byte order mark that some editors write
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; check the path of the text file.") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8: {error}; convert it.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}; check it.") from None
    if not text:
        raise DataError(f"{path} is empty; put at least 20 characters into it.")
    return make_text(path.name, text)
