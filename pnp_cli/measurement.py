"""The errors of a blurred measurement: how large they are, by place, and the precision that weighs the misfit."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .jpeg import JpegRounding
from .kernels import Kernel
from .light import slope, to_light
from .noise import (
    MIN_NOISE,
    correlation_under_blur,
    estimate_noise,
    estimate_noise_of_phases,
    estimate_noise_under_blur,
    white_level,
)
from .noise_curve import NoiseCurve, estimate_noise_curve, local_mean, root_mean_square
from .patches import Window
from .precision import BlockPrecision, Precision, WeightedPrecision
from .tensors import to_pixels

SMALLEST_SHARE = 0.2
"""Errors count as so much of the largest at least: the more they vary, the longer the proximal map takes."""


@dataclass(frozen=True)
class MeasurementErrors:
    """Noise and the errors of JPEG compression, given or estimated; `measure_errors` makes it.

    Attributes
    ----------
    noise : standard deviation of the noise in the samples, [0, 1] scale; the root of its mean square, if it depends on
        the brightness.
    curve : how it does; of one value if it does not.
    correlation : distance in pixels from which on the noise is independent.
    level : standard deviation of white noise that all errors in the samples together count as.
    slope : how many times as large they are in what was blurred; not 1 if that is the light.
    norm : ‖P‖ or more of the precisions of all parts of the image.
    """

    noise: float
    curve: NoiseCurve
    correlation: int
    level: float
    slope: float
    norm: float
    _blocks: tuple[JpegRounding, BlockPrecision] | None
    _weights: Tensor | None

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
        norm = self.norm / (1.0 if inner is None else inner.norm)
        return WeightedPrecision(self._weights[:, :, rows, columns], inner, norm**0.5)

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
    counted: Tensor | None = None,
) -> MeasurementErrors:
    """How large the errors of a blurred image are.

    Parameters
    ----------
    y : samples (1, C, H, W), values nominally in [0, 1].
    kernel : (h, w), by which the image was blurred.
    noise, photon, correlation, jpeg, linear_light : see `deblurring.Choices`.
    counted : which samples tell how large the errors are on average; None for all.
    """
    samples = to_pixels(y)
    if correlation is None:
        correlation = 1 if noise is not None else correlation_under_blur(samples, jpeg)
    slopes = slope(local_mean(y)) if linear_light else None
    curve = None
    if noise is not None:
        curve = NoiseCurve.photon(noise, photon or 0.0)
    elif photon is None and correlation == 1 and jpeg is None:
        curve = estimate_noise_curve(samples)
    if curve is None:
        if correlation > 1:
            noise = estimate_noise_of_phases(samples, correlation)
        elif slopes is None:
            noise = estimate_noise_under_blur(samples, kernel, jpeg)
        elif jpeg is not None:
            noise = estimate_noise(samples, jpeg)
        else:
            noise = estimate_noise_under_blur(to_pixels(to_light(y)), kernel) / root_mean_square(slope(y), counted)
        curve = NoiseCurve.white(noise)
    deviations = curve.levels(y) if curve.constant else curve.deviations(y)
    noise = root_mean_square(deviations, counted)

    # What correlated noise counts as, and rounding on top of it.
    spread, rounding = white_level(1, correlation), 0.0
    level, blocks = spread * noise, None
    if jpeg is not None:
        rounding, level = jpeg.level, max(level, MIN_NOISE)
        covariance = jpeg.covariance() + level**2 * np.eye(len(jpeg.covariance()))
        level = math.hypot(level, rounding)
        matrix = level**2 * np.linalg.inv(covariance)
        blocks = jpeg, BlockPrecision((matrix + matrix.T) / 2, jpeg.origin, device=y.device, dtype=y.dtype)
    norm = 1.0 if blocks is None else blocks[1].norm
    if isinstance(deviations, Tensor):
        deviations = (spread * deviations).square_().add_(rounding**2).sqrt_()
    elif slopes is not None:
        deviations = torch.full_like(slopes, level)
    weights, gain = None, 1.0
    if isinstance(deviations, Tensor):
        errors = deviations if slopes is None else deviations * slopes
        errors = errors.clamp_min(SMALLEST_SHARE * float(errors.max()))
        scale = root_mean_square(errors, counted)
        if scale > 0:
            gain = scale / level
            weights = scale / errors
            norm *= float(weights.max()) ** 2
    return MeasurementErrors(noise, curve, correlation, level, gain, norm, blocks, weights)
