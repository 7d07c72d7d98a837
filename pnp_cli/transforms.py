"""Orthonormal transforms Ψ for sparse restoration: pixels, DCT, and the wavelets of PyWavelets.

Ψ maps (B, C, H, W) to coefficients of the same shape, for every H and W, with ΨᵀΨ = ΨΨᵀ = I.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .errors import UsageError

Array = npt.NDArray[np.floating]

MAX_SIDE = 64
"""Longest side of the blocks of a DCT."""


class Transform(Protocol):
    """An orthonormal Ψ."""

    def forward(self, x: Tensor) -> Tensor:
        """Ψx."""

    def adjoint(self, c: Tensor) -> Tensor:
        """Ψᵀc = Ψ⁻¹c."""


class Pixel:
    """Identity: images that are sparse themselves, such as stars or fluorescent spots."""

    def forward(self, x: Tensor) -> Tensor:
        """x."""
        return x

    def adjoint(self, c: Tensor) -> Tensor:
        """c."""
        return c


class DCT:
    """Orthonormal two-dimensional discrete cosine transform (type II) of the whole image, by SciPy."""

    def forward(self, x: Tensor) -> Tensor:
        """DCT-II over the last two axes."""
        from scipy.fft import dctn

        return _like(dctn(_numpy(x), axes=(-2, -1), norm="ortho", workers=torch.get_num_threads()), x)

    def adjoint(self, c: Tensor) -> Tensor:
        """Inverse DCT-II over the last two axes."""
        from scipy.fft import idctn

        return _like(idctn(_numpy(c), axes=(-2, -1), norm="ortho", workers=torch.get_num_threads()), c)


class BlockDCT:
    """Orthonormal discrete cosine transform (type II) of blocks, and again of the image of their means, and so on.

    What is left at the far edges makes smaller blocks. The levels above the first make broad areas of one value cheap,
    most of all those beyond the frame, which no measurement keeps from shrinking.

    Parameters
    ----------
    side : side of the square blocks, ≥ 2.
    levels : number of levels.
    """

    def __init__(self, side: int, levels: int = 3) -> None:
        self.side, self.levels = side, levels

    def forward(self, x: Tensor) -> Tensor:
        """Ψx: every block is replaced by its coefficients, its mean in the top left corner."""
        means = c = self._blocks(self._blocks(x, -2, False), -1, False)
        for _ in range(self.levels - 1):
            means = means[..., :: self.side, :: self.side]
            means.copy_(self._blocks(self._blocks(means, -2, False), -1, False))
        return c

    def adjoint(self, c: Tensor) -> Tensor:
        """Ψᵀc."""
        x = c.clone()
        for level in range(self.levels - 1, 0, -1):
            means = x[..., :: self.side**level, :: self.side**level]
            means.copy_(self._blocks(self._blocks(means, -1, True), -2, True))
        return self._blocks(self._blocks(x, -1, True), -2, True)

    def _blocks(self, x: Tensor, axis: int, inverse: bool) -> Tensor:
        """The transform of blocks along an axis, a new tensor."""
        length = x.shape[axis]
        full = length - length % self.side
        done = []
        for part, side in ((x.narrow(axis, 0, full), self.side), (x.narrow(axis, full, length - full), length - full)):
            if part.shape[axis]:
                matrix = _dct_matrix(side).to(x)
                matrix = matrix.mT if inverse else matrix
                blocks = part.unflatten(axis, (-1, side))  # type: ignore[no-untyped-call]
                done.append((matrix @ blocks if axis == -2 else blocks @ matrix.mT).reshape(part.shape))
        return torch.cat(done, axis) if len(done) > 1 else done[0]


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
                f"unknown basis '{name}'; use pixel, dct, dct2 to dct{MAX_SIDE} (blocks), haar, db2 to db38, "
                "sym2 to sym20 or coif1 to coif17"
            ) from error
        # Shifts of the filter by 2 must be orthonormal; PyWavelets calls dmey orthogonal, which misses it by 2e-3.
        taps = np.asarray(self._wavelet.dec_lo)
        shifts = np.correlate(taps, taps, "full")[len(taps) - 1 :: 2]
        if not self._wavelet.orthogonal or abs(shifts[0] - 1) > 1e-8 or (np.abs(shifts[1:]) > 1e-8).any():
            raise UsageError(f"the wavelet '{name}' is not orthogonal, which the method needs; use haar, db4 or sym4")
        self.levels = levels

    def forward(self, x: Tensor) -> Tensor:
        """Ψx: the coarse band in the top left corner."""
        c = _numpy(x).copy()
        for plane in c.reshape(-1, *c.shape[-2:]):  # one by one they stay in the cache
            for h, w in self._bands(*plane.shape):
                plane[:h, :w] = self._analyse(self._analyse(plane[:h, :w], 1), 0)
        return _like(c, x)

    def adjoint(self, c: Tensor) -> Tensor:
        """Ψᵀc."""
        x = _numpy(c).copy()
        for plane in x.reshape(-1, *x.shape[-2:]):
            for h, w in reversed(self._bands(*plane.shape)):
                plane[:h, :w] = self._synthesise(self._synthesise(plane[:h, :w], 0), 1)
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

        half = x.shape[axis] // 2
        if half == 0:
            return x
        even, last = np.split(x, [2 * half], axis)
        low, high = pywt.dwt(even, self._wavelet, mode="periodization", axis=axis)
        return np.concatenate([low, last, high], axis)

    def _synthesise(self, c: Array, axis: int) -> Array:
        import pywt

        n = c.shape[axis]
        half = n // 2
        if half == 0:
            return c
        low, last, high = np.split(c, [half, n - half], axis)
        x = pywt.idwt(low, high, self._wavelet, mode="periodization", axis=axis)
        return np.concatenate([x, last], axis)


def make_transform(basis: str) -> Transform:
    """The transform called `basis`: pixel, dct, dct4 for blocks of 4 by 4 and so on, or an orthogonal wavelet.

    Raises
    ------
    UsageError
        If there is none of that name.
    """
    if basis == "pixel":
        return Pixel()
    if basis == "dct":
        return DCT()
    side = basis.removeprefix("dct")
    if basis.startswith("dct") and side.isdecimal() and 2 <= int(side) <= MAX_SIDE:
        return BlockDCT(int(side))
    return Wavelet(basis)


@dataclass(frozen=True)
class Shifted:
    """ΨT, the transform of the image moved cyclically by (down, right) pixels; orthonormal as T is a permutation."""

    base: Transform
    shift: tuple[int, int]

    def forward(self, x: Tensor) -> Tensor:
        """ΨTx."""
        return self.base.forward(x.roll(self.shift, (-2, -1)))

    def adjoint(self, c: Tensor) -> Tensor:
        """TᵀΨᵀc."""
        down, right = self.shift
        return self.base.adjoint(c).roll((-down, -right), (-2, -1))


def cycle(transform: Transform, count: int) -> tuple[Transform, ...]:
    """ΨT_1, …, ΨT_S for S = `count` ≥ 1 shifts, evenly spread; 4^k of them have all remainders modulo 2^k.

    The shifts are (i, i with its bits reversed), the points of Hammersley. Stacked and divided by √S, the
    transforms are a Parseval frame. The pixels stay a single one: to shift them changes nothing.
    """
    if count == 1 or isinstance(transform, Pixel):
        return (transform,)
    bits = (count - 1).bit_length()
    return tuple(Shifted(transform, (i, int(f"{i:0{bits}b}"[::-1], 2))) for i in range(count))


def to_opponent(x: Tensor) -> Tensor:
    """Decorrelate the channels (B, C, H, W) by an orthonormal DCT across them; a single one stays as it is.

    For RGB these are, but for their scale, the colour features of Ohta, Kanade & Sakai (1980): brightness,
    red against blue, green against both. A blur of all channels alike commutes with it.
    """
    return torch.einsum("ij,bjhw->bihw", _dct_matrix(x.shape[1]).to(x), x)


def from_opponent(x: Tensor) -> Tensor:
    """Inverse and adjoint of `to_opponent`."""
    return torch.einsum("ji,bjhw->bihw", _dct_matrix(x.shape[1]).to(x), x)


@cache
def _dct_matrix(n: int) -> Tensor:
    from scipy.fft import dct

    return torch.from_numpy(dct(np.eye(n), axis=0, norm="ortho"))


def _numpy(x: Tensor) -> Array:
    array: Array = x.detach().cpu().numpy()
    return array


def _like(array: Array, x: Tensor) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(x.device, x.dtype)
