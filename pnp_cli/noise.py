"""Gaussian noise: adding it, and estimating its level from one image, sharp or blurred with a known kernel."""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt

from .kernels import Kernel, mtf

MIN_NOISE = 0.5 / 255
"""The rules that choose parameters treat less noise as this: rounding to 8 bits alone has 0.29/255."""


def add_gaussian_noise(pixels: npt.NDArray[np.float32], sigma: float, seed: int) -> npt.NDArray[np.float32]:
    """Pixels (H, W, C) plus independent Gaussian noise of standard deviation `sigma` ([0, 1] scale)."""
    generator = np.random.default_rng(seed)
    return pixels + np.float32(sigma) * generator.standard_normal(pixels.shape, dtype=np.float32)


def estimate_noise(pixels: npt.NDArray[np.float32]) -> float:
    """Standard deviation of Gaussian noise in an image (H, W, C), [0, 1] scale: mean over the channels that vary.

    Median absolute deviation of the finest wavelet coefficients (Donoho & Johnstone 1994), by
    scikit-image. Fine texture counts as noise.
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


def estimate_noise_under_blur(pixels: npt.NDArray[np.float32], kernel: Kernel) -> float:
    """Standard deviation of white noise in an image (H, W, C) that was blurred with a known kernel, [0, 1] scale.

    Where the blur's transfer function is small beside the 1/f of natural images, the spectrum holds noise only. Its
    power there, in the twentieth of all frequencies where least of the scene is left, is exponentially distributed:
    the median divided by ln 2 estimates σ². A Hann window keeps the frame's edges out of these frequencies. Mean over
    the channels that vary; a twentieth is a compromise between scatter and bias (`benchmarks.noise_level`).
    """
    height, width = pixels.shape[:2]
    if min(height, width) < 8 or kernel.shape[0] > height or kernel.shape[1] > width:
        return estimate_noise(pixels)
    window = np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1])
    frequency = np.fft.fftfreq(height)[:, None] ** 2 + np.fft.rfftfreq(width)[None] ** 2
    left = mtf(kernel, (height, width))[:, : width // 2 + 1] ** 2 / np.maximum(frequency, 1 / (height * width))
    noise_only = left <= np.quantile(left, 0.05)
    planes = np.moveaxis(pixels.astype(np.float64), 2, 0)
    spectra = [np.fft.rfft2((plane - plane.mean()) * window) for plane in planes if np.ptp(plane) > 0]
    levels = [np.sqrt(np.median(np.abs(s[noise_only]) ** 2) / np.log(2) / np.square(window).sum()) for s in spectra]
    return float(np.mean(levels)) if levels else 0.0
