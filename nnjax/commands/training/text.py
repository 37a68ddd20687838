"""`nnjax train` on text: a gpt or a recurrent character model, and a sample of what it writes."""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from ...check.vjp import compare_gradients
from ...data.text import Text
from ...grad import accumulate, add_l1, add_l2, lower_precision, reference_value_and_grad
from ...losses.cross_entropy import softmax_cross_entropy
from ...losses.fused import linear_cross_entropy
from ...models.char_rnn import char_rnn
from ...models.decode import generate_gpt
from ...models.generate import generate
from ...train.optimizers import averaged
from ...train.recipe import Gpt, initial, named
from ...train.run import Checkpoints, Fit, expect_resumable
from ...train.step import init_state
from ...train.text import expect_window, fit_text, windows
from ...train.trained.network import Network, layer_of
from ...train.trained.record import TEXT, Record, evaluated_at, keep_record
from ...train.watching.finite import first_not_finite
from ...train.watching.metrics import told_before
from ...train.watching.progress import progress
from ...train.watching.watch import make_norms
from .words import COMPARING

if TYPE_CHECKING:
    from ..train import Train

MODELS_OF_TEXT = ("gpt", "char_rnn")
EVERY = 250  # steps that count as an epoch
SAMPLE = 200  # characters


def train_text(options: "Train", text: Text, checkpoints: Checkpoints | None) -> Fit:
    """Train, print the result and a sample of what the network writes."""
    o, vocab = options, len(text.vocabulary)
    name = named("model of text", o.model or "gpt", MODELS_OF_TEXT)
    expect_window(text, o.context)
    init_key, run_key, text_key = jax.random.split(jax.random.key(o.seed), 3)
    loss, made = softmax_cross_entropy(), None
    if name == "gpt":
        made = Gpt(vocab, o.context, o.layers, o.heads, o.width, o.dropout, scan=o.layers > 8)
        network = Network(name, made._asdict())
        model, trained = (layer_of(network, fused=fused) for fused in (False, True))
        loss = linear_cross_entropy()
    else:
        network = Network(name, {"vocab": vocab, "width": o.width, "cell": "lstm", "layers": o.layers})
        model = trained = layer_of(network)

    def whole(f):
        f = add_l2(f, o.l2 / len(text.train))
        f = lower_precision(f, o.compute_dtype) if o.compute_dtype else f
        f = accumulate(f, o.microbatches) if o.microbatches > 1 else f
        return add_l1(f, o.l1 / len(text.train)) if o.l1 else f

    epochs = 8 if o.epochs is None else o.epochs
    optimizer = o.optimizer_for(epochs * EVERY)
    found = o.gradients(trained, loss, made)
    hand, reference, placement = whole(found.hand), whole(found.reference), found.placement
    with o.waiting("making the network"):
        params = initial(model.init, init_key)
    state = jax.eval_shape(lambda: init_state(params, optimizer, run_key))
    expect_resumable(checkpoints, state)
    o.say(f"{text.name}: {len(text.train)} characters to train on, {len(text.validation)} to validate, {vocab} different ones")
    sizes = f"{o.layers} x {o.width}" + (f", {o.heads} heads" if name == "gpt" else "")
    o.say(f"{name} {sizes}, context {o.context}, {loss.name}, {o.described()}")
    first, compared = [], ""
    starts = jnp.arange(o.batch_size, dtype=jnp.int32) * ((len(text.train) - o.context) // o.batch_size)
    batch = windows(jnp.asarray(text.train), starts, o.context)
    if not o.compute_dtype:
        pair = placement.as_on_one_device(hand), whole(reference_value_and_grad(trained, loss))
        with o.waiting(COMPARING):
            first = compare_gradients(*pair, params, *batch, early=o.grad != "both")
        worst = max(first, key=lambda d: d.relative / d.budget if d.budget else 0)
        compared = (f"hand / jax.grad  first step: relative difference {worst.relative:.2g} of a budget of {worst.budget:.2g} "
                    f"({worst.leaf}): {'ok' if worst.ok else 'TOO FAR APART'}")  # fmt: skip
        o.say(compared)
    if o.folder:
        keep_record(o.folder, Record(TEXT, text.name, network, loss.name, evaluated_at(state), o.compute_dtype,
                                     vocabulary=text.vocabulary))  # fmt: skip
    with progress(epochs, EVERY * o.batch_size, EVERY, o.quiet) as watched, o.writers(EVERY * o.batch_size) as write:
        f, where = o.trained(hand, reference, first, lambda p, x, y, k: first_not_finite(trained, loss, p, x, y, k))
        done = fit_text(
            f, params, text, predict=model.apply,
            optimizer=optimizer, steps=epochs * EVERY, context=o.context, batch_size=o.batch_size,
            key=run_key, every=EVERY, on_epoch=lambda record: (write(record), watched.on_epoch(record)),
            on_steps=watched.on_steps, measure=make_norms(hand, reference, *batch) if o.folder else None,
            checkpoints=told_before(checkpoints, write),
            evaluated=lambda state: averaged(state.opt_state, state.params), patience=o.patience,
            where=where, skipping=o.skipping, placement=placement,
        )  # fmt: skip
    if done.stopped in ("", "patience"):
        last = done.history[-1]
        if o.quiet and compared:
            print(compared)
        print(f"validation loss  {last.measured['validation_loss']:.4f}, {last.validation_accuracy:.4f} of characters right")
        last_params = placement.on_host(averaged(done.state.opt_state, done.state.params))
        with o.waiting("writing"):
            sample = _sample(name, o, last_params, text, text_key)
        print(f"sample: {sample!r}")
    return done


def _sample(name: str, o: "Train", params: Any, text: Text, key: jax.Array) -> str:
    first = jnp.asarray(text.validation[:1])
    if name == "gpt":
        return text.decode(generate_gpt(params, first, min(SAMPLE, o.context), heads=o.heads, key=key, temperature=0.8))
    model = char_rnn(len(text.vocabulary), o.width, layers=o.layers, carry=True)
    return text.decode(generate(model, params, first, SAMPLE, key=key, temperature=0.8))
