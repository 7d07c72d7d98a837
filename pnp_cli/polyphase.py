"""Denoising the phases of an image one by one, for noise that is correlated between neighbouring pixels.

Demosaicking, resizing and scanning smooth the noise, and networks trained on white noise take what is left for detail.
Pixels that lie further apart than the smoothing reaches have independent noise. So an image is split into the phases
that hold every n-th pixel of every n-th row, in which the noise is white (Zhou et al., "When AWGN-based denoiser meets
real noises", 2020).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .correlated_noise import phases_of
from .denoisers import Denoiser, OnViews
from .errors import UsageError


class Polyphase(OnViews):
    """A denoiser applied to every phase of an image.

    Splitting an image into its phases is orthogonal, so the certificate is that of the denoiser.

    Parameters
    ----------
    stride : distance of the pixels of a phase.
    denoisers : one for all phases, or one for each of `correlated_noise.phases_of`.

    Raises
    ------
    UsageError
        If there is no such split, or no denoiser.
    """

    def __init__(self, stride: int, *denoisers: Denoiser) -> None:
        if stride < 1 or not denoisers:
            raise UsageError(f"phases need a stride of 1 or more and a denoiser, not {stride} and {len(denoisers)}")
        super().__init__(*denoisers)
        self.stride = stride

    def views(self, x: Tensor) -> Iterator[Tensor]:
        """The phases, stride² of them with as many times fewer pixels."""
        return (x[:, :, rows, columns] for rows, columns in phases_of(x.shape[2], x.shape[3], self.stride))

    def combine(self, x: Tensor, views: Iterator[Tensor]) -> Tensor:
        """Every phase where it came from."""
        out = torch.empty_like(x)
        for view, (rows, columns) in zip(views, phases_of(x.shape[2], x.shape[3], self.stride), strict=True):
            out[:, :, rows, columns] = view
        return out

    def with_denoisers(self, *denoisers: Denoiser) -> Polyphase:
        """The same with other denoisers."""
        return Polyphase(self.stride, *denoisers)
