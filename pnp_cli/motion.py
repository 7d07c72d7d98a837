"""Length and direction of a linear motion blur, estimated from the blurred image alone.

The power spectrum of the image is modelled as |k̂(f)|²·c|f|^(−p) + n: that of natural images, times the transfer
function of a segment, |sinc(length·f·direction)|², plus white noise; and, of a JPEG file, as compression passes that on
and adds to it. Candidates come from the cepstrum, where the zeros
of the transfer function make negative peaks at multiples of the segment (Biemond, Lagendijk & Mersereau 1990); each is
refined by a robust least-squares fit of the log spectrum, and the best fit wins.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from .jpeg import JpegRounding
from .jpeg_spectrum import SpectrumOfRounding, spectrum_of_rounding
from .light import slope, to_light

Array = npt.NDArray[np.float64]

TILE = 256
"""Side of the tiles over which the spectrum is averaged; longer motions than a third of it are not found."""

SHORTEST = 4.0
"""Shortest motion that is looked for, in pixels."""

CANDIDATES = 3
"""Peaks of the cepstrum that are refined."""

EVIDENCE = 0.45
"""Evidence of confidence one half: on validation images nearly all motions have more, and nothing else has
(`benchmarks.blind_motion`)."""

TINY = 1e-12
"""Power that counts as none."""

CLEAR = 0.5
"""Confidence from which a motion counts as clear."""


@dataclass(frozen=True)
class MotionEstimate:
    """A linear motion blur.

    Attributes
    ----------
    length : in pixels.
    angle : in degrees, counter-clockwise from the horizontal on the screen, in [0, 180).
    confidence : in [0, 1].
    """

    length: float
    angle: float
    confidence: float

    @property
    def clear(self) -> bool:
        """Whether the image shows a linear motion blur, rather than something else."""
        return self.confidence >= CLEAR


NOTHING = MotionEstimate(0.0, 0.0, 0.0)


def estimate_motion(
    pixels: npt.NDArray[np.float32], jpeg: JpegRounding | None = None, *, linear_light: bool = False
) -> MotionEstimate:
    """The linear motion blur of an image (H, W, C), values in [0, 1]; `clear` tells whether there is one.

    The scene goes on beyond the frame. Images below 64 pixels on a side, and constant ones, show none.

    Parameters
    ----------
    jpeg : how a JPEG file has rounded the image, `images.Image.jpeg`.
    linear_light : whether the light was blurred, and the samples follow the sRGB curve; see `light`.
    """
    grey, jpeg = in_grey(pixels, jpeg, linear_light=linear_light)
    if min(grey.shape) < 64 or np.ptp(grey) < 1e-6:
        return NOTHING
    rounding = None
    if jpeg is not None:
        scale = float(slope(torch.from_numpy(pixels)).square().mean()) ** 0.5 if linear_light else 1.0
        rounding = spectrum_of_rounding(pixels, jpeg).scaled(scale)
    spectrum = Spectrum(grey, rounding)
    flat, residuals = spectrum.fit_without_blur()
    best: tuple[float, float, float, float] | None = None
    for length, angle, prominence in spectrum.candidates(residuals):
        cost, length, angle = spectrum.fit(length, angle, flat)
        if best is None or cost < best[0]:
            best = cost, length, angle, prominence
    if best is None:
        return NOTHING
    cost, length, angle, prominence = best
    gain = spectrum.cost_without_blur - cost
    return MotionEstimate(length, angle % 180, _confidence(gain, prominence))


def in_grey(
    pixels: npt.NDArray[np.float32], jpeg: JpegRounding | None, *, linear_light: bool
) -> tuple[Array, JpegRounding | None]:
    """What was blurred in grey (H, W): the mean of the colours, or the brightness that a JPEG file keeps beside them.

    Parameters are those of `estimate_motion`; the rounding comes back as None if it was not of that brightness.
    """
    if jpeg is not None and not jpeg.luminous and pixels.shape[2] > 1:
        jpeg = None  # red, green and blue were rounded on their own
    seen = to_light(torch.from_numpy(pixels)).numpy() if linear_light else pixels
    return seen.mean(axis=2, dtype=np.float64) if jpeg is None else np.asarray(seen @ jpeg.components[0]), jpeg


def _confidence(gain: float, prominence: float) -> float:
    """From the fall of the cost per frequency and the height of the cepstral peak over its surroundings."""
    evidence = max(gain, 0) * max(prominence, 0)
    return float(evidence / (evidence + EVIDENCE))


class Spectrum:
    """Averaged log periodogram of an image, and models of it.

    It is the mean over tiles that overlap by half, each less its mean and times a Hann window of norm 1.

    Parameters
    ----------
    grey : (H, W) array of an image in grey, white is 1.
    rounding : what JPEG compression has done to its spectrum; None for nothing.

    Attributes
    ----------
    shape : (h, w) of a tile: `TILE` pixels on a side, or the side of a smaller image.
    fy, fx : vertical and horizontal frequencies in cycles per pixel, (h, w // 2 + 1): a half-plane.
    keep : mask of the n frequencies in use, (h, w // 2 + 1): 3 cycles and more on the shorter side of a tile.
    log_power : natural logarithm of the periodogram at these, (n,).
    passed, added, weight : what compression has made of the spectrum at these, and how much that tells, (n,); see
        `jpeg_spectrum.SpectrumOfRounding`.
    basis : 1 and log(|f|/0.2) at these, (2, n): in it the log spectrum of a scene is linear.
    window : autocorrelation of the window at every periodic lag, (h, w), 1 at lag 0.
    transfer : |k̂|² of a motion of some length and angle as the window shows it, (n,); the last ones are kept.
    cost_without_blur : cost per frequency of the model without blur, once `fit_without_blur` has run.
    """

    def __init__(self, grey: Array, rounding: SpectrumOfRounding | None = None) -> None:
        from scipy.signal.windows import hann

        h, w = self.shape = (min(grey.shape[0], TILE), min(grey.shape[1], TILE))
        window = np.outer(hann(h, sym=False), hann(w, sym=False))
        window /= np.linalg.norm(window)
        power = np.zeros((h, w // 2 + 1))
        corners = [(top, left) for top in _starts(grey.shape[0], h) for left in _starts(grey.shape[1], w)]
        for top, left in corners:
            tile = grey[top : top + h, left : left + w]
            power += np.abs(np.fft.rfft2(window * (tile - tile.mean()))) ** 2 / len(corners)
        self.fy, self.fx = np.meshgrid(np.fft.fftfreq(h), np.fft.rfftfreq(w), indexing="ij")
        radius = np.hypot(self.fy, self.fx)
        self.keep = radius * min(h, w) >= 3
        self.log_power = np.log(power[self.keep] + TINY)
        ones = np.ones_like(self.log_power)
        self.passed, self.added, self.weight = ones, np.zeros_like(ones), ones
        if rounding is not None:
            self.passed, self.added, self.weight = rounding.at(self.fy[self.keep], self.fx[self.keep])
        logarithm = np.log(radius[self.keep] / 0.2)
        self.basis = np.stack([np.ones_like(logarithm), logarithm])
        # The window smooths the spectrum: its autocorrelation multiplies that of the image.
        correlation = np.fft.irfft2(np.abs(np.fft.rfft2(window, (2 * h, 2 * w))) ** 2)
        i, j = np.arange(h), np.arange(w)
        self.window = correlation[np.ix_(np.minimum(i, h - i), np.minimum(j, w - j))]
        self.transfer: Callable[[float, float], Array] = lru_cache(maxsize=8)(self._transfer)
        self.cost_without_blur = np.inf

    def _transfer(self, length: float, angle: float) -> Array:
        """|k̂|² of a segment, in pixels and degrees, at the frequencies kept, as the window shows it."""
        theta = np.radians(angle)
        exact = np.sinc(length * (self.fx * np.cos(theta) - self.fy * np.sin(theta))) ** 2
        smoothed = np.fft.rfft2(np.fft.irfft2(exact, self.shape) * self.window).real
        return np.asarray(np.maximum(smoothed[self.keep], 1e-12))

    def _model(self, transfer: Array | float, scene: Array) -> Array:
        """Log spectrum (n,) for |k̂|² = `transfer`; `scene` is (log c, −p, log n)."""
        slope = np.exp(np.clip(scene[:-1] @ self.basis, -60, 40))
        before = transfer * slope + np.exp(np.clip(scene[-1], -35, 40))
        return np.asarray(np.log(self.passed * before + self.added + TINY))

    def _least_squares(self, model: Callable[[Array], Array], start: Array, **options: Any) -> tuple[Array, float]:
        """Where a model comes closest to the log spectrum, and the cost per frequency there."""
        from scipy.optimize import least_squares

        roots = np.sqrt(self.weight)
        result = least_squares(
            lambda b: roots * (self.log_power - model(b)),
            start,
            loss="soft_l1",
            f_scale=0.5,
            x_scale="jac",
            ftol=1e-6,
            xtol=1e-6,
            gtol=1e-6,
            **options,
        )
        return result.x, float(result.cost) / float(self.weight.sum())

    def fit_without_blur(self) -> tuple[Array, Array]:
        """Scene and noise as if there were no blur, and what is left of the log spectrum, where the scene counts.

        Returns
        -------
        (log c, −p, log n), and an array (n,).
        """
        slope = np.linalg.lstsq(self.basis.T, self.log_power, rcond=None)[0]
        start = np.append(slope, np.quantile(self.log_power, 0.02))
        scene, self.cost_without_blur = self._least_squares(lambda b: self._model(1.0, b), start, max_nfev=30)
        share = np.exp(scene[:-1] @ self.basis)
        share = self.weight * share / (share + np.exp(scene[-1]))
        left = np.clip(self.log_power - self._model(1.0, scene), -6, 4)
        return scene, share * (left - np.average(left, weights=share))

    def candidates(self, residuals: Array) -> list[tuple[float, float, float]]:
        """Lengths (pixels) and angles (degrees) at the highest peaks of the cepstrum, and how far they stand out.

        That is the height of a peak over the median height at its length. `residuals` are those of `fit_without_blur`.
        """
        from scipy import ndimage

        h, w = self.shape
        whole = np.zeros((h, w // 2 + 1))
        whole[self.keep] = residuals
        cepstrum = np.fft.fftshift(np.fft.irfft2(whole, self.shape))
        length = np.arange(SHORTEST, 0.35 * min(h, w), 0.5)[:, None]
        angle = np.arange(180.0)[None]
        y, x = -np.sin(np.radians(angle)), np.cos(np.radians(angle))
        score = np.zeros((len(length), 180))
        for k in (1, 2, 3):  # the peak and its multiples
            at = [h // 2 + k * length * y, w // 2 + k * length * x]
            score -= ndimage.map_coordinates(cepstrum, at, order=1) / k
        prominence = score / np.median(np.abs(score), axis=1, keepdims=True)
        top = ndimage.maximum_filter(prominence, size=(5, 9), mode=["nearest", "wrap"])
        peaks = np.argwhere(prominence == top)
        peaks = peaks[np.argsort(-prominence[tuple(peaks.T)])[:CANDIDATES]]
        return [(float(length[i, 0]), float(j), float(prominence[i, j])) for i, j in peaks]

    def fit(self, length: float, angle: float, scene: Array) -> tuple[float, float, float]:
        """Cost per frequency, length (pixels) and angle (degrees) of the best model near these.

        The loss is soft ℓ₁ with a scale of 0.5 in the log spectrum; `scene` is where scene and noise start from.
        """
        fixed = self.transfer(length, angle)
        scene, _ = self._least_squares(lambda b: self._model(fixed, b), scene, max_nfev=10)
        low = np.r_[1.0, np.full(4, -np.inf)]
        high = np.r_[min(self.shape) / 2 - 2, np.full(4, np.inf)]
        best, cost = self._least_squares(
            lambda q: self._model(self.transfer(q[0], q[1]), q[2:]),
            np.r_[length, angle, scene],
            bounds=(low, high),
            max_nfev=80,
            diff_step=[1e-4, 1e-4, 1e-6, 1e-6, 1e-6],
        )
        return cost, float(best[0]), float(best[1])


def _starts(length: int, side: int) -> list[int]:
    """First pixels of tiles that cover a side and overlap by half."""
    return [round(v) for v in np.linspace(0, length - side, 1 + -(-2 * (length - side) // side))]
