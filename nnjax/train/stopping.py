"""Requests to stop: SIGINT (Ctrl-C) and SIGTERM end a run after the current step, not in the middle of it."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stoppable() -> Iterator[Callable[[], str]]:
    """A function that returns the name of the signal that came, "" if none has. A second signal acts as usual.

    A signal that is ignored, as SIGINT is in a shell's background job, stays ignored.  Python handles signals only in the
    main thread: in others the function always returns "".
    """
    came: list[str] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: ""
        return
    handlers = {s: signal.getsignal(s) for s in SIGNALS}
    before = {s: h for s, h in handlers.items() if h not in (signal.SIG_IGN, None)}  # None: not set from Python

    def listen(number, frame):
        came.append(signal.Signals(number).name)
        signal.signal(number, before[number])

    for s in before:
        signal.signal(s, listen)
    try:
        yield lambda: came[0] if came else ""
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)
