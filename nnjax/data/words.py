"""What a person should know about a data set before training on it, as text."""

import numpy as np

from .dataset import Dataset, moments

MOST = 8  # names to list
FAR = 10.0  # times 1: features or targets that are larger, or differ by more, train slowly


def kind(data: Dataset) -> str:
    """What is predicted: "" for classes without names."""
    if data.class_names is not None:
        more = f", and {len(data.class_names) - MOST} more" if len(data.class_names) > MOST else ""
        of = f" of {data.targets[0]!r}" if data.targets else ""
        return f"{data.classes} classes{of}: {', '.join(data.class_names[:MOST])}{more}"
    if not data.regression:
        return ""
    names = "" if data.targets is None else f" {', '.join(map(repr, data.targets[:MOST]))}"
    return f"regression of {'one number' if data.outputs == 1 else f'{data.outputs} numbers'}{names}"


def notes(data: Dataset) -> list[str]:
    """What is unusual about targets that are numbers, each with its remedy."""
    if not data.regression:
        return []
    y = np.asarray(data.train.y, np.float64).reshape(len(data.train.y), -1)
    found = []
    deviation = moments(y).deviation
    largest = abs(y).max()
    remedy = "--standardise-targets gives each mean 0 and deviation 1, and trains faster; R² does not change"
    if largest > FAR:
        found.append(f"note: targets reach {largest:g}; {remedy}")
    elif deviation.min() * FAR < 1:
        found.append(f"note: targets vary by as little as {deviation.min():.2g}; {remedy}")
    elif deviation.max() > FAR * deviation.min():
        found.append(f"note: targets vary by {deviation.min():.2g} to {deviation.max():.2g}, so the loss hardly shows the "
                             f"smallest; {remedy}")  # fmt: skip
    if y.shape[1] == 1 and len(np.unique(y)) < min(50, len(y) // 4) and (y == np.round(y)).all():
        found.append(
            f"note: the targets are {len(np.unique(y))} whole numbers; if they are classes, save them as integers from 0"
        )
    for part, split in (("validation", data.validation), ("test", data.test)):
        rows = np.asarray(split.y).reshape(len(split.y), data.outputs)
        if len(rows) and (same := (rows.min(0) == rows.max(0)).sum()):
            which = "the targets are" if same == data.outputs else f"{same} of {data.outputs} targets are"
            found.append(f"note: {which} the same in every {part} example, so R² is not defined there")
    return found
