"""Gaussian noise: adding it, and estimating its level from one image, sharp or blurred with a known kernel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from .jpeg import JpegRounding
from .jpeg_noise import noise_before_compression
from .kernels import Kernel, mtf

MIN_NOISE = 0.5 / 255
"""The rules that choose parameters treat less noise as this: rounding to 8 bits alone has 0.29/255."""

PATCH, MOST_PATCHES = 5, 50_000
"""Side of the patches of a colour image, and about how many are used."""

LEAST_FLOOR, LEAST_FLATNESS = 1 / 255, 0.8
"""Below these the noise in colour is that of rounding, or not white: noisy JPEG files have flatnesses of 0.4 to 0.95,
with levels near that of rounding where it is high; white noise has 0.85 and more."""

GREY_PATCH, MOST_GREY_PATCHES = 7, 200_000
"""Side of the patches of a plane, and about how many are used."""

FEWEST_IN_COLOUR = 20
"""Least number of patches of all colours, times their number of samples."""

FEWEST_WEAK = 60
"""Least number of patches with little texture, times their number of pixels: fewer would bias the eigenvalue."""

CONFIDENCE = 1 - 1e-6
"""Share of the patches of nothing but noise that pass for such."""

LEAST_FLATNESS_OF_WEAK = 0.5
"""The same for a plane: white noise of a level of 5/255 and more has 0.7 and more, and what JPEG has left of noise or
texture 0.2 to 0.45."""

BLOCK = 16
"""Side of the blocks of which the flattest are taken."""

FLAT_SHARE, FEWEST_BLOCKS = 0.05, 4
"""Share of the blocks whose variance is taken, and the least number of them."""

NOT_WHITE = 1.2
"""Ratio of levels that neither white noise nor what is left of a scene reaches."""

HOT, MOST_SAMPLES = 1e-3, 1_000_000
"""Share of the samples that may be brighter than an image is taken for, and about how many samples are looked at."""

LEAST_NOISY = 0.1
"""Least share of samples that count as noisy."""


def add_gaussian_noise(
    pixels: npt.NDArray[np.float32], sigma: float, seed: int | Sequence[int], photon: float = 0.0
) -> npt.NDArray[np.float32]:
    """Pixels plus independent Gaussian noise.

    Parameters
    ----------
    pixels : (H, W, C), white is 1.
    sigma : standard deviation of the noise, [0, 1] scale.
    seed : of NumPy's default generator: a non-negative integer or several.
    photon : variance per brightness of further noise, that of photons: the brightness of one, white is 1.

    Returns
    -------
    float32 array (H, W, C); it is not clipped, so values may lie outside [0, 1].
    """
    generator = np.random.default_rng(seed)
    noise = generator.standard_normal(pixels.shape, dtype=np.float32)
    if not photon:
        return pixels + np.float32(sigma) * noise
    return pixels + np.sqrt(np.float32(sigma**2) + np.float32(photon) * pixels.clip(0)) * noise


def estimate_noise(pixels: npt.NDArray[np.float32], jpeg: JpegRounding | None = None) -> float:
    """Standard deviation of white noise in an image (H, W, C), [0, 1] scale: mean over the channels that vary.

    0 if none does, or a side is shorter than 3 pixels. If it is known how the image was compressed
    (`images.Image.jpeg`), that of the noise before compression: see `jpeg_noise.noise_before_compression`.

    The colours of a scene vary together, so small patches of a colour image fill a part of their space only, and the
    noise is what fills the rest: see `noise_floor_of`. Those with black or white in them are left out, as far as there
    are enough others. The patches of a plane do so where there is little texture: see
    `_weak_texture_floor`. Where that rest is not white (after JPEG compression or demosaicing), or the noise is near
    that of rounding, it is taken from the flattest blocks, and fine texture that is everywhere counts as noise.
    """
    planes = np.moveaxis(pixels, 2, 0)
    varying = [plane for plane in planes if np.ptp(plane) > 0]
    if not varying or min(pixels.shape[:2]) < 3:
        return 0.0
    before = noise_before_compression(pixels, jpeg) if jpeg is not None else None
    if before is not None:
        return before.white
    if len(varying) == 3:
        level, flatness = noise_floor_of(_least_clipped(patches_of(pixels, PATCH, MOST_PATCHES)))
        if 0 < level >= LEAST_FLOOR * brightest(pixels) and flatness >= LEAST_FLATNESS:
            return level
    return sum(_level_of_plane(plane) for plane in varying) / len(varying)


def brightest(pixels: npt.NDArray[np.floating[Any]]) -> float:
    """About the largest brightness of an image of any shape, in [0, 1]; hot pixels do not count.

    Images of linear sensors need not reach white, and their texture is weaker.
    """
    some = pixels.ravel(order="K")[:: pixels.size // MOST_SAMPLES + 1]
    place = int((1 - HOT) * (some.size - 1))
    return float(np.partition(some, place)[place].clip(0, 1))


def _level_of_plane(plane: npt.NDArray[np.float32]) -> float:
    level, flatness = _weak_texture_floor(plane)
    return level if flatness >= LEAST_FLATNESS_OF_WEAK else _flattest_blocks(plane)


def patches_of(pixels: npt.NDArray[np.float32], side: int, most: int, least_step: int = 1) -> npt.NDArray[np.float64]:
    """About so many patches of an image (H, W) or (H, W, C), evenly over it, as vectors (N, D).

    Colours, rows and columns of a patch, in this order; patches begin `least_step` pixels apart or more.
    """
    if min(pixels.shape[:2]) < side:
        return np.zeros((0, side**2 * math.prod(pixels.shape[2:])))
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (side, side), axis=(0, 1))
    step = max(least_step, math.ceil(math.sqrt(windows.shape[0] * windows.shape[1] / most)))
    patches = windows[::step, ::step]
    return patches.reshape(len(patches) * patches.shape[1], -1).astype(np.float64)


def noise_floor_of(patches: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Level of the noise in patches of all colours (N, D), and their least deviation in any direction over that.

    The smallest eigenvalues of the covariance of patches, as many as have no mean above their median (Chen, Zhu & Heng
    2015); 0 for too few patches.
    """
    if len(patches) < FEWEST_IN_COLOUR * patches.shape[1]:
        return 0.0, 0.0
    eigenvalues = _eigenvalues(patches)
    counts = np.arange(1, len(eigenvalues) + 1)
    means = np.cumsum(eigenvalues) / counts
    medians = (eigenvalues[(counts - 1) // 2] + eigenvalues[counts // 2]) / 2
    floor = float(means[means <= medians][-1])
    return math.sqrt(floor), math.sqrt(eigenvalues[0] / floor) if floor else 0.0


def _eigenvalues(patches: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Of the covariance of patches (N, D), ascending.

    As a product, since NumPy's covariance copies the patches several times; rounding hides deviations below 10⁻⁷ of the
    mean. By torch, for NumPy has threads of its own, which would keep those of the networks from their processors.
    """
    x = torch.from_numpy(patches)
    mean = x.mean(0)
    covariance = (x.T @ x - len(x) * torch.outer(mean, mean)) / (len(x) - 1)
    return torch.linalg.eigvalsh(covariance).clamp_min(0).numpy()


def _moments_of_texture(side: int) -> tuple[float, float]:
    """Mean and variance of the texture of a patch, see `textured_patches`, that is noise of variance 1."""
    line = (np.eye(side)[2:] - np.eye(side)[:-2]) / 2
    differences = np.concatenate([np.kron(np.eye(side), line), np.kron(line, np.eye(side))])
    form = differences.T @ differences
    return float(np.trace(form)), float(2 * np.square(form).sum())


TEXTURE_OF_NOISE = _moments_of_texture(GREY_PATCH)


def textured_patches(plane: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Patches of a plane (H, W) as vectors (N, GREY_PATCH²), and their texture (N,).

    That is the sum of the squares of the central differences along the rows and along the columns within a patch.
    """
    patches = patches_of(plane, GREY_PATCH, MOST_GREY_PATCHES)
    squares = patches.reshape(-1, GREY_PATCH, GREY_PATCH)
    rows, columns = squares[:, 2:] - squares[:, :-2], squares[:, :, 2:] - squares[:, :, :-2]
    return patches, (np.einsum("nij,nij->n", rows, rows) + np.einsum("nij,nij->n", columns, columns)) / 4


def _weak_texture_floor(plane: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Level of the noise in a plane (H, W), and the deviation of the patches in that direction over the median one.

    The smallest eigenvalue of the covariance of those patches whose differences are no larger than the noise explains,
    found in turns with its level (Liu, Tanaka & Okutomi 2013). Of n patches of noise alone it would be too small by
    the factor (1 − √(d/n))², d their number of pixels (Marchenko & Pastur 1967); texture makes up for about half of
    that in photographs, and for all of it where the least number of patches is taken. Patches with black or white in
    them are left out if there are enough others. 0 for images of too few patches.
    """
    patches, texture = textured_patches(plane)
    free = unclipped(patches)
    enough = free.sum() > FEWEST_WEAK * patches.shape[1]
    return weak_texture_floor_of(patches[free], texture[free]) if enough else weak_texture_floor_of(patches, texture)


def _least_clipped(patches: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Patches of all colours (N, D) that hold no black or white samples; the fewest such, if too few hold none."""
    clipped = _clipped_share(patches)
    fewest = FEWEST_IN_COLOUR * patches.shape[1]
    return patches if len(patches) <= fewest else patches[clipped <= np.partition(clipped, fewest)[fewest]]


def unclipped(patches: npt.NDArray[np.float64], share: float = 0.0) -> npt.NDArray[np.bool_]:
    """Which patches (N, D) hold no black or white samples, or at most this share of them."""
    return np.asarray(_clipped_share(patches) <= share)


def _clipped_share(patches: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Share of the samples of patches (N, D) that are black or white, (N,)."""
    return np.asarray(((patches == 0) | (patches == 1)).mean(axis=1))


def weak_texture_floor_of(patches: npt.NDArray[np.float64], texture: npt.NDArray[np.float64]) -> tuple[float, float]:
    """The same as `_weak_texture_floor`, of patches (N, D) and their texture (N,), see `textured_patches`."""
    from scipy.stats import gamma

    fewest = FEWEST_WEAK * patches.shape[1]
    if len(patches) <= fewest:
        return 0.0, 0.0
    order = np.argsort(texture, kind="stable")
    texture, patches = texture[order], patches[order]
    mean, variance = TEXTURE_OF_NOISE  # about gamma-distributed
    largest = gamma.ppf(CONFIDENCE, mean**2 / variance, scale=variance / mean)
    eigenvalues = _eigenvalues(patches)
    for _ in range(4):
        weak = int(np.searchsorted(texture, max(eigenvalues[0] * largest, texture[fewest]), side="right"))
        eigenvalues = _eigenvalues(patches[:weak])
    level, median = math.sqrt(eigenvalues[0]), math.sqrt(np.median(eigenvalues))
    if weak > fewest + 1:
        level /= 1 - math.sqrt(patches.shape[1] / weak) / 2
    return level, level / median if median else 0.0


def _flattest_blocks(plane: npt.NDArray[np.float32]) -> float:
    """Level of the noise in a plane (H, W): mixed second differences (Immerkær 1996) of the flattest blocks.

    Their mean square is that of the smallest of some χ² variables, and is divided by what that is for noise alone.
    Blocks that touch black or white are left out if there are others.
    """
    from scipy.stats import chi2

    side = min(BLOCK, *(n - 2 for n in plane.shape))
    rows, columns = ((n - 2) // side for n in plane.shape)
    inside, variances = [], []
    for i in range(rows):
        strip = plane[i * side : (i + 1) * side + 2, : columns * side + 2].astype(np.float64)
        curvature = np.diff(np.diff(strip, 2, axis=0), 2, axis=1) / 6
        variances.append(np.square(curvature).reshape(side, columns, side).mean((0, 2)))
        free = ((strip != 0) & (strip != 1))[2:, 2:]
        inside.append(free.reshape(side, columns, side).all((0, 2)))
    variance, kept = np.concatenate(variances), np.concatenate(inside)
    variance = np.sort(variance[kept] if kept.any() else variance)
    count = min(len(variance), max(FEWEST_BLOCKS, round(FLAT_SHARE * len(variance))))
    share = count / len(variance)
    # Second differences of white noise have the autocorrelations 1, -2/3, 1/6 at lags 0, 1, 2.
    degrees = (side / (1 + 2 * sum(max(0, 1 - lag / side) * rho**2 for lag, rho in ((1, 2 / 3), (2, 1 / 6))))) ** 2
    expected = chi2.cdf(chi2.ppf(share, degrees), degrees + 2) / share
    return math.sqrt(float(variance[:count].mean()) / expected)


def estimate_noise_under_blur(
    pixels: npt.NDArray[np.float32], kernel: Kernel, jpeg: JpegRounding | None = None
) -> float:
    """Standard deviation of white noise in an image (H, W, C) that was blurred with a known kernel, [0, 1] scale.

    Where the blur's transfer function is small beside the 1/f of natural images, the spectrum holds noise only. Its
    power there, in the twentieth of all frequencies where least of the scene is left, is exponentially distributed:
    the median divided by ln 2 estimates σ². A Hann window keeps the frame's edges out of these frequencies. Mean over
    the channels that vary; a twentieth is a compromise between scatter and bias (`benchmarks.noise_level`). Samples
    that are exactly black or white hold no noise and do not count. JPEG compression removes noise at
    high frequencies first, so the quarter of lowest frequency counts where it holds more by `NOT_WHITE`; even that is
    then a lower bound. If it is known how the image was compressed (`images.Image.jpeg`), and there are enough blocks,
    the noise before compression is measured instead, see `jpeg_noise.noise_before_compression`.

    Images that are smaller than the kernel, or than 8 pixels on a side, are measured by `estimate_noise`.
    """
    before = noise_before_compression(pixels, jpeg) if jpeg is not None else None
    if before is not None:
        return before.white
    height, width = pixels.shape[:2]
    if min(height, width) < 8 or kernel.shape[0] > height or kernel.shape[1] > width:
        return estimate_noise(pixels)
    window = np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1])
    frequency = np.fft.fftfreq(height)[:, None] ** 2 + np.fft.rfftfreq(width)[None] ** 2
    left = mtf(kernel, (height, width))[:, : width // 2 + 1] ** 2 / np.maximum(frequency, 1 / (height * width))
    noise_only = left <= np.quantile(left, 0.05)
    low = frequency[noise_only] <= np.quantile(frequency[noise_only], 0.25)
    planes = [plane for plane in np.moveaxis(pixels.astype(np.float64), 2, 0) if np.ptp(plane) > 0]
    if not planes:
        return 0.0
    spectra = [np.fft.rfft2((plane - plane.mean()) * window)[noise_only] for plane in planes]
    noisy = [max(float(((plane != 0) & (plane != 1)).mean()), LEAST_NOISY) for plane in planes]
    power = np.square(np.abs(spectra)) / (np.log(2) * np.square(window).sum() * np.array(noisy)[:, None])
    everywhere, below = (float(np.sqrt(np.median(part, axis=1)).mean()) for part in (power, power[:, low]))
    return below if below > NOT_WHITE * everywhere else everywhere
