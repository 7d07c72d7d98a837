"""Orthonormal transforms Ψ for sparse restoration: pixels, DCT, and the wavelets of PyWavelets.

Ψ maps (B, C, H, W) to coefficients of the same shape, for every H and W, with ΨᵀΨ = ΨΨᵀ = I.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .errors import UsageError

Array = npt.NDArray[np.floating]


class Transform(Protocol):
    """An orthonormal Ψ."""

    name: str

    def forward(self, x: Tensor) -> Tensor:
        """Ψx."""

    def adjoint(self, c: Tensor) -> Tensor:
        """Ψᵀc = Ψ⁻¹c."""


class Pixel:
    """Identity: images that are sparse themselves, such as stars or fluorescent spots."""

    name = "pixel"

    def forward(self, x: Tensor) -> Tensor:
        """x."""
        return x

    def adjoint(self, c: Tensor) -> Tensor:
        """c."""
        return c


class DCT:
    """Orthonormal two-dimensional discrete cosine transform (type II) of the whole image, by SciPy."""

    name = "dct"

    def forward(self, x: Tensor) -> Tensor:
        """DCT-II over the last two axes."""
        from scipy.fft import dctn

        return _like(dctn(_numpy(x), axes=(-2, -1), norm="ortho"), x)

    def adjoint(self, c: Tensor) -> Tensor:
        """Inverse DCT-II over the last two axes."""
        from scipy.fft import idctn

        return _like(idctn(_numpy(c), axes=(-2, -1), norm="ortho"), c)


class Wavelet:
    """Separable orthonormal wavelet transform in the layout of Mallat, periodised.

    A side of odd length passes its last sample to the coarse band unchanged, which keeps Ψ orthonormal
    for every size.

    Parameters
    ----------
    name : an orthogonal discrete wavelet of PyWavelets: haar, db2 …, sym2 …, coif1 ….
    levels : number of levels; fewer where a side becomes shorter than 2.

    Raises
    ------
    UsageError
        If PyWavelets knows no orthogonal wavelet of that name.
    """

    def __init__(self, name: str, levels: int = 4) -> None:
        import pywt

        try:
            self._wavelet = pywt.Wavelet(name)
        except (ValueError, TypeError) as error:
            raise UsageError(
                f"unknown basis '{name}'; use pixel, dct, haar, db2 to db38, sym2 to sym20 or coif1 to coif17"
            ) from error
        # Shifts of the filter by 2 must be orthonormal; PyWavelets calls dmey orthogonal, which misses it by 2e-3.
        taps = np.asarray(self._wavelet.dec_lo)
        shifts = np.correlate(taps, taps, "full")[len(taps) - 1 :: 2]
        if not self._wavelet.orthogonal or abs(shifts[0] - 1) > 1e-8 or (np.abs(shifts[1:]) > 1e-8).any():
            raise UsageError(f"the wavelet '{name}' is not orthogonal, which the method needs; use haar, db4 or sym4")
        self.name, self.levels = name, levels

    def forward(self, x: Tensor) -> Tensor:
        """Ψx: the coarse band in the top left corner."""
        c = _numpy(x).copy()
        for h, w in self._bands(c.shape[-2], c.shape[-1]):
            block = self._analyse(self._analyse(c[..., :h, :w], -1), -2)
            c[..., :h, :w] = block
        return _like(c, x)

    def adjoint(self, c: Tensor) -> Tensor:
        """Ψᵀc."""
        x = _numpy(c).copy()
        for h, w in reversed(self._bands(x.shape[-2], x.shape[-1])):
            block = self._synthesise(self._synthesise(x[..., :h, :w], -2), -1)
            x[..., :h, :w] = block
        return _like(x, c)

    def _bands(self, h: int, w: int) -> list[tuple[int, int]]:
        """Size of the band that each level splits."""
        sizes = []
        for _ in range(self.levels):
            if h < 2 and w < 2:
                break
            sizes.append((h, w))
            h, w = (h + 1) // 2, (w + 1) // 2
        return sizes

    def _analyse(self, x: Array, axis: int) -> Array:
        import pywt

        x = np.moveaxis(x, axis, -1)
        even = x.shape[-1] // 2 * 2
        if even == 0:
            return np.moveaxis(x, -1, axis)
        low, high = pywt.dwt(x[..., :even], self._wavelet, mode="periodization", axis=-1)
        return np.moveaxis(np.concatenate([low, x[..., even:], high], axis=-1), -1, axis)

    def _synthesise(self, c: Array, axis: int) -> Array:
        import pywt

        c = np.moveaxis(c, axis, -1)
        n = c.shape[-1]
        half, even = n // 2, n // 2 * 2
        if even == 0:
            return np.moveaxis(c, -1, axis)
        low, last, high = c[..., :half], c[..., half : n - half], c[..., n - half :]
        x = pywt.idwt(low, high, self._wavelet, mode="periodization", axis=-1)
        return np.moveaxis(np.concatenate([x, last], axis=-1), -1, axis)


def make_transform(basis: str) -> Transform:
    """The transform called `basis`: pixel, dct, or the name of an orthogonal wavelet.

    Raises
    ------
    UsageError
        If there is none of that name.
    """
    if basis == "pixel":
        return Pixel()
    return DCT() if basis == "dct" else Wavelet(basis)


def _numpy(x: Tensor) -> Array:
    array: Array = x.detach().cpu().numpy()
    return array


def _like(array: Array, x: Tensor) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(x.device, x.dtype)
