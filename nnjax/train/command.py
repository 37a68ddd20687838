"""`nnjax train`."""

import json
import signal
import statistics
import time
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp

from ..check.vjp import Difference, compare_gradients
from ..files import writing
from ..layer import Layer
from .alignment import angle_lines, make_alignment
from .both import fit_both
from .data import load
from .dataset import DataError, Dataset, digest, expand, standardise
from .fit import expect_batches, fit
from .loop import expect_steps
from .metrics import Writers, expect_records, told_before
from .optimizers import averaged, make_optimizer
from .options import expect_options
from .placement import as_on_one_device, on_host
from .processes import expect_same_data, is_first
from .progress import progress
from .recipe import MODELS, Gradients, Recipe, gradients, make_recipe, named
from .run import Checkpoints, Fit, claim, expect_resumable
from .step import init_state
from .text import Text
from .text_command import train_text
from .trajectory import trajectory
from .watch import make_measure


@dataclass
class Train:
    """Train a network on real images or text with gradients written by hand, checked against jax.grad."""

    MAY_DIFFER: ClassVar[tuple[str, ...]] = ()  # options, when a run is resumed

    data: str = "digits"
    """digits (8x8, shipped); mnist, fashion_mnist, kmnist (28x28), tiny_shakespeare (from $NNJAX_DATA, or downloaded); or a
    file of your own, .npz or .txt."""
    expand: bool = False
    """Also train on every image shifted by one pixel in the four directions."""
    standardise: bool = False
    """Give every feature mean 0 and deviation 1 over the training examples."""
    model: str | None = None
    """Of images: mlp (default), lenet, or nielsen, the book's own network and backprop. Of text: gpt (default), char_rnn."""
    hidden: tuple[int, ...] = (64,)
    """Neurons of each hidden layer."""
    channels: tuple[int, ...] = (20, 40)
    """Maps of each convolution of a lenet."""
    activation: str | None = None
    """Activation between the layers: relu (default), sigmoid, tanh, leaky_relu, elu, gelu, silu, softplus."""
    dropout: float = 0.0
    """Share dropped before each dense layer of a lenet, or in each block of a gpt."""
    layers: int = 4
    """Blocks of a gpt, or recurrent layers of a char_rnn."""
    heads: int = 4
    """Heads of attention of a gpt."""
    width: int = 128
    """Width of a gpt or char_rnn."""
    context: int = 64
    """Characters in an example of text."""
    epochs: int | None = None
    """Passes over the training examples (40); of a text, times 250 batches (8)."""
    batch_size: int = 32
    """Examples in a step."""
    microbatches: int = 1
    """Compute each step in so many parts, one after the other: the same gradient in less memory."""
    compute_dtype: str | None = None
    """Compute in this dtype, bfloat16 or float16, while parameters stay in float32."""
    optimizer: str = "adam"
    """An optimizer of optax: sgd, adam, adamw, adagrad, rmsprop, nadam, lamb, lion, and more."""
    optimizer_args: dict[str, float] = field(default_factory=dict)
    """Arguments of the optimizer, names and numbers: b1 0.8 b2 0.99."""
    learning_rate: float = 0.002
    """Its learning rate, or the highest of the schedule."""
    schedule: str | None = None
    """A schedule of optax for the learning rate, over the whole run: cosine_decay_schedule, linear_schedule, ..."""
    schedule_args: dict[str, float] = field(default_factory=dict)
    """Arguments of the schedule, names and numbers; of a piecewise one, steps and scales."""
    clip: float | None = None
    """Largest 2-norm of the gradient."""
    loss: str | None = None
    """softmax_cross_entropy (default), binary_cross_entropy, mean_squared_error; for nielsen: quadratic (default),
    cross_entropy."""
    l2: float = 0.0
    """The book's lambda, part of the loss: the cost grows by (lambda / 2n) sum w^2, n the number of training examples."""
    l1: float = 0.0
    """The cost grows by (l1 / n) sum |w|."""
    weight_decay: float = 0.0
    """Decoupled, not part of the loss: after each step the weights lose learning rate x this share of themselves."""
    average: float | None = None
    """Score an exponential moving average of the parameters, with this decay."""
    patience: int | None = None
    """Stop after so many epochs without a better validation accuracy."""
    skip_non_finite: int = 0
    """Skip gradients that are not finite, up to so many in a row, rather than stop at the first."""
    seed: int = 0
    """Seed of the initial weights and of the shuffling."""
    feedback: str = "transpose"
    """What carries the error back, of mlp, lenet and nielsen: transpose, which gives the gradient; or inverse, pseudo_inverse,
    random, direct, sign_symmetric, sign_symmetric_fixed, sign_symmetric_redrawn, mirror, which do not."""
    grad: Literal["hand", "jax", "both"] = "hand"
    """Whose gradient trains. both: the hand-written one, held against jax.grad at every step."""
    trajectory: int = 0
    """Also take so many first steps twice, by hand and by jax.grad, and record how far the two runs drift apart."""
    folder: Path | None = None
    """Save the run here as it goes: checkpoints, and metrics.jsonl with a line for each epoch; `nnjax plot` draws them."""
    save_every: int | None = None
    """Steps between two checkpoints; by default an epoch."""
    resume: bool = False
    """Go on from the newest sound checkpoint in the folder."""
    tensorboard: bool = False
    """Also write the metrics for TensorBoard, into the folder."""
    wandb: str | None = None
    """Also send the metrics to this project of Weights & Biases."""

    def run(self) -> int:
        """Train, print what came of it, and return the exit code: 1 where the gradients differ by too much.

        A run that is refused has touched nothing: options are judged first, then the folder, then the data.
        """
        expect_options(self)
        return self._judged()

    def _judged(self) -> int:
        with claim(self._checkpoints()) as checkpoints:
            return self._run(checkpoints)

    def _run(self, checkpoints: Checkpoints | None) -> int:
        data = load(self.data)
        expect_same_data(data)
        if checkpoints is not None:
            known = {**checkpoints.configuration, "data": f"{Path(self.data).name}, SHA-256 {digest(data)[:16]}"}
            checkpoints = checkpoints._replace(configuration=known)
        if isinstance(data, Text):
            return self._ended(train_text(self, data, checkpoints))
        model = named("model", self.model or "mlp", MODELS)
        if not len(data.test.y):
            raise DataError(f"data set {data.name!r}: the test split is empty; give it at least one example.")
        data = expand(data) if self.expand else data
        data = standardise(data) if self.standardise else data
        epochs = 40 if self.epochs is None else self.epochs
        expect_batches(data, self.batch_size, epochs)
        expect_steps(epochs, len(data.train.y) // self.batch_size)
        optimizer = self._optimizer(epochs * (len(data.train.y) // self.batch_size))
        init_key, run_key = jax.random.split(jax.random.key(self.seed))
        recipe = make_recipe(
            model, data, hidden=self.hidden, channels=self.channels, activation=self.activation, loss=self.loss,
            dropout=self.dropout, l2=self.l2, l1=self.l1, microbatches=self.microbatches, compute_dtype=self.compute_dtype,
            feedback=self.feedback, gradients=self.gradients, key=init_key,
        )  # fmt: skip
        expect_resumable(checkpoints, jax.eval_shape(lambda: init_state(recipe.params, optimizer, run_key)))
        print(f"{self.data}: {len(data.train.y)} examples to train on, {len(data.test.y)} to test")
        largest = abs(data.train.x).max(initial=0)
        if largest > 10 and not self.standardise:
            print(f"note: features reach {largest:g}; --standardise gives each mean 0 and deviation 1, and trains faster")
        print(f"{model} {recipe.sizes}, {recipe.loss}, {self.described()}")
        start = time.perf_counter()
        x, labels = _on_device(recipe, data, self.batch_size)
        first = self._compare(recipe, recipe.params, x, labels)
        aligned = make_alignment(recipe.aligned, x, labels) if recipe.aligned else None
        angles = [aligned(recipe.params)] if aligned else []
        if self.trajectory:
            self._trajectory(recipe, *_on_device(recipe, data), optimizer, run_key)
        examples = len(data.train.y) // self.batch_size * self.batch_size
        with progress(epochs, examples) as on_epoch, self.writers(examples) as write:
            if self.grad == "both":
                done, broken = fit_both(recipe, data, optimizer, epochs, self.batch_size, run_key, first, on_epoch)
            else:
                done, broken = fit(
                    recipe.hand if self.grad == "hand" else recipe.reference, recipe.params, data,
                    predict=recipe.predict, optimizer=optimizer, epochs=epochs, batch_size=self.batch_size,
                    key=run_key, encode=recipe.encode, on_epoch=lambda record: (write(record), on_epoch(record)),
                    checkpoints=told_before(checkpoints, write),
                    evaluated=lambda state: averaged(state.opt_state, state.params),
                    measure=make_measure(recipe, x, labels) if self.folder else None,
                    patience=self.patience, where=recipe.where, skipping=self.skip_non_finite > 0,
                    placement=recipe.placement,
                ), ""  # fmt: skip
        if done.stopped in ("", "patience"):
            last = self._compare(recipe, on_host(done.state.params, recipe.placement), x, labels)
            if aligned:
                print(angle_lines(angles[0], aligned(done.state.params)))
            return self._summary(done, first, last, broken, time.perf_counter() - start)
        return self._ended(done)

    def gradients(self, model: Layer, loss: Layer) -> Gradients:
        """By hand and by jax.grad, on the devices to train on: one."""
        return gradients(model, loss)

    def _ended(self, done: Fit) -> int:
        """The exit code of a run, and why it ended where a signal did it."""
        if done.stopped in ("", "patience"):
            return 0
        print(f"stopped by {done.stopped} after step {int(done.state.step)} and saved; the same command with --resume goes on")
        return 128 + signal.Signals[done.stopped]

    def described(self) -> str:
        """How the run optimises, in words; which of the two decays is meant is said."""
        by = {"hand": "hand", "jax": "jax.grad", "both": "hand, held against jax.grad at every step"}[self.grad]
        given = [f"{k} {v:g}" for k, v in self.optimizer_args.items()]
        words = [" ".join([self.optimizer, *given]), f"learning rate {self.learning_rate}"]
        words += [f"{self.schedule}"] if self.schedule else []
        words += [f"gradient clipped to norm {self.clip:g}"] if self.clip else []
        words += [f"L2 in the loss, lambda {self.l2:g}"] if self.l2 else []
        words += [f"L1 in the loss, {self.l1:g}"] if self.l1 else []
        words += [f"decoupled weight decay {self.weight_decay:g}, not in the loss"] if self.weight_decay else []
        words += [f"scores of the moving average, decay {self.average:g}"] if self.average else []
        words += [f"computed in {self.compute_dtype}"] if self.compute_dtype else []
        words += [f"in {self.microbatches} microbatches"] if self.microbatches > 1 else []
        words += [f"gradients by {by}" if self.feedback == "transpose" else f"errors sent back by {self.feedback} feedback"]
        return ", ".join(words) + (f"\nsaving in {self.folder}" if self.folder else "")

    def _optimizer(self, steps: int):
        return make_optimizer(
            self.optimizer, self.learning_rate, steps, arguments=self.optimizer_args, schedule=self.schedule,
            schedule_arguments=self.schedule_args, clip=self.clip, weight_decay=self.weight_decay, average=self.average,
            skip=self.skip_non_finite,
        )  # fmt: skip

    def _checkpoints(self) -> Checkpoints | None:
        if self.folder is None:
            return None
        expect_records(self.folder)
        own = (*self.MAY_DIFFER, "folder", "resume", "tensorboard", "wandb", "trajectory", "patience")
        own += () if self.schedule else ("epochs",)  # a schedule spans the whole run
        configuration = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in own}
        return Checkpoints(
            self.folder / "checkpoints", self.save_every, configuration=configuration, resume=self.resume, on_note=print
        )

    def writers(self, examples: int) -> Writers:
        """Where each epoch's record goes beside the screen; examples: how many it trains on."""
        configuration = {f.name: getattr(self, f.name) for f in fields(self)}
        if not is_first():
            return Writers(None, examples)
        return Writers(self.folder, examples, self.tensorboard, self.wandb, configuration)

    def _trajectory(self, recipe: Recipe, x, labels, optimizer, key) -> None:
        found = trajectory(recipe.hand, recipe.reference, recipe.params, x, labels, optimizer=optimizer,
                           batch_size=self.batch_size, steps=self.trajectory, key=key)  # fmt: skip
        print(f"trajectory       after {self.trajectory} steps the parameters by hand and by jax.grad are "
              f"{found.params_apart[-1]:.2g} apart, the losses {found.loss_apart[-1]:.2g} (relative)")  # fmt: skip
        if self.folder:
            rows = zip(*(column.tolist() for column in found))
            lines = (json.dumps({"step": i, **dict(zip(found._fields, row))}) for i, row in enumerate(rows, 1))
            with writing(self.folder / "trajectory.jsonl") as file:
                file.write_text("\n".join(lines) + "\n")

    def _summary(self, done: Fit, first: list[Difference], last: list[Difference], broken: str, seconds: float) -> int:
        if done.stopped:
            print(f"stopped early: no better epoch in {self.patience}")
        best = max(done.history, key=lambda record: record.test_accuracy)
        print(f"test accuracy    {done.history[-1].test_accuracy:.4f} (best {best.test_accuracy:.4f}, epoch {best.epoch})")
        if done.history[-1].validation_accuracy == done.history[-1].validation_accuracy:
            best = max(done.history, key=lambda record: record.validation_accuracy)
            print(f"validation       {done.history[-1].validation_accuracy:.4f} (best {best.validation_accuracy:.4f}, "
                  f"epoch {best.epoch})")  # fmt: skip
        per_epoch = statistics.median(record.seconds for record in done.history)
        print(f"seconds          {per_epoch:.3f} an epoch (median), {seconds:.1f} in all")
        if self.feedback == "transpose":
            print(f"hand / jax.grad  first step: {_worst(first)}")
            print(f"                 last step:  {_worst(last)}")
        if broken:
            print(f"the gradient by hand left its error budget: {broken}")
        return 0 if not broken and all(d.ok for d in (*first, *last)) else 1

    def _compare(self, recipe: Recipe, params: Any, x, labels) -> list[Difference]:
        if self.compute_dtype or self.feedback != "transpose":  # another rounding, or no gradient at all
            return []
        key = jax.random.key(0) if self.dropout else None  # each device drops others than one alone would
        reference = recipe.one_device
        if reference is None or self.dropout:
            reference = as_on_one_device(recipe.reference, recipe.placement)
        hand, reference = (partial(f, key=key) for f in (as_on_one_device(recipe.hand, recipe.placement), reference))
        return compare_gradients(hand, reference, params, x, labels)


def _on_device(recipe: Recipe, data: Dataset, n: int | None = None) -> tuple[jax.Array, jax.Array]:
    """The first n training examples, or all, and their targets."""
    y = data.train.y[:n]
    return jnp.asarray(data.train.x[:n]), jnp.asarray(recipe.encode(y) if recipe.encode else y)


def _worst(differences: list[Difference]) -> str:
    if not differences:
        return "not compared in lower precision; nnjax.check_vjp does it, with compute_dtype"
    worst = max(differences, key=lambda d: d.relative / d.budget if d.budget else float(d.relative > 0))
    verdict = "ok" if all(d.ok for d in differences) else "TOO FAR APART"
    return f"relative difference {worst.relative:.2g} of a budget of {worst.budget:.2g} ({worst.leaf}): {verdict}"
