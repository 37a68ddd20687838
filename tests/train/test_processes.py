"""Two processes that only talk; tests/distributed/test_processes.py runs whole runs in several processes."""

import os
import socket
import subprocess
import sys

import pytest

from nnjax.train.processes import by_first, gathered, is_first

TALK = """
import jax, sys
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.distributed.initialize("127.0.0.1:{port}", 2, int(sys.argv[1]))
import numpy as np
from pathlib import Path
from nnjax.train import Text, load
from nnjax.train.processes import by_first, expect_same_data, gathered, is_first
from nnjax.train.run import CheckpointError, expect_shared
me = jax.process_index()
assert is_first() == (me == 0)
assert gathered(["short", "long " * 1000][me]) == ["short", "long " * 1000]
assert by_first(lambda: {{"called by": me}}, ValueError) == {{"called by": 0}}
try:
    by_first(lambda: int("three"), ValueError)
except ValueError as error:
    assert str(error).startswith("invalid literal"), error
    print("all heard")
digits, text = load("digits"), Text(str(me), np.arange(1_000_000), np.arange(9), "abc")
expect_same_data(digits)
expect_same_data(text)
digits.test.y[-1] += me
for data in (digits, text._replace(vocabulary="abd" if me else "abc"), text._replace(train=np.arange(1_000_000 + me))):
    try:
        expect_same_data(data)
    except ValueError as error:
        assert "data" in str(error) and "1 and 0" in str(error), error
        print("data differ")
folder = Path(sys.argv[2])
expect_shared(folder)
assert gathered(list(map(str, folder.iterdir()))) == [[], []]
own = folder / str(me)
own.mkdir()
try:
    expect_shared(own, seconds=0.3)
except CheckpointError as error:
    assert "process 1 does not see" in str(error), error
    print("folders differ")
assert list(own.iterdir()) == []
"""


@pytest.mark.slow
@pytest.mark.in_turn
def test_two_processes_hear_each_other_and_the_first_ones_errors(tmp_path):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        program = TALK.format(port=s.getsockname()[1])
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("JAX", "XLA"))} | {"JAX_PLATFORMS": "cpu"}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(i), str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment
        )
        for i in (0, 1)
    ]
    try:
        for process in both:
            lines = process.communicate(timeout=120)[0].splitlines()
            said = [line for line in lines if not line.startswith("[Gloo]")]  # it writes at any time
            assert said[-5:] == ["all heard", *["data differ"] * 3, "folders differ"]
    finally:
        for process in both:
            process.kill()
            process.communicate()


def test_one_process_talks_to_itself():
    value = object()
    assert is_first()
    assert gathered(value) == [value]
    assert by_first(lambda: value, ValueError) is value
    with pytest.raises(OSError, match="as it is"):
        by_first(lambda: (_ for _ in ()).throw(OSError("as it is")), ValueError)
