"""Images much darker than white, as sensors of 12 bits leave them in files of 16, brightened for the denoiser.

Networks and the rules of `deblur` are made for images that reach from black to white, and what they do depends on the
contrast of a scene beside its noise: dark images would be taken for flat ones. Scaling commutes with blur, and
x ↦ N(gx; gσ)/g is as averaged as N for every g > 0, so all theorems hold with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch.nn.functional as F
from torch import Tensor, nn

from .denoisers import Denoiser, OnViews
from .errors import UsageError
from .noise import brightest

SIDE = 5
"""Side of the squares whose means tell how bright an image is: noise and hot pixels hardly change these."""

NOISIEST = 50 / 255
"""Noise is not brightened beyond this, [0, 1] scale: networks are trained on little more."""

MOST = 2.0**16
"""The largest gain: a count in a file of 16 bits becomes white."""


def find_gain(image: Tensor, noise: float) -> float:
    """By how much a denoiser should see an image brighter than it is: a power of two that leaves it below white.

    That is the means over squares, and all but a few samples. 1 for images that have these brighter than half of white
    somewhere, for black ones, and for those that are mostly noise.

    Parameters
    ----------
    image : (B, C, H, W), white is 1.
    noise : standard deviation of its noise, [0, 1] scale.
    """
    height, width = image.shape[2:]
    sides = [min(SIDE, height), min(SIDE, width)]
    squares = [  # from the first row and column on, and from those from which on the last are reached
        image[:, :, top:, left:] for top in {0, height % sides[0]} for left in {0, width % sides[1]}
    ]
    means = max(float(F.avg_pool2d(part, sides).max()) for part in squares)
    most = max(means, brightest(image.cpu().numpy()), noise / NOISIEST)
    return min(MOST, 2.0 ** math.floor(-math.log2(most))) if 0 < most < 1 else 1.0


class Brightened(OnViews):
    """x ↦ N(gx; gσ)/g, with the certificate of N.

    Parameters
    ----------
    gain : g > 0.
    denoiser : N.

    Raises
    ------
    UsageError
        If the gain is not positive.
    """

    def __init__(self, gain: float, denoiser: Denoiser) -> None:
        if not 0 < gain < math.inf:
            raise UsageError(f"an image is brightened by a positive factor, not {gain}")
        super().__init__(denoiser)
        self.gain = gain

    @property
    def inner(self) -> Denoiser:
        """N."""
        (denoiser,) = self.denoisers
        assert isinstance(denoiser, Denoiser)
        return denoiser

    def reach(self, p: int) -> int:
        """That of N, since a part of the image is brightened like the whole; see `Denoiser.reach`."""
        return self.inner.reach(p)

    def part(self, where: tuple[slice, slice]) -> Brightened:
        """The same for a part of the image, see `Denoiser.part`."""
        return Brightened(self.gain, self.inner.part(where))

    def views(self, x: Tensor) -> Iterator[Tensor]:
        """The image, brightened."""
        yield self.gain * x

    def levels(self, sigma: float | Tensor) -> Iterator[float | Tensor]:
        """The noise is brightened, too."""
        yield self.gain * sigma

    def combine(self, x: Tensor, views: Iterator[Tensor]) -> Tensor:
        """As dark as it was."""
        return next(views).div_(self.gain)

    def with_denoisers(self, *denoisers: Denoiser) -> Brightened:
        """The same with another denoiser."""
        return Brightened(self.gain, *denoisers)


def brightened(gain: float, denoiser: Denoiser) -> Denoiser:
    """A denoiser that sees images brightened; itself for a gain of 1."""
    return denoiser if gain == 1 else Brightened(gain, denoiser)


def unbrightened(denoiser: Denoiser) -> Denoiser:
    """N of x ↦ N(gx; gσ)/g, and any other denoiser itself."""
    return denoiser.inner if isinstance(denoiser, Brightened) else denoiser


def gain_of(denoiser: nn.Module) -> float:
    """By how much a denoiser sees images brighter than they are."""
    return float(getattr(denoiser, "gain", 1.0))
