"""JAX's own Pallas kernels, interpreted: their gradients are right, and five mutants of each are not.

Its softmax has no gradient (JAX does not differentiate that kernel): here it is in a rule with a hand-written transpose.
"""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # newer JAX warns that they will move
    attention, layer_norm, rms_norm, softmax = (
        pytest.importorskip(f"jax.experimental.pallas.ops.gpu.{name}", reason="this JAX has no such kernels")
        for name in ("attention", "layer_norm", "rms_norm", "softmax")
    )

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def mha(q, k, v):
    blocks = attention.BlockSizes(block_q=16, block_k=16, block_q_dkv=16, block_kv_dkv=16, block_q_dq=16, block_kv_dq=16)
    return attention.mha(q, k, v, None, 0.25, True, blocks, "triton", None, 2, None, True)


def attends(q, k, v):
    scores = 0.25 * jnp.einsum("bqhd,bkhd->bhqk", q, k)
    seen = jnp.broadcast_to(jnp.tril(jnp.ones(scores.shape[2:], bool)), scores.shape)
    weights = jax.nn.softmax(jnp.where(seen, scores, jnp.full_like(scores, -1e30)))
    return jnp.einsum("bhqk,bkhd->bqhd", weights, v)


def normalised(x, centre):
    x = x - jnp.broadcast_to(x.mean(-1, keepdims=True), x.shape) if centre else x
    return x * jax.lax.rsqrt(jnp.broadcast_to(jnp.square(x).mean(-1, keepdims=True), x.shape) + 1e-5)


def affine(x, w, b, centre):
    y = normalised(x, centre)
    return y * jnp.broadcast_to(w, y.shape) + jnp.broadcast_to(b, y.shape)


def softened(x):
    return softmax.softmax(x, interpret=True)


def softmax_t(y, ct):
    return (y * (ct - jnp.broadcast_to((y * ct).sum(-1, keepdims=True), y.shape)),)


ROWS, SCALE, SHIFT = normal(2, 3, 32), normal(32), normal(32)
KERNELS = {
    "attention": (mha, attends, (normal(1, 32, 2, 16), normal(1, 32, 2, 16), normal(1, 32, 2, 16))),
    "layer_norm": (
        lambda x, w, b: layer_norm.layer_norm(x, w, b, None, 3, 1e-5, "triton", True),
        functools.partial(affine, centre=True), (ROWS, SCALE, SHIFT),
    ),
    "rms_norm": (
        lambda x, w, b: rms_norm.rms_norm(x, w, b, None, 3, 1e-5, "triton", True),
        functools.partial(affine, centre=False), (ROWS, SCALE, SHIFT),
    ),
    "softmax": (softened, jax.nn.softmax, (normal(4, 16),)),
}  # fmt: skip
MUTANTS = {
    "larger by 1.01": lambda ct: 1.01 * ct,
    "negated": lambda ct: -ct,
    "one row left out": lambda ct: ct.at[(-1,) * (ct.ndim - 1)].set(0),
    "moved by one": lambda ct: jnp.roll(ct, 1, -1),
    "a term without the cotangent": lambda ct: ct + 0.1,
}


def interpreted(kernel, change=None):
    """The kernel as a rule, with its first cotangent changed."""

    @jax.custom_vjp
    def rule(*args):
        return kernel(*args)

    def bwd(args, ct):
        first, *others = softmax_t(kernel(*args), ct) if kernel is softened else jax.vjp(kernel, *args)[1](ct)
        return (first if change is None else change(first), *others)

    rule.defvjp(lambda *args: (kernel(*args), args), bwd)
    return rule


def held(name, change=None):
    kernel, reference, args = KERNELS[name]
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        return nnjax.check_vjp(
            interpreted(kernel, change), *args, reference=reference, dtypes=["float32"], transforms=["jit"], witnesses=()
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.in_turn
def test_a_kernel_of_jax_is_right_and_five_mutants_of_it_are_not(name):
    held(name).raise_if_failed()
    for mutant, change in MUTANTS.items():
        assert held(name, change).failures, mutant
