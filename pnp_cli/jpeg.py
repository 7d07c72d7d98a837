"""What JPEG compression did to the pixels of a file: its rounding errors, by block, colour and frequency.

A JPEG file holds the cosine transforms of blocks of 8 × 8 samples, each coefficient rounded to a multiple of a step
that the file states (ITU-T T.81). Low frequencies keep fine steps, high ones and colour differences coarse steps, so
the errors are far from white, and larger than noise in most photographs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]

SIDE = 8
"""Side of a block, in pixels."""

WHITE = 0.5
"""Deviation of white errors that do as much harm, over that of the rounding errors: in photographs most coefficients
are rounded to zero, and their errors are smaller. Found on validation images."""

BLOTCHES = 0.4
"""How much more a denoiser must remove where rounding has changed the noise in colour differences, over the rounding
errors in these: what is left of it is as large as a block, and hard to tell from the scene. Found on validation images.
"""

YCBCR = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
"""From RGB to brightness and colour differences (ITU-T T.871)."""


@dataclass(frozen=True, eq=False)
class JpegRounding:
    """How coarsely the coefficients of an image were rounded.

    Attributes
    ----------
    steps : (C, 8, 8), by component, vertical and horizontal frequency of the orthonormal cosine transform of a block
        of pixels; [0, 1] scale.
    components : (C, C), from the colours of a pixel to the components that were compressed.
    origin : row and column where blocks begin, 0 to 7: further ones begin every 8 pixels.
    """

    steps: Matrix
    components: Matrix
    origin: tuple[int, int] = (0, 0)

    def upright(self, orientation: int, size: tuple[int, int]) -> JpegRounding:
        """That of the image after `metadata.apply_orientation`, `size` its (height, width) before."""
        row, column = self.origin
        if orientation in (2, 3, 7, 8):
            column = (size[1] - column) % SIDE
        if orientation in (3, 4, 6, 7):
            row = (size[0] - row) % SIDE
        if orientation < 5:
            return replace(self, origin=(row, column))
        return replace(self, origin=(column, row), steps=self.steps.transpose(0, 2, 1))

    def of_part(self, row: int, column: int) -> JpegRounding:
        """That of a part of the image, which begins at a row and a column."""
        return replace(self, origin=((self.origin[0] - row) % SIDE, (self.origin[1] - column) % SIDE))

    def blocks(self, pixels: npt.NDArray[np.float32], most: int) -> Matrix:
        """The first component of whole blocks of an image (H, W, C), evenly about so many of them: (N, 8, 8)."""
        row, column = self.origin
        rows, columns = (max(0, n - start) // SIDE for n, start in zip(pixels.shape[:2], self.origin, strict=True))
        if not rows * columns:
            return np.zeros((0, SIDE, SIDE))
        step = math.ceil(math.sqrt(rows * columns / most))
        tiles = pixels[row : row + SIDE * rows, column : column + SIDE * columns].reshape(rows, SIDE, columns, SIDE, -1)
        return (tiles[::step, :, ::step] @ self.components[0]).swapaxes(1, 2).reshape(-1, SIDE, SIDE)

    @property
    def luminous(self) -> bool:
        """Whether the first component is the brightness of colours."""
        return bool((self.components != np.eye(len(self.components))).any())

    @property
    def level(self) -> float:
        """Standard deviation of white noise that does as much harm as the errors, [0, 1] scale: `WHITE` times theirs.

        Of those of the first component, which is the brightness if there are several.
        """
        return WHITE * float(np.sqrt(self._variances[0].mean()))

    def level_with(self, noise: float) -> float:
        """Level at which a denoiser is to work, [0, 1] scale, if the image had white noise before its compression.

        Parameters
        ----------
        noise : standard deviation of that noise, [0, 1] scale; see `noise.estimate_noise`.
        """
        coarseness = float(np.sqrt(self._variances[1:].mean())) if self.luminous else 0.0
        blotches = min(max(noise - self.level, 0.0), coarseness)
        return math.hypot(noise + BLOTCHES * blotches, self.level)

    @property
    def _variances(self) -> Matrix:
        """Of the errors of the coefficients, spread evenly over a step: (C, 8, 8)."""
        return np.asarray(self.steps**2 / 12)

    def covariance(self) -> Matrix:
        """Of the errors of the pixels in a block, (64·C, 64·C), in the order of an array (C, 8, 8)."""
        from scipy.fft import dct

        transform = dct(np.eye(SIDE), axis=0, norm="ortho")
        planes = np.kron(transform, transform)
        colours = np.kron(np.linalg.inv(self.components), planes.T)
        return np.asarray(colours * self._variances.ravel() @ colours.T)


def rounding_of(picture: Any) -> JpegRounding | None:
    """How a Pillow image was rounded; None if it is no JPEG of grey or RGB pixels, or its header does not say.

    A component that is stored at a lower resolution has no high frequencies: their steps are taken for those of the
    highest one there is. All steps are taken for no larger than the largest of the first component: errors of colours
    that were not stored are colours, and small.
    """
    layers, tables = getattr(picture, "layer", None), getattr(picture, "quantization", None)
    if picture.mode not in ("L", "RGB") or not layers or not tables:
        return None
    try:
        stored = [(h, v, np.array(tables[table], float).reshape(SIDE, SIDE)) for _, h, v, table in layers]
    except (KeyError, ValueError, TypeError):
        return None
    if not all(table.all() for _, _, table in stored):
        return None  # a step of zero, which some decoders accept
    widest, highest = max(h for h, _, _ in stored), max(v for _, v, _ in stored)
    steps = []
    for h, v, table in stored:
        across, down = widest / h, highest / v
        index = np.arange(SIDE)
        rows, columns = (np.minimum(index * n, SIDE - 1).astype(int) for n in (down, across))
        steps.append(table[np.ix_(rows, columns)] * np.sqrt(across * down) / 255)
    bounded = np.minimum(steps, steps[0].max())
    return JpegRounding(bounded, np.eye(len(steps)) if len(steps) == 1 or _is_rgb(picture) else YCBCR)


def _is_rgb(picture: Any) -> bool:
    """Whether a JPEG of three components holds red, green and blue; as libjpeg decides."""
    if "jfif" in picture.info:
        return False
    if "adobe_transform" in picture.info:
        return bool(picture.info["adobe_transform"] == 0)
    return [entry[0] for entry in picture.layer] == [*b"RGB"]
