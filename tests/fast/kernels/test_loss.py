"""The linear cross-entropy in kernels as a whole: the error budget, second order, NaN and infinity, where there are kernels."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

import nnjax
from nnjax import ops
from nnjax.fast.kernels.loss import plans
from nnjax.losses import fused

CASES = {
    "blocks that do not divide": ("cuda", {}, {}, True),
    "blocks that divide": ("tpu", {"n": 8, "v": 12}, {}, False),
    "two classes": ("tpu", {"n": 9, "v": 2}, {}, True),
    "one row": ("tpu", {"n": 1, "v": 5}, {}, False),
    "one row of a GPU": ("cuda", {"n": 1, "v": 9}, {"programs": 1}, True),
    "blocks that do not divide, on a TPU": ("tpu", {}, {}, True),
    "one class": ("cuda", {"n": 5, "v": 1}, {}, False),
    "all features at once": ("cuda", {"n": 6, "v": 7, "d": 4}, {"width": 4}, True),
    "blocks larger than all": ("cuda", {"n": 3, "v": 5}, {"size": 16, "width": 8}, False),
    "one feature": ("tpu", {"n": 5, "v": 6, "d": 1}, {}, True),
}


def checked(drawn_rows, interpreted_loss, name, *dtypes):
    platform, sizes, blocks, weighted = CASES[name]
    h, w, labels, weights = drawn_rows(**sizes)
    how = {"dtypes": dtypes, "transforms": ["jit"], "witnesses": ()}
    x = ((h, w), labels, weights) if weighted else ((h, w), labels)
    nnjax.check_layer(interpreted_loss(platform, **blocks), (), x, **how).raise_if_failed()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.repeats
@pytest.mark.in_turn
def test_it_is_right_within_the_error_budget(drawn_rows, interpreted_loss, name):
    checked(drawn_rows, interpreted_loss, name, "float32")


@pytest.mark.parametrize("name", CASES)
@pytest.mark.slow
@pytest.mark.in_turn
def test_it_is_right_in_half_the_bits(drawn_rows, interpreted_loss, name):
    checked(drawn_rows, interpreted_loss, name, "bfloat16", "float16")


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.slow
@pytest.mark.in_turn
def test_every_dtype_and_transform(drawn_rows, interpreted_loss, platform):
    h, w, labels, weights = drawn_rows(n=6, v=7)
    nnjax.check_layer(interpreted_loss(platform), (), ((h, w), labels, weights)).raise_if_failed()


@pytest.mark.parametrize("platform", ["tpu", pytest.param("cuda", marks=pytest.mark.slow)])
@pytest.mark.in_turn
def test_its_gradient_has_gradients_forward_and_reverse(drawn_rows, interpreted_loss, platform):
    (h, w, labels, weights), u = drawn_rows(n=6, v=7), drawn_rows(n=6, v=7, seed=1)
    layer, x, along = interpreted_loss(platform), (h, w, weights), (u[0], u[1], u[3])

    def slope(fwd):
        """The slope along u of the squared norm of the cotangents, and of the value."""

        def f(x):
            h, w, weights = x
            value, residuals = fwd((), ((h, w), labels, weights))
            return value + sum((ct**2).sum() for ct in fused.linear_cross_entropy_bwd(residuals, value)[1][0])

        reverse = sum((a * b).sum() for a, b in zip(jax.grad(f)(x), along))
        return jax.jvp(f, (x,), (along,))[1], reverse

    found = jax.jit(lambda: slope(layer.fwd))()
    right = jax.jit(lambda: slope(fused.linear_cross_entropy_fwd))()
    np.testing.assert_allclose(found, right, rtol=1e-4)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_nan_and_infinity_spread_as_in_the_plain_spelling(drawn_rows, rows_in_kernels, platform):
    h, w, labels, share = drawn_rows()
    ours = jax.jit(lambda h, w: rows_in_kernels(platform)(h, w, labels, share))
    plain = jax.jit(lambda h, w: fused.gradient_of_rows(h, w, labels, share))
    for bad in (np.nan, np.inf, -np.inf):
        spoilt = [(h.at[at, 1].set(bad), w) for at in (0, 3, 9)] + [(h, w.at[at, 1].set(bad)) for at in (0, 4, 10)]
        for x in [*spoilt, (h, w.at[:4, 1].set(bad))]:
            for a, b in zip(ours(*x), plain(*x), strict=True):
                a, b = (jnp.where(jnp.isfinite(n), n, jnp.nan) for n in (a, b))
                np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5, err_msg=str(bad))


@pytest.mark.parametrize("platform", ["tpu", pytest.param("cuda", marks=pytest.mark.slow)])
@pytest.mark.in_turn
def test_a_label_out_of_range_has_no_gradient(drawn_rows, interpreted_loss, platform):
    h, w, labels, _ = drawn_rows()
    fwd = jax.jit(lambda h, w, labels: interpreted_loss(platform).fwd((), ((h, w), labels)))
    plain = jax.jit(lambda h, w, labels: fused.linear_cross_entropy_fwd((), ((h, w), labels)))
    for wrong in (-1, 11, 2**30):
        x = h, w, labels.at[3].set(wrong)
        (value, ((ct_h, _, (ct_w, _), _), *_)), (_, ((right_h, _, (right_w, _), _), *_)) = fwd(*x), plain(*x)
        assert jnp.isnan(value)
        assert not ct_h[3].any()
        np.testing.assert_allclose(ct_h, right_h, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(ct_w, right_w, rtol=1e-5, atol=1e-6)


def projects(**options):
    def f(h, w, labels):
        return ops.linear_cross_entropy(h, w, labels, kernel=True, **options)

    return jax.value_and_grad(f, (0, 1))


def batch(n=10, v=7, d=3, dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(0), 2)
    h, w = (jax.random.normal(key, shape, dtype) for key, shape in zip(keys, ((n, d), (v, d))))
    return h, w, jnp.arange(n, dtype=jnp.int32) % v


@pytest.mark.parametrize(("platform", "kernels"), [("cuda", 3), ("tpu", 3), ("cpu", 0)])
def test_the_platform_of_the_program_chooses_the_kernel_if_the_option_is_set(kernels_for, platform, kernels):
    assert kernels_for(platform, projects(), *batch()) == kernels
    plain = jax.grad(lambda h, w, labels: ops.linear_cross_entropy(h, w, labels), (0, 1))
    assert kernels_for(platform, plain, *batch()) == 0


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.slow
@pytest.mark.in_turn
def test_the_loss_and_maps_have_them_too(kernels_for, platform):
    loss, (h, w, labels) = nnjax.linear_cross_entropy(kernel=True), batch()
    assert kernels_for(platform, lambda h, w: loss.fwd((), ((h, w), labels)), h, w) == 3
    one_table = jax.vmap(projects(), (0, None, 0))
    assert kernels_for(platform, one_table, h[None], w, labels[None]) == 3
    assert kernels_for(platform, jax.vmap(jax.vmap(projects())), *(x[None, None] for x in batch())) == 3
    model = nnjax.gpt(5, 4, 2, 2, 8, fused=True)
    ids = jnp.zeros((2, 4), jnp.int32)
    step = nnjax.value_and_grad(model, loss)
    assert kernels_for(platform, step, model.init(jax.random.key(0)), ids, ids) == 3


def test_on_a_cpu_nothing_changes():
    x, step = batch(), jax.jit(projects())
    assert "conditional" not in step.lower(*x).compile().as_text()
    right = jax.jit(jax.value_and_grad(lambda *x: ops.linear_cross_entropy(*x), (0, 1)))
    for a, b in zip(jax.tree.leaves(step(*x)), jax.tree.leaves(right(*x)), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.in_turn
def test_unsupported_arguments_do_not_use_a_kernel(kernels_for, monkeypatch, x64):
    for sizes in ({"n": 0}, {"d": 0}, {"v": 1}, {"dtype": jnp.float64}):
        assert kernels_for("cuda", projects(), *batch(**sizes)) == 0
    assert kernels_for("cuda", projects(), *batch()) == 3  # with 64-bit integers
    h, w, _ = batch()
    monkeypatch.setitem(sys.modules, "jax.experimental.pallas.triton", None)
    assert set(plans(h, w)) == {"tpu"}
    monkeypatch.setitem(sys.modules, "jax.experimental.pallas", None)
    assert plans(h, w) == {}


def test_an_empty_batch_has_a_value_of_nan_and_gradients_of_zero():
    value, (ct_h, ct_w) = jax.jit(projects())(*batch(n=0))
    assert jnp.isnan(value)
    assert ct_h.shape == (0, 3)
    assert not ct_w.any()


def test_they_stand_inside_shard_map():
    mesh = jax.make_mesh((2,), ("d",), axis_types=(AxisType.Auto,))
    split, whole, (h, w, labels) = PartitionSpec("d"), PartitionSpec(), batch()

    def of_half(h, w, labels):
        value, (ct_h, ct_w) = projects()(h, w, labels)
        return value[None], ct_h, ct_w

    mapped = jax.shard_map(of_half, mesh=mesh, in_specs=(split, whole, split), out_specs=(split, split, whole))
    values, ct_h, ct_w = jax.jit(mapped)(h, w, labels)
    value, (right_h, right_w) = jax.jit(projects())(h, w, labels)
    np.testing.assert_allclose(values.mean(), value, rtol=1e-6)
    np.testing.assert_allclose(ct_h / 2, right_h, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ct_w / 2, right_w, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [
    lambda: nnjax.linear_cross_entropy(kernel=2), lambda: ops.linear_cross_entropy(*batch(), kernel=None),
])  # fmt: skip
def test_the_option_is_a_flag(make):
    with pytest.raises(TypeError, match="kernel must be True or False"):
        make()
