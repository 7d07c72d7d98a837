"""The noise that an image had before JPEG compression, most of which its pixels no longer show."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .jpeg import SIDE, JpegRounding

MOST_BLOCKS, FEWEST_BLOCKS = 50_000, 64
"""About how many blocks of a file are used, and the least number of them."""

FLAT = 0.05
"""Share of the blocks that counts as flat."""

NEARLY_CLIPPED = 0.02
"""So near to black or white, compression leaves samples that were clipped."""

BAND = 3
"""Frequencies of a block, vertical plus horizontal, that are taken together."""

MULTIPLES = 6
"""Multiples of a step that are told apart; larger ones count as this one."""

LEVELS = np.geomspace(0.05, 150, 400) / 255
"""Levels of noise that are compared, [0, 1] scale."""

HARMFUL, LEAST_LEVEL = 3, 3 / 255
"""Least frequency of the band at which correlated noise does as much harm as white noise of its level, and the least
level there that counts."""

LEAST_SLOPE, STEEPEST = 1.5, 1.85
"""Least ratio of that level to the level of the least band, and the largest to the level two frequencies above, where
noise that simple demosaicking has smoothed has 1.7."""

FLATTER, LESS_FLAT, MOST_OF_TEXTURE = 0.03, 0.3, 1.1
"""In the second share of the blocks noise is no more than so many times as large as in the first; texture mostly is."""

CLEAR_SLOPE, MOST_OF_TEXTURE_IF_CLEAR = 2.5, 1.15
"""The same where the first ratio is that large: white noise over texture is flatter."""


@dataclass(frozen=True)
class NoiseBeforeCompression:
    """Standard deviations of noise, [0, 1] scale.

    Attributes
    ----------
    white : of white noise. Of noise that neighbouring pixels share it is that at the frequencies with the least.
    steep : whether the brightness of colours holds so much more at lower frequencies that it is not white noise alone,
        but also noise that neighbouring pixels share, or texture.
    correlated : of the white noise that does as much harm as noise that neighbouring pixels share; None if there is
        none, the image is grey, or it cannot be told from texture.
    """

    white: float
    steep: bool
    correlated: float | None


def noise_before_compression(pixels: npt.NDArray[np.float32], jpeg: JpegRounding) -> NoiseBeforeCompression | None:
    """Level of the noise in an image (H, W, C) before it was compressed; None if that cannot be told.

    In flat blocks the coefficients of the brightness are noise, rounded to multiples of known steps. How often each
    multiple occurs has a likelihood for every level of noise, and the largest level counts that is half as likely as
    the likeliest: there is one even where all are zero. Blocks are flat by their lower frequencies, of which noise at
    the higher ones is independent. Texture only adds to the level, so the least of all bands of frequencies counts for
    white noise. Noise that neighbouring pixels share is larger at low frequencies, as is texture; but it is as large in
    the flattest blocks as in others. Blocks that come near black or white are left out if there are enough others.
    Images of too few blocks, and flat ones, do not tell.
    """
    from scipy.fft import dctn
    from scipy.special import ndtr

    blocks = jpeg.blocks(pixels, MOST_BLOCKS)
    if len(blocks) < FEWEST_BLOCKS or np.ptp(pixels) == 0:
        return None
    free = ((blocks > NEARLY_CLIPPED) & (blocks < 1 - NEARLY_CLIPPED)).all((1, 2))
    blocks = blocks[free] if free.sum() >= FEWEST_BLOCKS else blocks

    steps, diagonal = jpeg.steps[0].ravel(), np.add.outer(np.arange(SIDE), np.arange(SIDE)).ravel()
    multiples = np.abs(np.round(dctn(blocks, axes=(1, 2), norm="ortho").reshape(len(blocks), -1) / steps))
    power = np.square(multiples * steps * diagonal)
    multiples = np.minimum(multiples, MULTIPLES)
    # For levels, multiples and frequencies: the probability of that multiple or a larger one, of either sign.
    edges = (np.arange(1, MULTIPLES + 1)[:, None] - 0.5) * steps
    beyond = 2 * ndtr(-edges / LEVELS[:, None, None])
    beyond = np.concatenate([np.ones_like(beyond[:, :1]), beyond, np.zeros_like(beyond[:, :1])], axis=1)
    likelihood = np.log(np.maximum(beyond[:, :-1] - beyond[:, 1:], np.finfo(float).tiny))
    scale = np.linalg.norm(jpeg.components[0])

    def level(least: int, share: float) -> float:
        """At the band of frequencies from `least` on, in a share of the blocks."""
        count = max(FEWEST_BLOCKS // 4, round(share * len(blocks)))
        texture = power[:, diagonal < least].sum(axis=1)
        flat = multiples[texture <= np.partition(texture, count - 1)[count - 1]]
        band = (diagonal >= least) & (diagonal < least + BAND)
        counts = np.stack([(flat[:, band] == multiple).sum(axis=0) for multiple in range(MULTIPLES + 1)])
        total = np.tensordot(likelihood[:, :, band], counts)
        return float(LEVELS[np.flatnonzero(total >= total.max() - np.log(2))[-1]] / scale)

    white = min(level(least, FLAT) for least in range(2, 2 * SIDE - BAND))
    harmful = level(HARMFUL, FLAT)
    steep = jpeg.luminous and harmful >= max(LEAST_LEVEL, LEAST_SLOPE * white)
    most = MOST_OF_TEXTURE_IF_CLEAR if harmful >= CLEAR_SLOPE * white else MOST_OF_TEXTURE
    correlated = (
        steep
        and harmful <= STEEPEST * level(HARMFUL + 2, FLAT)
        and all(level(least, LESS_FLAT) <= most * level(least, FLATTER) for least in range(HARMFUL, HARMFUL + BAND))
    )
    return NoiseBeforeCompression(white, steep, harmful if correlated else None)
