"""Noise that neighbouring pixels share, as demosaicking, resizing and scanning leave it: found in one image by its
spectrum, and the white noise that does as much harm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from .jpeg import JpegRounding
from .jpeg_noise import noise_before_compression
from .noise import brightest, estimate_noise, patches_of, unclipped
from .noise_curve import Bin, NoiseCurve, curve_of

Matrix = npt.NDArray[np.float64]
Phase = tuple[slice, slice]
"""Rows and columns."""

LEAST_CORRELATED, CORRELATED = 2 / 255, 2.0
"""From this level on, noise that is so many times as large at every second pixel may be correlated."""

SPREAD = 0.75
"""Power of the distance from which on noise is independent, by which correlated noise counts as larger under blur.
Found on validation images, between 0 for white noise and the bound of 1."""

SIDE, MOST_BLOCKS, SMALL = 8, 40_000, 10_000
"""Side of the blocks whose spectrum is measured, about how many are used, and the number of places for a block in an
image below which those overlap more."""

BLOCKS_IN_BIN, FEWEST_BLOCKS, MOST_BINS = 800, 400, 8
"""Of similar brightness, in which the noise is measured on its own; the least number of blocks in all."""

MOST_CLIPPED = 0.1
"""Share of the samples of a block that may be black or white: noise makes many samples of dark blocks black. They hide
some of it."""

FLATTEST, LESS_FLAT = slice(0.0, 0.04), slice(0.1, 0.2)
"""Shares of the blocks of a bin, by their texture: noise is as large in both, texture is not."""

HARMFUL, MIDDLE, FINE = (3, 4), (5, 8), (9, 14)
"""Frequencies of a block, vertical plus horizontal. Noise at the first is as hard to tell from the scene as white noise
of its level, found on validation images for noise of eight kinds."""

LIMITS, LIMITS_IF_SMALL = (1.2, 1.4, 1 / 255), (1.08, 2.8, 4 / 255)
"""Of correlated noise, and of that in images of a few bins: how many times as large it is in less flat blocks, at most,
and at harmful frequencies as at fine ones, at least, and its least level there. What clean images hold is 1.2 times as
large in less flat blocks, and more, mostly 1.3 to 3 times; white noise has the slope 1."""

SLOPE_OF_TEXTURE = 2.5
"""How much steeper noise seems where texture adds to it, per its share in less flat blocks; a bound in photographs."""

FEW_BINS = 4
"""In images of fewer bins uniform texture is common, and the last limits hold."""

SMALLEST, MOST_BINS_NOISY, MOST_CONSTANT = 0.2, 0.85, 0.05
"""Noise is everywhere: in this share of the bins it is correlated and at least so many times its median level, and no
more than the last share of the blocks is constant."""

LEAST_IN_JPEG, OVER_ROUNDING, OVER_WHITE = 2 / 255, 5, 2
"""Of noise that is found in the pixels of a JPEG file: its least level in the differences of the colours, and how many
times as large as the rounding errors, and as white noise in the file, the white noise is at least that does as much
harm. Compression makes white noise look correlated in the colours, which it stores coarsely."""

LIKE_BRIGHTNESS = 0.8
"""Correlation with the brightness from which on a difference of colours is not another colour, but a tint."""

LUMA_OVER_MIDDLE = 1.5
"""The level of brightness at harmful frequencies is at most so many times that at the middle ones, where the scene has
less texture."""

SMOOTH, SMOOTH_DEVIATION = 1.95, 0.68
"""From the first on, level of the brightness at middle frequencies over that at fine ones, noise is so smooth that it
is nearly white in the phases of every second pixel, of the second times its level at harmful frequencies. Then the
phases lose less than a denoiser of white noise does. Demosaicking has about 1.6 if it sharpens, 2.2 if it averages."""


@dataclass(frozen=True)
class CorrelatedNoise:
    """Noise of an image that neighbouring pixels share.

    Attributes
    ----------
    curve : how large white noise is, by brightness, that does as much harm.
    smooth : whether it is so smooth that it is nearly white in the phases of every second pixel, see `polyphase`.
    """

    curve: NoiseCurve
    smooth: bool

    @property
    def in_phases(self) -> NoiseCurve:
        """How large smooth noise is in those phases."""
        return self.curve.scaled(SMOOTH_DEVIATION)


def find_correlated_noise(pixels: npt.NDArray[np.float32], jpeg: JpegRounding | None = None) -> CorrelatedNoise | None:
    """The correlated noise of an image (H, W, C), values nominally in [0, 1].

    None if it shows none clearly, or has not three colours.

    The discrete cosine transforms of the flattest blocks tell the spectrum of the noise. Blocks are flat by one half of
    their frequencies, and noise is measured at the other, of which stationary noise is nearly independent. What is
    measured is noise, and not texture, if it is everywhere, and blocks that are less flat hold as much. That is asked
    of the differences of the colours, in which scenes have little texture; nothing tells noise from the structures of a
    grey or tinted image so surely. Blocks are compared with those of similar brightness, on which noise may depend.

    Parameters
    ----------
    jpeg : how a JPEG file has rounded the image (`images.Image.jpeg`). Its coefficients (`jpeg_noise`) tell of noise
        before compression, which is taken for as large everywhere. The pixels tell more, if what they hold is no less
        than that, and much larger than the rounding errors, which it holds, too.
    """
    if jpeg is None:
        return _in_pixels(pixels)
    before = noise_before_compression(pixels, jpeg)
    if before is None or not before.steep:
        return None
    told = CorrelatedNoise(NoiseCurve.white(before.correlated), smooth=False) if before.correlated is not None else None
    found = _in_pixels(pixels, LEAST_IN_JPEG)
    if found is None:
        return told
    least = max(OVER_ROUNDING * jpeg.level, OVER_WHITE * before.white, before.correlated or 0.0)
    mean = found.curve.averaged(torch.from_numpy(pixels).permute(2, 0, 1)[None])
    return found if mean.variances[0] >= least**2 else told


def _in_pixels(pixels: npt.NDArray[np.float32], least: float = 0.0) -> CorrelatedNoise | None:
    """What the pixels (H, W, C) tell of noise of this level in the differences of the colours or more, [0, 1] scale."""
    if pixels.shape[2] != 3:
        return None
    varying = [np.ptp(plane) > 0 for plane in np.moveaxis(pixels, 2, 0)]
    if not any(varying):
        return None
    places = math.prod(n - SIDE + 1 for n in pixels.shape[:2])
    blocks = patches_of(pixels, SIDE, MOST_BLOCKS, 3 if places >= SMALL else 2).reshape(-1, 3, SIDE, SIDE)
    if len(blocks) < FEWEST_BLOCKS:
        return None
    vectors = blocks[:, varying].reshape(len(blocks), -1)
    constant = np.ptp(vectors, axis=1) == 0
    if (constant & (vectors[:, 0] < 1)).mean() > MOST_CONSTANT:
        return None
    blocks = blocks[unclipped(vectors, MOST_CLIPPED) & ~constant]
    if len(blocks) < FEWEST_BLOCKS:
        return None
    brightness = blocks.mean((1, 2, 3))
    count = max(1, min(len(blocks) // BLOCKS_IN_BIN, MOST_BINS))
    parts = np.array_split(np.argsort(brightness, kind="stable"), count)
    spectra = [_Spectra.of(blocks[part]) for part in parts]

    texture, level, fine, tint = np.median([(s.texture, s.harmful, s.fine, s.tint) for s in spectra], axis=0)
    most, slope, smallest = LIMITS if count >= FEW_BINS else LIMITS_IF_SMALL
    least = max(least, smallest * brightest(pixels))
    noisy = np.mean([s.harmful >= max(slope * s.fine, SMALLEST * level) for s in spectra])
    slope += SLOPE_OF_TEXTURE * max(texture - 1, 0)
    if (
        not level
        or texture > most
        or level < max(slope * fine, least)
        or noisy < MOST_BINS_NOISY
        or tint > LIKE_BRIGHTNESS
    ):
        return None
    # Half of the power is that of the brightness, which is as noisy as the differences of the colours, or more so.
    luma = min(s.luma / s.harmful for s in spectra if s.harmful > 0)
    gain = math.sqrt((1 + max(luma, 1.0) ** 2) / 2)
    bins = [
        Bin(part, float(brightness[part].mean()), gain * s.harmful, flatness=1 / s.texture)
        for part, s in zip(parts, spectra, strict=True)
    ]
    mean = math.sqrt(float(np.mean([b.level**2 for b in bins if b.flatness >= 1 / most])))
    curve = curve_of(bins, least, 1 / most) or NoiseCurve.white(mean)
    return CorrelatedNoise(curve, bool(np.median([s.smoothness for s in spectra]) >= SMOOTH))


def may_be_correlated(pixels: npt.NDArray[np.float32], level: float) -> bool:
    """Whether there is reason to try if the noise of an image (H, W, C) is correlated, `level` what is taken for white.

    That of every second pixel is larger then. So is that of fine texture.
    """
    return (
        0 < level >= LEAST_CORRELATED * brightest(pixels) and estimate_noise_of_phases(pixels, 2) >= CORRELATED * level
    )


@dataclass(frozen=True)
class _Spectra:
    """What the flattest of some blocks tell: levels at the frequencies of the name, [0, 1] scale.

    `harmful` and `fine` are of the differences of the colours; `luma` is of the brightness, at the harmful frequencies.
    `texture` is how many times as much less flat blocks have, `smoothness` the level of the brightness at the middle
    frequencies over that at the fine ones, `tint` the largest correlation of a difference with the brightness, in all
    blocks.
    """

    harmful: float
    fine: float
    luma: float
    texture: float
    smoothness: float
    tint: float

    @classmethod
    def of(cls, blocks: Matrix) -> _Spectra:
        """Of blocks (N, 3, SIDE, SIDE) of similar brightness."""
        from scipy.fft import dctn

        # Across the colours it makes brightness and two differences, see `transforms.to_opponent`.
        coefficients = dctn(blocks, axes=(1, 2, 3), norm="ortho").reshape(*blocks.shape[:2], -1)
        power = np.square(coefficients)
        frequency = np.add.outer(np.arange(SIDE), np.arange(SIDE)).ravel()
        even = (frequency % 2 == 0) & (frequency > 0)
        odd = frequency % 2 == 1
        spectra = np.zeros((2, *power.shape[1:]))
        for chosen, measured in ((even, odd), (odd, even)):
            order = np.argsort(power[:, :, chosen].sum(2), axis=0)
            for spectrum, share in zip(spectra, (FLATTEST, LESS_FLAT), strict=True):
                members = order[int(share.start * len(order)) : math.ceil(share.stop * len(order))]
                for channel in range(power.shape[1]):
                    spectrum[channel, measured] = power[members[:, channel], channel][:, measured].mean(0)

        def level(spectrum: Matrix, band: tuple[int, int]) -> float:
            return float(np.sqrt(spectrum[..., (frequency >= band[0]) & (frequency <= band[1])].mean()))

        flattest, less_flat = ([level(one, (HARMFUL[0], MIDDLE[1])) for one in spectrum[1:]] for spectrum in spectra)
        luma, middle, fine = (level(spectra[0, 0], band) for band in (HARMFUL, MIDDLE, FINE))
        harmful = coefficients[:, :, (frequency >= HARMFUL[0]) & (frequency <= HARMFUL[1])]
        products = np.abs((harmful[:, :1] * harmful[:, 1:]).mean((0, 2)))
        scales = np.sqrt(np.square(harmful).mean((0, 2)))
        return cls(
            level(spectra[0, 1:], HARMFUL),
            level(spectra[0, 1:], FINE),
            min(luma, LUMA_OVER_MIDDLE * middle),
            max(b / max(a, 1e-9) for a, b in zip(flattest, less_flat, strict=True)),
            middle / max(fine, 1e-9),
            float((products / np.maximum(scales[0] * scales[1:], 1e-18)).max()),
        )


def phases_of(height: int, width: int, stride: int) -> list[Phase]:
    """Rows and columns of the phases of an image, which hold every stride-th pixel of every stride-th row.

    stride² of them, or fewer if a side is shorter.
    """
    starts = [range(min(stride, side)) for side in (height, width)]
    return [(slice(row, None, stride), slice(column, None, stride)) for row in starts[0] for column in starts[1]]


def estimate_noise_of_phases(pixels: npt.NDArray[np.float32], stride: int) -> float:
    """Standard deviation of noise in an image (H, W, C) that is white at every stride-th pixel; see `polyphase`.

    Mean over the phases of 3 pixels and more a side that vary, each measured by `estimate_noise`, by which the image is
    measured if there is none; [0, 1] scale.
    """
    phases = [pixels[rows, columns] for rows, columns in phases_of(pixels.shape[0], pixels.shape[1], stride)]
    levels = [estimate_noise(phase) for phase in phases if min(phase.shape[:2]) >= 3 and np.ptp(phase) > 0]
    return sum(levels) / len(levels) if levels else estimate_noise(pixels)


def white_level(noise: float, correlation: int) -> float:
    """Level of white noise that does as much harm under blur as correlated noise.

    Neighbours that share their noise raise its power at low frequencies, where the scene is, at most by the square of
    the distance from which on they do not.

    Parameters
    ----------
    noise : standard deviation of the pixels, any scale.
    correlation : distance in pixels from which on the noise is independent, ≥ 1.
    """
    return float(noise * correlation**SPREAD)
