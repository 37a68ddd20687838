"""`nnjax train`."""

import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import ClassVar, Literal

import jax
import optax
from jax.sharding import Mesh

from ..check.vjp import Difference
from ..data.catalogue import load
from ..data.dataset import digest
from ..data.text import Text
from ..distributed.devices import mesh_of, mesh_sizes, share_of, simulate
from ..distributed.processes import CONNECT, Place, expect_alike, found_place, join, together
from ..distributed.training import gradients
from ..errors import expect_positive
from ..grad import ValueAndGrad
from ..layer import Layer
from ..train.both import held_together
from ..train.loop import GradientsApart
from ..train.optimizers import make_optimizer
from ..train.processes import expect_same_data, is_first
from ..train.recipe import Gradients, Made
from ..train.recipe import gradients as on_one_device
from ..train.run import Checkpoints, Fit, claim
from ..train.watching.metrics import Writers, expect_records
from .options.config import OWN, as_toml, file_named, read
from .options.groups import TRAIN, parse
from .predict import usage
from .training.compilation import keep_programs
from .training.images import train_images
from .training.mixture import OfMixtures
from .training.options import expect_on_mesh, expect_options, is_used
from .training.text import train_text
from .training.words import described
from .waiting import waiting, wrapped


@dataclass
class Train(OfMixtures):
    """Train a network on images, tables or text, with gradients written by hand."""

    MAY_DIFFER: ClassVar[tuple[str, ...]] = (
        "devices", "mesh", "coordinator", "num_processes", "process_id", "connect_seconds", "quiet", "compilation_cache",
    )  # fmt: skip

    data: str = "digits"
    """digits (8x8, shipped); mnist, fashion_mnist, kmnist (28x28), tiny_shakespeare (from $NNJAX_DATA, or downloaded); or data
    of your own: .npz, .csv, .parquet, .txt, or a folder of images with a subfolder for each class."""
    target: str | None = None
    """The column of a table to predict: classes by name, or numbers. By default the last."""
    regression: bool = False
    """Predict whole numbers as numbers, not as classes. Numbers with a decimal point always are."""
    expand: bool = False
    """Also train on every image shifted by one pixel in the four directions."""
    standardise: bool = False
    """Give every feature mean 0 and deviation 1 over the training examples."""
    standardise_targets: bool = False
    """The same for targets that are numbers; R², the score, does not change."""
    model: str | None = None
    """Of images and tables: mlp (default), lenet, resnet, nielsen (the book's network). Of text: gpt (default), llama, moe,
    char_rnn, linear_rnn."""
    hidden: tuple[int, ...] = (64,)
    """Neurons of each hidden layer."""
    channels: tuple[int, ...] = ()
    """Channels of each convolution of a lenet (20 40), or of each stage of a resnet (8 16 32)."""
    blocks: int = 1
    """Residual blocks in each stage of a resnet."""
    activation: str | None = None
    """Activation between the layers: relu (default), sigmoid, tanh, leaky_relu, elu, gelu, silu, softplus."""
    dropout: float = 0.0
    """Share of activations dropped before each dense layer of a lenet, or in each block of a gpt, llama or moe."""
    layers: int = 4
    """Blocks of a gpt, llama or moe, or recurrent layers of a char_rnn or linear_rnn."""
    heads: int = 4
    """Attention heads of a gpt, llama or moe."""
    kv_heads: int | None = None
    """Heads of keys and values of a llama, shared among its heads; by default as many."""
    width: int = 128
    """Width of a model of text."""
    context: int = 64
    """Characters in an example of text."""
    truncate: int | None = None
    """Cut backpropagation through time in a char_rnn every so many characters; its bias is printed."""
    epochs: int | None = None
    """Passes over the training examples (40); for text, units of 250 steps (8)."""
    batch_size: int = 32
    """Examples in a minibatch."""
    microbatches: int = 1
    """Split each minibatch into this many equal parts, computed one after another: the same gradient in less memory."""
    compute_dtype: str | None = None
    """Compute in this dtype, bfloat16 or float16, while parameters stay in float32."""
    optimizer: str = "adam"
    """An optimizer of optax: sgd, adam, adamw, adagrad, rmsprop, nadam, lamb, lion, and more."""
    optimizer_args: dict[str, float] = field(default_factory=dict)
    """Arguments of the optimizer, names and numbers: b1 0.8 b2 0.99."""
    learning_rate: float = 0.002
    """The learning rate, or the highest one of the schedule."""
    schedule: str | None = None
    """A schedule of optax for the learning rate, over the whole run: cosine_decay_schedule, linear_schedule, ..."""
    schedule_args: dict[str, float] = field(default_factory=dict)
    """Arguments of the schedule, names and numbers; for a piecewise one, steps and scales."""
    clip: float | None = None
    """Scale the gradient down to this 2-norm where it is larger."""
    loss: str | None = None
    """For classes softmax_cross_entropy (default), binary_cross_entropy, mean_squared_error; for numbers
    mean_squared_error; for the model nielsen quadratic (default), cross_entropy."""
    l2: float = 0.0
    """The book's lambda, part of the loss: the cost grows by (lambda / 2n) sum w^2, n the number of training examples."""
    l1: float = 0.0
    """The cost grows by (l1 / n) sum |w|."""
    weight_decay: float = 0.0
    """Decoupled decay, not part of the loss: each step also shrinks the weights by this share times the learning rate."""
    average: float | None = None
    """Score an exponential moving average of the parameters, with this decay, such as 0.999."""
    patience: int | None = None
    """Stop after this many epochs without a better validation accuracy, or R²."""
    skip_non_finite: int = 0
    """Skip gradients that are not finite, up to this many in a row, rather than stop at the first."""
    seed: int = 0
    """Seed of the initial weights and of the shuffling."""
    feedback: str = "transpose"
    """What carries the error back in mlp, lenet and nielsen: transpose, which gives the gradient; or inverse, pseudo_inverse,
    random, direct, sign_symmetric, sign_symmetric_fixed, sign_symmetric_redrawn, mirror, which do not."""
    grad: Literal["hand", "jax", "both"] = "hand"
    """Which gradient trains. both: the hand-written one, compared with jax.grad at every step; the run stops if they differ."""
    trajectory: int = 0
    """Also run this many first steps twice, by hand and by jax.grad, and record how far the two runs drift apart."""
    folder: Path | None = None
    """Save the run here as it goes: checkpoints, and metrics.jsonl with a line for each epoch; `nnjax plot` draws them."""
    save_every: int | None = None
    """Steps between two checkpoints; by default an epoch."""
    resume: bool = False
    """Resume from the newest valid checkpoint in the folder."""
    tensorboard: bool = False
    """Also write the metrics for TensorBoard, into the folder."""
    wandb: str | None = None
    """Also send the metrics to this project of Weights & Biases."""
    quiet: bool = False
    """Print only the result, and errors."""
    compilation_cache: str | None = None
    """Folder that keeps compiled programs, so that the next run starts sooner; off keeps none. By default a folder in the
    user's cache; if $JAX_COMPILATION_CACHE_DIR is set, JAX's own settings are used as they are."""
    devices: int | None = None
    """Train on this many devices; a CPU simulates them, an equal share in each process."""
    mesh: str | None = None
    """How the devices are laid out, as data=4,model=2; by default data=DEVICES. data: each has its own examples; shard:
    also its share of all parameters and optimizer state; expert: of a moe's experts; model: of the layers of an mlp, gpt or
    llama."""
    coordinator: str | None = None
    """Train in several processes, on one machine or many; HOST:PORT is the address of process 0. Each runs the same command
    with its own --process-id. SLURM's srun and Open MPI's mpirun supply these three options: leave them out there."""
    num_processes: int | None = None
    """The number of processes."""
    process_id: int | None = None
    """The number of this process, from 0."""
    connect_seconds: int = CONNECT
    """Seconds to wait until all processes have connected."""

    config: Path | None = None
    """Read options that are not given here from this file, TOML or YAML, with lines such as learning_rate = 0.01."""
    print_config: bool = False
    """Print all options as TOML for --config, and exit."""

    @classmethod
    def parse(cls, args: Sequence[str]) -> "Train":
        """Parse the words of a command line. Raises ValueError for an invalid --config file."""
        file = file_named(args)
        return parse(cls(**read(file, cls)) if file else cls(), TRAIN, "nnjax train", args)

    def __post_init__(self) -> None:
        self._mesh: Mesh | None = None

    def run(self) -> int:
        """Train, print the result, and return the exit code: 1 if the gradients differ by too much.

        A run that is refused has changed nothing: options are checked first, then the devices, the folder and the data.
        Raises ValueError if devices or other processes are missing.
        """
        expect_options(self)
        if self.print_config:
            print(as_toml(self, TRAIN))
            return 0
        place = found_place(self.coordinator, self.num_processes, self.process_id)
        sizes = mesh_sizes(self.mesh, self.devices)
        expect_positive("train", connect_seconds=self.connect_seconds)
        if place is None and sizes is None:
            return self._judged()
        expect_on_mesh(self)
        simulate(share_of(self.devices, place.count if place else 1))
        if place is None:
            return self._on(sizes)
        join(place, self.connect_seconds)
        return together(place, lambda: self._in_company(place, sizes))

    def _in_company(self, place: Place, sizes: dict[str, int] | None) -> int:
        own = ("coordinator", "process_id")
        expect_alike({f.name: getattr(self, f.name) for f in fields(self) if f.name not in own})
        return self._on(sizes)

    def _on(self, sizes: dict[str, int] | None) -> int:
        self._mesh = mesh_of(sizes or {"data": jax.device_count()})
        return self._judged()

    def _judged(self) -> int:
        with claim(self._checkpoints()) as checkpoints:
            keep_programs(self.compilation_cache, self.say)
            try:
                return self._run(checkpoints)
            except GradientsApart as error:
                print(f"the hand-written gradient exceeded its error budget: {error}")
                return 1

    def _run(self, checkpoints: Checkpoints | None) -> int:
        with self.waiting("reading the data"):
            data = load(self.data, self.target, self.regression)
            expect_same_data(data)
            if checkpoints is not None:
                known = {**checkpoints.configuration, "data": f"{Path(self.data).name}, SHA-256 {digest(data)[:16]}"}
                checkpoints = checkpoints._replace(configuration=known)
        if isinstance(data, Text):
            code = self.ended(train_text(self, data, checkpoints))
        else:
            code = train_images(self, data, checkpoints)
        if self.folder and code < 128:  # not ended by a signal
            print(wrapped(usage(self.folder, self.data, data), sys.stdout))
        return code

    def say(self, words: str) -> None:
        """Print a line on progress, not the result; nothing with --quiet."""
        if not self.quiet:
            print(wrapped(words, sys.stdout))

    def waiting(self, what: str) -> AbstractContextManager[None]:
        """Show what is being done meanwhile, on a terminal."""
        return waiting(what, self.quiet)

    def gradients(self, model: Layer, loss: Layer, made: Made | None = None) -> Gradients:
        """The gradients by hand and by jax.grad, over the mesh; made: the description that the model was made from."""
        if self._mesh is None:
            return on_one_device(model, loss)
        found = gradients(model, loss, self._mesh, made)
        found.placement.expect_batch("train", self.batch_size)
        return found

    def trained(
        self, hand: ValueAndGrad, reference: ValueAndGrad, first: list[Difference], where: Callable[..., str] | None
    ) -> tuple[ValueAndGrad, Callable[..., str] | None]:
        """The gradient that trains, and the one to ask where a loss is not finite; first: the differences at the first step."""
        if self.grad == "both":
            return held_together(hand, reference, first, where)
        return (hand if self.grad == "hand" else reference), where

    @property
    def skipping(self) -> bool:
        """Whether to continue after a loss that is not finite. With --grad both, a NaN says that the gradients differ."""
        return self.skip_non_finite > 0 and self.grad != "both"

    def ended(self, done: Fit) -> int:
        """The exit code of a run; prints the signal that ended it, if one did."""
        if done.stopped in ("", "patience"):
            return 0
        print(f"stopped by {done.stopped} after step {int(done.state.step)} and saved; add --resume to resume")
        return 128 + signal.Signals[done.stopped]

    def described(self) -> str:
        """How the run optimises, and on what mesh, as a sentence."""
        return described(self, self._mesh)

    def optimizer_for(self, steps: int) -> optax.GradientTransformation:
        """The optimizer of a run of this many steps."""
        return make_optimizer(
            self.optimizer, self.learning_rate, steps, arguments=self.optimizer_args, schedule=self.schedule,
            schedule_arguments=self.schedule_args, clip=self.clip, weight_decay=self.weight_decay, average=self.average,
            skip=self.skip_non_finite,
        )  # fmt: skip

    def _checkpoints(self) -> Checkpoints | None:
        if self.folder is None:
            return None
        expect_records(self.folder)
        own = (*self.MAY_DIFFER, "folder", "resume", "tensorboard", "wandb", "trajectory", "patience", *OWN)
        own += () if self.schedule else ("epochs",)  # a schedule spans the whole run
        defaults = {name: value for name, value in asdict(type(self)()).items() if name not in own}
        return Checkpoints(
            self.folder / "checkpoints", self.save_every, resume=self.resume, on_note=self.say, defaults=defaults,
            configuration={name: getattr(self, name) for name in defaults if is_used(self, name)},
        )  # fmt: skip

    def writers(self, examples: int) -> Writers:
        """The writers of each epoch's record, besides the screen; examples: how many are trained on."""
        given = (self.folder, examples, self.tensorboard, self.wandb, asdict(self))
        return Writers(*given) if is_first() else Writers(None, examples)
