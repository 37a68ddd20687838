"""`nnjax reproduce feedback`: train networks that carry the error back by something other than the transpose."""

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ..data.dataset import Dataset
from ..feedback import inverse, transpose
from ..train.fit import fit
from ..train.recipe import make_recipe
from ..train.watching.alignment import ANGLE, RATIO, Aligned, make_alignment
from .book import write_json

EXAMPLES = 1000  # to measure angles on


class Setting(NamedTuple):
    """The same settings for every operator. published: test errors in percent of a network of this size, by operator."""

    name: str
    data: str
    model: str
    hidden: tuple[int, ...]
    activation: str
    learning_rate: float
    epochs: int
    batch: int
    operators: tuple[str, ...]
    published: Mapping[str, float] = {}
    l2: Mapping[str, float] = {}


DIGITS = Setting(
    "digits, [64, 64, 64, 10]", "digits", "mlp", (64, 64), "tanh", 0.3, 60, 32,
    ("transpose", "sign_symmetric", "mirror", "random", "direct", "pseudo_inverse", "inverse"),
    l2={"mirror": 1.0},  # the mirror learns because both sides decay
)  # fmt: skip
# Sanfiz and Akrout 2021, table of MNIST: error in percent of a LeNet by backpropagation, sign-symmetric (uniform), random
# and direct feedback.
MNIST = Setting(
    "MNIST, LeNet", "mnist", "lenet", (100,), "tanh", 0.1, 10, 32, ("transpose", "sign_symmetric", "random", "direct"),
    published={"transpose": 0.91, "sign_symmetric": 0.94, "random": 1.70, "direct": 1.61},
)  # fmt: skip


class Outcome(NamedTuple):
    """accuracy: on the test images after the last epoch, a share of 1; angles, ratios: for the weights of each layer, a list
    with one number for each epoch."""

    seed: int
    accuracy: float
    angles: dict[str, list[float]]
    ratios: dict[str, list[float]]
    seconds: float

    @property
    def final(self) -> dict[str, float]:
        """The angles after the last epoch, without that of the top layer, which gets the output error itself."""
        return {name: values[-1] for name, values in list(self.angles.items())[:-1]}


def operators_of(setting: Setting, name: str, data: Dataset) -> Any:
    """The feedback for `make_recipe`: the name, or for "inverse" that operator if weights are square, else the transpose."""
    if name != "inverse":
        return name
    sizes = (*setting.hidden, data.classes)
    return tuple(inverse if a == b else transpose for a, b in zip(sizes, sizes[1:]))


def train_with(setting: Setting, name: str, seed: int, data: Dataset, say: Callable[[str], None] = print) -> Outcome:
    """Train one network from this seed, with this operator."""
    init_key, run_key = jax.random.split(jax.random.key(seed))
    recipe = make_recipe(
        setting.model, data, hidden=setting.hidden, activation=setting.activation, l2=setting.l2.get(name, 0.0),
        feedback=operators_of(setting, name, data), key=init_key,
    )  # fmt: skip
    x, labels = jnp.asarray(data.train.x[:EXAMPLES]), jnp.asarray(data.train.y[:EXAMPLES])
    measure = make_alignment(recipe.aligned or Aligned(recipe.hand, recipe.hand), x, labels)
    start = time.perf_counter()
    done = fit(
        recipe.hand, recipe.params, data, predict=recipe.predict, optimizer=optax.sgd(setting.learning_rate),
        epochs=setting.epochs, batch_size=setting.batch, key=run_key, measure=lambda state: measure(state.params),
    )  # fmt: skip

    def course(prefix):
        names = [k for k in done.history[0].measured if k.startswith(prefix)]
        return {k.removeprefix(prefix): [round(r.measured[k], 4) for r in done.history] for k in names}

    found = Outcome(seed, done.history[-1].test_accuracy, course(ANGLE), course(RATIO), time.perf_counter() - start)
    final = ", ".join(f"{angle:.0f}" for angle in found.final.values())
    say(f"  {setting.name}, {name}, seed {seed}: test accuracy {100 * found.accuracy:.2f} %, angles {final} degrees, "
        f"{found.seconds:.0f} s")  # fmt: skip
    return found


def diverged(setting: Setting, name: str, seed: int, data: Dataset, say: Callable[[str], None] = print) -> Outcome:
    """`train_with`, where a run that diverges has accuracy NaN and no angles."""
    try:
        return train_with(setting, name, seed, data, say)
    except FloatingPointError as error:
        say(f"  {setting.name}, {name}, seed {seed}: {error}")
        return Outcome(seed, math.nan, {}, {}, math.nan)


def compare(
    setting: Setting, data: Dataset, seeds: int, file: Path, say: Callable[[str], None] = print
) -> list[dict[str, Any]]:
    """Train with every operator of this setting from the seeds 0 ... seeds - 1; `file` collects the results of all settings.

    Results with this setting that are in the file already are not trained again.
    """
    known = json.loads(file.read_text()) if file.is_file() else {"settings": []}
    own = {k: list(v) if isinstance(v, tuple) else v for k, v in setting._asdict().items()}
    entry: dict[str, Any] = next((s for s in known["settings"] if s["setting"] == own), {"setting": own, "rows": []})
    known["settings"] = [s for s in known["settings"] if s["setting"]["name"] != setting.name] + [entry]
    for name in setting.operators:
        row = next((r for r in entry["rows"] if r["operator"] == name), {"operator": name, "seeds": []})
        entry["rows"] = [r for r in entry["rows"] if r["operator"] != name] + [row]
        for seed in range(len(row["seeds"]), seeds):
            found = diverged(setting, name, seed, data, say)
            row["seeds"].append({k: None if v != v else v for k, v in found._asdict().items()})
            known |= {"jax": jax.__version__, "device": jax.devices()[0].device_kind, "cores": os.cpu_count(),
                      "date": time.strftime("%Y-%m-%d")}  # fmt: skip
            write_json(file, known)
        say(line(setting, row))
    return entry["rows"]


def line(setting: Setting, row: dict[str, Any]) -> str:
    """One row of the table as text: the mean accuracy, each seed's, and the mean final angle of each layer below the top."""
    seeds = [s for s in row["seeds"] if s["accuracy"] is not None]
    if not seeds:
        return f"{row['operator']:24} diverged"
    each = [100 * s["accuracy"] for s in seeds]
    last = np.mean([[v[-1] for v in s["angles"].values()][:-1] for s in seeds], axis=0)
    words = f"{row['operator']:24} {np.mean(each):6.2f} %  ({', '.join(f'{a:.2f}' for a in each)})"
    words += f"  angles {', '.join(f'{a:.1f}' for a in last)}"
    if row["operator"] in setting.published:
        words += f"  published {100 - setting.published[row['operator']]:.2f} %"
    return words
