import subprocess
import sys

import pytest

from nnjax.distributed.last_words import translated
from nnjax.distributed.processes import Place, sentences

SENTENCES = sentences(Place("host:1", 2, 1), 9)
FATAL = (
    "F1126 17:01:54.4 3106 client.h:80] Terminating process because the JAX distributed service detected fatal errors. "
    "This most likely indicates that another task died. absl::Status: {}\n"
)
STACK = ["\n", "RPC: /xla.coordination.CoordinationService/{}\n", "*** Check failure stack trace: ***\n", "    @  0x7f  f()\n"]
TROUBLE = ["E1126 17:00:56.1 2 coordination_service_agent.cc:289] Polled an error.\n", "Additional GRPC error information\n",
           ":UNKNOWN:Error received from peer\n",
           "E1127 01:34:16.2 3 coordination_service.cc:1549] UNAVAILABLE: The following tasks are unhealthy:\n", "1\n",
           "The tasks have crashed. Check the task logs for an earlier error\n",
           "W1127 00:09:15.7 3 coordination_service.cc:388] CANCELLED: there's a more recent barrier call\n",
           "=== Source Location Trace: === \n", "external/xla+/coordination/coordination_service.cc:956\n"]  # fmt: skip


def words(status, call):
    return [FATAL.format(status), *(line.format(call) for line in STACK)]


@pytest.mark.parametrize(
    ("status", "call", "said"),
    [
        ("DEADLINE_EXCEEDED: Deadline Exceeded", "RegisterTask", "was not admitted by process 0 at host:1 within 9 seconds"),
        ("ALREADY_EXISTS: there is a request from a newer incarnation", "RegisterTask", "was replaced by another with id 1"),
        ("INVALID_ARGUMENT: Unexpected task registered with task=2", "RegisterTask", "is one too many: --num-processes"),
        ("ABORTED: 1 unexpectedly tried to connect with a different incarnation", "PollForError", "the id of another"),
        ("UNAVAILABLE: Socket closed", "PollForError", "has ended, as another has ended or does not respond"),
    ],
)
def test_the_last_words_of_jax_become_one_sentence(status, call, said):
    found = list(translated(["before\n", *TROUBLE, *words(status, call)], SENTENCES))
    assert found[0] == "before\n"
    assert len(found) == 2
    assert found[1].startswith("nnjax: error: train: process 1 of 2 ")
    assert said in found[1]


def test_what_python_has_printed_is_not_printed_again():
    said = "nnjax: error: train: process 1 of 2 cannot continue\n"
    for lines in ([said, *words("x", "PollForError")], [*words("x", "PollForError"), said]):
        assert list(translated(lines, SENTENCES)) == [said]


@pytest.mark.parametrize("built", ["external/gloo", "external/xla++third_party_ext+gloo"])
def test_what_gloo_says_beside_a_sentence_is_dropped(built):
    trouble = f"[{built}/gloo/transport/tcp/debug_logger.cc:25] ERROR failed to connect, remote=[127.0.0.1]:7565$0\n"
    said = "nnjax: error: train: process 1 of 2 cannot reach another\n"
    assert list(translated(["before\n", trouble, trouble, said], SENTENCES)) == ["before\n", said]
    assert list(translated(["before\n", trouble], SENTENCES)) == ["before\n", trouble]


def test_all_else_passes_and_nothing_is_lost():
    lines = ["W1126 17:00:56.1 2 cpu.cc:1] Slow.\n", "Traceback\n", "\n", "Error\n"]
    assert list(translated(lines, SENTENCES)) == lines
    assert sorted(translated([*TROUBLE, *lines], SENTENCES)) == sorted([*TROUBLE, *lines])


@pytest.mark.in_turn
def test_a_process_is_watched_to_its_end():
    program = f"""
import os, sys
from nnjax.distributed.last_words import watch
watch({list(SENTENCES)!r})
print("as ever", file=sys.stderr, flush=True)
os.write(2, {"".join(words("UNAVAILABLE: Socket closed", "PollForError"))!r}.encode())
os.abort()
"""
    done = subprocess.run([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)
    assert done.returncode < 0
    assert done.stderr.splitlines()[0] == "as ever"
    assert done.stderr.splitlines()[1].startswith("nnjax: error: train: process 1 of 2 has ended, as another has ended")
    assert len(done.stderr.splitlines()) == 2
