import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax import layers, losses, models
from nnjax.cases import LEADS, cases

CASES = cases()
DTYPES, TRANSFORMS = ("float64", "float32", "bfloat16"), ("eager", "jit")


def run(case, lead, seeds, transforms=TRANSFORMS, dtypes=DTYPES):
    for seed in seeds:
        params, x, key = case.make(seed, lead)
        only = {"dtypes": dtypes, "transforms": transforms, "witnesses": ()}
        report = nnjax.check_layer(case.layer, params, x, key=key, seed=seed, **only)
        assert not report.failures, f"seed {seed}, leading axes {lead}\n{report}"
        seen = {(row.dtype, row.transform) for row in report.rows}
        assert seen == {(d, t) for d in dtypes for t in transforms}


def loops(case, lead):
    """Whether the pair has a loop in it, which eager execution compiles again at each call."""
    params, x, key = case.make(0, lead)
    return "scan[" in str(jax.make_jaxpr(lambda p: case.layer.fwd(p, x, key=key))(params))


def in_double(leaf):
    return leaf.astype(jnp.float64) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf


def is_factory(module, name):
    """Whether a public function of this module returns a Layer."""
    f = getattr(module, name)
    own = getattr(f, "__module__", "").startswith(module.__name__)
    return own and not name.startswith("_") and getattr(f, "__annotations__", {}).get("return") in (nnjax.Layer, "Layer")


def test_names_are_unique_and_every_public_layer_has_a_case():
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
    made = {name.split("(")[0].split(",")[0].split(" ")[0] for name in names}
    public = {name for module in (layers, losses, models) for name in dir(module) if is_factory(module, name)}
    public -= {"gpt_block", "moe_feed"}  # parts of models
    assert public | {"residual", "parallel", "scan_layers"} <= made, public - made


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.repeats
def test_every_case_passes_its_check(case):
    run(case, (7,), [0], ["jit"])  # compiling one operation takes as long as a small program


@pytest.mark.slow
@pytest.mark.parametrize("lead", LEADS, ids=str)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.in_turn
def test_every_case_passes_its_check_for_many_seeds(case, lead):
    run(case, lead, range(20 if lead == (7,) else 3), ["jit"])
    if lead == (7,):
        run(case, lead, range(1 if loops(case, lead) else 4), ["eager"], ["float64", "bfloat16"])
    if lead in ((7,), (0,)):
        run(case, lead, [0], ["eager"], ["float32"])


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.in_turn
def test_every_case_passes_under_all_transforms_and_witnesses(case):
    """As `nnjax check` checks it."""
    params, x, key = case.make(0)
    nnjax.check_layer(case.layer, params, x, key=key).raise_if_failed()


@pytest.mark.parametrize("case", [case for case in CASES if not nnjax.layer.cuts_gradient(case.layer)], ids=lambda c: c.name)
@pytest.mark.repeats
@pytest.mark.in_turn
def test_every_case_has_forward_mode(case, x64):
    """The transpose of the backward is the derivative of the definition."""
    params, x, key = jax.tree.map(in_double, case.make(0))
    inputs, rest = jax.tree.flatten((params, x))
    smooth = [i for i, leaf in enumerate(inputs) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    along = [jax.random.normal(jax.random.key(i), inputs[i].shape, jnp.float64) for i in smooth]

    def of(f):
        def with_smooth(*given):
            full = dict(zip(smooth, given))
            return f(*jax.tree.unflatten(rest, [full.get(i, leaf) for i, leaf in enumerate(inputs)]), key=key)

        return jax.jit(lambda along: jax.jvp(with_smooth, tuple(inputs[i] for i in smooth), tuple(along)))(along)

    ours, right = of(nnjax.as_custom_vjp(case.layer)), of(case.layer.apply)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(right)):
        if a.dtype != jax.dtypes.float0:
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


PROGRAM = """import sys
import nnjax
from nnjax.cases import cases
for case in cases()[int(sys.argv[1]) :: 16]:
    for seed in range(5):
        params, x, key = case.make(seed)
        only = {"dtypes": ["float32"], "transforms": ["jit"], "witnesses": ()}
        nnjax.check_layer(case.layer, params, x, key=key, seed=seed, **only).raise_if_failed()
    print(case.name)
"""


@pytest.mark.slow
@pytest.mark.in_turn
@pytest.mark.parametrize("start", range(16))
def test_every_case_passes_as_xla_optimises_by_default(start):
    """In a separate process: XLA reads only once how much to optimise, and the other tests share that."""
    env = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(start)], capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [case.name for case in CASES[start::16]]
