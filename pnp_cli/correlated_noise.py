"""Noise that neighbouring pixels share, as demosaicking, resizing and scanning leave it: found in one image by its
spectrum, and the white noise that does as much harm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .noise import estimate_noise, unclipped
from .noise_curve import Bin, NoiseCurve, curve_of

Matrix = npt.NDArray[np.float64]
Phase = tuple[slice, slice]
"""Rows and columns."""

SPREAD = 0.75
"""Power of the distance from which on noise is independent, by which correlated noise counts as larger under blur.
Found on validation images, between 0 for white noise and the bound of 1."""

SIDE, MOST_BLOCKS, LEAST_STEP = 8, 40_000, 3
"""Side of the blocks whose spectrum is measured, about how many are used, and the least distance of two."""

BLOCKS_IN_BIN, FEWEST_BLOCKS, MOST_BINS = 800, 400, 8
"""Of similar brightness, in which the noise is measured on its own; the least number of blocks in all."""

FLATTEST, LESS_FLAT = slice(0.0, 0.04), slice(0.1, 0.2)
"""Shares of the blocks of a bin, by their texture: noise is as large in both, texture is not."""

HARMFUL, MIDDLE, FINE = (3, 4), (5, 8), (9, 14)
"""Frequencies of a block, vertical plus horizontal. Noise at the first is as hard to tell from the scene as white noise
of its level, found on validation images for noise of eight kinds."""

MOST_OF_TEXTURE, MOST_OF_TEXTURE_IN_GREY = 1.2, 1.12
"""Noise is no more than so many times as large in blocks that are less flat. Of clean images it is 1.26 and more in
their colours, so the first finds no noise in them, and 1.04 and more in grey."""

LEAST_SLOPE, LEAST_SLOPE_IN_GREY, SLOPE_OF_TEXTURE = 1.4, 2.5, 2.5
"""Of correlated noise, the least level at the harmful frequencies over that at the fine ones. White noise has 1, and
texture adds to that: the last times what it adds to noise in blocks that are less flat, at most, in photographs."""

LEAST_LEVEL, LEAST_LEVEL_IN_GREY = 1 / 255, 3 / 255
"""Smaller noise is that of rounding, or of texture as often."""

LUMA_OVER_MIDDLE = 1.5
"""The level of brightness at harmful frequencies is at most so many times that at the middle ones, where the scene has
less texture."""

SMOOTH, SMOOTH_DEVIATION = 1.95, 0.68
"""From the first on, level of the brightness at middle frequencies over that at fine ones, noise is so smooth that it
is nearly white in the phases of every second pixel, of the second times its level at harmful frequencies. Then the
phases lose less than a denoiser of white noise does. Demosaicking has 1.6 if it sharpens, 2.2 if it averages."""


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


def find_correlated_noise(pixels: npt.NDArray[np.float32]) -> CorrelatedNoise | None:
    """The correlated noise of an image (H, W, C), values nominally in [0, 1]; None if it shows none clearly.

    The discrete cosine transforms of the flattest blocks tell the spectrum of the noise. Blocks are flat by one half of
    their frequencies, and noise is measured at the other, of which stationary noise is nearly independent. What is
    measured is noise, and not texture, if blocks that are less flat hold as much. In colour that is asked of the
    differences of the colours, in which scenes have little texture, in grey of the brightness. Blocks are compared with
    those of similar brightness, on which noise may depend.
    """
    first, *others = np.moveaxis(pixels, 2, 0)
    grey = all(np.array_equal(first, plane) for plane in others)
    if min(pixels.shape[:2]) < SIDE or len(others) not in (0, 2):
        return None
    blocks = _blocks(pixels[:, :, :1] if grey else pixels)
    blocks = blocks[unclipped(blocks.reshape(len(blocks), -1))]
    if len(blocks) < FEWEST_BLOCKS:
        return None
    brightness = blocks.mean((1, 2, 3))
    parts = np.array_split(np.argsort(brightness, kind="stable"), np.clip(len(blocks) // BLOCKS_IN_BIN, 1, MOST_BINS))
    spectra = [_Spectra.of(blocks[part], grey=grey) for part in parts]

    texture = np.median([s.texture for s in spectra])
    level, fine = (float(np.median([getattr(s, band) for s in spectra])) for band in ("harmful", "fine"))
    most, slope, least = (
        (MOST_OF_TEXTURE_IN_GREY, LEAST_SLOPE_IN_GREY, LEAST_LEVEL_IN_GREY)
        if grey
        else (MOST_OF_TEXTURE, LEAST_SLOPE, LEAST_LEVEL)
    )
    slope += SLOPE_OF_TEXTURE * max(texture - 1, 0)
    if texture > most or level < max(slope * fine, least):
        return None
    luma = min(s.luma / s.harmful for s in spectra if s.harmful > 0)
    gain = 1.0 if grey else math.sqrt((1 + max(luma, 1.0) ** 2) / 2)
    bins = [
        Bin(part, float(brightness[part].mean()), gain * s.harmful, flatness=float(s.texture <= most))
        for part, s in zip(parts, spectra, strict=True)
    ]
    mean = math.sqrt(float(np.mean([b.level**2 for b in bins])))
    curve = curve_of(bins, least, 1.0) or NoiseCurve.white(mean)
    return CorrelatedNoise(curve, bool(np.median([s.smoothness for s in spectra]) >= SMOOTH))


def _blocks(pixels: npt.NDArray[np.float32]) -> Matrix:
    """About `MOST_BLOCKS` blocks of an image (H, W, C), evenly over it, (N, C, SIDE, SIDE)."""
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (SIDE, SIDE), axis=(0, 1))
    step = max(LEAST_STEP, math.ceil(math.sqrt(windows.shape[0] * windows.shape[1] / MOST_BLOCKS)))
    return windows[::step, ::step].reshape(-1, pixels.shape[2], SIDE, SIDE).astype(np.float64)


@dataclass(frozen=True)
class _Spectra:
    """What the flattest of some blocks tell: levels at the frequencies of the name, [0, 1] scale.

    `harmful` and `fine` are of the differences of the colours, or of grey; `luma` is of the brightness, at the harmful
    frequencies.
    `texture` is by how much less flat blocks have more, `smoothness` the level of the brightness at the middle
    frequencies over that at the fine ones.
    """

    harmful: float
    fine: float
    luma: float
    texture: float
    smoothness: float

    @classmethod
    def of(cls, blocks: Matrix, *, grey: bool) -> _Spectra:
        """Of blocks (N, C, SIDE, SIDE) of similar brightness."""
        from scipy.fft import dctn

        # Across RGB it makes brightness and two differences of colours, see `transforms.to_opponent`.
        power = np.square(dctn(blocks, axes=(1, 2, 3), norm="ortho")).reshape(*blocks.shape[:2], -1)
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

        differences = spectra if grey else spectra[:, 1:]
        flattest, less_flat = (
            [level(channel, (HARMFUL[0], MIDDLE[1])) for channel in spectrum] for spectrum in differences
        )
        luma, middle, fine = (level(spectra[0, 0], band) for band in (HARMFUL, MIDDLE, FINE))
        return cls(
            level(differences[0], HARMFUL),
            level(differences[0], FINE),
            min(luma, LUMA_OVER_MIDDLE * middle),
            max(b / max(a, 1e-9) for a, b in zip(flattest, less_flat, strict=True)),
            middle / max(fine, 1e-9),
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
