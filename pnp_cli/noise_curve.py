"""Noise that depends on the brightness: its curve, estimated from one image, and the map that it gives.

Light comes in photons, so the variance of a linear sensor's noise grows with the light (Foi et al. 2008); the curve of
a camera bends that, and its processing changes it again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import UsageError
from .jpeg import JpegRounding
from .noise import (
    DIFFERENCES,
    FEWEST_IN_COLOUR,
    FEWEST_WEAK,
    GREY_PATCH,
    LEAST_FLOOR,
    MOST_GREY_PATCHES,
    MOST_PATCHES,
    PATCH,
    level_for_denoiser,
    noise_floor_of,
    patches_of,
    unclipped,
    weak_texture_floor_of,
)

MOST_BINS, FEWEST_BINS = 8, 3
"""Of brightness, in which the noise is measured on its own."""

LEAST_FLATNESS, LEAST_RATIO = 0.85, 1.25
"""Bins whose least deviation is less beside the median one hold texture; levels whose largest is less times the
smallest are taken for the same."""

BRIGHTEST = 1e3
"""Brightness up to which the variance of photon noise grows."""

SMOOTHING = 2
"""Radius in pixels of the mean by which a noisy image tells its brightness: that of the patches of colour images."""


@dataclass(frozen=True)
class NoiseCurve:
    """Variance of the noise by the brightness of the scene: linear between some points, constant beyond them.

    Attributes
    ----------
    brightness : ascending, white is 1.
    variances : ≥ 0, [0, 1] scale.
    """

    brightness: tuple[float, ...]
    variances: tuple[float, ...]

    @classmethod
    def white(cls, sigma: float) -> NoiseCurve:
        """Noise of the same standard deviation everywhere, [0, 1] scale."""
        return cls((0.0,), (sigma**2,))

    @classmethod
    def photon(cls, sigma: float, gain: float) -> NoiseCurve:
        """Noise of variance sigma² + gain · brightness, the model of linear sensors (EMVA 1288).

        Parameters
        ----------
        sigma : standard deviation in black, [0, 1] scale.
        gain : ≥ 0, the brightness of one photoelectron, white is 1.

        Raises
        ------
        UsageError
            If there is no such noise.
        """
        if not 0 <= sigma < math.inf or not 0 <= gain < math.inf:
            raise UsageError(f"noise has levels and gains that are not negative, not {sigma:g} and {gain:g}")
        return cls((0.0, BRIGHTEST), (sigma**2, sigma**2 + gain * BRIGHTEST)) if gain else cls.white(sigma)

    @property
    def constant(self) -> bool:
        """Whether the noise is as large everywhere."""
        return len(self.variances) == 1

    def points(self) -> list[tuple[float, float]]:
        """Brightnesses in [0, 1] and the variances there, the ends among them: all there is to know for such images."""
        inside = [(b, v) for b, v in zip(self.brightness, self.variances, strict=True) if 0 <= b <= 1]
        return inside if len(inside) > 1 else [(b, float(self.variance(torch.tensor(b)))) for b in (0.0, 1.0)]

    def variance(self, brightness: Tensor) -> Tensor:
        """At some brightnesses, of any shape."""
        result = torch.full_like(brightness, self.variances[0])
        for i in range(len(self.brightness) - 1):
            start, width = self.brightness[i], self.brightness[i + 1] - self.brightness[i]
            slope = (self.variances[i + 1] - self.variances[i]) / width
            result += (brightness - start).clamp_(0, width).mul_(slope)
        return result.clamp_min_(0)

    def levels(self, image: Tensor) -> float | Tensor:
        """Standard deviation of the noise of an image (B, C, H, W): a number if it is constant, else by place.

        That is a map (B, 1, H, W), as denoisers take it. The brightness is the mean over the colours and over 5 × 5
        pixels, which is hardly noisy.
        """
        if self.constant:
            return math.sqrt(self.variances[0])
        return self.variance(local_mean(image.mean(1, keepdim=True))).sqrt_()


def local_mean(image: Tensor) -> Tensor:
    """Mean of an image over a square around every pixel, (B, C, H, W)."""
    side = 2 * SMOOTHING + 1
    return F.avg_pool2d(F.pad(image, (SMOOTHING,) * 4, mode="replicate"), side, stride=1)


def root_mean_square(levels: float | Tensor, counted: Tensor | None = None) -> float:
    """Of levels that are a number or a map (1, 1, H, W) or (1, C, H, W), over the samples (1, C, H, W) that count."""
    if not isinstance(levels, Tensor):
        return levels
    levels = levels if counted is None else levels.expand(counted.shape)[counted]
    return float(levels.square().mean(dtype=torch.float64)) ** 0.5


def curve_for_denoiser(
    pixels: npt.NDArray[np.float32],
    jpeg: JpegRounding | None = None,
    correlation: int = 1,
    *,
    constant: bool = False,
) -> NoiseCurve:
    """Noise at which a denoiser of white noise is to work on an image (H, W, C).

    That of JPEG files, and that of phases, is taken for as large everywhere.

    Parameters
    ----------
    jpeg : how a JPEG file has rounded the image (`images.Image.jpeg`); its errors count, too.
    correlation : stride of the phases that are denoised, see `polyphase`; 1 for the image as it is.
    constant : whether the noise is known to be as large everywhere.
    """
    curve = estimate_noise_curve(pixels) if jpeg is None and correlation == 1 and not constant else None
    return curve or NoiseCurve.white(level_for_denoiser(pixels, jpeg, correlation))


def estimate_noise_curve(pixels: npt.NDArray[np.float32]) -> NoiseCurve | None:
    """The curve of white noise in an image (H, W, C); None if it depends on the brightness little, or cannot be told.

    The patches of the image are sorted by their brightness into bins, in each of which the noise is measured as by
    `noise.estimate_noise`. Of the patches the part that tells the brightness is left out, since it varies little in a
    bin. Bins of texture only, with no white noise in any direction of their patches, do not count.
    """
    varying = [plane for plane in np.moveaxis(pixels, 2, 0) if np.ptp(plane) > 0]
    if len(varying) == 3:
        curve = _curve_of(_levels_in_colour(pixels))
        if curve is not None:
            return curve
    return _curve_of(_levels_of_plane(varying[0])) if varying else None


Level = tuple[float, float, float]
"""Brightness of a bin, level of its noise, and its flatness."""


def _curve_of(levels: list[Level]) -> NoiseCurve | None:
    flat = [(b, level) for b, level, flatness in levels if flatness >= LEAST_FLATNESS and level > 0]
    if len(flat) < FEWEST_BINS or max(level for _, level in flat) < LEAST_FLOOR:
        return None
    if max(level for _, level in flat) < LEAST_RATIO * min(level for _, level in flat):
        return None
    brightness, deviations = zip(*flat, strict=True)
    return NoiseCurve(brightness, tuple(level**2 for level in deviations))


def _bins(
    patches: npt.NDArray[np.float64], fewest: int
) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], float]]:
    """Which patches (N, D) are of similar brightness, without what tells it, and the brightness."""
    free = np.flatnonzero(unclipped(patches))
    brightness = patches[free].mean(axis=1)
    count = min(MOST_BINS, len(free) // fewest)
    if count < FEWEST_BINS:
        return []
    d = patches.shape[1]
    rest = np.linalg.svd(np.ones((1, d)))[2][1:].T  # an orthonormal basis of the patches of mean 0
    parts = np.array_split(np.argsort(brightness, kind="stable"), count)
    return [(free[part], patches[free[part]] @ rest, float(brightness[part].mean())) for part in parts]


def _levels_in_colour(pixels: npt.NDArray[np.float32]) -> list[Level]:
    patches = patches_of(pixels, PATCH, MOST_PATCHES)
    bins = _bins(patches, FEWEST_IN_COLOUR * patches.shape[1])
    return [(brightness, *noise_floor_of(rest)) for _, rest, brightness in bins]


def _levels_of_plane(plane: npt.NDArray[np.float32]) -> list[Level]:
    patches = patches_of(plane, GREY_PATCH, MOST_GREY_PATCHES)
    texture = np.square(patches @ DIFFERENCES.T).sum(axis=1)
    levels = []
    for which, rest, brightness in _bins(patches, 2 * FEWEST_WEAK * patches.shape[1]):
        level, flatness = weak_texture_floor_of(rest, texture[which])
        levels.append((brightness, level, flatness))
    return levels
