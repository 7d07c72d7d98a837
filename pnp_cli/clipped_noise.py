"""Noise that black and white have cut off, which files of integers cannot hold: what it was expected to be.

Where the scene is black, half of the noise is missing: dark parts are too bright on average, and less noisy than the
rest (Foi, "Clipped noisy images", 2009). A sample that was cut off at black is known to have been at most black. Given
the brightness of the scene around it, its expectation before that is one of a truncated normal distribution, as in the
EM algorithm for censored data (Dempster, Laird & Rubin 1977). White is the same, upside down.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .noise_curve import SMOOTHING, NoiseCurve, local_mean, root_mean_square
from .tensors import to_pixels

LEAST_MEAN = 0.15
"""Mean of samples around a sample, over the deviation of the noise, below which the scene itself is black: noise that
was cut off there has 0.4, and the mean over 5 × 5 pixels deviates by 0.12."""

FARTHEST = 5.0
"""Deviations of the noise from which on no sample is cut off by it."""

MOST_HALF_COUNT = 0.5 / 255
"""Of files of 8 bits; others have smaller ones."""

TINY = 1e-6
"""Differences from black or white that are those of rounding in single precision."""

COARSEST = 1.0
"""Half a count over the deviation of the noise from which on rounding hides it."""

NEWTON_STEPS = 5
"""To find the brightness of a scene: the first comes from the largest, and they fall by themselves."""

MOST_PASSES, LEAST_CHANGE = 6, 0.02
"""How often the noise is measured again with what was cut off, and the relative change of its level that ends it."""

LEAST_SHARE = 1e-3
"""Share of the samples that must be cut off for that."""

PART = 2**20
"""Samples that are restored at a time: beside large images is no room for more."""

Found = TypeVar("Found")


def restore_clipped(image: Tensor, curve: NoiseCurve, generator: torch.Generator | None = None) -> Tensor:
    """An image in which samples that are black or white have the value that they are expected to have had before.

    Images with values below black were not cut off at black, nor at white those with values above it. Black that is
    no noise, as a mask, stays. Black samples of integers have been rounded to it, so what they were ends half a count
    above.

    Parameters
    ----------
    image : (1, C, H, W), white is 1.
    curve : of the noise, which is white. If neighbouring pixels share it, the result is a rough one.
    generator : on the CPU; draws values from the distribution instead, so that the noise has the level it had.

    Returns
    -------
    Tensor
        The image itself if there is nothing to restore.
    """
    restored = image
    for white in (False, True):
        if any(curve.variances) and float(image.max() if white else image.min()) == float(white):
            restored = _restore(image, restored, curve, generator, white=white)
    return restored


def share_restored(image: Tensor, restored: Tensor) -> float:
    """Share of the samples of an image that `restore_clipped` has changed."""
    if restored is image:
        return 0.0
    planes = zip(image.unbind(1), restored.unbind(1), strict=True)
    return sum(int((before != after).sum()) for before, after in planes) / image.numel()


def within_range_of(image: Tensor, result: Tensor) -> Tensor:
    """The restored image, written to, not beyond black where `image` has nothing beyond it, nor beyond white.

    Where noise was cut off, so are errors.
    """
    if image.min() >= 0:
        result.clamp_min_(0)
    return result.clamp_max_(1) if image.max() <= 1 else result


def _parts(image: Tensor) -> Iterator[tuple[int, int]]:
    """Rows of an image, some at a time: the first, and the one after the last."""
    rows = max(1, PART // (image.shape[1] * image.shape[3]))
    for top in range(0, image.shape[2], rows):
        yield top, min(image.shape[2], top + rows)


def _restore(
    image: Tensor, restored: Tensor, curve: NoiseCurve, generator: torch.Generator | None, *, white: bool
) -> Tensor:
    """`restored`, or a new tensor if it is the image and there is something to restore, with one of both ends."""
    edge = _half_count(image, white=white)
    for top, end in _parts(image):
        first, last = max(0, top - SMOOTHING), min(image.shape[2], end + SMOOTHING)
        mean = local_mean(image[:, :, first:last])[:, :, top - first : end - first]
        cut = (image[:, :, top:end] == float(white)).nonzero(as_tuple=True)
        around = mean[cut]
        noise = curve.variance(around).sqrt_()
        around = 1 - around if white else around
        beyond = noise * _beyond_black(around / noise, edge / noise, generator).to(noise.dtype)
        if restored is image and bool(beyond.any()):
            restored = image.clone()
        if restored is not image:
            restored[:, :, top:end][cut] = 1 - beyond if white else beyond
    return restored


def _half_count(image: Tensor, *, white: bool) -> float:
    """Half a count of the file that an image was read from, [0, 1] scale: by its samples next to black or white."""
    least = 2 * MOST_HALF_COUNT
    for top, end in _parts(image):
        part = image[:, :, top:end]
        part = 1 - part if white else part
        least = min(least, float(torch.where(part > TINY, part, 1).min()))
    return least / 2


def _beyond_black(mean: Tensor, edge: Tensor, generator: torch.Generator | None) -> Tensor:
    """What samples below an edge were, which are black now, of noise of deviation 1, where the mean around is (N,)."""
    mean, edge = mean.double(), edge.double()
    kept = ~((mean >= LEAST_MEAN) & (mean <= FARTHEST) & (edge <= COARSEST))  # and where there is no noise
    mean, edge = mean.masked_fill(kept, 1), edge.masked_fill(kept, 0)
    scene = _scene_of(mean, edge)
    if generator is None:
        values = scene - torch.exp(-scene.square() / 2 - torch.special.log_ndtr(-scene)) / math.sqrt(2 * math.pi)
    else:
        uniform = torch.rand(mean.shape, generator=generator, dtype=torch.float64).to(mean.device)
        values = scene + torch.special.ndtri(uniform.clamp_min(1e-9) * torch.special.ndtr(-scene))
    return (values + edge).masked_fill(kept, 0)


def _scene_of(mean: Tensor, edge: Tensor) -> Tensor:
    """How far above the edge a scene is whose noisy samples, black below the edge, have this mean; of deviation 1.

    Inverse of t ↦ tΦ(t) + φ(t) + edge·Φ(t), which is above t, and convex where edge·t < 1; no scene is below black.
    """
    scene = mean
    for _ in range(NEWTON_STEPS):
        above = torch.special.ndtr(scene)
        density = torch.exp(-scene.square() / 2) / math.sqrt(2 * math.pi)
        seen = (scene + edge) * above + density
        scene = torch.maximum(scene - (seen - mean) / (above + edge * density), -edge)
    return scene


def measure_with_clipped(
    pixels: npt.NDArray[np.float32],
    measure: Callable[[npt.NDArray[np.float32]], Found],
    curve_of: Callable[[Found], NoiseCurve | None],
) -> Found:
    """The noise of an image (H, W, C) whose samples may be cut off at black or white.

    Noise that is cut off is less noise. So it is drawn again, of the level that was measured, and measured again, until
    both agree; Aitken's rule tells where that leads to.

    Parameters
    ----------
    measure : finds out the noise of pixels.
    curve_of : the curve of what was found, None if it is not to be measured again.
    """
    found = measure(pixels)
    curve = curve_of(found)
    image = torch.from_numpy(np.require(pixels.transpose(2, 0, 1), requirements=["C", "W"]))[None]
    before = 0.0
    for left in reversed(range(MOST_PASSES)):
        if curve is None:
            break
        drawn = restore_clipped(image, curve, torch.Generator().manual_seed(0))
        if share_restored(image, drawn) < LEAST_SHARE:
            break
        found = measure(to_pixels(drawn))
        del drawn  # beside large images is no room for two
        again = curve_of(found)
        if again is None:
            break
        change = math.log(_level(again, image) / _level(curve, image))
        if abs(change) < LEAST_CHANGE:
            break
        ratio = change / before if before else 0.0
        leap = left > 0 and 0 < ratio < 0.8
        curve = again.scaled(math.exp(change * ratio / (1 - ratio))) if leap else again
        before = 0.0 if leap else change
    return found


def _level(curve: NoiseCurve, image: Tensor) -> float:
    return max(root_mean_square(curve.levels(image)), 1e-9)
