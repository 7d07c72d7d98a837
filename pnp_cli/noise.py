"""Gaussian noise: adding it, and estimating its level from one image."""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt

MIN_NOISE = 0.5 / 255
"""The rules that choose parameters treat less noise as this: rounding to 8 bits alone has 0.29/255."""


def add_gaussian_noise(pixels: npt.NDArray[np.float32], sigma: float, seed: int) -> npt.NDArray[np.float32]:
    """Pixels (H, W, C) plus independent Gaussian noise of standard deviation `sigma` ([0, 1] scale)."""
    generator = np.random.default_rng(seed)
    return pixels + np.float32(sigma) * generator.standard_normal(pixels.shape, dtype=np.float32)


def estimate_noise(pixels: npt.NDArray[np.float32]) -> float:
    """Standard deviation of Gaussian noise in an image (H, W, C), [0, 1] scale: mean over the channels that vary.

    Median absolute deviation of the finest wavelet coefficients (Donoho & Johnstone 1994), by
    scikit-image. Fine texture counts as noise; blurred images give accurate values.
    """
    from skimage.restoration import estimate_sigma

    if min(pixels.shape[:2]) < 2:
        return 0.0
    planes = np.moveaxis(pixels.astype(np.float64), 2, 0)
    varying = [plane for plane in planes if np.ptp(plane) > 0]
    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # narrow planes that look like colours; no coefficients to take a median of
        levels = [float(estimate_sigma(plane)) for plane in varying]
    levels = [level for level in levels if np.isfinite(level)]
    return sum(levels) / len(levels) if levels else 0.0
