"""Memory that is freed stays with the process, for the next buffer of that size.

A denoiser allocates and frees the same few buffers of some megabytes hundreds of times. By default the C library of
Linux gives each back to the system and asks for it again, and the system clears every page of it: half the time of a
call on a small image.
"""

from __future__ import annotations

import ctypes
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt, from malloc.h of the GNU C library."""

LARGEST = 32 * 2**20
"""Bytes of the largest buffers that are kept, the most that mallopt admits; larger ones are given back at once."""

KEPT = 2**29
"""Bytes at the end of the heap beyond which free memory is given back."""


def keep_freed_memory() -> None:
    """Set this for the whole process; nothing happens where the C library is another one."""
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(MMAP_THRESHOLD, LARGEST)
        mallopt(TRIM_THRESHOLD, KEPT)
