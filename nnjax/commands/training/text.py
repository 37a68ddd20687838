"""`nnjax train` on text: a transformer or a recurrent character model, and a sample of what it writes."""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from ...auxiliary import to_loss
from ...check.vjp import compare_gradients
from ...data.text import Text
from ...grad import accumulate, add_l1, add_l2, lower_precision, reference_value_and_grad, value_and_grad
from ...losses.cross_entropy import softmax_cross_entropy
from ...losses.fused import linear_cross_entropy
from ...models.decode import generate_gpt
from ...models.decode_llama import generate_llama
from ...models.generate import generate
from ...models.llama import LlamaOptions, expect_llama
from ...models.moe import moe_feed
from ...train.optimizers import averaged
from ...train.recipe import Gpt, Made, Moe, initial, named
from ...train.run import Checkpoints, Fit, expect_resumable
from ...train.step import init_state
from ...train.text import expect_window, fit_text, windows
from ...train.trained.network import Network, layer_of
from ...train.trained.record import TEXT, Record, evaluated_at, keep_record
from ...train.watching.finite import first_not_finite
from ...train.watching.metrics import told_before
from ...train.watching.progress import progress
from ...train.watching.watch import make_norms
from .recurrent import CELLS, bias_of, recurrent_network
from .words import COMPARING

if TYPE_CHECKING:
    from ..train import Train

TRANSFORMERS = ("gpt", "llama", "moe")
MODELS_OF_TEXT = (*TRANSFORMERS, *CELLS)
EVERY = 250  # steps that count as an epoch
SAMPLE = 200  # characters


def train_text(options: "Train", text: Text, checkpoints: Checkpoints | None) -> Fit:
    """Train, print the result and a sample of what the network writes."""
    o, vocab = options, len(text.vocabulary)
    name = named("model of text", o.model or "gpt", MODELS_OF_TEXT)
    expect_window(text, o.context)
    init_key, run_key, text_key = jax.random.split(jax.random.key(o.seed), 3)
    loss, made = softmax_cross_entropy(), made_of(o, name, vocab)
    if made is not None:
        network = Network(name, made._asdict())
        own = {"auxiliary": True} if name == "moe" else {}
        model, trained = layer_of(network), layer_of(network, fused=True, **own)
        loss = to_loss(linear_cross_entropy()) if own else linear_cross_entropy()
    else:
        network = recurrent_network(name, vocab, o)
        model, trained = layer_of(network), layer_of(network, truncate=o.truncate)

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
    sizes = f"{o.layers} x {o.width}" + (f", {o.heads} heads" if name in TRANSFORMERS else "")
    sizes += f", {o.top_k} of {o.experts} experts" if name == "moe" else ""
    sizes += f", {sum(p.size for p in jax.tree.leaves(params)):,} parameters"
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
    if o.truncate:
        o.say(bias_of(o.truncate, value_and_grad(trained, loss), value_and_grad(model, loss), params, *batch))
    if o.folder:
        keep_record(o.folder, Record(TEXT, text.name, network, loss.name, evaluated_at(state), o.compute_dtype,
                                     vocabulary=text.vocabulary))  # fmt: skip
    with progress(epochs, EVERY * o.batch_size, EVERY, o.quiet) as watched, o.writers(EVERY * o.batch_size) as write:
        f, where = o.trained(hand, reference, first, lambda p, x, y, k: first_not_finite(trained, loss, p, x, y, k))
        done = fit_text(
            f, params, text, predict=model.apply if name != "moe" else lambda params, ids: model.fwd(params, ids)[0],
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
            sample = _sample(network, o, last_params, text, text_key)
        print(f"sample: {sample!r}")
    return done


def made_of(o: "Train", name: str, vocab: int) -> Made | None:
    """What a transformer is made from; None for another model. A llama shares its table with the head, as a gpt does."""
    sizes, scan = (vocab, o.context, o.layers, o.heads, o.width), o.layers > 8
    if name == "gpt":
        return Gpt(*sizes, o.dropout, scan=scan)
    if name == "llama":
        return expect_llama(LlamaOptions(*sizes, kv_heads=o.kv_heads, tie=True, dropout=o.dropout, scan=scan))
    if name == "moe":
        return Moe(*sizes, o.experts, o.top_k, o.balance, o.router_z, o.dropout, scan=scan)
    return None


def _sample(network: Network, o: "Train", params: Any, text: Text, key: jax.Array) -> str:
    first, how = jnp.asarray(text.validation[:1]), {"key": key, "temperature": 0.8}
    if network.kind in ("gpt", "moe"):
        own = {"feed": moe_feed(o.width, o.experts, o.top_k)} if network.kind == "moe" else {}
        return text.decode(generate_gpt(params, first, min(SAMPLE, o.context), heads=o.heads, **own, **how))
    if network.kind == "llama":
        return text.decode(generate_llama(params, first, min(SAMPLE, o.context), options=network.options, **how))
    return text.decode(generate(layer_of(network, carry=True), params, first, SAMPLE, **how))
