"""What a user's type checker sees: a program of layers, ops, check and fit, and the types that come out of it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import nnjax

ROOT = Path(nnjax.__file__).parent.parent
PROGRAM = """
from typing import assert_type

import jax
import jax.numpy as jnp

import nnjax
from nnjax import ops

data = nnjax.train.load("digits")
model = nnjax.serial(nnjax.dense(64, 30), nnjax.sigmoid(), nnjax.dense(30, 10))
loss, params = nnjax.softmax_cross_entropy(), model.init(jax.random.key(0))
x, labels = jnp.asarray(data.train.x[:10]), jnp.asarray(data.train.y[:10])
report = nnjax.check_layer(model, params, x, dtypes=["float32"], transforms=["jit"]).raise_if_failed()
value_and_grad = nnjax.value_and_grad(model, loss)
optimizer = nnjax.train.make_optimizer("sgd", 0.1)
fitted = nnjax.train.fit(value_and_grad, params, data, predict=model.apply, optimizer=optimizer, epochs=1, batch_size=10,
                         key=jax.random.key(1), measure=lambda state: {"steps": int(state.step)})
step = nnjax.train.make_step(nnjax.reference_value_and_grad(model, loss), optimizer)
(with_aux, y), gradient = nnjax.value_and_grad(model, loss, has_aux=True)(params, x, labels)
places = jnp.ones((1, 5, 4, 2))

assert_type(data, nnjax.train.Dataset)
assert_type(model, nnjax.Layer[jax.Array])
assert_type(model.apply(params, x), jax.Array)
assert_type(loss.fwd((), (model.apply(params, x), labels))[0], jax.Array)
assert_type(nnjax.as_custom_vjp(model)(params, x), jax.Array)
assert_type(nnjax.plain(model).apply(params, x), jax.Array)
assert_type(nnjax.lstm(3, 4), nnjax.Layer[jax.Array])
assert_type(report, nnjax.Report)
assert_type(report.rows[0].error, float)
assert_type(value_and_grad(params, x, labels)[0], jax.Array)
assert_type(with_aux, jax.Array)
assert_type(fitted.history[0].loss, float)
assert_type(step(fitted.state, x, labels), tuple[nnjax.train.TrainState, jax.Array])
assert_type(ops.attention(places, places, places), jax.Array)
assert_type(ops.conv(places, jnp.ones((3, 3, 2, 2))), jax.Array)
assert_type(ops.max_pool(places, (2, 2)), jax.Array)
assert_type(ops.linear_cross_entropy(x, jnp.ones((10, 64)), labels), jax.Array)
"""


@pytest.fixture
def program(tmp_path):
    file = tmp_path / "program.py"
    file.write_text(PROGRAM)
    return file


@pytest.mark.slow
@pytest.mark.in_turn
def test_the_program_runs():
    exec(PROGRAM, {})


@pytest.mark.slow
@pytest.mark.in_turn
def test_pyright_finds_no_error_in_the_program(program):
    pytest.importorskip("pyright")
    settings = {"include": ["program.py"], "extraPaths": [str(ROOT)], "typeCheckingMode": "standard"}
    (program.parent / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson"]
    done = subprocess.run(command, cwd=program.parent, capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert found["generalDiagnostics"] == []
    assert found["summary"]["filesAnalyzed"] == 1


@pytest.mark.slow
@pytest.mark.in_turn
def test_mypy_finds_no_error_in_the_program(program):
    pytest.importorskip("mypy")
    command = [sys.executable, "-m", "mypy", "--strict", "program.py"]
    done = subprocess.run(command, cwd=program.parent, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "Success: no issues found in 1 source file\n")
