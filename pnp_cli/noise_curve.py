"""Noise that depends on the brightness: its curve, estimated from one image, and the map that it gives.

Light comes in photons, so the variance of a linear sensor's noise grows with the light (Foi et al. 2008); the curve of
a camera bends that, and its processing changes it again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import UsageError
from .noise import (
    FEWEST_IN_COLOUR,
    FEWEST_WEAK,
    LEAST_FLOOR,
    MOST_PATCHES,
    PATCH,
    brightest,
    noise_floor_of,
    patches_of,
    textured_patches,
    unclipped,
    weak_texture_floor_of,
)

MOST_BINS, FEWEST_BINS = 8, 3
"""Of brightness, in which the noise is measured on its own."""

LEAST_FLATNESS, LEAST_FLATNESS_IN_GREY = 0.95, 0.85
"""Bins whose least deviation in any direction is less, beside that of noise alone, hold texture."""

LEAST_RATIO = 1.3
"""Levels whose largest is less times the smallest are taken for the same."""

LEAST_IN_GREY = 2 / 255
"""In grey images smaller levels are those of texture as often."""

MONOTONE = 0.9
"""By so much a level may lie below that of another bin and pass for one above."""

PASSES, LEAST_CHANGE = 4, 0.01
"""How often the curve of an image in colour is corrected, and the relative change of its levels that ends it before:
it does where the noise is much the same everywhere."""

FARTHEST = 1e3
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
        return cls((0.0, FARTHEST), (sigma**2, sigma**2 + gain * FARTHEST)) if gain else cls.white(sigma)

    def scaled(self, factor: float) -> NoiseCurve:
        """With deviations that are so many times as large."""
        return replace(self, variances=tuple(factor**2 * variance for variance in self.variances))

    def with_more(self, sigma: float) -> NoiseCurve:
        """With further noise that does not depend on the brightness, [0, 1] scale."""
        return replace(self, variances=tuple(variance + sigma**2 for variance in self.variances))

    def averaged(self, image: Tensor, counted: Tensor | None = None) -> NoiseCurve:
        """The same everywhere, of the same mean square over the samples (1, C, H, W) of an image that count."""
        return self if self.constant else NoiseCurve.white(root_mean_square(self.deviations(image), counted))

    @property
    def constant(self) -> bool:
        """Whether the noise is as large everywhere."""
        return len(self.variances) == 1

    def points(self) -> list[tuple[float, float]]:
        """Brightnesses in [0, 1], both ends among them, and the variances there: all there is for such images."""
        places = sorted({0.0, 1.0, *(b for b in self.brightness if 0 < b < 1)})
        return [(b, float(self.variance(torch.tensor(b)))) for b in places]

    def variance(self, brightness: Tensor) -> Tensor:
        """At some brightnesses, of any shape."""
        result = torch.full_like(brightness, self.variances[0])
        for i in range(len(self.brightness) - 1):
            start, width = self.brightness[i], self.brightness[i + 1] - self.brightness[i]
            slope = (self.variances[i + 1] - self.variances[i]) / width
            result += (brightness - start).clamp_(0, width).mul_(slope)
        return result.clamp_min_(0)

    def deviations(self, image: Tensor) -> Tensor:
        """Standard deviation of the noise of every sample of an image, (B, C, H, W).

        Its brightness is the mean over 5 × 5 pixels of its colour, which is hardly noisy.
        """
        return self.variance(local_mean(image)).sqrt_()

    def levels(self, image: Tensor) -> float | Tensor:
        """Standard deviation of the noise of an image (B, C, H, W): a number if it is constant, else by place.

        That is a map (B, 1, H, W), as denoisers take it: the root mean square over the colours.
        """
        if self.constant:
            return math.sqrt(self.variances[0])
        variance = torch.zeros_like(image[:, :1])
        for channel in range(image.shape[1]):
            variance += self.variance(local_mean(image[:, channel : channel + 1])) / image.shape[1]
        return variance.sqrt_()


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


def estimate_noise_curve(pixels: npt.NDArray[np.float32]) -> NoiseCurve | None:
    """The curve of white noise in an image (H, W, C); None if it depends on the brightness little, or cannot be told.

    It cannot where one of several colours holds no noise.

    The patches of the image are sorted by their brightness into bins, in each of which the noise is measured as by
    `noise.estimate_noise`. What tells the brightness is left out, since it varies little in a bin. In patches of
    several colours each has its own noise. So they are divided by the deviations of the curve that is known so far,
    which makes their noise white, and what is then found instead of 1 corrects the curve.

    Texture that is everywhere in a bin may pass for noise. So half the bins must hold noise that is white in their
    patches, and its level must rise or fall with the brightness, as it does in sensors and after the curve of a camera.
    """
    first, *others = np.moveaxis(pixels, 2, 0)
    if all(np.array_equal(first, plane) for plane in others):
        return _in_grey(first)
    return _in_colour(pixels)


@dataclass(frozen=True)
class Bin:
    """Patches of similar brightness: which of all, their mean brightness, the level of noise and its flatness."""

    members: npt.NDArray[np.int64]
    brightness: float
    level: float = 0.0
    flatness: float = 0.0


def _bins(patches: npt.NDArray[np.float64], fewest: int) -> list[Bin]:
    """The patches (N, D) that hold neither black nor white, by their brightness; none if there are too few of any."""
    free = np.flatnonzero(unclipped(patches))
    count = min(MOST_BINS, len(free) // fewest)
    if count < FEWEST_BINS:
        return []
    brightness = patches[free].mean(axis=1)
    parts = np.array_split(np.argsort(brightness, kind="stable"), count)
    bins = [Bin(free[part], float(brightness[part].mean())) for part in parts]
    return bins if all(a.brightness < b.brightness for a, b in pairwise(bins)) else []


def curve_of(bins: list[Bin], least: float, least_flatness: float) -> NoiseCurve | None:
    """The curve that the bins tell, if enough of them hold white noise that depends on the brightness as noise does."""
    flat = [b for b in bins if b.flatness >= least_flatness and b.level > 0]
    if len(flat) < max(FEWEST_BINS, len(bins) / 2):
        return None
    levels = np.array([b.level for b in flat])
    if levels.max() < least or levels.max() < LEAST_RATIO * levels.min():
        return None
    monotone = any((row >= MONOTONE * np.maximum.accumulate(row)).all() for row in (levels, levels[::-1]))
    return _through(flat) if monotone else None


def _through(bins: list[Bin]) -> NoiseCurve:
    """Through the levels of the bins, and on to black and white as a straight line through all of them tells."""
    brightness, variances = (
        np.array(values) for values in zip(*((b.brightness, b.level**2) for b in bins), strict=True)
    )
    slope, offset = np.polyfit(brightness, variances, 1, w=1 / variances)
    line = np.maximum(offset + slope * np.array([0, brightness[0], brightness[-1], 1]), variances.min() / 10)
    points = list(zip(brightness.tolist(), variances.tolist(), strict=True))
    if brightness[0] > 0:
        points.insert(0, (0.0, float(variances[0] * line[0] / line[1])))
    if brightness[-1] < 1:
        points.append((1.0, float(variances[-1] * line[3] / line[2])))
    places, values = zip(*points, strict=True)
    return NoiseCurve(places, values)


def _in_colour(pixels: npt.NDArray[np.float32]) -> NoiseCurve | None:
    patches = patches_of(pixels, PATCH, MOST_PATCHES)
    start = _bins(patches, FEWEST_IN_COLOUR * patches.shape[1])
    if not start:
        return None
    ends = np.cumsum([len(b.members) for b in start])
    planes = patches[np.concatenate([b.members for b in start])].reshape(ends[-1], 3, -1)
    means = planes.mean(axis=2, keepdims=True)
    rest = (torch.from_numpy(planes) @ _without_mean(planes.shape[2])).numpy()
    curve, before = NoiseCurve.white(1.0), np.ones(len(start))
    for _ in range(PASSES):
        white = (rest / np.sqrt(np.interp(means, curve.brightness, curve.variances))).reshape(len(rest), -1)
        known = np.sqrt(np.interp([b.brightness for b in start], curve.brightness, curve.variances))
        bins = []
        for old, level, part in zip(start, known, np.split(white, ends[:-1]), strict=True):
            factor, flatness = noise_floor_of(part)
            # Noise alone has this least deviation in so many patches (Marchenko & Pastur 1967).
            flatness /= 1 - math.sqrt(part.shape[1] / len(part))
            bins.append(replace(old, level=float(level) * factor, flatness=flatness))
        if min(b.level for b in bins) <= 0:
            return None
        smooth = _smooth(bins)
        levels = np.array([b.level for b in smooth])
        if np.abs(np.log(levels / before)).max() < LEAST_CHANGE:
            break
        curve, before = _through(smooth), levels
    return curve_of(bins, LEAST_FLOOR * brightest(pixels), LEAST_FLATNESS)


def _smooth(bins: list[Bin]) -> list[Bin]:
    """With levels that are means over neighbours, lest those swing against each other from pass to pass."""
    levels = np.array([b.level for b in bins])
    levels[1:-1] = (levels[:-2] * levels[2:]) ** 0.25 * levels[1:-1] ** 0.5
    return [replace(b, level=float(level)) for b, level in zip(bins, levels, strict=True)]


def _in_grey(plane: npt.NDArray[np.float32]) -> NoiseCurve | None:
    patches, texture = textured_patches(plane)
    rest = (torch.from_numpy(patches) @ _without_mean(patches.shape[1])).numpy()
    bins = []
    for old in _bins(patches, 2 * FEWEST_WEAK * patches.shape[1]):
        level, flatness = weak_texture_floor_of(rest[old.members], texture[old.members])
        bins.append(replace(old, level=level, flatness=flatness))
    return curve_of(bins, LEAST_IN_GREY * brightest(plane), LEAST_FLATNESS_IN_GREY)


def _without_mean(size: int) -> Tensor:
    """An orthonormal basis of the vectors of that size whose entries have the mean 0, (size, size − 1)."""
    return torch.linalg.svd(torch.ones(1, size, dtype=torch.float64))[2][1:].T
