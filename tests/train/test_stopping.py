import signal
import threading

import pytest

from nnjax.train.stopping import stoppable


@pytest.fixture(autouse=True)
def in_the_foreground():
    """In a shell's background job, which the tests may be, Python starts with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_ignored_signal_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with stoppable() as stopped:
        signal.raise_signal(signal.SIGINT)
        assert stopped() == ""
        signal.raise_signal(signal.SIGTERM)
        assert stopped() == "SIGTERM"
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_requests_a_stop_once_and_handlers_are_restored(number):
    before = signal.getsignal(number)
    with stoppable() as stopped:
        assert stopped() == ""
        signal.raise_signal(number)
        assert stopped() == number.name
        assert signal.getsignal(number) is before
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_ends_it():
    with stoppable() as stopped:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert stopped() == "SIGINT"


def test_another_thread_hears_nothing():
    heard = []

    def listen():
        with stoppable() as stopped:
            heard.append(stopped())

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert heard == [""]
