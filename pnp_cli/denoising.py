"""Which noise a denoiser of white noise is to remove from an image, and from which of its pixels at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .clipped_noise import measure_with_clipped
from .correlated_noise import estimate_noise_of_phases, find_correlated_noise
from .denoisers import Denoiser
from .jpeg import JpegRounding
from .noise import estimate_noise
from .noise_curve import NoiseCurve, estimate_noise_curve


@dataclass(frozen=True)
class NoiseToRemove:
    """Noise of an image as a denoiser is to take it; `noise_to_remove` finds it out.

    Attributes
    ----------
    curve : how large it is, by brightness; of correlated noise, how large the white noise that is removed instead.
    stride : every so-many-th pixel of every so-many-th row is to be denoised at a time, see `polyphase.Polyphase`.
    correlated : whether neighbouring pixels are known to share it.
    """

    curve: NoiseCurve
    stride: int = 1
    correlated: bool = False


def noise_to_remove(
    pixels: npt.NDArray[np.float32],
    jpeg: JpegRounding | None = None,
    correlation: int | None = None,
    *,
    constant: bool = False,
    clipped: bool = True,
) -> NoiseToRemove:
    """The noise of an image (H, W, C), values nominally in [0, 1].

    Parameters
    ----------
    jpeg : how a JPEG file has rounded the image (`images.Image.jpeg`); its errors count, too.
    correlation : distance in pixels from which on the noise is independent, 1 for white noise; None finds out.
    constant : whether the noise is known to be as large everywhere.
    clipped : whether samples that are black or white count as ones where noise was cut off, see `clipped_noise`. White
        noise alone is measured with what was, and not in JPEG files, whose coefficients tell it.
    """

    def measure(some: npt.NDArray[np.float32]) -> NoiseToRemove:
        return _noise_to_remove(some, jpeg, correlation, constant)

    def curve_of(found: NoiseToRemove) -> NoiseCurve | None:
        return None if found.correlated else found.curve

    return measure_with_clipped(pixels, measure, curve_of) if clipped and jpeg is None else measure(pixels)


def _noise_to_remove(
    pixels: npt.NDArray[np.float32], jpeg: JpegRounding | None, correlation: int | None, constant: bool
) -> NoiseToRemove:
    if correlation is not None and correlation > 1:
        level = estimate_noise_of_phases(pixels, correlation)
        level = level if jpeg is None else jpeg.level_with(level)
        return NoiseToRemove(NoiseCurve.white(level), correlation, correlated=True)
    found = find_correlated_noise(pixels, jpeg) if correlation is None else None
    if found is not None:
        curve, stride = (found.in_phases, 2) if found.smooth else (found.curve, 1)
        curve = curve if jpeg is None else curve.with_more(jpeg.level)
        curve = curve.averaged(torch.from_numpy(pixels).permute(2, 0, 1)[None]) if constant else curve
        return NoiseToRemove(curve, stride, correlated=True)
    if jpeg is not None:
        return NoiseToRemove(NoiseCurve.white(jpeg.level_with(estimate_noise(pixels, jpeg))))
    by_brightness = None if constant else estimate_noise_curve(pixels)
    return NoiseToRemove(by_brightness or NoiseCurve.white(estimate_noise(pixels)))


@torch.no_grad()
def estimate_together(network: Denoiser, noisy: Sequence[tuple[Tensor, float | Tensor]]) -> list[Tensor]:
    """`network.estimate` for several images at a time, which is faster for small ones, and differs by rounding.

    Parameters
    ----------
    noisy : images (1, C, H, W) of one shape and their noise levels, all numbers or all maps (1, 1, H, W), [0, 1] scale.

    Returns
    -------
    list of Tensor
        The images (1, C, H, W), in their order.
    """
    images, levels = zip(*noisy, strict=True)
    if len(noisy) == 1:
        return [network.estimate(*noisy[0])]
    together = torch.cat(images)
    maps = isinstance(levels[0], Tensor)
    sigma = torch.cat(levels) if maps else torch.tensor(levels, dtype=together.dtype, device=together.device)
    return [image[None] for image in network.estimate(together, sigma)]
