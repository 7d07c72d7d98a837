"""Ctrl-C, and the other signals by which a command is asked to stop."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""From the keyboard; from `timeout`, a scheduler or a container; from a terminal that is closed."""


def stop_cleanly() -> None:
    """Make every signal of `STOPPING` an interruption, so that nothing is left half-written; ignored ones stay so."""
    for number in STOPPING:
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup
            signal.signal(number, _interrupt)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    torch = sys.modules.get("torch")
    if getattr(getattr(torch, "__spec__", None), "_initializing", False):
        os._exit(130)  # nothing has been begun, and an exception in the import of torch would end in an abort
    raise KeyboardInterrupt
