"""Training on a mesh against training on one device: 100 steps, the same losses to 1e-5, from the same seed."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import nnjax
from nnjax.check.vjp import compare_gradients
from nnjax.data.text import make_text
from nnjax.distributed import make_mesh
from nnjax.distributed.training import gradients
from nnjax.grad import add_l1, add_l2
from nnjax.models.llama import LlamaOptions
from nnjax.train import Checkpoints, fit, fit_text, load
from nnjax.train.optimizers import make_optimizer
from nnjax.train.placement import ONE_DEVICE
from nnjax.train.recipe import Gpt, Mlp, Moe
from nnjax.train.step import make_step

KEY = jax.random.key(0)
CROSS_ENTROPY, FUSED = nnjax.softmax_cross_entropy(), nnjax.linear_cross_entropy()
SMALL = {"context": 8, "layers": 2, "heads": 4, "width": 16}
GPT = nnjax.gpt(16, **SMALL, scan=False, fused=True)
LLAMA = LlamaOptions(16, **SMALL, kv_heads=2, hidden=8, tie=True, scan=False)
SPARSE = {**SMALL, "layers": 1, "experts": 4, "top_k": 2, "balance": 0.1, "z": 0.01}
MOE = nnjax.moe(16, **SPARSE, scan=False, fused=True, auxiliary=True)
IMAGES = (16, 64)
MODELS = {
    "mlp": (nnjax.mlp([64, 16, 10], nnjax.tanh()), CROSS_ENTROPY, IMAGES, 10),
    "lenet": (nnjax.lenet(10, channels=(4,), hidden=16, image=(8, 8, 1)), CROSS_ENTROPY, (16, 8, 8, 1), 10),
    "char_rnn": (nnjax.char_rnn(16, 8), CROSS_ENTROPY, (16, 8), 16),
    "gpt": (GPT, FUSED, (16, 8), 16),
    "llama": (nnjax.llama(**LLAMA._asdict(), fused=True), FUSED, (16, 8), 16),
    "gpt of an uneven vocabulary": (nnjax.gpt(15, **SMALL, scan=True, fused=True), FUSED, (16, 8), 15),
    "moe": (MOE, nnjax.auxiliary.to_loss(FUSED), (16, 8), 16),
}  # fmt: skip
OPTIMIZER = optax.adam(0.003)
MADE = {
    "mlp": Mlp([64, 16, 10], nnjax.tanh()),
    "gpt": Gpt(16, **SMALL, scan=False),
    "llama": LLAMA,
    "gpt of an uneven vocabulary": Gpt(15, **SMALL),
    "moe": Moe(16, **SPARSE, scan=False),
}
CASES = [
    *((name, {"data": 8}) for name in MODELS),
    *((name, {"shard": 8}) for name in ("mlp", "lenet", "char_rnn", "gpt", "llama")),
    *((name, {"data": 4, "model": 2}) for name in ("mlp", "gpt", "gpt of an uneven vocabulary", "llama")),
    *((name, {"data": 2, "shard": 2, "model": 2}) for name in ("mlp", "gpt", "gpt of an uneven vocabulary", "llama")),
    ("moe", {"data": 2, "shard": 2, "expert": 2}),
    ("mlp", {"model": 8}),
    ("gpt", {"model": 4}),
]


def batches(shape, classes, n):
    """(x, labels) of n batches: ids and what follows each by a rule, or images and where they are brightest."""
    key = jax.random.key(1)
    if shape[1:] == (8,):
        x = jax.random.randint(key, (n, *shape), 0, classes, jnp.int32)
        return x, (3 * x + 1) % classes
    x = jax.random.normal(key, (n, *shape))
    return x, x.reshape(n, shape[0], -1)[..., :classes].argmax(-1).astype(jnp.int32)


def losses(f, state, optimizer, x, labels):
    step = make_step(f, optimizer)
    return jax.jit(lambda state, *data: jax.lax.scan(lambda s, b: step(s, *b), state, data))(state, x, labels)


@functools.cache
def a_hundred_steps_of_one_device(name):
    model, loss, shape, classes = MODELS[name]
    state = ONE_DEVICE.state(model.init(KEY), OPTIMIZER, KEY)
    return losses(nnjax.value_and_grad(model, loss), state, OPTIMIZER, *batches(shape, classes, 100))


@pytest.mark.parametrize(("name", "axes"), CASES, ids=lambda v: v if isinstance(v, str) else "x".join(map(str, v.values())))
@pytest.mark.slow
@pytest.mark.in_turn
def test_a_hundred_steps_have_the_losses_of_one_device(name, axes):
    model, loss, shape, classes = MODELS[name]
    found = gradients(model, loss, make_mesh(**axes), MADE.get(name))
    one, right = a_hundred_steps_of_one_device(name)
    state = found.placement.state(model.init(KEY), OPTIMIZER, KEY)
    many, values = losses(found.hand, state, OPTIMIZER, *batches(shape, classes, 100))
    assert right[-1] < right[0] - 0.01
    np.testing.assert_allclose(values, right, rtol=1e-5)
    back = found.placement.on_host(many.params)
    apart = optax.tree.norm(jax.tree.map(jnp.subtract, back, one.params))
    assert apart < 1e-3 * optax.tree.norm(one.params)


@pytest.mark.parametrize("name", ["mlp", "gpt"])
@pytest.mark.slow
@pytest.mark.in_turn
def test_gradients_are_compared_with_jax_grad_in_the_layout_of_one_device(name):
    model, loss, shape, classes = MODELS[name]
    found = gradients(model, loss, make_mesh(data=2, shard=2, model=2), MADE[name])
    x, labels = (a[0] for a in batches(shape, classes, 1))
    reference = nnjax.reference_value_and_grad(model, loss)
    for f in found[:2]:
        held = compare_gradients(found.placement.as_on_one_device(f), reference, model.init(KEY), x, labels)
        assert len(held) == 1 + len(jax.tree.leaves(model.init(KEY)))
        assert all(d.ok for d in held)


@pytest.mark.parametrize("penalty", [add_l2, add_l1, None], ids=["L2", "L1", "weight decay"])
@pytest.mark.parametrize("axes", [{"shard": 2}, {"data": 2, "model": 2}], ids=lambda axes: "x".join(axes))
@pytest.mark.slow
@pytest.mark.in_turn
def test_a_gpt_decays_on_a_mesh_as_on_one_device(penalty, axes, x64):
    model, loss, shape, classes = MODELS["gpt"]
    found, data = gradients(model, loss, make_mesh(**axes), MADE["gpt"]), batches(shape, classes, 5)
    optimizer = make_optimizer("sgd", 0.3, weight_decay=0.0 if penalty else 0.1)

    def after(f, placement):
        params = jax.tree.map(lambda p: p.astype(jnp.float64) + 0.1, model.init(KEY))
        state = placement.state(params, optimizer, KEY)
        state, values = losses(penalty(f, 0.03) if penalty else f, state, optimizer, *data)
        return placement.on_host(state.params), values

    right = after(nnjax.reference_value_and_grad(model, loss), ONE_DEVICE)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10), after(found.hand, found.placement), right
    )


@pytest.mark.slow
@pytest.mark.in_turn
def test_dropout_reaches_a_gpt_on_a_mesh():
    model = nnjax.gpt(16, **SMALL, scan=False, fused=True, dropout=0.5)
    found = gradients(model, FUSED, make_mesh(data=2, model=2), MADE["gpt"]._replace(dropout=0.5))
    params = found.placement.cut(model.init(KEY))
    x, labels = (a[0] for a in batches((16, 8), 16, 1))
    values = [float(jax.jit(found.hand)(params, x, labels, key=key)[0]) for key in jax.random.split(KEY, 2)]
    assert values[0] != values[1]
    same = [f(params, x, labels, key=KEY) for f in map(jax.jit, found[:2])]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), *same)


def test_the_memory_of_a_device_falls_with_their_number():
    model, loss, _, _ = MODELS["mlp"]
    found = gradients(model, loss, make_mesh(shard=2), MADE["mlp"])
    state = found.placement.state(model.init(KEY), optax.adam(0.1), KEY)
    for part in (state.params, state.opt_state[0].mu, state.opt_state[0].nu):
        for leaf in jax.tree.leaves(part):
            assert leaf.addressable_shards[0].data.size == leaf.size // 2
    assert state.opt_state[0].count.sharding.is_fully_replicated


MESHES = [{"data": 2, "model": 4}, None, {"shard": 2, "model": 2}]


@pytest.mark.slow
@pytest.mark.in_turn
def test_a_run_resumes_on_another_mesh(tmp_path):
    model, loss, _, _ = MODELS["mlp"]

    def run(axes, epochs, resume=False):
        found = gradients(model, loss, make_mesh(**axes), MADE["mlp"]) if axes else None
        checkpoints = Checkpoints(tmp_path, resume=resume, keep=9)
        return fit(
            found.hand if found else nnjax.value_and_grad(model, loss), model.init(KEY), load("digits"), predict=model.apply,
            optimizer=optax.adam(0.003), epochs=epochs, batch_size=32, key=KEY, checkpoints=checkpoints,
            placement=found.placement if found else ONE_DEVICE,
        )  # fmt: skip

    for epochs, axes in enumerate(MESHES, 1):
        through = run(axes, epochs, resume=epochs > 1)
    alone = fit(
        nnjax.value_and_grad(model, loss), model.init(KEY), load("digits"), predict=model.apply,
        optimizer=optax.adam(0.003), epochs=3, batch_size=32, key=KEY,
    )  # fmt: skip
    np.testing.assert_allclose([r.loss for r in through.history], [r.loss for r in alone.history], rtol=1e-5)
    assert [r.test_accuracy for r in through.history] == [r.test_accuracy for r in alone.history]


@pytest.mark.slow
@pytest.mark.in_turn
def test_a_gpt_on_a_mesh_resumes_on_one_device(tmp_path):
    text = make_text("abc", "the cat sat on the mat; " * 40)
    vocab = len(text.vocabulary)
    model, whole = (nnjax.gpt(vocab, **SMALL, scan=False, fused=fused) for fused in (True, False))
    history = {}

    def run(axes, steps, folder):
        found = gradients(model, FUSED, make_mesh(**axes), Gpt(vocab, **SMALL, scan=False)) if axes else None
        return fit_text(
            found.hand if found else nnjax.value_and_grad(model, FUSED), model.init(KEY), text, predict=whole.apply,
            optimizer=optax.adam(0.003), steps=steps, context=8, batch_size=8, key=KEY, every=20,
            checkpoints=Checkpoints(folder, resume=True), placement=found.placement if found else ONE_DEVICE,
        )  # fmt: skip

    history["alone"] = run(None, 60, tmp_path / "alone").history
    for steps, axes in ((20, {"data": 2, "model": 2}), (40, None), (60, {"shard": 2, "model": 4})):
        history["through"] = run(axes, steps, tmp_path / "through").history
    for a, b in zip(history["through"], history["alone"], strict=True):
        assert a.loss == pytest.approx(b.loss, rel=1e-5)
        assert a.measured["validation_loss"] == pytest.approx(b.measured["validation_loss"], rel=1e-5)


@pytest.mark.parametrize(
    ("name", "axes", "message"),
    [
        ("lenet", {"model": 2}, r"the mesh axis model needs an mlp, a gpt or a llama, got lenet"),
        ("gpt", {"model": 8}, r"heads must be a multiple of 8, the size of the mesh axis 'model', got 4; change one"),
        ("mlp", {"batch": 8}, r"unknown axis of a mesh to train on 'batch': known are data, expert, model, shard"),
    ],
)
def test_a_mesh_that_does_not_suit_the_model_is_refused(name, axes, message):
    model, loss, _, _ = MODELS[name]
    with pytest.raises(ValueError, match=message):
        gradients(model, loss, make_mesh(**axes), MADE.get(name))


def test_a_batch_that_the_devices_cannot_share_is_refused():
    model, loss, _, _ = MODELS["mlp"]
    found = gradients(model, loss, make_mesh(data=2, shard=2), MADE["mlp"])
    with pytest.raises(
        ValueError, match=r"must be a multiple of 4, the devices that share a batch \(data=2, shard=2\), got 30"
    ):
        fit(found.hand, model.init(KEY), load("digits"), predict=model.apply, optimizer=optax.adam(0.003), epochs=1,
            batch_size=30, key=KEY, placement=found.placement)  # fmt: skip
