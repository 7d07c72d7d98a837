"""Errors that are not white: the inverse of their covariance, by which a data term weighs its misfit."""

from __future__ import annotations

from copy import copy
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .boundaries import Size

Matrix = npt.NDArray[np.float64]


class Precision(Protocol):
    """P, a symmetric, positive definite matrix on images (B, C, H, W)."""

    norm: float
    """‖P‖ or more."""
    least: float
    """Its smallest eigenvalue or less, > 0."""

    def __call__(self, r: Tensor) -> Tensor:
        """P r, (B, C, H, W)."""

    def spectrum(self, scene: Size) -> Tensor:
        """Eigenvalues of about P by frequency: (C, H, W // 2 + 1), or what broadcasts to it."""


class WeightedPrecision:
    """P = W Q W, with W the weights w on the diagonal: for errors of the precision Q, made 1/w times as large by place.

    Parameters
    ----------
    weights : w > 0, (1, C, H, W) or (1, 1, H, W).
    inner : Q; None for the identity.
    bounds : of the weights, or None for the smallest and the largest of them. They may be those of a whole image, so
        that what is known of P is the same for all parts of it.
    """

    def __init__(
        self, weights: Tensor, inner: Precision | None = None, bounds: tuple[float, float] | None = None
    ) -> None:
        self._weights, self._inner = weights, inner
        smallest, largest = bounds or (float(weights.min()), float(weights.max()))
        self.norm = largest**2 * (1.0 if inner is None else inner.norm)
        self.least = smallest**2 * (1.0 if inner is None else inner.least)

    def __call__(self, r: Tensor) -> Tensor:
        """P r, (B, C, H, W)."""
        weighed = self._weights * r
        return self._weights * (weighed if self._inner is None else self._inner(weighed))

    def spectrum(self, scene: Size) -> Tensor:
        """That of Q with the mean of w²."""
        mean = self._weights.square().mean()
        return mean if self._inner is None else mean * self._inner.spectrum(scene)


class BlockPrecision:
    """P, symmetric and positive definite: one matrix on the blocks of a grid, the identity elsewhere.

    Parameters
    ----------
    matrix : (C·s², C·s²), symmetric, on the pixels of a block in the order of an array (C, s, s).
    origin : row and column where blocks begin.
    left_out : (B, 1, H, W) or None; blocks that touch it keep the identity.
    side : s.
    device, dtype : where and in which precision to compute.

    Attributes
    ----------
    norm, least : of P for any image and anything left out, so at least and at most 1.
    """

    def __init__(
        self,
        matrix: Matrix,
        origin: tuple[int, int],
        left_out: Tensor | None = None,
        *,
        side: int = 8,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._double, self._matrix = matrix, torch.from_numpy(matrix).to(device, dtype)
        self._origin, self._side = origin, side
        eigenvalues = np.linalg.eigvalsh(matrix)
        self.norm, self.least = max(1.0, float(eigenvalues[-1])), min(1.0, float(eigenvalues[0]))
        self._left_out = None if left_out is None else self._touched(left_out)

    def at(self, origin: tuple[int, int], left_out: Tensor | None = None) -> BlockPrecision:
        """The same matrix on another grid, and with other blocks left out."""
        other = copy(self)
        other._origin = origin
        other._left_out = None if left_out is None else other._touched(left_out)
        return other

    def __call__(self, r: Tensor) -> Tensor:
        """P r, (B, C, H, W)."""
        blocks = self._blocks(r)
        weighed = blocks @ self._matrix
        if self._left_out is not None:
            weighed = torch.where(self._left_out, blocks, weighed)
        (top, left), s, (rows, columns) = self._origin, self._side, self._grid(r)
        planes = weighed.reshape(len(r), rows, columns, r.shape[1], s, s).permute(0, 3, 1, 4, 2, 5)
        result = r.clone()
        result[:, :, top : top + rows * s, left : left + columns * s] = planes.reshape(
            *r.shape[:2], rows * s, columns * s
        )
        return result

    def spectrum(self, scene: Size) -> Tensor:
        """Mean eigenvalue per colour and frequency, (C, H, W // 2 + 1): of the nearest convolution (T. Chan 1988)."""
        s = self._side
        channels = len(self._double) // s**2
        place = np.arange(s)
        rows, columns = ((place[None, :] - place[:, None]) % n for n in scene)
        blocks = self._double.reshape(channels, s, s, channels, s, s)
        kernels = np.zeros((channels, *scene))
        for channel, kernel in enumerate(kernels):
            block = blocks[channel, :, :, channel] / s**2
            np.add.at(kernel, (rows[:, None, :, None], columns[None, :, None, :]), block)
        return torch.from_numpy(np.fft.rfft2(kernels).real.clip(0)).to(self._matrix)

    def _touched(self, places: Tensor) -> Tensor:
        """Which blocks hold one of the places (B, 1, H, W): (B, N, 1)."""
        return self._blocks(places.to(self._matrix.dtype)).amax(2, keepdim=True) > 0

    def _grid(self, r: Tensor) -> tuple[int, int]:
        """Rows and columns of whole blocks."""
        height, width = (max(n - start, 0) for n, start in zip(r.shape[2:], self._origin, strict=True))
        return height // self._side, width // self._side

    def _blocks(self, r: Tensor) -> Tensor:
        """The whole blocks (B, N, C·s²) of an image."""
        (top, left), s, (rows, columns) = self._origin, self._side, self._grid(r)
        inside = r[:, :, top : top + rows * s, left : left + columns * s]
        blocks = inside.reshape(*r.shape[:2], rows, s, columns, s).permute(0, 2, 4, 1, 3, 5)
        return blocks.reshape(len(r), rows * columns, r.shape[1] * s**2)
