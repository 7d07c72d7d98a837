"""Ctrl-C, and the other signals by which a command is asked to stop."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType

STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""From the keyboard; from `timeout`, a scheduler or a container; from a terminal that is closed."""


def stop_cleanly() -> None:
    """Make every signal of `STOPPING` an interruption, so that nothing is left half-written; ignored ones stay so.

    Only the main thread may; in others it does nothing.
    """
    for number in STOPPING if threading.current_thread() is threading.main_thread() else ():
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup
            signal.signal(number, _interrupt)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    torch = sys.modules.get("torch")
    if getattr(getattr(torch, "__spec__", None), "_initializing", False):
        os._exit(130)  # nothing has been begun, and an exception in the import of torch would end in an abort
    for other in STOPPING:
        if other != signal.SIGINT:
            signal.signal(other, signal.SIG_IGN)  # being stopped already; Ctrl-C may be impatient
    raise KeyboardInterrupt
