"""The path of a motion blur that is neither straight nor even, from the blurred image and a straight guess.

A hand does not move a camera along a segment at constant speed, and a restoration by the nearest segment rings. The
path is a cubic, the logarithm of the time spent along its chord a quartic, and both are those by which a restoration
explains the image best: the minimum over x of

    J(k) = ‖k ∗ x − y‖² + λ·#{pixels with ∇x ≠ 0},

which wants edges that are sharp and few (Xu, Zheng & Jia 2013; x by half-quadratic splitting as theirs), so that a
wrong path pays for its ghosts. Its derivative by the kernel is taken to be that of the misfit with x held fixed, as it
would be at an exact minimum. A straight and even motion, which the spectrum shows more accurately, stands unless J
falls by `GAIN`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.fft import irfft2, next_fast_len, rfft2
from scipy.ndimage import maximum_filter

from . import kernels
from .jpeg import JpegRounding
from .kernels import Kernel
from .motion import MotionEstimate, in_grey
from .noise import estimate_noise
from .plugandplay import CLIP_LEVEL

Array = npt.NDArray[np.float64]
Plane = npt.NDArray[np.float32]
Transform = npt.NDArray[np.complex64]

WINDOW = 384
"""Longest side of the part of an image that is looked at, in pixels: the one with the strongest edges."""

BLOCK = 32
"""Side of the blocks, in pixels, from which that part is put together."""

CONTRAST = 0.2
"""Standard deviation that the part is scaled to, for λ counts edges of it."""

EDGE_PENALTY = 1e-3
"""λ, for an image of that contrast with little noise."""

GAIN = 0.04
"""By how much J has to fall, as if this share of the pixels were edges no more. On validation images with straight and
even motions it falls by less than half of that. Images of little content, and blurs of light taken for blurs of
samples, mislead by up to 0.039."""

EVIDENCE, FEWEST = 0.5, 40_000
"""The share and number of the pixels that have to count: clipped ones, those that the blur may mix with these, and the
border do not. From fewer, an image of few edges can explain a wrong path better than the true one."""

REACH, SPARE = 1.8, 9
"""Side of the kernels: times the length of the segment, and pixels more. A path that does not fit is none."""

NOISE_PENALTY = 5.0
"""λ over the variance of the noise, at least; noise makes edges, too."""

NODES = 33
"""Points of the path."""

SCALES = np.array([0.1, 4.0, 0.08, 0.08, 0.4, 0.4, 0.4, 0.4])
"""What counts as much of each parameter of a path: the logarithm of the length, the angle in degrees, quadratic and
cubic bend as shares of the length, and the coefficients of the logarithm of the time spent, linear to quartic."""

STEPS = np.array([0.1, 0.08, 0.1, 0.1, 0.05, 0.05, 0.05, 0.05])
"""Of difference quotients, in these scales."""

TURNS = (0.0, 1.5, -1.5)
"""Angles from which paths are looked for, in these scales: a bend turns the nearest segment."""

PRIOR = 1e-2
"""Weight of the squared parameters beside J over that of the segment."""

LIMIT, ITERATIONS = 3.0, 25
"""Largest parameter in these scales, and steps of the minimisation (L-BFGS-B) from each start."""

FIRST, FACTOR, LAST = 2.0, 4.0, 1e3
"""Penalty of the half-quadratic splitting: as a multiple of λ, from step to step, and the largest."""


@dataclass(frozen=True)
class FollowedMotion:
    """A motion blur along a path.

    Attributes
    ----------
    kernel : (h, w), see `kernels`.
    bend : greatest distance of the path from the chord of its ends, in pixels.
    variation : the largest speed along the path over the smallest.
    gain : by how much J is smaller than for the segment, in λ for every pixel.
    """

    kernel: Kernel
    bend: float
    variation: float
    gain: float


def follow_motion(
    pixels: npt.NDArray[np.float32],
    motion: MotionEstimate,
    jpeg: JpegRounding | None = None,
    *,
    linear_light: bool = False,
) -> FollowedMotion | None:
    """The path of a motion that is roughly a segment, in an image (H, W, C), values in [0, 1].

    Parameters
    ----------
    motion : the segment, from `motion.estimate_motion`; `jpeg` and `linear_light` as there.

    Returns
    -------
    FollowedMotion, or None if a straight and even motion explains the image about as well, or the part of it that is
    looked at is too small, too flat or too bright to tell.
    """
    side = math.ceil(REACH * motion.length) + SPARE
    side += 1 - side % 2
    part = _strongest_part(pixels)
    seen, _ = in_grey(pixels[part], jpeg, linear_light=linear_light)
    counted = np.ones(seen.shape, np.bool_)
    if pixels.max() <= 1:
        counted = ~maximum_filter((pixels[part] >= CLIP_LEVEL).any(axis=2), size=side)
    contrast, noise = float(seen.std()), estimate_noise(seen[..., None].astype(np.float32))
    if min(seen.shape) < 2 * side or counted.mean() < EVIDENCE or contrast <= 2 * noise:
        return None
    scale = CONTRAST / contrast
    objective = _Objective(scale * seen, counted, side, max(EDGE_PENALTY, NOISE_PENALTY * (scale * noise) ** 2))
    if objective.counted.sum() < FEWEST:
        return None
    parameters, gain = _minimise(objective, motion)
    if not GAIN <= gain < 1:  # from 1 on, the misfit was no blur's by the segment or anything near it
        return None
    points, time = _path(motion, parameters)
    kernel = kernels.path(points, time)
    if max(kernel.shape) > side:
        return None
    chord, speed = points[-1] - points[0], np.hypot(*np.diff(points, axis=0).T) / time
    off = (points - points[0]) @ np.array([-chord[1], chord[0]]) / np.hypot(*chord)
    return FollowedMotion(kernel, float(np.abs(off).max()), float(speed.max() / speed.min()), gain)


def _minimise(objective: _Objective, motion: MotionEstimate) -> tuple[Array, float]:
    """The best path near a segment, by `SCALES`, and its gain, see `FollowedMotion`."""
    from scipy.optimize import minimize

    def kernel(parameters: Array) -> Array:
        return _embedded(kernels.path(*_path(motion, parameters)), objective.side)

    straight, _ = objective(kernel(np.zeros(len(SCALES))))

    def relative(parameters: Array) -> tuple[float, Array]:
        value, by_kernel = objective(kernel(parameters))
        ends = ((kernel(parameters + step), kernel(parameters - step)) for step in np.diag(STEPS))
        slopes = np.array([(by_kernel * (high - low)).sum() for high, low in ends]) / (2 * STEPS)
        penalty = PRIOR * float(parameters @ parameters)
        return value / straight + penalty, slopes / straight + 2 * PRIOR * parameters

    found = [
        minimize(
            relative,
            np.array([0.0, turn, *[0.0] * (len(SCALES) - 2)]),
            jac=True,
            method="L-BFGS-B",
            bounds=[(-LIMIT, LIMIT)] * len(SCALES),
            options={"maxiter": ITERATIONS, "maxfun": 2 * ITERATIONS, "ftol": 1e-4},
        )
        for turn in TURNS
    ]
    best = min(found, key=lambda result: float(result.fun))
    gain = (straight - objective(kernel(best.x))[0]) / (objective.penalty * float(objective.counted.sum()))
    return best.x, gain


def _path(motion: MotionEstimate, parameters: Array) -> tuple[Array, Array]:
    """Points (N, 2), x and y (down) in pixels, and the time spent between them (N - 1,), of parameters by `SCALES`."""
    stretch, turn, bend, twist, *speed = SCALES * parameters
    t = np.linspace(-0.5, 0.5, NODES)
    along, across = t, 4 * bend * (t**2 - 1 / 12) + 8 * twist * (t**3 - 0.15 * t)
    theta = math.radians(motion.angle + turn)
    axes = np.array([[math.cos(theta), -math.sin(theta)], [math.sin(theta), math.cos(theta)]])
    middle = (t[1:] + t[:-1]) / 2
    powers = 2 * middle, 4 * middle**2 - 1 / 3, 8 * middle**3 - 1.2 * middle, 16 * middle**4 - 0.2
    logarithm = sum(a * p for a, p in zip(speed, powers, strict=True))
    return motion.length * math.exp(stretch) * np.stack([along, across], axis=1) @ axes, np.exp(logarithm)


def _embedded(kernel: Kernel, side: int) -> Array:
    """A kernel in the middle of side × side zeros; what does not fit is cut off."""
    whole = np.zeros((side, side))
    (top, left), (h, w) = (side // 2 - n // 2 for n in kernel.shape), kernel.shape
    rows, columns = (slice(max(0, -a), n - max(0, a + n - side)) for a, n in ((top, h), (left, w)))
    whole[top + rows.start : top + rows.stop, left + columns.start : left + columns.stop] = kernel[rows, columns]
    return whole


def _strongest_part(pixels: Plane) -> tuple[slice, slice]:
    """Rows and columns of the part of an image (H, W, C), at most `WINDOW` a side, with the most energy of edges."""
    grey = pixels.mean(axis=2)
    energy: npt.NDArray[np.float32] = np.zeros(grey.shape, np.float32)
    energy[:-1, :-1] = np.diff(grey, axis=0)[:, :-1] ** 2 + np.diff(grey, axis=1)[:-1] ** 2
    for axis in (0, 1):
        energy = np.add.reduceat(energy, np.arange(0, grey.shape[axis], BLOCK), axis=axis)
    total = np.pad(energy.astype(np.float64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    h, w = (min(WINDOW // BLOCK, blocks) for blocks in energy.shape)
    sums = total[h:, w:] - total[:-h, w:] - total[h:, :-w] + total[:-h, :-w]
    corner = np.unravel_index(np.argmax(sums), sums.shape)
    top, left = (max(0, min(BLOCK * int(i), have - WINDOW)) for i, have in zip(corner, grey.shape, strict=True))
    return slice(top, top + WINDOW), slice(left, left + WINDOW)


class _Objective:
    """J and its derivative by the kernel, for one image.

    In single precision and by SciPy: threads of PyTorch are slow for arrays so small where others use the processors.

    Parameters
    ----------
    image : (h, w) blurred image; beyond it, it goes on smoothly, on a torus.
    counted : mask (h, w) of the pixels whose misfit counts.
    side : of the kernels, odd.
    penalty : λ.
    """

    def __init__(self, image: Array, counted: npt.NDArray[np.bool_], side: int, penalty: float) -> None:
        self.side, self.penalty = side, penalty
        self.y = _on_a_torus(image.astype(np.float32), side)
        self.y_hat = rfft2(self.y)
        self.counted = np.zeros_like(self.y)  # where no pixel beyond the image has a share
        inner = tuple(slice(side // 2, n - side // 2 - 1) for n in image.shape)
        self.counted[inner] = counted[inner]
        rows, columns = np.fft.fftfreq(self.y.shape[0])[:, None], np.fft.rfftfreq(self.y.shape[1])
        self.laplacian = np.float32(4) * (np.sin(np.pi * rows) ** 2 + np.sin(np.pi * columns) ** 2).astype(np.float32)

    def __call__(self, kernel: Array) -> tuple[float, Array]:
        """J, and its derivative (side, side), for a kernel of that shape."""
        k_hat = self.transformed(kernel)
        x_hat, edges = self.restored(k_hat)
        misfit = self.counted * (self._image(k_hat * x_hat) - self.y)
        value = np.square(misfit, dtype=np.float64).sum() + self.penalty * self.counted[edges].sum(dtype=np.float64)
        correlation = self._image(x_hat.conj() * rfft2(misfit))
        middle = self.side // 2
        near = np.roll(correlation, (middle, middle), (0, 1))[: self.side, : self.side]
        return float(value), 2 * near.astype(np.float64)

    def transformed(self, kernel: Array) -> Transform:
        """Transfer function of a kernel (side, side)."""
        padded = np.zeros_like(self.y)
        padded[: self.side, : self.side] = kernel
        return np.asarray(rfft2(np.roll(padded, (-(self.side // 2),) * 2, (0, 1))))

    def restored(self, k_hat: Transform) -> tuple[Transform, npt.NDArray[np.bool_]]:
        """The transform of the image x with few edges, and where these are."""
        data, power = k_hat.conj() * self.y_hat, k_hat.real**2 + k_hat.imag**2
        x, x_hat, weight = self.y, self.y_hat, FIRST * self.penalty
        while weight < LAST:
            right, down = _gradient(x)
            edges = right**2 + down**2 >= self.penalty / weight
            right, down = right * edges, down * edges
            divergence = np.roll(right, 1, 1) - right + np.roll(down, 1, 0) - down
            x_hat = (data + np.float32(weight) * rfft2(divergence)) / (power + np.float32(weight) * self.laplacian)
            x = self._image(x_hat)
            weight *= FACTOR
        right, down = _gradient(x)
        return x_hat, right**2 + down**2 >= self.penalty / LAST

    def _image(self, transform: Transform) -> Plane:
        return np.asarray(irfft2(transform, self.y.shape))


def _gradient(x: Plane) -> tuple[Plane, Plane]:
    return np.roll(x, -1, 1) - x, np.roll(x, -1, 0) - x


def _on_a_torus(image: Plane, side: int) -> Plane:
    """An image (h, w) with a margin for kernels of that side, in which opposite edges are blended."""
    for _ in range(2):  # rows, then columns
        margin = next_fast_len(len(image) + 2 * side, real=True) - len(image)
        t = np.linspace(0, 1, margin + 2, dtype=np.float32)[1:-1, None]
        image = np.concatenate([image, image[-1:] * (1 - t) + image[:1] * t]).T
    return np.ascontiguousarray(image)
