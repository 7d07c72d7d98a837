"""Denoising the phases of an image one by one, for noise that is correlated between neighbouring pixels.

Demosaicking, resizing and scanning smooth the noise, and networks trained on white noise take what is left for detail.
Pixels that lie further apart than the smoothing reaches have independent noise. So an image is split into the phases
that hold every n-th pixel of every n-th row, in which the noise is white (Zhou et al., "When AWGN-based denoiser meets
real noises", 2020).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from .denoisers import Denoiser
from .errors import UsageError
from .noise import Phase, phases_of


class Polyphase(Denoiser):
    """A denoiser applied to every phase of an image.

    Splitting an image into its phases is orthogonal, so the certificate is that of the denoiser.

    Parameters
    ----------
    stride : distance of the pixels of a phase.
    denoisers : one for all phases, or one for each of `noise.phases_of`.

    Raises
    ------
    UsageError
        If there is no such split, or no denoiser.
    """

    def __init__(self, stride: int, *denoisers: Denoiser) -> None:
        super().__init__()
        if stride < 1 or not denoisers:
            raise UsageError(f"phases need a stride of 1 or more and a denoiser, not {stride} and {len(denoisers)}")
        self.stride, self.denoisers = stride, nn.ModuleList(denoisers)
        first = denoisers[0]
        self.image_channels, self.multiple, self.architecture = first.image_channels, first.multiple, first.architecture
        self.centre, self.takes_reference = first.centre, first.takes_reference

    def reach(self, p: int) -> int:
        """None that tiles could go by, which have other phases: tile the denoiser in it.

        Raises
        ------
        UsageError
            Always.
        """
        raise UsageError(
            "a denoiser of phases cannot be applied tile by tile; tile the denoiser in it, as in "
            "Polyphase(stride, Tiled.of(denoiser, side))"
        )

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Denoise the phases of `x` (B, C, H, W), stride² calls of the network on as many times fewer pixels."""
        return self._each(x, lambda denoiser, phase: denoiser(phase, sigma))

    def estimate(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """The best estimates of the phases."""
        return self._each(x, lambda denoiser, phase: denoiser.estimate(phase, sigma))

    def condition(
        self, reference: Tensor, sigma: float | Tensor, noisy: bool | Tensor = True, guide_factor: float = 1.0
    ) -> Polyphase:
        """Every phase takes its part of the reference, (B, C, H, W); see `Denoiser.condition`."""
        if not self.takes_reference:
            return self
        arguments = sigma, noisy, guide_factor
        phases = self._phases(reference)
        return Polyphase(
            self.stride, *(d.condition(reference[:, :, rows, columns], *arguments) for d, (rows, columns) in phases)
        )

    def _phases(self, x: Tensor) -> Iterator[tuple[Denoiser, Phase]]:
        for i, where in enumerate(phases_of(x.shape[2], x.shape[3], self.stride)):
            denoiser = self.denoisers[i % len(self.denoisers)]
            assert isinstance(denoiser, Denoiser)
            yield denoiser, where

    def _each(self, x: Tensor, denoise: Callable[[Denoiser, Tensor], Tensor]) -> Tensor:
        out = torch.empty_like(x)
        for denoiser, (rows, columns) in self._phases(x):
            out[:, :, rows, columns] = denoise(denoiser, x[:, :, rows, columns])
        return out
