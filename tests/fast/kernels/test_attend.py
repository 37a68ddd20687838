"""Attention in kernels as a whole: the error budget, second order, NaN and infinity, and which program has which kernel."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

import nnjax
from nnjax import ops
from nnjax.fast.kernels.attend import plans
from nnjax.layers.attend import attend_bwd, attend_fwd


@pytest.mark.parametrize(("platform", "causal", "size"), [
    ("cuda", True, {"s": 10}), ("tpu", False, {"s": 5, "t": 7}), ("cuda", False, {"s": 9, "h": 1, "g": 1}),
    ("tpu", True, {"s": 6, "g": 3, "h": 1}), ("cuda", False, {"s": 1, "t": 6}),
])  # fmt: skip
@pytest.mark.repeats
@pytest.mark.in_turn
def test_it_is_right_within_the_error_budget(drawn, interpreted, platform, causal, size):
    how = {"dtypes": ["float32", "bfloat16"], "transforms": ["jit"], "witnesses": ()}
    nnjax.check_layer(interpreted(platform, causal), (), drawn(**size), **how).raise_if_failed()


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.slow
@pytest.mark.in_turn
def test_every_dtype_and_transform(drawn, interpreted, platform):
    nnjax.check_layer(interpreted(platform), (), drawn(s=6, d=2)).raise_if_failed()


@pytest.mark.in_turn
def test_its_gradient_has_gradients_forward_and_reverse(drawn, interpreted):
    layer, x, u = interpreted(), drawn(s=6, d=2), drawn(s=6, d=2, seed=1)

    def slope(fwd, bwd):
        """The slope along u of the squared norm of the cotangents of y for itself."""

        def f(x):
            y, residuals = fwd(x)
            return sum((ct**2).sum() for ct in bwd(residuals, y))

        reverse = sum((a * b).sum() for a, b in zip(jax.grad(f)(x), u))
        return jax.jvp(f, (x,), (u,))[1], reverse

    def plain(x):
        return attend_fwd(*x, None, causal=True)

    found = jax.jit(lambda: slope(lambda x: layer.fwd((), x), lambda residuals, ct: layer.bwd(residuals, ct)[1]))()
    right = jax.jit(lambda: slope(plain, lambda residuals, ct: attend_bwd(residuals, ct, causal=True)))()
    np.testing.assert_allclose(found, right, rtol=1e-4)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.repeats
@pytest.mark.in_turn
def test_nan_and_infinity_spread_as_in_the_plain_pair(drawn, interpreted, platform, causal):
    layer, x, ct = interpreted(platform, causal), drawn(b=2, g=2), drawn(b=2, g=2, seed=1)[0]

    @jax.jit
    def ours(x):
        y, residuals = layer.fwd((), x)
        return y, *layer.bwd(residuals, ct)[1]

    @jax.jit
    def plain(x):
        y, residuals = attend_fwd(*x, None, causal=causal)
        return y, *attend_bwd(residuals, ct, causal=causal)

    for bad in (np.nan, np.inf, -np.inf):
        for holder in range(3):
            for at in (0, 3, 9):
                spoilt = tuple(a.at[0, ..., at, 1].set(bad) if i == holder else a for i, a in enumerate(x))
                for a, b in zip(ours(spoilt), plain(spoilt), strict=True):
                    a, b = (jnp.where(jnp.isfinite(n), n, jnp.nan) for n in (a, b))
                    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5, err_msg=f"{bad} in {'qkv'[holder]} at {at}")


def attends(**options):
    def f(q, k, v):
        return (ops.attention(q, k, v, kernel=True, **options) ** 2).sum()

    return jax.grad(f, (0, 1, 2))


def heads(b=2, s=10, dtype=jnp.float32):
    return jnp.ones((b, s, 4, 8), dtype), *(jnp.ones((b, s, 2, 8), dtype),) * 2


@pytest.mark.parametrize(("platform", "kernels"), [("cuda", 3), ("tpu", 3), ("cpu", 0)])
def test_the_platform_of_the_program_chooses_the_kernel_if_the_option_is_set(kernels_for, platform, kernels):
    assert kernels_for(platform, attends(), *heads()) == kernels
    assert kernels_for(platform, jax.grad(lambda q: ops.attention(q, q, q).sum()), heads()[0]) == 0


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.slow
@pytest.mark.in_turn
def test_layers_models_and_maps_have_them_too(kernels_for, platform):
    layer = nnjax.attention(8, 2, kernel=True)
    params, x = layer.init(jax.random.key(0)), jnp.zeros((2, 5, 8))
    assert kernels_for(platform, lambda p, x: layer.bwd(layer.fwd(p, x)[1], x), params, x) == 3
    assert kernels_for(platform, jax.vmap(jax.vmap(attends())), *(x[None, None] for x in heads())) == 3
    model = nnjax.gpt(5, 4, 2, 2, 8, fused=True, kernel=True)
    step = nnjax.value_and_grad(model, nnjax.linear_cross_entropy())
    ids = jnp.zeros((2, 4), jnp.int32)
    assert kernels_for(platform, step, model.init(jax.random.key(0)), ids, ids) >= 3


@pytest.mark.in_turn
def test_on_a_cpu_nothing_changes():
    q, k, v = (jax.random.normal(jax.random.key(i), x.shape) for i, x in enumerate(heads()))
    step = jax.jit(attends())
    assert "conditional" not in step.lower(q, k, v).compile().as_text()
    right = jax.grad(lambda *x: (ops.attention(*x) ** 2).sum(), (0, 1, 2))
    for a, b in zip(step(q, k, v), jax.jit(right)(q, k, v), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.in_turn
def test_unsupported_arguments_do_not_use_a_kernel(kernels_for, monkeypatch, x64):
    keep = jnp.ones((2, 10), bool)
    for args, options in ((heads(), {"mask": keep}), (heads(b=0), {}), (heads(dtype=jnp.float64), {})):
        assert kernels_for("cuda", attends(**options), *args) == 0
    assert kernels_for("cuda", attends(), *heads()) == 3  # with 64-bit integers
    monkeypatch.setitem(sys.modules, "jax.experimental.pallas.triton", None)
    q, k = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((1, 2, 1, 8, 4), (1, 2, 8, 4)))
    assert set(plans(q, k, None)) == {"tpu"}
    monkeypatch.setitem(sys.modules, "jax.experimental.pallas", None)
    assert plans(q, k, None) == {}


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.in_turn
def test_they_stand_inside_shard_map(shared):
    mesh = jax.make_mesh((2,), ("d",), axis_types=(AxisType.Auto,))
    q, k, v = (jax.random.normal(jax.random.key(i), x.shape) for i, x in enumerate(heads()))
    spec = PartitionSpec() if shared else PartitionSpec("d")
    k, v = (k[:1], v[:1]) if shared else (k, v)
    specs = (PartitionSpec("d"), spec, spec)
    mapped = jax.shard_map(attends(), mesh=mesh, in_specs=specs, out_specs=specs)
    whole = attends()
    if shared:
        whole = jax.grad(lambda q, k, v: sum((ops.attention(q[i : i + 1], k, v) ** 2).sum() for i in range(2)), (0, 1, 2))
    for a, b in zip(jax.jit(mapped)(q, k, v), jax.jit(whole)(q, k, v), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.in_turn
def test_pallas_is_imported_when_it_is_asked_for():
    code = "import sys, nnjax; assert not [m for m in sys.modules if 'pallas' in m.split('.')]"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("make", [
    lambda: nnjax.attention(8, 2, kernel=2),
    lambda: nnjax.gpt(5, 4, 1, 2, 8, kernel="yes"),
    lambda: ops.attention(*heads(), kernel=None),
])  # fmt: skip
def test_the_option_is_a_flag(make):
    with pytest.raises(TypeError, match="kernel must be True or False"):
        make()
