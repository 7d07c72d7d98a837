"""A picture of a kernel: its entries beside the modulus of its transfer function."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .images import Image
from .kernels import Kernel, mtf

FLOOR = -40.0
"""What is black in the spectrum, in dB."""

MARGIN = 24
"""Around the panels, in pixels; holds a line of text."""

ORIGIN = (255, 80, 60)
INK = (225, 225, 225)
PAPER = (40, 40, 40)


def draw(kernel: Kernel, side: int = 320) -> Image:
    """Kernel at the left, its origin marked in red; 20 log₁₀|OTF| at the right, zero frequency in the middle.

    Parameters
    ----------
    kernel : (h, w) array. White is its maximum; it is enlarged by a whole number to `side` pixels at most, and not
        made smaller.
    side : of the spectrum in pixels; white is 0 dB, black -40 dB or less. The axes reach ±1/2 cycle per pixel.

    Returns
    -------
    image : 8-bit RGB.
    """
    from PIL import Image as Pillow
    from PIL import ImageDraw

    (h, w), factor = kernel.shape, max(1, side // max(kernel.shape))
    entries = np.kron(_samples(kernel / kernel.max()), np.ones((factor, factor), np.uint8))
    with np.errstate(divide="ignore"):
        decibels = 20 * np.log10(np.fft.fftshift(mtf(kernel, (side, side))))
    spectrum = _samples(1 - decibels / FLOOR)

    row = max(entries.shape[0], side)
    column = max(entries.shape[1], side)
    sheet = Pillow.new("RGB", (column + side + 3 * MARGIN, row + 2 * MARGIN), PAPER)
    pen = ImageDraw.Draw(sheet)
    corners = []
    for panel, left, width in ((entries, MARGIN, column), (spectrum, 2 * MARGIN + column, side)):
        corner = left + (width - panel.shape[1]) // 2, MARGIN + (row - panel.shape[0]) // 2
        sheet.paste(Pillow.fromarray(panel), corner)
        pen.rectangle((corner[0] - 1, corner[1] - 1, corner[0] + panel.shape[1], corner[1] + panel.shape[0]), None, INK)
        corners.append(corner)
    x, y = (corners[0][i] + factor * (side // 2) for i, side in enumerate((w, h)))
    pen.rectangle((x - 1, y - 1, x + factor, y + factor), None, ORIGIN)

    above, below = MARGIN // 2, row + MARGIN + MARGIN // 2
    right = 2 * MARGIN + column
    _write(pen, (MARGIN, above), f"kernel, {w} wide, {h} high, x{factor}; red: origin", "lm")
    _write(pen, (right, above), f"|OTF|, {FLOOR:g} (black) to 0 dB (white)", "lm")
    _write(pen, (right, below), "-1/2", "lm")
    _write(pen, (right + side // 2, below), "0 cycles/pixel", "mm")
    _write(pen, (right + side, below), "1/2", "rm")
    return Image(np.asarray(sheet, dtype=np.float32) / 255)


def _samples(values: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    return np.rint(255 * np.clip(values, 0, 1)).astype(np.uint8)


def _write(pen: Any, place: tuple[int, int], text: str, anchor: str) -> None:
    """Text with its left, middle or right ("l", "m", "r") at `place`, vertically centred."""
    pen.text(place, text, INK, anchor=anchor)
