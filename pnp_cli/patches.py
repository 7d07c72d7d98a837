"""Restoring an image that is too large for one Fourier transform in memory: overlapping patches, blended.

Each patch is restored as an image of its own, its surroundings unknown, so near its edges it knows less than the
whole image would. Where patches overlap their results are mixed, each with a weight that falls to zero at its edge.
This is an approximation; `benchmarks.patches` measures it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .boundaries import Size
from .errors import InputError
from .tiling import free_memory

BYTES_PER_PIXEL = 1000
"""Memory that deblurring needs per pixel of a colour image: iterates, spectra and history, 850 at most as measured on 1
and 4 megapixels by `benchmarks.memory`, and a margin."""

SMALLEST = 512
"""Least side that `choose_patch` gives."""

Window = tuple[slice, slice]
"""Rows and columns of a patch."""


def least_overlap(kernel: Size) -> int:
    """Overlap of the patches for a kernel: twice its side, at least 64 pixels."""
    return max(64, 2 * max(kernel))


def choose_patch(size: Size, overlap: int, device: torch.device) -> int:
    """Side of the patches for an image of `size`, 0 for none: so that half the free memory is enough."""
    pixels = free_memory(device) / 2 / BYTES_PER_PIXEL
    canvas = (size[0] + overlap) * (size[1] + overlap)
    return 0 if canvas <= pixels else max(SMALLEST, 2 * overlap, int(math.sqrt(pixels)) - overlap)


def windows(size: Size, side: int, overlap: int) -> list[Window]:
    """Patches of one size, at most `side` on a side, that cover an image and overlap by at least `overlap` pixels.

    Raises
    ------
    InputError
        If a side is shorter than two overlaps.
    """
    return [(rows, columns) for rows in _spans(size[0], side, overlap) for columns in _spans(size[1], side, overlap)]


def _spans(length: int, side: int, overlap: int) -> list[slice]:
    if side < length and side < 2 * overlap:
        raise InputError(
            f"patches of {side} pixels are too small for a blur that needs them to overlap by {overlap}; "
            f"take {2 * overlap} or more (--patch)"
        )
    if length <= side:
        return [slice(0, length)]
    count = math.ceil((length - overlap) / (side - overlap))
    starts = [round(i * (length - side) / (count - 1)) for i in range(count)]
    return [slice(start, start + side) for start in starts]


def restore_by_patches(y: Tensor, side: int, overlap: int, restore: Callable[[Window], Tensor]) -> Tensor:
    """Restore y (B, C, H, W) patch by patch; `restore` gives the restored pixels of a window.

    Parameters
    ----------
    side : longest side of a patch; the image as a whole if neither of its sides is longer.
    overlap : least overlap of neighbours, < side.
    """
    size = (y.shape[2], y.shape[3])
    total, weight = torch.zeros_like(y), y.new_zeros(size)
    for rows, columns in windows(size, side, overlap):
        ramp = _ramp(rows, size[0], overlap)[:, None] * _ramp(columns, size[1], overlap)
        ramp = ramp.to(y)
        total[:, :, rows, columns] += ramp * restore((rows, columns))
        weight[rows, columns] += ramp
    return total / weight


def _ramp(span: slice, length: int, overlap: int) -> Tensor:
    """Weights along one side: 1 inside, falling over the overlap towards edges that are not those of the image."""
    n = span.stop - span.start
    index = torch.arange(n) + 0.5
    ramp = torch.ones(n)
    if span.start > 0:
        ramp = torch.minimum(ramp, index / overlap)
    if span.stop < length:
        ramp = torch.minimum(ramp, (n - index) / overlap)
    return ramp
