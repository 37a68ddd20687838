"""`nnjax train`."""

import signal
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp

from ..check.vjp import Difference, compare_gradients
from .data import load
from .dataset import Dataset, expand, standardise
from .fit import Checkpoints, Epoch, Fit, expect_batches, fit, make_accuracy
from .metrics import log
from .progress import progress
from .recipe import Recipe, make_optimizer, make_recipe
from .step import TrainState, apply_gradients, epoch_key, init_state, shuffled, step_key


@dataclass
class Train:
    """Train a network on real images with gradients written by hand, checked against jax.grad."""

    data: str = "digits"
    """digits (8x8, shipped), mnist (28x28; from $NNJAX_DATA, or downloaded), or an .npz file of your own."""
    expand: bool = False
    """Also train on every image shifted by one pixel in the four directions."""
    standardise: bool = False
    """Give every feature mean 0 and deviation 1 over the training examples."""
    model: str = "mlp"
    """mlp, or nielsen: the book's own network and backprop."""
    hidden: tuple[int, ...] = (64,)
    """Neurons of each hidden layer."""
    activation: str | None = None
    """Activation between the layers of an mlp: relu (default), sigmoid, tanh, leaky_relu, elu, gelu, silu, softplus."""
    epochs: int = 40
    """Passes over the training examples."""
    batch_size: int = 32
    """Examples in a step."""
    optimizer: str = "adam"
    """An optimizer of optax: sgd, adam, adamw, adagrad, rmsprop, nadam, lamb, lion, radam, yogi, adabelief."""
    learning_rate: float = 0.002
    """Its learning rate."""
    loss: str | None = None
    """softmax_cross_entropy (default), binary_cross_entropy, mean_squared_error; for nielsen: quadratic (default),
    cross_entropy."""
    l2: float = 0.0
    """The book's lambda: the cost grows by (lambda / 2n) sum w^2, n the number of training examples."""
    seed: int = 0
    """Seed of the initial weights and of the shuffling."""
    grad: Literal["hand", "jax", "both"] = "hand"
    """Whose gradient trains. both: the hand-written one, held against jax.grad at every step."""
    folder: Path | None = None
    """Save the run here as it goes: checkpoints, and metrics.jsonl with a line for each epoch."""
    save_every: int | None = None
    """Steps between two checkpoints; by default an epoch."""
    resume: bool = False
    """Go on from the newest sound checkpoint in the folder."""

    def run(self) -> int:
        """Train, print what came of it, and return the exit code: 1 where the gradients differ by too much."""
        checkpoints = self._checkpoints()
        optimizer = make_optimizer(self.optimizer, self.learning_rate)
        data = load(self.data)
        data = expand(data) if self.expand else data
        data = standardise(data) if self.standardise else data
        expect_batches(data, self.batch_size, self.epochs)
        init_key, run_key = jax.random.split(jax.random.key(self.seed))
        recipe = make_recipe(
            self.model, data, hidden=self.hidden, activation=self.activation, loss=self.loss, l2=self.l2, key=init_key
        )
        sizes = [data.train.x.shape[1], *self.hidden, data.classes]
        by = {"hand": "hand", "jax": "jax.grad", "both": "hand, held against jax.grad at every step"}[self.grad]
        print(f"{self.data}: {len(data.train.y)} examples to train on, {len(data.test.y)} to test")
        print(f"{self.model} {sizes}, {recipe.loss}, {self.optimizer}, learning rate {self.learning_rate}, gradients by {by}")
        if checkpoints:
            print(f"saving in {self.folder}")
        start = time.perf_counter()
        first = _compare(recipe, recipe.params, data, self.batch_size)
        with progress(self.epochs) as on_epoch:
            if self.grad == "both":
                done, broken = _fit_both(recipe, data, optimizer, self.epochs, self.batch_size, run_key, first, on_epoch)
            else:
                done, broken = fit(
                    recipe.hand if self.grad == "hand" else recipe.reference, recipe.params, data,
                    predict=recipe.predict, optimizer=optimizer, epochs=self.epochs, batch_size=self.batch_size,
                    key=run_key, encode=recipe.encode, on_epoch=self._logging(on_epoch, data), checkpoints=checkpoints,
                ), ""  # fmt: skip
        if done.stopped:
            print(
                f"stopped by {done.stopped} after step {int(done.state.step)} and saved; the same command with --resume goes on"
            )
            return 128 + signal.Signals[done.stopped]
        last = _compare(recipe, done.state.params, data, self.batch_size)
        return self._summary(done, first, last, broken, time.perf_counter() - start)

    def _checkpoints(self) -> Checkpoints | None:
        if self.folder is None:
            if self.resume or self.save_every is not None:
                raise ValueError("train: --resume and --save-every are about a run that is saved; name its place by --folder.")
            return None
        if self.grad == "both":
            raise ValueError("train: a run with --grad both is not saved; leave out --folder, or train by hand or by jax.")
        own = ("epochs", "folder", "resume")  # may differ when a run is resumed
        configuration = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in own}
        return Checkpoints(
            self.folder / "checkpoints", self.save_every, configuration=configuration, resume=self.resume, on_note=print
        )

    def _logging(self, on_epoch: Callable[[Epoch], None], data: Dataset) -> Callable[[Epoch], None]:
        if self.folder is None:
            return on_epoch
        path, examples = self.folder / "metrics.jsonl", len(data.train.y) // self.batch_size * self.batch_size

        def both(record: Epoch) -> None:
            log(path, record, examples)
            on_epoch(record)

        return both

    def _summary(self, done: Fit, first: list[Difference], last: list[Difference], broken: str, seconds: float) -> int:
        best = max(done.history, key=lambda record: record.test_accuracy)
        print(f"test accuracy    {done.history[-1].test_accuracy:.4f} (best {best.test_accuracy:.4f}, epoch {best.epoch})")
        if done.history[-1].validation_accuracy == done.history[-1].validation_accuracy:
            best = max(done.history, key=lambda record: record.validation_accuracy)
            print(f"validation       {done.history[-1].validation_accuracy:.4f} (best {best.validation_accuracy:.4f}, "
                  f"epoch {best.epoch})")  # fmt: skip
        per_epoch = statistics.median(record.seconds for record in done.history)
        print(f"seconds          {per_epoch:.3f} an epoch (median), {seconds:.1f} in all")
        print(f"hand / jax.grad  first step: {_worst(first)}")
        print(f"                 last step:  {_worst(last)}")
        if broken:
            print(f"the gradient by hand left its error budget: {broken}")
        return 0 if not broken and all(d.ok for d in (*first, *last)) else 1


def _compare(recipe: Recipe, params: Any, data: Dataset, batch_size: int) -> list[Difference]:
    x, y = (jnp.asarray(a[:batch_size]) for a in data.train)
    labels = jnp.asarray(recipe.encode(data.train.y[:batch_size])) if recipe.encode else y
    return compare_gradients(recipe.hand, recipe.reference, params, x, labels)


def _worst(differences: list[Difference]) -> str:
    worst = max(differences, key=lambda d: d.relative / d.budget if d.budget else float(d.relative > 0))
    verdict = "ok" if all(d.ok for d in differences) else "TOO FAR APART"
    return f"relative difference {worst.relative:.2g} of a budget of {worst.budget:.2g} ({worst.leaf}): {verdict}"


def _fit_both(
    recipe: Recipe, data: Dataset, optimizer, epochs: int, batch_size: int, key, first: list[Difference], on_epoch
) -> tuple[Fit, str]:
    """The epochs of `fit`, one step at a time, with both gradients from the same state at each.

    What may differ is the first step's budget, relative to the gradient there or, where it has grown, to the present one.
    Returns early, with a sentence, at the first step that breaks it.
    """
    budget = {d.leaf: (d.budget, d.scale) for d in first}
    names = [d.leaf for d in first]

    @jax.jit
    def step(state: TrainState, x, labels):
        value, grads = recipe.hand(state.params, x, labels, key=step_key(state))
        value_r, grads_r = recipe.reference(state.params, x, labels, key=step_key(state))
        pairs = zip(jax.tree.leaves((value, grads)), jax.tree.leaves((value_r, grads_r)))
        norms = [(jnp.linalg.norm((h - r).ravel()), jnp.linalg.norm(r.ravel())) for h, r in pairs]
        state = apply_gradients(state, grads, optimizer, value, lambda p: recipe.hand(p, x, labels, key=step_key(state))[0])
        return state, value, norms

    accuracy = make_accuracy(recipe.predict)
    state = init_state(recipe.params, optimizer, key)
    x = jnp.asarray(data.train.x)
    labels = jnp.asarray(recipe.encode(data.train.y) if recipe.encode else data.train.y)
    history, broken = [], ""
    for number in range(1, epochs + 1):
        start, losses = time.perf_counter(), []
        for rows in shuffled(epoch_key(state.key, state.step), len(x), batch_size):
            state, value, norms = step(state, x[rows], labels[rows])
            losses.append(value)
            for name, (apart, size) in zip(names, norms):
                relative, scale = budget[name]
                allowed = relative * max(scale, float(size))
                if not float(apart) <= allowed and not broken:
                    broken = f"{name} at step {int(state.step)} differs by {float(apart):.3g}, {allowed:.3g} is allowed"
            if broken:
                break
        seconds = time.perf_counter() - start
        loss = float(jnp.stack(losses).mean())
        scores = [accuracy(state.params, part) for part in (data.validation, data.test)]
        history.append(Epoch(number, loss, scores[0], scores[1], seconds))
        on_epoch(history[-1])
        if broken:
            break
    return Fit(state, tuple(history)), broken
