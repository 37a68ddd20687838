"""`nnjax train` on images or tables: one of the models of `nnjax.train.recipe`."""

import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from ...check.vjp import Difference, compare_gradients
from ...data.catalogue import scale_of
from ...data.dataset import DataError, Dataset, moments, standardise, standardise_targets
from ...data.files import writing
from ...data.images import expand
from ...data.words import FAR, kind, notes
from ...train.fit import expect_batches, fit
from ...train.loop import expect_steps
from ...train.optimizers import averaged
from ...train.recipe import MODELS, Recipe, make_recipe, named
from ...train.run import Checkpoints, Epoch, Fit, expect_resumable
from ...train.step import init_state
from ...train.trained.record import CLASSES, NUMBERS, Record, Rows, Targets, evaluated_at, feedback_of, keep_record
from ...train.watching.alignment import angle_lines, make_alignment
from ...train.watching.metrics import told_before
from ...train.watching.progress import progress
from ...train.watching.scores import R2
from ...train.watching.trajectory import trajectory
from ...train.watching.watch import make_measure
from .words import COMPARING

if TYPE_CHECKING:
    from ..train import Train


def train_images(o: "Train", data: Dataset, checkpoints: Checkpoints | None) -> int:
    """Train and print the result; return the exit code."""
    model = named("model", o.model or "mlp", MODELS)
    if not len(data.test.y):
        raise DataError(f"data set {data.name!r}: the test split is empty; give it at least one example.")
    with o.waiting("making the network"):
        data = expand(data) if o.expand else data
        known = moments(data.train.x) if o.standardise else None
        data = standardise(data, known) if known else data
        targets = moments(data.train.y) if o.standardise_targets else None
        data = standardise_targets(data) if o.standardise_targets else data
        epochs = 40 if o.epochs is None else o.epochs
        expect_batches(data, o.batch_size, epochs)
        expect_steps(epochs, len(data.train.y) // o.batch_size)
        optimizer = o.optimizer_for(epochs * (len(data.train.y) // o.batch_size))
        init_key, run_key = jax.random.split(jax.random.key(o.seed))
        recipe = make_recipe(
            model, data, hidden=o.hidden, channels=o.channels, blocks=o.blocks, activation=o.activation, loss=o.loss,
            dropout=o.dropout, l2=o.l2, l1=o.l1, microbatches=o.microbatches, compute_dtype=o.compute_dtype,
            feedback=o.feedback, gradients=o.gradients, key=init_key,
        )  # fmt: skip
        state = jax.eval_shape(lambda: init_state(recipe.params, optimizer, run_key, recipe.running))
        expect_resumable(checkpoints, state)
    o.say(f"{o.data}: {len(data.train.y)} examples to train on, {len(data.test.y)} to test")
    if what := kind(data):
        o.say(what)
    largest = abs(data.train.x).max(initial=0)
    if largest > FAR and not o.standardise:
        o.say(f"note: features reach {largest:g}; --standardise gives each mean 0 and deviation 1, and trains faster")
    for note in notes(data):
        o.say(note)
    o.say(f"{model} {recipe.sizes}, {recipe.loss}, {o.described()}")
    if o.folder:
        shape = recipe.network.options.get("image", data.train.x.shape[1:] if data.shape is None else data.shape)
        keep_record(o.folder, Record(
            NUMBERS if data.regression else CLASSES, data.name, recipe.network, recipe.loss, evaluated_at(state),
            o.compute_dtype, feedback_of(o.feedback, init_key),
            Rows(tuple(shape), scale_of(o.data), known, data.features or ()), data.classes, data.class_names or (),
            Targets(data.train.y.shape[1:], targets, data.targets or ()), statistics="running" if recipe.running else "",
        ))  # fmt: skip
    start = time.perf_counter()
    x, labels = _on_device(recipe, data, o.batch_size)
    with o.waiting(COMPARING):
        first = _compare(o, recipe, recipe.params, x, labels)
    aligned = make_alignment(recipe.aligned, x, labels) if recipe.aligned else None
    angles = [aligned(recipe.params)] if aligned else []
    if o.trajectory:
        _trajectory(o, recipe, *_on_device(recipe, data), optimizer, run_key)
    examples = len(data.train.y) // o.batch_size * o.batch_size
    steps = len(data.train.y) // o.batch_size
    with progress(epochs, examples, steps, o.quiet) as watched, o.writers(examples) as write:
        trained, where = o.trained(recipe.hand, recipe.reference, first, recipe.where)
        done = fit(
            trained, recipe.params, data,
            predict=recipe.predict, optimizer=optimizer, epochs=epochs, batch_size=o.batch_size,
            key=run_key, encode=recipe.encode, on_epoch=lambda record: (write(record), watched.on_epoch(record)),
            on_steps=watched.on_steps,
            checkpoints=told_before(checkpoints, write),
            evaluated=lambda state: averaged(state.opt_state, state.params),
            measure=make_measure(recipe, x, labels) if o.folder else None,
            patience=o.patience, where=where, skipping=o.skipping, placement=recipe.placement,
            running=recipe.running,
        )  # fmt: skip
    if done.stopped in ("", "patience"):
        with o.waiting(COMPARING):
            last = _compare(o, recipe, recipe.placement.on_host(done.state.params), x, labels)
        if aligned:
            print(angle_lines(angles[0], aligned(done.state.params)))
        return _summary(o, done, first, last, time.perf_counter() - start)
    return o.ended(done)


def _trajectory(o: "Train", recipe: Recipe, x, labels, optimizer, key) -> None:
    found = trajectory(recipe.hand, recipe.reference, recipe.params, x, labels, optimizer=optimizer,
                       batch_size=o.batch_size, steps=o.trajectory, key=key)  # fmt: skip
    o.say(f"trajectory       after {o.trajectory} steps the parameters by hand and by jax.grad are "
          f"{found.params_apart[-1]:.2g} apart, the losses {found.loss_apart[-1]:.2g} (relative)")  # fmt: skip
    if o.folder:
        rows = zip(*(column.tolist() for column in found))
        lines = (json.dumps({"step": i, **dict(zip(found._fields, row))}) for i, row in enumerate(rows, 1))
        with writing(o.folder / "trajectory.jsonl") as file:
            file.write_text("\n".join(lines) + "\n")


def _summary(o: "Train", done: Fit, first: list[Difference], last: list[Difference], seconds: float) -> int:
    if done.stopped:
        print(f"stopped early: no better epoch in {o.patience}")
    if R2["test"] in done.history[-1].measured:
        _best(done, "test R²", lambda record: record.measured[R2["test"]])
        _best(done, "validation R²", lambda record: record.measured[R2["validation"]])
    else:
        _best(done, "test accuracy", lambda record: record.test_accuracy)
        _best(done, "validation", lambda record: record.validation_accuracy)
    per_epoch = statistics.median(record.seconds for record in done.history)
    print(f"seconds          {per_epoch:.3f} an epoch (median), {seconds:.1f} in all")
    if o.feedback == "transpose":
        print(f"hand / jax.grad  first step: {_worst(first)}")
        print(f"                 last step:  {_worst(last)}")
    return 0 if all(d.ok for d in (*first, *last)) else 1


def _best(done: Fit, what: str, score: Callable[[Epoch], float]) -> None:
    """Print the last score and the best one, if there is one."""
    if score(done.history[-1]) == score(done.history[-1]):
        best = max(done.history, key=score)
        print(f"{what:<16} {score(done.history[-1]):.4f} (best {score(best):.4f}, epoch {best.epoch})")


def _compare(o: "Train", recipe: Recipe, params: Any, x, labels) -> list[Difference]:
    if o.compute_dtype or o.feedback != "transpose":  # rounded otherwise, or not a gradient at all
        return []
    key = jax.random.key(0) if o.dropout else None  # each device drops other units than a single device would
    reference = recipe.one_device
    if reference is None or o.dropout:
        reference = recipe.placement.as_on_one_device(recipe.reference)
    hand, reference = (partial(f, key=key) for f in (recipe.placement.as_on_one_device(recipe.hand), reference))
    return compare_gradients(hand, reference, params, x, labels, early=o.grad != "both")


def _on_device(recipe: Recipe, data: Dataset, n: int | None = None) -> tuple[jax.Array, jax.Array]:
    """The first n training examples, or all, and their targets."""
    y = data.train.y[:n]
    return jnp.asarray(data.train.x[:n]), jnp.asarray(recipe.encode(y) if recipe.encode else y)


def _worst(differences: list[Difference]) -> str:
    if not differences:
        return "not compared in lower precision; nnjax.check_vjp can, with compute_dtype"
    worst = max(differences, key=lambda d: d.relative / d.budget if d.budget else float(d.relative > 0))
    verdict = "ok" if all(d.ok for d in differences) else "TOO FAR APART"
    return f"relative difference {worst.relative:.2g} of a budget of {worst.budget:.2g} ({worst.leaf}): {verdict}"
