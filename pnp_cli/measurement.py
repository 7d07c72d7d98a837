"""The errors of a blurred measurement: how large they are, by place, and the precision that weighs the misfit."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from .clipped_noise import measure_with_clipped
from .correlated_noise import estimate_noise_of_phases, find_correlated_noise, white_level
from .jpeg import JpegRounding
from .kernels import Kernel
from .light import slope
from .noise import MIN_NOISE, estimate_noise, estimate_noise_under_blur
from .noise_curve import NoiseCurve, estimate_noise_curve, local_mean, root_mean_square
from .patches import Window
from .precision import BlockPrecision, Precision, WeightedPrecision
from .tensors import to_pixels

Pixels = npt.NDArray[np.float32]

MOST_WEIGHT = 3.0
"""Errors count as a third of their root mean square at least: the smaller, the slower is the proximal map."""


@dataclass(frozen=True)
class MeasurementErrors:
    """Noise and the errors of JPEG compression, given or estimated; `measure_errors` makes it.

    Attributes
    ----------
    noise : standard deviation of the noise in the samples, [0, 1] scale; the root of its mean square, if it depends on
        the brightness. If it was found to be correlated, that of white noise that does as much harm.
    curve : how it does; of one value if it does not.
    correlation : distance in pixels from which on the noise is independent, if that was given; else 1.
    correlated : whether neighbouring pixels were found to share the noise.
    level : standard deviation of white noise that all errors in the samples together count as.
    slope : how many times as large they are in what was blurred, on average: not 1 if that is the light.
    norm : ‖P‖ or more of the precisions of all parts of the image.
    """

    noise: float
    curve: NoiseCurve
    correlation: int
    correlated: bool
    level: float
    slope: float
    norm: float
    _blocks: tuple[JpegRounding, BlockPrecision] | None
    _weights: Tensor | None
    _bounds: tuple[float, float]

    def precision(self, window: Window, left_out: Tensor | None) -> Precision | None:
        """P of a part of the image: (level · slope)² times the inverse of the covariance; None for the identity.

        Parameters
        ----------
        window : rows and columns.
        left_out : where in the part, (1, 1, h, w), the errors of JPEG compression count as white; None for nowhere.
        """
        rows, columns = window
        inner = None
        if self._blocks is not None:
            jpeg, blocks = self._blocks
            inner = blocks.at(jpeg.of_part(rows.start, columns.start).origin, left_out)
        if self._weights is None:
            return inner
        return WeightedPrecision(self._weights[:, :, rows, columns], inner, self._bounds)

    def accuracy(self, window: Window) -> Tensor | None:
        """How many times smaller than on average the errors are by place of a part of the image, (1, 1, h, w).

        None if they are as large everywhere.
        """
        rows, columns = window
        return None if self._weights is None else self._weights[:, :, rows, columns].mean(1, keepdim=True)


def measure_errors(
    y: Tensor,
    kernel: Kernel,
    noise: float | None = None,
    photon: float | None = None,
    *,
    correlation: int | None = None,
    jpeg: JpegRounding | None = None,
    linear_light: bool = False,
    clipped: bool = False,
    counted: Tensor | None = None,
) -> MeasurementErrors:
    """How large the errors of a blurred image are.

    Parameters
    ----------
    y : samples (1, C, H, W), values nominally in [0, 1].
    kernel : (h, w), by which the image was blurred.
    noise, photon, correlation, jpeg, linear_light : see `deblurring.Choices`.
    clipped : whether white noise is measured with what black and white have cut off, see `clipped_noise`.
    counted : which samples tell how large the errors are on average; None for all.
    """
    slopes = slope(local_mean(y)) if linear_light else None

    def measure(samples: Pixels) -> tuple[NoiseCurve, bool]:
        """The curve of the noise, and whether it is correlated."""
        found = find_correlated_noise(samples, jpeg) if correlation is None else None
        constant = photon is not None
        if found is not None:
            curve = found.curve
        else:
            curve = _estimate(samples, kernel, correlation or 1, jpeg, linear_light=linear_light, constant=constant)
        return curve.averaged(y, counted) if constant else curve, found is not None

    correlated = False
    if noise is not None:
        curve = NoiseCurve.photon(noise, photon or 0.0)
    elif clipped and (correlation or 1) == 1:
        curve, correlated = measure_with_clipped(to_pixels(y), measure, lambda end: None if end[1] else end[0])
    else:
        curve, correlated = measure(to_pixels(y))
    correlation = correlation or 1
    deviations: float | Tensor = curve.levels(y) if curve.constant else curve.deviations(y)
    noise = root_mean_square(deviations, counted)

    # What correlated noise counts as, rounding on top of it, and how much larger both are in the light: by place.
    spread, rounding = white_level(1, correlation), 0.0
    level, blocks = spread * noise, None
    if jpeg is not None:
        rounding, level = jpeg.level, max(level, MIN_NOISE)
        covariance = jpeg.covariance() + level**2 * np.eye(len(jpeg.covariance()))
        level = math.hypot(level, rounding)
        matrix = level**2 * np.linalg.inv(covariance)
        blocks = jpeg, BlockPrecision((matrix + matrix.T) / 2, jpeg.origin, device=y.device, dtype=y.dtype)
    if isinstance(deviations, Tensor):
        deviations = (spread * deviations).square_().add_(rounding**2).sqrt_()
        deviations = deviations if slopes is None else deviations * slopes
    elif slopes is not None:
        deviations = level * slopes
    scale = level if not isinstance(deviations, Tensor) else root_mean_square(deviations, counted)
    weights, bounds = None, (1.0, 1.0)
    if isinstance(deviations, Tensor) and scale > 0:
        weights = scale / deviations.clamp_min(scale / MOST_WEIGHT)
        bounds = float(weights.min()), float(weights.max())
    gain = scale / level if slopes is not None and level > 0 else 1.0
    norm = bounds[1] ** 2 * (1.0 if blocks is None else blocks[1].norm)
    return MeasurementErrors(noise, curve, correlation, correlated, level, gain, norm, blocks, weights, bounds)


def _estimate(
    samples: Pixels,
    kernel: Kernel,
    correlation: int,
    jpeg: JpegRounding | None,
    *,
    linear_light: bool,
    constant: bool,
) -> NoiseCurve:
    """The noise in samples (H, W, C)."""
    if correlation > 1:
        return NoiseCurve.white(estimate_noise_of_phases(samples, correlation))
    curve = estimate_noise_curve(samples) if jpeg is None and not constant else None
    if curve is not None:
        return curve
    if not linear_light:
        return NoiseCurve.white(estimate_noise_under_blur(samples, kernel, jpeg))
    # The curve fills the frequencies that the blur of the light has removed, and noise in the light is not stationary.
    return NoiseCurve.white(estimate_noise(samples, jpeg))
