"""Being asked to stop: SIGINT (Ctrl-C) and SIGTERM end a run after the step that is under way, not in it."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stoppable() -> Iterator[Callable[[], str]]:
    """A function that gives the name of the signal that came, "" while none has. A second one acts as it always does.

    A signal that is ignored, as SIGINT is in a shell's background job, stays so.  Outside the main thread Python lets nobody
    listen to signals: there it gives "" for ever.
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
