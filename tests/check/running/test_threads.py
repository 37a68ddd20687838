import threading
import time

import jax
import pytest

from nnjax.check.running.threads import in_threads, once


def test_results_are_in_the_order_of_the_items_and_last_items_start_last():
    begun = []

    def f(i):
        begun.append(i)
        time.sleep(0.01)
        return 10 * i

    assert in_threads(f, [0, 1, 2, 3], last=lambda i: i == 1) == [0, 10, 20, 30]
    assert begun[-1] == 1


@pytest.mark.parametrize("context", [jax.disable_jit, lambda: jax.default_matmul_precision("highest")])
def test_inside_a_context_of_jax_everything_runs_in_the_callers_thread(context):
    here = threading.current_thread()
    with context():
        assert in_threads(lambda _: threading.current_thread(), [1, 2]) == [here, here]
    assert here not in in_threads(lambda _: threading.current_thread(), [1, 2])


def test_inside_a_mesh_everything_runs_in_the_callers_thread():
    with jax.set_mesh(jax.make_mesh((1,), ("data",))):
        assert set(in_threads(lambda _: threading.current_thread(), [1, 2])) == {threading.current_thread()}


def test_an_exception_reaches_the_caller():
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda i: 1 // i, [1, 0])


def test_once_makes_a_value_once_for_all_threads():
    made, table = [], {}

    def make():
        time.sleep(0.02)
        made.append(1)
        return len(made)

    assert in_threads(lambda _: once(table, "thing", make), range(6)) == [1] * 6


def test_programs_that_communicate_run_one_at_a_time():
    running, most = [], []

    def f(i):
        running.append(i)
        most.append(len(running))
        time.sleep(0.01)
        running.remove(i)
        return i

    assert in_threads(f, range(6), alone=True) == list(range(6))
    assert max(most) == 1
