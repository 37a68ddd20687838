"""Folders of images, a subfolder for each class, read by Pillow."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from .dataset import DataError, Dataset, Split, split_rows, validated
from .files import expect_path
from .npz import memory

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
GREY = ("1", "L")


def load_folder(path: str | Path) -> Dataset:
    """The images in a folder, with a subfolder for each class: grey images, or RGB if any is in colour.

    All must have the same size; pixels are scaled to 0 ... 1. They are shuffled, always in the same order, and split
    80 : 10 : 10.  Names that start with a dot are skipped.
    Raises DataError, which names the file, for images of different sizes and for files that are not images.
    """
    path = expect_path("load_files", path)
    classes = {folder.name: _listed(folder) for folder in _inside(path) if folder.is_dir()}
    if len(classes) < 2:
        raise DataError(f"{path}: a folder of images needs a subfolder for each of two or more classes, got "
                        f"{len(classes)}; sort the images into subfolders, as in {path.name}/cat/1.png.")  # fmt: skip
    pixels = _stacked(path, [file for listed in classes.values() for file in listed])
    labels = np.repeat(np.arange(len(classes), dtype=np.int32), [len(listed) for listed in classes.values()])
    parts = [Split(s.x.reshape(len(s.x), -1).astype(np.float32) / np.float32(255), s.y) for s in split_rows(pixels, labels)]
    found = Dataset(path.name, *parts, classes=len(classes), shape=pixels.shape[1:], class_names=tuple(classes))
    return validated(found)


def folder_rows(
    path: Path, shape: tuple[int, ...], names: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray | None, tuple[str, ...]]:
    """(pixels uint8 (n, height, width) or (n, height, width, 3), labels (n,) or None, the name of each file in the folder).

    shape: of the images that are expected; names: of the classes, whose subfolders give the labels; images directly in the
    folder have no label.
    Raises DataError as `load_folder` does, for images of another shape, and for a subfolder that is not a known class.
    """
    folders = [folder for folder in _inside(path) if folder.is_dir()]
    for folder in folders:
        if folder.name not in names:
            raise DataError(f"{path}: subfolders must be classes of the network, {', '.join(names)}, got {folder.name!r}; "
                            "rename it, or put images without a class into a folder of their own.")  # fmt: skip
    listed = [_listed(folder) for folder in folders or [path]]
    files = [file for some in listed for file in some]
    found = _stacked(path, files)
    if found.shape[1:3] != shape[:2]:
        raise DataError(f"{path}: images must be {shape[0]} x {shape[1]}, like those of the training, got "
                        f"{_size(found[0])}; resize them.")  # fmt: skip
    if shape[2:] == (3,) and found.ndim == 3:
        found = np.repeat(found[..., None], 3, axis=3)
    elif shape[2:] != (3,) and found.ndim == 4:
        file = next(file for file in files if _image(file).ndim == 3)
        raise DataError(f"{path}: images must be grey, like those of the training, got {_named(file)} in colour; "
                        "convert it.")  # fmt: skip
    labels = np.repeat([names.index(folder.name) for folder in folders], [len(some) for some in listed]) if folders else None
    return found, labels, tuple(file.relative_to(path).as_posix() for file in files)


def _stacked(path: Path, files: list[Path]) -> np.ndarray:
    """uint8 (n, height, width) if all images are grey, else (n, height, width, 3)."""
    first = _image(files[0])
    if 12 * first.shape[0] * first.shape[1] * len(files) > memory():
        raise DataError(f"{path}: {len(files)} images of {_size(first)} do not fit into memory; use fewer, or smaller ones.")
    images = [first]
    for file in files[1:]:
        images.append(_image(file))
        if images[-1].shape[:2] != first.shape[:2]:
            raise DataError(f"{path}: all images must have the same size, got {_size(first)} in {_named(files[0])} and "
                            f"{_size(images[-1])} in {_named(file)}; resize them.")  # fmt: skip
    if any(image.ndim == 3 for image in images):
        images = [image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2) for image in images]
    return np.stack(images)


def _inside(folder: Path) -> list[Path]:
    try:
        return sorted(file for file in folder.iterdir() if not file.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror or error}; check it.") from None


def _listed(folder: Path) -> list[Path]:
    files = _inside(folder)
    for file in files:
        if file.is_dir():
            raise DataError(f"{folder}: a class must hold only images, got the folder {file.name!r}; move its images up, or "
                            "move it away.")  # fmt: skip
        if file.suffix.lower() not in IMAGES:
            raise DataError(f"{file} must be an image ({', '.join(IMAGES)}); convert it, or move it away.")
    if not files:
        raise DataError(f"{folder} must hold images, got none; put some in, or remove it.")
    return files


def _image(file: Path) -> np.ndarray:
    """uint8 (height, width), or (height, width, 3) of an image in colour."""
    try:
        from PIL import Image
    except ImportError:
        raise DataError("folders of images need Pillow: python -m pip install 'nnjax[train]'.") from None
    try:
        with warnings.catch_warnings(), Image.open(file) as image:
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return np.asarray(_as_pixels(file, image))
    except DataError:
        raise
    except Exception as error:  # each format has its own kinds of errors
        reason = "it is truncated or damaged" if isinstance(error, Image.UnidentifiedImageError) else str(error).rstrip(".")
        raise DataError(f"{file} cannot be read as an image: {reason}; replace it with an intact copy.") from None


def _as_pixels(file: Path, image: Any) -> Any:
    if getattr(image, "n_frames", 1) > 1:
        raise DataError(f"{file} must hold one image, got {image.n_frames}; save each in its own file.")
    if image.mode in GREY:
        return image.convert("L")
    if image.mode.startswith(("I", "F")):
        raise DataError(f"{file} must have 8 bits in a pixel, got mode {image.mode}; save it with 8, or all as an .npz file.")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if image.getextrema()[3][0] < 255:
            raise DataError(f"{file} must be opaque, got transparent pixels; save it without an alpha channel.")
    return image.convert("RGB")


def _size(image: np.ndarray) -> str:
    return f"{image.shape[0]} x {image.shape[1]}"


def _named(file: Path) -> str:
    return f"{file.parent.name}/{file.name}"
