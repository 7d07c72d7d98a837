"""Ctrl-C, and the other signals by which a command is asked to stop."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from types import FrameType

STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""From the keyboard; from `timeout`, a scheduler or a container; from a terminal that is closed."""

GRACE = 2.0
"""Seconds in which an interruption clears up, undisturbed by another Ctrl-C."""


def stop_cleanly() -> None:
    """Make every signal of `STOPPING` an interruption, so that nothing is left half-written; ignored ones stay so.

    Only the main thread may; in others it does nothing.
    """
    interrupted = -GRACE

    def interrupt(signum: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        torch = sys.modules.get("torch")
        if getattr(getattr(torch, "__spec__", None), "_initializing", False):
            os._exit(130)  # nothing has been begun, and an exception in the import of torch would end in an abort
        for other in STOPPING:
            if other != signal.SIGINT:
                signal.signal(other, signal.SIG_IGN)  # being stopped already; Ctrl-C may be impatient
        if time.monotonic() - interrupted < GRACE and _is_clearing_up():
            return
        interrupted = time.monotonic()
        raise KeyboardInterrupt

    for number in STOPPING if threading.current_thread() is threading.main_thread() else ():
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup
            signal.signal(number, interrupt)


def _is_clearing_up() -> bool:
    """Whether an interruption is being handled where the signal has come; one may also have been lost in a library."""
    error = sys.exc_info()[1]
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def stay_stopped() -> None:
    """At the end of the process Ctrl-C has nothing left to interrupt, and the other signals end it at once."""
    for number in STOPPING if threading.current_thread() is threading.main_thread() else ():
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.SIG_IGN if number == signal.SIGINT else signal.SIG_DFL)
