"""Calls with mutated right arguments: each works, or nnjax refuses it with a sentence, never JAX, NumPy or Python."""

import dis
import random
import warnings
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

import nnjax
from nnjax import distributed, feedback, models, nielsen, ops, train
from nnjax.cases import cases
from nnjax.commands.explain import network, numbers, parse_sizes

KEY = jax.random.key(0)
ROOT = str(Path(nnjax.__file__).parent)
LOOPED = {"epochs", "steps", "length", "every"}  # a large number of these is a long run, not a mistake
BIG = 10**12
LAYER = nnjax.dense(3, 2)


def one(*shape: int, dtype=jnp.float32):
    return jnp.ones(shape, dtype)


def ids(*shape: int):
    return jnp.zeros(shape, jnp.int32)


def _of_case(case, kind: str) -> tuple:
    layer = case.layer
    params, x, key = case.make(0, (2,))
    if kind == "bwd":
        y, residuals = layer.fwd(params, x, key=key)
        return partial(layer.bwd, residuals), (y,), {}
    if kind == "jit":
        return lambda p, x: jax.jit(lambda: layer.apply(p, x, key=key))(), (params, x), {}
    return getattr(layer, kind), (params, x), {"key": key}


@cache
def calls(folder: Path) -> dict:
    """name -> a function that returns (function, right arguments, right keyword arguments)."""
    found = {}

    def call(name, f, *args, **kwargs):
        found[name] = lambda: (f, args, kwargs)

    for case in cases():
        # the table itself wraps init, and holds some as bare functions
        bare = "nobody looks" in case.name or case.name in ("attention, scored", "ragged_dot")
        for kind in () if bare else ("apply", "fwd", "bwd", "jit"):
            found[f"{case.name}: {kind}"] = partial(_of_case, case, kind)
    call("dense", nnjax.dense, 3, 2, bias=True, init=jax.nn.initializers.normal(), feedback=feedback.transpose)
    call("conv", nnjax.conv, 2, 4, (3, 3), stride=(1, 1), padding="SAME", dilation=1, groups=2, bias=True, init=None)
    how = {"stride": (2, 2), "padding": 1, "output_padding": 1, "dilation": 1, "groups": 2, "bias": True, "init": None}
    call("conv_transpose", nnjax.conv_transpose, 4, 2, (3, 3), **how)
    call("max_pool", nnjax.max_pool, (2, 2), (1, 1), 1, dilation=(1, 2), ceil_mode=True)
    call("avg_pool", nnjax.avg_pool, 2, 1, "SAME", ceil_mode=False, count_include_pad=False, divisor=3)
    call("adaptive_avg_pool", nnjax.adaptive_avg_pool, (2, 3))
    call("global_avg_pool", nnjax.global_avg_pool, 2)
    call("flatten", nnjax.flatten, 2)
    call("dropout", nnjax.dropout, 0.5)
    call("leaky_relu", nnjax.leaky_relu, 0.1)
    call("gelu", nnjax.gelu, True)
    call("layer_norm", nnjax.layer_norm, 3, eps=1e-5)
    call("rms_norm", nnjax.rms_norm, 3, eps=1e-5)
    call("group_norm", nnjax.group_norm, 2, 4, eps=1e-5)
    call("batch_norm", nnjax.batch_norm, 3, eps=1e-5)
    call("embedding", nnjax.embedding, 5, 3, init=jax.nn.initializers.normal())
    call("unembedding", nnjax.unembedding, 5, 3, fused=True)
    call("learned_positions", nnjax.learned_positions, 5, 3, init=None)
    call("swiglu", nnjax.swiglu, 3, 2, init=None, init_out=jax.nn.initializers.normal())
    call("geglu", nnjax.geglu, 3, 2, approximate=True)
    for make in (nnjax.rnn, nnjax.gru, nnjax.lstm):
        call(make.__name__, make, 3, 2, carry=True, bidirectional=True, layers=2, dropout=0.5, lengths=True, truncate=2)
    call("rg_lru", nnjax.rg_lru, 3, 2, carry=True, bidirectional=True, layers=2, dropout=0.5, lengths=True)
    call("linear_recurrence", nnjax.linear_recurrence, reverse=True)
    call("attention", nnjax.attention, 8, 4, kv_heads=2, causal=True, rope=True, key_mask=False, bias=True, init=None)
    how = {"activation": "gelu", "over": "all", "balance": 0.1, "z": 0.1}
    call("mixture_of_experts", nnjax.mixture_of_experts, 3, 2, 2, 2, init=None, **how)
    call("softmax_cross_entropy", nnjax.softmax_cross_entropy, label_smoothing=0.1)

    block = nnjax.serial(nnjax.dense(3, 3), nnjax.tanh())
    call("serial", nnjax.serial, nnjax.dense(3, 2), nnjax.relu())
    call("parallel", nnjax.parallel, nnjax.dense(3, 2), nnjax.relu())
    call("residual", nnjax.residual, block, nnjax.dense(3, 3))
    call("recompute", nnjax.recompute, block)
    call("scan_layers", nnjax.scan_layers, block, 2, remat=True)
    call("in_chunks", nnjax.in_chunks, block, 2, axes=1)
    call("tied", nnjax.tied, nnjax.embedding(5, 3), block, nnjax.unembedding(5, 3))
    call("as_custom_vjp", nnjax.as_custom_vjp, block)
    call("as_custom_vjp: call", nnjax.as_custom_vjp(block), block.init(KEY), one(2, 3), KEY)
    chunked = nnjax.in_chunks(LAYER, 2, axes=1)
    call("in_chunks: fwd", chunked.fwd, LAYER.init(KEY), one(4, 3))
    tied = nnjax.tied(nnjax.embedding(5, 3), nnjax.learned_positions(4, 3), nnjax.unembedding(5, 3))
    call("tied: apply", tied.apply, tied.init(KEY), ids(2, 3))
    normed = nnjax.serial(nnjax.dense(3, 3), nnjax.batch_norm(3))
    call("calibrate", nnjax.calibrate, normed, normed.init(KEY), [one(4, 3), one(2, 3)])
    call("batch_norm_statistics", nnjax.batch_norm_statistics, normed, normed.init(KEY), one(4, 3))
    call("running_statistics", nnjax.running_statistics, normed, momentum=0.1)
    running, own = nnjax.running_statistics(normed), normed.init(KEY)
    call("running: init", running.init, own)
    call("running: update", running.update, running.init(own), own, one(4, 3))
    call("running: frozen", running.frozen, own, running.init(own))
    mirrored = nnjax.dense(3, 2, feedback=feedback.mirror)
    call("mirrored: fwd", mirrored.fwd, mirrored.init(KEY), one(2, 3))

    mse = nnjax.mean_squared_error()
    batch = {"weights": one(4), "key": KEY}
    for name, f in (("value_and_grad", nnjax.value_and_grad), ("reference_value_and_grad", nnjax.reference_value_and_grad)):
        call(name, f, LAYER, mse, has_aux=False)
        call(f"{name}: call", f(LAYER, mse), LAYER.init(KEY), one(4, 3), one(4, 2), **batch)
    vg = nnjax.value_and_grad(LAYER, mse)
    params = LAYER.init(KEY)
    add_l1, add_l2 = nnjax.grad.add_l1, nnjax.grad.add_l2
    for name, f, more in (("accumulate", nnjax.accumulate, 2), ("add_l2", add_l2, 0.1), ("add_l1", add_l1, 0.1)):
        call(name, f, vg, more)
        call(f"{name}: call", f(vg, more), params, one(4, 3), one(4, 2), **batch)
    lower = nnjax.grad.lower_precision
    call("lower_precision", lower, vg, "bfloat16")
    call("lower_precision: call", lower(vg, "bfloat16"), params, one(4, 3), one(4, 2), **batch)
    net = nnjax.mlp([3, 4, 2])
    call("direct_value_and_grad", nnjax.direct_value_and_grad, net, mse, KEY)
    call(
        "direct_value_and_grad: call", nnjax.direct_value_and_grad(net, mse, KEY), net.init(KEY), one(4, 3), one(4, 2), **batch
    )

    q = one(2, 3, 2, 4)
    call("ops.attention", ops.attention, q, q, q, causal=False, mask=jnp.ones((2, 3), bool))
    call("ops.linear_cross_entropy", ops.linear_cross_entropy, one(4, 3), one(5, 3), ids(4), weights=one(4))
    call("ops.conv", ops.conv, one(1, 4, 4, 2), one(3, 3, 2, 2), one(2), stride=1, padding="SAME", dilation=(1, 1), groups=1)
    call("ops.swiglu", ops.swiglu, one(2, 3), one(2, 3))
    call("ops.geglu", ops.geglu, one(2, 3), one(2, 3), approximate=True)
    call("ops.rotary", ops.rotary, q, jnp.arange(3), theta=9.0, scaling={"rope_type": "linear", "factor": 2.0})
    sizes, x = jnp.array([1, 2], jnp.int32), one(3, 3)
    call("ops.ragged_dot", ops.ragged_dot, x, one(2, 3, 2), sizes)
    given = one(3, 2), one(2, 3, 2), one(2, 2, 3)
    call("ops.mixture_of_experts", ops.mixture_of_experts, x, *given, top_k=2, **how)
    how = {"stride": 2, "padding": (1, 0), "output_padding": 1, "dilation": (1, 1), "groups": 1}
    call("ops.conv_transpose", ops.conv_transpose, one(1, 2, 3, 2), one(3, 3, 1, 2), one(1), **how)
    call("ops.max_pool", ops.max_pool, one(1, 4, 4, 1), (2, 2), (1, 1), "SAME", dilation=1, ceil_mode=False)
    call("ops.avg_pool", ops.avg_pool, one(1, 4, 4, 1), (2, 2), (1, 1), 1, ceil_mode=True, count_include_pad=True, divisor=2)

    book = nielsen.init(KEY, [3, 4, 2])
    call("nielsen.init", nielsen.init, KEY, [3, 4, 2], large=True)
    call("nielsen.feedforward", nielsen.feedforward, book, one(3))
    call("nielsen.backprop", nielsen.backprop, book, one(3), one(2), cost=nielsen.cross_entropy, send_back=jnp.transpose)
    call("nielsen.output_error", nielsen.output_error, nielsen.quadratic, one(2), one(2), one(2))
    call("nielsen.send_back", nielsen.send_back, one(2, 4), one(2), one(4))
    call("nielsen.send_back_by_components", nielsen.send_back_by_components, one(2, 4), one(2), one(4))
    call("nielsen.bias_gradient", nielsen.bias_gradient, one(2))
    call("nielsen.weight_gradient", nielsen.weight_gradient, one(2), one(4))
    call("nielsen.objective", nielsen.objective, nielsen.quadratic, 0.1, 10)
    call("nielsen.objective: call", nielsen.objective(nielsen.quadratic, 0.1, 10), book, one(4, 3), one(4, 2), weights=one(4))
    call("nielsen.value_and_grad", nielsen.value_and_grad, nielsen.quadratic, 0.1, 10, send_back=jnp.transpose)
    call("nielsen.value_and_grad: call", nielsen.value_and_grad(), book, one(4, 3), one(4, 2), weights=one(4))

    w = jax.random.normal(KEY, (3, 3))
    call("feedback.transpose", feedback.transpose, w)
    call("feedback.inverse", feedback.inverse, w)
    call("feedback.pseudo_inverse", feedback.pseudo_inverse, w)
    call("feedback.random", feedback.random, KEY)
    call("feedback.random: call", feedback.random(KEY), w)
    call("feedback.sign_symmetric", feedback.sign_symmetric, "redrawn", KEY)
    call("feedback.sign_symmetric: call", feedback.sign_symmetric("redrawn", KEY), w)
    call("feedback.named", feedback.named, "random", KEY, 2)
    call("feedback.angle", feedback.angle, w, w)

    call("mlp", nnjax.mlp, [3, 4, 2], nnjax.tanh(), feedback=feedback.transpose)
    call("lenet", nnjax.lenet, 3, channels=(2,), hidden=3, activation=nnjax.tanh(), image=(8, 8, 1), dropout=0.5)
    call("resnet", nnjax.resnet, 3, channels=(2,), blocks=1, activation=nnjax.tanh(), image=(8, 8, 1))
    call("char_rnn", nnjax.char_rnn, 5, 3, cell="gru", layers=1, carry=True)
    call("gpt", nnjax.gpt, 5, 4, 1, 2, 4, dropout=0.1, fused=True, remat=True, scan=True)
    sparse = {"hidden": 3, "balance": 0.1, "z": 0.1, "auxiliary": True}
    call("moe", nnjax.moe, 5, 4, 1, 2, 4, 2, 1, activation="gelu", dropout=0.1, fused=True, remat=True, scan=True, **sparse)
    call("moe_feed", models.moe_feed, 4, 2, 1, hidden=3)
    call("gpt2_from_safetensors", models.gpt2_from_safetensors, folder / "nothing", heads=2)
    small = {"vocab": 5, "context": 4, "layers": 1, "heads": 2, "width": 4}
    call("llama", nnjax.llama, *small.values(), kv_heads=1, hidden=3, rope_theta=9.0, sliding_window=2, tie=True, dropout=0.1)
    call("llama_from_safetensors", models.llama_from_safetensors, folder / "nothing", dtype="float32")
    llama = nnjax.llama(**small)
    call("generate_llama", nnjax.generate_llama, llama.init(KEY), ids(2, 3), 3, options=small, key=KEY, temperature=0.5)
    chars = nnjax.char_rnn(5, 3, cell="gru", carry=True)
    call("generate", nnjax.models.generate, chars, chars.init(KEY), ids(2, 3), 2, key=KEY, temperature=0.5)
    gpt = nnjax.gpt(5, 8, 1, 2, 4)
    call("generate_gpt", nnjax.generate_gpt, gpt.init(KEY), ids(2, 3), 2, heads=2, key=KEY, temperature=0.5)
    call("parse_sizes", parse_sizes, "2,3,2")
    call("network", network, (2, 2, 2), 3)
    call("numbers", numbers, network((2, 2, 2)))
    _training(call, folder)
    _checks_and_meshes(call)
    return found


def _training(call, folder):
    rng = np.random.default_rng(0)
    split = train.Split(rng.random((8, 4)).astype(np.float32), np.arange(8, dtype=np.int32) % 2)
    data = train.Dataset("small", split, split, split, 2)
    model, ce = nnjax.dense(4, 2), nnjax.softmax_cross_entropy()
    vg, params, adam = nnjax.value_and_grad(model, ce), model.init(KEY), optax.adam(0.01)
    how = {"predict": model.apply, "optimizer": adam, "epochs": 1, "batch_size": 4, "key": KEY, "patience": 2}
    call("fit", train.fit, vg, params, data, **how, encode=None, on_epoch=None, checkpoints=None, streaming=None)
    text = train.load_text(_file(folder, "text.txt", "to be or not to be, that is the question. " * 3))
    chars = nnjax.char_rnn(len(text.vocabulary), 3, cell="rnn")
    told = {**how, "predict": chars.apply, "steps": 2, "context": 4, "every": 2}
    told.pop("epochs")
    call("fit_text", train.fit_text, nnjax.value_and_grad(chars, ce), chars.init(KEY), text, **told)
    call("init_state", train.init_state, params, adam, KEY)
    state = train.init_state(params, adam, KEY)
    call("make_step", train.make_step, vg, adam)
    call("step", train.make_step(vg, adam), state, split.x, split.y, weights=one(8))
    call("make_epoch", train.make_epoch, train.make_step(vg, adam), 4, unroll=1)
    call("make_optimizer", train.make_optimizer, "adam", 0.1, 10, schedule="cosine_decay_schedule", clip=1.0, average=0.9)
    call("make_optimizer, decay", train.make_optimizer, "sgd", 0.1, weight_decay=0.1, skip=2, arguments={"momentum": 0.9})
    call("average_parameters", train.average_parameters, 0.9)
    call("averaged", train.averaged, state.opt_state, params)
    call("one_hot", train.one_hot, 3)
    call("one_hot: call", train.one_hot(3), ids(4))
    call("expand", train.expand, data)
    call("standardise", train.standardise, data)
    call("first_not_finite", train.first_not_finite, model, ce, params, one(2, 4), ids(2), KEY)
    reference = nnjax.reference_value_and_grad(model, ce)
    drift = {"optimizer": adam, "batch_size": 4, "steps": 2, "key": KEY}
    call("trajectory", train.trajectory, vg, reference, params, jnp.asarray(split.x), jnp.asarray(split.y), **drift)
    call("load", train.load, "digits")
    call("load_files", train.load_files, folder / "text.txt")
    call("load_text", train.load_text, str(folder / "text.txt"))
    call("encode", text.encode, "to be")
    call("decode", text.decode, ids(3))
    train.save_weights(folder / "weights", params)
    call("save_weights", train.save_weights, folder / "weights", params)
    call("load_weights", train.load_weights, folder / "weights", params)
    train.save(folder / "saved", params, step=1)
    call("save", train.save, folder / "saved", params, step=1, configuration={"a": 1}, metrics={"b": 0.5}, keep=2, best="b")
    call("restore", train.restore, folder / "saved", params, configuration=None)


def _checks_and_meshes(call):
    params = LAYER.init(KEY)
    how = {"dtypes": ["float32"], "transforms": ["jit"], "witnesses": ["adjoint"], "seed": 0}
    call("check_layer", nnjax.check_layer, LAYER, params, one(2, 3), key=KEY, **how)
    call("check_vjp", nnjax.check_vjp, nnjax.as_custom_vjp(LAYER), params, one(2, 3), reference=LAYER.apply, **how)
    call(
        "check_pair",
        nnjax.check_pair,
        lambda x: (x * x, x),
        lambda x, ct: (2 * x * ct,),
        one(3),
        reference=lambda x: x * x,
        **how,
    )
    how.pop("witnesses")
    call("check_transpose", nnjax.check_transpose, lambda x: 2 * x, lambda y: 2 * y, one(3), one(3), **how)
    call("audit", nnjax.audit, nnjax.as_custom_vjp(nnjax.tanh()), (), one(3), seed=0)
    mesh = distributed.make_mesh(data=2)
    replicated = distributed.replicated(LAYER, "data")
    mean = distributed.mean_over(nnjax.mean_squared_error(), "data")
    call("make_mesh", distributed.make_mesh, data=2, model=1)
    call("replicated", distributed.replicated, LAYER, "data")
    call("fully_sharded", distributed.fully_sharded, LAYER, mesh, "data")
    call("mean_over", distributed.mean_over, nnjax.mean_squared_error(), "data")
    call("place", distributed.place, params, replicated.specs, mesh)
    f = nnjax.value_and_grad(replicated.layer, mean)
    call("on_mesh", distributed.on_mesh, f, replicated, mesh, "data")
    run = distributed.on_mesh(f, replicated, mesh, "data")
    call("on_mesh: call", run, params, one(4, 3), one(4, 2), weights=one(4), key=KEY)
    call("column_dense", distributed.column_dense, 3, 4, mesh, "data")
    call("vocabulary_embedding", distributed.vocabulary_embedding, 4, 3, mesh, "data")


def _file(folder, name, text):
    (folder / name).write_text(text)
    return folder / name


def junk(rng: random.Random):
    """Something that is hardly a right argument."""
    return rng.choice(
        (
            None,
            True,
            3,
            -1,
            0,
            BIG,
            1.5,
            float("nan"),
            float("-inf"),
            1e38,
            "x",
            "",
            b"x",
            [],
            [1.0, 2.0],
            (),
            ((1,), 2),
            {},
            {"w": 1},
            np.float32(0.5),
            np.int64(3),
            np.array("s"),
            np.array([None]),
            np.zeros((2, 0)),
            KEY,
            one(),
            one(0),
            jax.random.split(KEY, 2),
            one(2, 3),
            one(1, 1, 1, 1, 1),
            ids(2),
            jnp.array([True]),
            jnp.ones(2, jnp.bfloat16),
            jnp.ones(2, complex),
            LAYER,
            LAYER.init(KEY),
            (LAYER, LAYER),
            optax.adam,
            Path("nowhere"),
            jnp.float32,
            jax.ShapeDtypeStruct((2, 3), jnp.float32),
        )
    )


def other_array(rng: random.Random, x):
    """The array with another shape, dtype or kind, or with other numbers."""
    changes = [
        lambda: x[None],
        lambda: x.T,
        lambda: x[..., None],
        lambda: x[:0] if x.ndim else x,
        lambda: x[0] if x.ndim and len(x) else x,
        lambda: jnp.concatenate([x, x]) if x.ndim else x,
        lambda: x.ravel(),
        lambda: x.astype(jnp.int32),
        lambda: x.astype(bool),
        lambda: x.astype(jnp.bfloat16),
        lambda: x.astype(complex),
        lambda: np.asarray(x),
        lambda: np.asarray(x, np.float64),
        lambda: np.asarray(x).tolist(),
        lambda: np.asarray(x).astype(str),
        lambda: np.asarray(x).astype(object),
        lambda: x * np.nan,
        lambda: x * 0 - 1,
        lambda: x + 1000,
        lambda: jax.ShapeDtypeStruct(x.shape, x.dtype),
        lambda: (x,),
    ]
    try:
        with jax.numpy_dtype_promotion("standard"):
            return rng.choice(changes)()
    except (TypeError, ValueError, NotImplementedError):  # a key cannot become strings
        return junk(rng)


def other_tree(rng: random.Random, tree):
    """The tree with a changed leaf, with an entry too few or too many, or of another kind."""
    leaves, treedef = jax.tree.flatten(tree)
    if leaves and rng.random() < 0.6:
        i = rng.randrange(len(leaves))
        leaves[i] = changed(rng, leaves[i])
        return jax.tree.unflatten(treedef, leaves)
    plain = tuple(tree)
    return rng.choice((plain[1:], (*plain, *plain), list(plain), plain, dict(enumerate(plain)), (tree,), junk(rng)))


def changed(rng: random.Random, value):
    if rng.random() < 0.35:
        return junk(rng)
    if isinstance(value, (jax.Array, np.ndarray)):
        return other_array(rng, value)
    if isinstance(value, (tuple, list)) and not isinstance(value, nnjax.Layer):
        return other_tree(rng, value)
    return junk(rng)


def mutated(rng: random.Random, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    places = [*range(len(args)), *kwargs]
    args, kwargs = list(args), dict(kwargs)
    for place in rng.sample(places, min(len(places), rng.choice((1, 1, 2)))):
        at = kwargs if isinstance(place, str) else args
        new = changed(rng, at[place])
        if not (place in LOOPED and isinstance(new, int) and new > 3):
            at[place] = new
    return tuple(args), kwargs


def raw(error: BaseException) -> str:
    """Where the error was raised; empty if nnjax itself raises a ValueError, TypeError or OSError."""
    trace = error.__traceback__
    assert trace is not None
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    where = f"{code.co_filename}:{trace.tb_lineno}"
    ours = code.co_filename.startswith(ROOT) and dis.opname[code.co_code[trace.tb_lasti]] == "RAISE_VARARGS"
    good = ours and isinstance(error, (ValueError, TypeError, OSError, FloatingPointError)) and len(str(error)) > 20
    return "" if good else f"{type(error).__name__} at {where}: {(str(error).splitlines() or [''])[0][:200]}"


def tried(folder: Path, name: str, seed: int) -> str:
    """The fault when the function of this name is called with the arguments of this seed."""
    f, args, kwargs = calls(folder)[name]()
    args, kwargs = mutated(random.Random(f"{name} {seed}"), args, kwargs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            f(*args, **kwargs)
        except Exception as error:
            return raw(error)
    return ""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with files; tracebacks are complete in it."""
    before = jax.config.jax_traceback_filtering
    jax.config.update("jax_traceback_filtering", "off")
    yield tmp_path_factory.mktemp("fuzz")
    jax.config.update("jax_traceback_filtering", before)


def fuzz(folder: Path, n: int, part: int = 0) -> None:
    names = sorted(calls(folder))
    how = {"derandomize": True, "deadline": None, "database": None, "phases": (Phase.generate,)}

    @seed(part)
    @settings(max_examples=n, suppress_health_check=list(HealthCheck), **how)
    @given(st.sampled_from(names), st.integers(0, 2**20))
    def run(name, number):
        if wrong := tried(folder, name, number):
            found.append(f"{name}, seed {number}: {wrong}")

    found: list[str] = []
    run()
    assert not found, "\n".join(found)


@pytest.mark.slow
@pytest.mark.in_turn
def test_right_arguments_are_right(folder):
    for name, make in calls(folder).items():
        if "from_safetensors" not in name:  # there is no such file
            f, args, kwargs = make()
            f(*args, **kwargs)


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: 1 / 0, "ZeroDivisionError"),
        (lambda: jnp.reshape("x", 3), "TypeError"),
        (lambda: train.Epoch.score.fget(None), "AttributeError"),
        (lambda: nnjax.dense(0, 3), ""),
    ],
)
def test_a_raw_error_is_told_from_a_sentence(folder, call, word):
    with pytest.raises(Exception) as error:
        call()
    assert raw(error.value).split(" ")[0] == word


@pytest.mark.in_turn
def test_forty_mutated_calls_end_in_no_raw_error(folder):
    fuzz(folder, 40)


@pytest.mark.parametrize("part", range(1, 8))
@pytest.mark.slow
@pytest.mark.in_turn
def test_two_thousand_mutated_calls_end_in_no_raw_error(folder, part):
    fuzz(folder, 300, part)
