import jax
import jax.numpy as jnp
import pytest

import nnjax
from nnjax.cases import cases
from nnjax.check.layers import forget
from nnjax.check.options import DTYPES, EVERYWHERE, IN_WIDE

LAYER = nnjax.dense(4, 3)
PARAMS, X = LAYER.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (5, 4))


@pytest.mark.in_turn
def test_by_default_every_dtype_runs_eager_and_jitted_and_the_rest_in_wide_dtypes():
    seen = {(row.dtype, row.transform) for row in nnjax.check_layer(LAYER, PARAMS, X).raise_if_failed().rows}
    assert seen == {(d, t) for d in DTYPES for t in EVERYWHERE} | {(d, t) for d in ("float64", "float32") for t in IN_WIDE}


@pytest.mark.slow
@pytest.mark.in_turn
def test_full_runs_the_whole_product():
    seen = {(row.dtype, row.transform) for row in nnjax.check_layer(LAYER, PARAMS, X, full=True).raise_if_failed().rows}
    assert seen == {(d, t) for d in DTYPES for t in EVERYWHERE + IN_WIDE}


def pair(fwd=None, bwd=None):
    def right_fwd(x):
        return jnp.sin(x), x

    def right_bwd(x, ct):
        return (ct * jnp.cos(x),)

    return fwd or right_fwd, bwd or right_bwd


@pytest.mark.in_turn
def test_a_bare_pair_passes_and_a_wrong_one_fails_under_every_transform():
    x = jnp.linspace(-2, 2, 9)
    nnjax.check_pair(*pair(), x, reference=jnp.sin).raise_if_failed()
    report = nnjax.check_pair(*pair(bwd=lambda x, ct: (ct * jnp.sin(x),)), x, reference=jnp.sin)
    assert {row.transform for row in report.failures if row.witness == "reference"} == {*EVERYWHERE, *IN_WIDE}


@pytest.mark.parametrize(
    ("transform", "wrong"),
    [
        ("jit", lambda x, ct: (jnp.cos(x) * (1.1 if isinstance(x, jax.core.Tracer) else 1) * ct,)),
        ("vmap", lambda x, ct: (jnp.cos(x) * (1.1 if "Batch" in type(x).__name__ else 1) * ct,)),
    ],
)
def test_a_rule_that_is_wrong_under_one_transform_only_is_found(transform, wrong):
    report = nnjax.check_pair(*pair(bwd=wrong), jnp.linspace(-2, 2, 9), reference=jnp.sin, witnesses=())
    failing = {row.transform for row in report.failures}
    assert transform in failing
    assert "eager" not in failing


def test_a_second_derivative_that_is_wrong_is_found():
    def bwd(x, ct):  # the right cotangent, through a value that hides its dependence on x
        return (ct * jax.lax.stop_gradient(jnp.cos(x)),)

    report = nnjax.check_pair(*pair(bwd=bwd), jnp.linspace(-2, 2, 9), reference=jnp.sin)
    assert {row.transform for row in report.failures} == {"second"}


@pytest.mark.slow
@pytest.mark.in_turn
def test_trees_outputs_integers_flags_keys_none_and_static_arguments():
    @jax.custom_vjp
    def f(p, ids, flags, key, none):
        noise = jax.random.uniform(key, p["a"].shape, jnp.float32).astype(p["a"].dtype)
        return {"y": p["a"][ids] * jnp.where(flags, p["b"], 1), "n": p["a"] * noise, "count": ids.sum(dtype=jnp.int32)}

    def fwd(p, ids, flags, key, none):
        return f(p, ids, flags, key, none), (p, ids, flags, key)

    def bwd(kept, ct):
        p, ids, flags, key = kept
        noise = jax.random.uniform(key, p["a"].shape, jnp.float32).astype(p["a"].dtype)
        scale = jnp.where(flags, p["b"], 1)
        ct_a = (ct["n"] * noise).at[ids].add(ct["y"] * scale)
        ct_b = (jnp.where(flags, p["a"][ids], 0) * ct["y"]).sum()
        return {"a": ct_a, "b": ct_b}, None, None, None, None

    f.defvjp(fwd, bwd)
    p = {"a": jnp.arange(1.0, 5.0), "b": jnp.float32(3.0)}
    args = (p, jnp.array([0, 2, 2]), jnp.array([True, False, True]), jax.random.key(3), None)
    report = nnjax.check_vjp(f, *args).raise_if_failed()
    assert {row.leaf for row in report.rows} == {"output[0]", "output[1]", "exact output[0]", "p['a']", "p['b']"}


@pytest.mark.in_turn
def test_what_nondiff_argnums_names_is_static():
    def make(wrong):
        def f(scale, x):
            return scale * jnp.sin(x)

        rule = jax.custom_vjp(f, nondiff_argnums=(0,))
        rule.defvjp(lambda scale, x: (f(scale, x), x), lambda scale, x, ct: (wrong * scale * jnp.cos(x) * ct,))
        return rule

    x = jnp.linspace(-1, 1, 7)
    report = nnjax.check_vjp(make(1.0), 2.5, x).raise_if_failed()
    assert {row.leaf for row in report.rows} == {"output", "x"}
    assert not nnjax.check_vjp(make(1.01), 2.5, x).ok


@pytest.mark.parametrize("shape", [(), (0, 3), (1, 1)])
@pytest.mark.repeats
def test_scalars_empty_and_single_entries(shape):
    nnjax.check_pair(*pair(), jnp.ones(shape), reference=jnp.sin).raise_if_failed()


@pytest.mark.in_turn
def test_an_exact_output_that_differs_is_reported():
    def fwd(x):
        return (jnp.sin(x), jnp.int32(1)), x

    report = nnjax.check_pair(
        fwd, lambda x, ct: (ct[0] * jnp.cos(x),), jnp.ones(3), reference=lambda x: (jnp.sin(x), jnp.int32(2))
    )
    assert {row.leaf for row in report.failures} == {"exact output[0]"}


@pytest.mark.in_turn
def test_what_jax_cannot_run_is_a_failure_and_not_an_exception():
    report = nnjax.check_pair(
        *pair(bwd=lambda x, ct: (ct[:, :2] @ jnp.ones(5, ct.dtype),)), jnp.ones((3, 4)), reference=jnp.sin
    )
    assert not report.ok
    assert report.missing == ()  # each row has failed, so none was left out
    assert {row.leaf for row in report.rows} == {"cotangents"}
    assert str(report).count("\n    unknown: JAX cannot run it") == 1
    assert len(report.failures) == 16
    assert len(str(report).splitlines()) == 4


def test_mixed_precision_is_checked_at_compute_dtype():
    def low(x):
        return jnp.sin(x.astype(jnp.bfloat16)).astype(x.dtype)

    def bwd(x, ct):
        return ((ct.astype(jnp.bfloat16) * jnp.cos(x.astype(jnp.bfloat16))).astype(x.dtype),)

    x, fwd = jnp.linspace(-2, 2, 50), lambda x: (low(x), x)
    options = {"reference": jnp.sin, "dtypes": ["float32"], "transforms": ["eager", "jit", "vmap"]}
    assert not nnjax.check_pair(fwd, bwd, x, **options).ok
    nnjax.check_pair(fwd, bwd, x, compute_dtype="bfloat16", **options).raise_if_failed()
    wrong = nnjax.check_pair(fwd, lambda x, ct: (1.2 * bwd(x, ct)[0],), x, compute_dtype="bfloat16", **options)
    assert {row.leaf for row in wrong.failures} == {"x"}


@pytest.mark.parametrize(("factor", "ok"), [(1.0, True), (1.001, False)])
@pytest.mark.in_turn
def test_a_product_summed_in_float32_has_no_taylor_remainder(factor, ok):
    def wide(a, b):
        return jnp.matmul(a, b, preferred_element_type=jnp.float32).astype(a.dtype)

    def bwd(r, ct):
        return wide(factor * ct, r[1].T), wide(r[0].T, ct)

    a, b = jax.random.normal(jax.random.key(0), (5, 7)), jax.random.normal(jax.random.key(1), (7, 3))
    report = nnjax.check_pair(lambda a, b: (wide(a, b), (a, b)), bwd, a, b, reference=wide)
    assert report.ok == ok
    assert not report.missing
    assert {row.witness for row in report.rows} == {"reference", "adjoint"}
    assert any("no taylor remainder" in note for note in report.notes)


@pytest.mark.parametrize("factor", [1.0, 1.001])
@pytest.mark.repeats
@pytest.mark.in_turn
def test_what_does_not_run_in_lower_precision_is_compared_in_the_others(factor):
    @jax.custom_vjp
    def solve(a, b):
        return jnp.linalg.solve(a, b)

    def bwd(r, ct):
        ct_b = jnp.linalg.solve(r[0].T, ct)
        return -jnp.outer(ct_b, r[1]) * factor, ct_b

    solve.defvjp(lambda a, b: (solve(a, b), (a, jnp.linalg.solve(a, b))), bwd)
    a, b = jax.random.normal(jax.random.key(0), (4, 4)) + 3 * jnp.eye(4), jnp.arange(1.0, 5.0)
    report = nnjax.check_vjp(solve, a, b)
    assert report.ok == (factor == 1.0), str(report)
    assert {row.dtype for row in report.rows} == {"float32", "float64"}
    assert any("not compared in bfloat16, in which it does not run: " in note for note in report.notes)
    assert not report.missing
    named = nnjax.check_vjp(solve, a, b, dtypes=["bfloat16", "float32"], transforms=["jit"])
    assert not named.ok
    assert named.missing[0].startswith("solve: bfloat16, in which the definition does not run: ")
    assert {row.dtype for row in named.rows} == {"float32"}
    layer = nnjax.Layer(
        "solve", lambda key: a, lambda a, b, key=None: solve(a, b), lambda a, b, key=None: (solve(a, b), a), bwd
    )
    held = nnjax.check_layer(layer, a, b, transforms=["jit"])
    assert {line.partition(",")[0] for line in held.missing} == {
        "solve: bfloat16",
        "solve: float16",
    }  # a layer must run in all
    assert {row.dtype for row in held.rows} == {"float32", "float64"}


def test_a_pair_must_be_functions():
    with pytest.raises(TypeError, match=r"check_pair: bwd must be a function, got NoneType"):
        nnjax.check_pair(jnp.sin, None, jnp.ones(3), reference=jnp.sin)  # type: ignore[arg-type]


def test_a_reference_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"must return the same shapes and dtypes, got float32 \(3,\) and float32 \(2,\)"):
        nnjax.check_vjp(jnp.sin, jnp.ones(3), reference=lambda x: jnp.sin(x)[:2])


SEEDED = (
    "dense", "relu", "softmax", "layer_norm", "embedding", "rnn", "conv", "max_pool", "attention", "softmax_cross_entropy",
    "linear_cross_entropy", "scan_layers", "residual",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in cases() if case.name in SEEDED], ids=lambda case: case.name)
@pytest.mark.in_turn
def test_the_verdict_is_the_same_for_a_hundred_seeds(case):
    """Every seed accepts the right gradient and rejects 1.001 times it."""
    wrong = case.layer._replace(bwd=lambda r, ct: jax.tree.map(lambda g: 1.001 * g, case.layer.bwd(r, ct)))
    for seed in range(100):
        params, x, key = case.make(seed)
        how = {"key": key, "seed": seed, "transforms": ["jit"]}
        witnesses = None if seed < 10 else ()
        nnjax.check_layer(case.layer, params, x, dtypes=["float32", "float64"], witnesses=witnesses, **how).raise_if_failed()
        assert not nnjax.check_layer(wrong, params, x, dtypes=["float32"], witnesses=(), **how).ok, seed
    forget()


def test_the_cases_of_the_hundred_seeds_exist():
    assert {case.name for case in cases()} >= set(SEEDED)
