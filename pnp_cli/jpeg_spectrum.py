"""What JPEG compression leaves of the spectrum of an image's brightness."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from .jpeg import SIDE, JpegRounding

Array = npt.NDArray[np.float64]

MOST_BLOCKS = 50_000
"""About how many blocks of a file are used."""


@dataclass(frozen=True)
class SpectrumOfRounding:
    """A spectrum P becomes passed·P + added where it is P: rounding a coefficient scales it and adds what is left.

    With the gain g = E[xQ(x)]/E[x²] the rounded coefficient is Q(x) = gx + e, e uncorrelated with x (Bussgang 1952).
    That holds for a coefficient; e is taken for as large at all frequencies near its own.

    Attributes
    ----------
    passed : g² by vertical and horizontal frequency of a block, (8, 8).
    added : power of e per pixel, (8, 8).
    share : g²E[x²]/E[Q(x)²], how much of what is there depends on the image before, (8, 8).
    """

    passed: Array
    added: Array
    share: Array

    def at(self, fy: Array, fx: Array) -> tuple[Array, Array, Array]:
        """The three at frequencies in cycles per pixel, vertical and horizontal, of any shape."""
        from scipy.ndimage import map_coordinates

        where = [np.minimum(2 * SIDE * np.abs(f), SIDE - 1) for f in (fy, fx)]
        passed, added, share = (map_coordinates(a, where, order=1) for a in (self.passed, self.added, self.share))
        return passed, added, share

    def scaled(self, factor: float) -> SpectrumOfRounding:
        """That of an image that is so many times as bright, so that its spectrum is scaled, too."""
        return replace(self, added=factor**2 * self.added)


def spectrum_of_rounding(pixels: npt.NDArray[np.float32], jpeg: JpegRounding) -> SpectrumOfRounding:
    """For the brightness of an image (H, W, C) that holds whole blocks, as it was compressed.

    Coefficients are taken for Laplace-distributed (Reininger & Gibson 1983), with the variance before rounding of which
    the power after it tells.
    """
    from scipy.fft import dctn

    steps = jpeg.steps[0]
    multiples = np.round(dctn(jpeg.blocks(pixels, MOST_BLOCKS), axes=(1, 2), norm="ortho") / steps)
    power = np.square(multiples).mean(0)
    log_power, log_variance, gains = _rounded_laplacian()
    at = np.log(np.maximum(power, np.exp(log_power[0])))
    gain = np.interp(at, log_power, gains)
    linear = np.minimum(gain**2 * np.exp(np.interp(at, log_power, log_variance)), power)
    share = np.divide(linear, power, out=np.zeros_like(power), where=power > 0)
    gain[0, 0], share[0, 0], rest = 1, 1, power - linear
    rest[0, 0] = 1 / 12  # the means of blocks are many steps
    return SpectrumOfRounding(gain**2, rest * steps**2, share)


@lru_cache(maxsize=1)
def _rounded_laplacian() -> tuple[Array, Array, Array]:
    """Of x with the density exp(−|x|/b)/2b, rounded to integers Q(x), for many b: log E[Q²], log E[x²], E[xQ]/E[x²]."""
    t = np.geomspace(200, 1e-4, 4000)  # 1/b
    theta = np.exp(-t)
    variance = 2 / t**2
    power = np.sqrt(theta) * (1 + theta) / (1 - theta) ** 2
    product = np.sqrt(theta) / (1 - theta) * (theta / (1 - theta) + 1 / 2 + 1 / t)
    return np.log(power), np.log(variance), product / variance
