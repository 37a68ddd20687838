"""Of several processes: what tests/parallel/test_processes.py runs through. Here two that only talk."""

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
from nnjax.train.processes import by_first, gathered, is_first
me = jax.process_index()
assert is_first() == (me == 0)
assert gathered(["short", "long " * 1000][me]) == ["short", "long " * 1000]
assert by_first(lambda: {{"called by": me}}, ValueError) == {{"called by": 0}}
try:
    by_first(lambda: int("three"), ValueError)
except ValueError as error:
    assert str(error).startswith("invalid literal"), error
    print("all heard")
"""


def test_two_processes_hear_each_other_and_the_first_ones_errors():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        program = TALK.format(port=s.getsockname()[1])
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("JAX", "XLA"))} | {"JAX_PLATFORMS": "cpu"}
    both = [
        subprocess.Popen([sys.executable, "-c", program, str(i)], stdout=subprocess.PIPE, text=True, env=environment)
        for i in (0, 1)
    ]
    assert ["all heard" in p.communicate(timeout=60)[0] for p in both] == [True, True]


def test_one_process_talks_to_itself():
    value = object()
    assert is_first()
    assert gathered(value) == [value]
    assert by_first(lambda: value, ValueError) is value
    with pytest.raises(OSError, match="as it is"):
        by_first(lambda: (_ for _ in ()).throw(OSError("as it is")), ValueError)
