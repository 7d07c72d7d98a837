"""How the process gets its memory: freed buffers are used again, and large ones have large pages.

A denoiser allocates and frees the same few buffers of some megabytes hundreds of times. By default the C library of
Linux gives each back to the system and asks for it again, and the system clears every page of it: a third of the time
of a call and more.
"""

from __future__ import annotations

import ctypes
import os
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt, from malloc.h of the GNU C library."""

LARGEST = 32 * 2**20
"""Bytes of the largest buffers that are used again, the most that mallopt admits; larger ones are given back."""

KEPT = 128 * 2**20
"""Bytes at the end of the heap beyond which free memory is given back: what the buffers of one call take together,
which all lie there in one process of five."""


def tune_allocation() -> None:
    """Set this for the whole process, before torch is imported; nothing happens where the C library is another one."""
    if not sys.platform.startswith("linux"):
        return
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch asks for large pages, which are cleared faster
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(MMAP_THRESHOLD, LARGEST)
        mallopt(TRIM_THRESHOLD, KEPT)
