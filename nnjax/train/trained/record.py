"""What a run needs besides its checkpoints to be used, in files that are written whole, before the first checkpoint.

FOLDER/network.json   the network with every option, what its inputs and outputs mean, and where its parameters are
FOLDER/network.npz    the arrays among these, if any; network.json has their SHA-256
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ...data.dataset import Moments
from ...data.files import replacing
from ...data.npz import read_npz
from ...layer import Layer
from ..checkpoint_folder import CheckpointError
from ..optimizers import Averaged
from ..processes import by_first
from ..step import TrainState
from ..watching.plain import plain
from .network import Network, layer_of, layers_after_the_first, operators

FORMAT = 1
FILE, ARRAYS = "network.json", "network.npz"
OF_TARGETS = "targets_"  # prefix of the names of their arrays
CLASSES, NUMBERS, TEXT = "classes", "numbers", "text"  # what a network predicts


class Rows(NamedTuple):
    """shape: of a raw example; scale: the divisor of raw whole numbers; moments: of --standardise, or None; features: names of
    the columns of a table."""

    shape: tuple[int, ...]
    scale: int = 1
    moments: Moments | None = None
    features: tuple[str, ...] = ()


class Targets(NamedTuple):
    """shape: of the targets of an example; moments: of --standardise-targets, or None; names: of the columns of a table."""

    shape: tuple[int, ...] = ()
    moments: Moments | None = None
    names: tuple[str, ...] = ()


class Feedback(NamedTuple):
    """The name of the feedback in training, and the data and kind of the key that it was drawn from."""

    name: str
    key: tuple[int, ...]
    kind: str


class Record(NamedTuple):
    """What is known about a run.

    task: CLASSES, NUMBERS or TEXT; data: the name of the training data; parameters: where in a checkpoint the parameters are
    that the run was scored with; rows and targets: for all but TEXT; classes (how many) and names (of each, if known): for
    CLASSES; vocabulary: for TEXT; statistics: where the running statistics of batch norms are, "" without any.
    """

    task: str
    data: str
    network: Network
    loss: str
    parameters: str = "params"
    compute_dtype: str | None = None
    feedback: Feedback | None = None
    rows: Rows = Rows(())
    classes: int = 0
    names: tuple[str, ...] = ()
    targets: Targets = Targets()
    vocabulary: str = ""
    statistics: str = ""


def evaluated_at(state: TrainState) -> str:
    """Where in a state the parameters are that `averaged` returns."""
    found = jax.tree_util.tree_leaves_with_path(state.opt_state, is_leaf=lambda s: isinstance(s, Averaged))
    paths = [jax.tree_util.keystr(path) for path, s in found if isinstance(s, Averaged)]
    return f"opt_state{paths[0]}.average" if paths else "params"


def feedback_of(name: str, key: jax.Array) -> Feedback | None:
    """The record of a feedback whose random numbers are drawn from this key; None for the transpose."""
    if name == "transpose":
        return None
    data = np.asarray(jax.random.key_data(key)).tolist()
    return Feedback(name, tuple(data), str(jax.random.key_impl(key)))


def model_of(record: Record) -> Layer:
    """The layer that was trained; for a gpt or llama, the one that returns logits."""
    network, feedback = record.network, record.feedback
    if feedback is None or network.kind not in ("mlp", "lenet"):
        return layer_of(network)
    key = jax.random.wrap_key_data(jnp.array(feedback.key, jnp.uint32), impl=feedback.kind)
    return layer_of(network, feedback=operators(feedback.name, key, layers_after_the_first(network)))


def keep_record(folder: Path, record: Record) -> None:
    """Write the record into the folder of a run, unless it is there; one process does it for all.

    Raises CheckpointError if it cannot be written.
    """
    by_first(lambda: _kept(folder, record), CheckpointError)


def _kept(folder: Path, record: Record) -> None:
    content, arrays = _content(record)
    try:
        if (folder / FILE).is_file() and _content(read_record(folder))[0] == content:
            return
    except CheckpointError:
        pass  # it is damaged, or of another version
    try:
        if arrays:
            with replacing(folder / ARRAYS) as draft, draft.open("wb") as file:
                np.savez(file, **arrays)
                file.flush()
                os.fsync(file.fileno())
        with replacing(folder / FILE) as draft, draft.open("w", encoding="utf-8") as file:
            json.dump({**content, "sha256": _of_content(content)}, file, indent=1)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise CheckpointError(
            f"{folder / FILE} could not be written: {error.strerror or error}; free space or choose another folder."
        ) from error


def _content(record: Record) -> tuple[dict[str, Any], dict[str, Any]]:
    """(what is written as JSON, the arrays)."""
    arrays: dict[str, Any] = record.rows.moments._asdict() if record.rows.moments else {}
    if record.targets.moments:
        arrays |= {OF_TARGETS + name: x for name, x in record.targets.moments._asdict().items()}
    found: dict[str, Any] = {"format": FORMAT, **record._asdict(), "network": record.network._asdict()}
    for name in ("rows", "targets"):
        found[name] = {key: value for key, value in getattr(record, name)._asdict().items() if key != "moments"}
    if record.feedback is not None:
        found["feedback"] = record.feedback._asdict()
    found["arrays"] = {name: _digest(x) for name, x in arrays.items()}
    return plain("network.json", found), arrays


def _digest(x: np.ndarray) -> str:
    return hashlib.sha256(f"{x.dtype} {x.shape} ".encode() + np.ascontiguousarray(x).tobytes()).hexdigest()


def _of_content(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_record(folder: Path) -> Record:
    """What `keep_record` wrote into this folder. Raises CheckpointError if it has changed."""
    path = folder / FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        digest = content.pop("sha256")
        if "format" in content and content["format"] != FORMAT:
            raise CheckpointError(
                f"{path} was saved by another version, in format {content['format']}; this one reads format {FORMAT}. Use that "
                "version."
            )
        if digest != _of_content(content):
            raise CheckpointError(
                f"{path} is damaged: it has changed; repeat the run's command with --resume, which writes it again."
            )
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from None
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path} is damaged; repeat the run's command with --resume, which writes it again.") from None
    try:
        return _record(content, _arrays(folder, content["arrays"]))
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path} was saved by another version, with other options ({error}); use that version.") from None


def _arrays(folder: Path, digests: Mapping[str, str]) -> dict[str, np.ndarray]:
    if not digests:
        return {}
    path = folder / ARRAYS
    try:
        found, _ = read_npz(path, digests)
    except (OSError, ValueError) as error:
        reason = "it does not exist" if isinstance(error, FileNotFoundError) else error
        raise CheckpointError(f"{path} cannot be read: {reason}; resume the run, which writes it again.") from None
    for name, digest in digests.items():
        if name not in found or _digest(found[name]) != digest:
            raise CheckpointError(f"{path} is damaged: {name} has changed; resume the run, which writes it again.")
    return found


def _record(content: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Record:
    given = {name: content[name] for name in Record._fields if name in content}
    given["network"] = Network(**content["network"])
    if content["feedback"] is not None:
        given["feedback"] = Feedback(**{**content["feedback"], "key": tuple(content["feedback"]["key"])})
    for name, kind, prefix in (("rows", Rows, ""), ("targets", Targets, OF_TARGETS)):
        words: dict[str, Any] = {key: tuple(x) if isinstance(x, list) else x for key, x in content.get(name, {}).items()}
        known = [arrays[prefix + key] for key in Moments._fields if prefix + key in arrays]
        given[name] = kind(**words, moments=Moments(*known) if known else None)
    given["names"] = tuple(content["names"])
    return Record(**given)
