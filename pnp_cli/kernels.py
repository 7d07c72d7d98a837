"""Blur kernels (point-spread functions) as NumPy arrays: non-negative, of unit sum.

The origin of a kernel of shape (h, w) is its entry (h // 2, w // 2). Blurring is convolution: a kernel with
a single 1 one pixel to the right of the origin moves the image one pixel to the right. So a kernel whose centroid
is off the origin moves the blurred image, and what is restored with it is moved back by as much.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from . import kernel_files
from .errors import InputError, UsageError
from .files import write_bytes

Kernel = npt.NDArray[np.float64]
Notes = tuple[str, ...]

MAX_EXTENT = 4096
"""Longest side of a kernel made from parameters, in pixels."""

FALLEN = 0.05
"""A kernel file whose border is above this share of its maximum may hold more than the kernel."""

ROUNDING = 1e-9
"""What is nearer than this to the border of a pixel, in pixels, is on it; a share of time below this is none."""

WEAK = 0.05
"""Frequencies that a blur scales by less than this, a restoration has to invent."""


# ------------------------------------------------------------------------------------------ from parameters


def motion(length: float, angle: float) -> Kernel:
    """Uniform linear motion: the exact length of a centred segment inside each pixel, normalised.

    Parameters
    ----------
    length : length of the path in pixels, > 0; fractions count. At most 1 is (nearly) no blur.
    angle : direction in degrees, counter-clockwise from the horizontal as seen on the screen: 0 is
        horizontal, 45 rises to the right, 90 is vertical. Angles that differ by 180 are the same.

    Raises
    ------
    UsageError
        If the length is not in (0, 4096] or the angle is not finite.
    """
    _check_extent(length, "a motion blur needs a length", 1)
    if not math.isfinite(angle):
        raise UsageError(f"a motion blur needs a finite angle, not {angle:g}")
    theta = math.radians(angle)
    # Exact zeros for horizontal and vertical, where rounding would smear into the neighbouring row.
    direction = np.array([0.0 if abs(v) < 1e-12 else v for v in (math.cos(theta), -math.sin(theta))])
    end = length / 2 * direction
    kernel = path([-end, end])
    return (kernel + kernel[::-1, ::-1]) / 2  # centred to the last bit


def path(points: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> Kernel:
    """Motion along a polygon: the exact time that the image of a point spends inside each pixel, normalised.

    The path is that of the image on the sensor, which for a moving camera is opposite to the camera's. Only its
    shape counts: its time-weighted centroid becomes the origin, exactly, before it meets the pixels. What runs
    along the border of two pixels goes half to each.

    Parameters
    ----------
    points : (N, 2) array of x (right) and y (down) in pixels, N >= 2.
    weights : (N - 1,) time spent on each segment, >= 0, in any unit; a repeated point is a stand still. By
        default the speed is constant.

    Raises
    ------
    UsageError
        If there are not two points or more, one is not finite or further than 2048 pixels from the centroid, or the
        weights do not fit.
    """
    nodes = _numbers(points, "the points of a path")
    if nodes.ndim != 2 or nodes.shape[0] < 2 or nodes.shape[1] != 2:
        what = f"{len(nodes)}" if nodes.shape[1:] == (2,) else f"an array of shape {nodes.shape}"
        raise UsageError(f"a path needs at least two points x,y, not {what}")
    with np.errstate(over="ignore", invalid="ignore"):
        delta, middle = np.diff(nodes, axis=0), nodes[1:] / 2 + nodes[:-1] / 2
        time = np.hypot(*delta.T) if weights is None else _numbers(weights, "the weights of a path")
        if time.shape != (len(delta),) or time.min() < 0:
            raise UsageError(f"a path of {len(nodes)} points needs {len(delta)} weights of at least 0, one a segment")
        if not time.max() > 0:
            raise UsageError("the path takes no time; give points that differ, or a positive weight")
        time = time / time.max()
        middle = middle - np.average(middle, axis=0, weights=time)
        reach = (np.abs(middle) + np.abs(delta) / 2).max()
    if not reach <= MAX_EXTENT / 2:
        raise UsageError(f"a path must stay within {MAX_EXTENT // 2} pixels of its centroid, but reaches {reach:.4g}")
    segment, t = _cuts(middle, delta)
    inner = segment[1:] == segment[:-1]
    segment, piece, t = segment[1:][inner], np.diff(t)[inner], ((t[1:] + t[:-1]) / 2)[inner]
    x, y = (middle[segment] + t[:, None] * delta[segment]).T
    columns, rows = _pixels(x), _pixels(y)
    origin = int(np.abs(rows).max()), int(np.abs(columns).max())
    kernel = np.zeros((2 * origin[0] + 1, 2 * origin[1] + 1))
    for row, column in itertools.product(rows, columns):
        np.add.at(kernel, (row + origin[0], column + origin[1]), piece * time[segment] / 4)
    kernel[kernel < ROUNDING * kernel.max()] = 0
    kernel = _framed(kernel, origin)
    return kernel / kernel.sum()


def _numbers(values: npt.ArrayLike, name: str) -> npt.NDArray[np.float64]:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name} must be an array of numbers") from error
    if not np.isfinite(array).all():
        raise UsageError(f"{name} must be finite numbers")
    return array


def _cuts(
    middle: npt.NDArray[np.float64], delta: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.int_], npt.NDArray[np.float64]]:
    """Segments and parameters t in [-1/2, 1/2] at which middle + t·delta begins, crosses a pixel border, or ends."""
    every = np.arange(len(middle))
    segments, cuts = [every, every], [np.full(len(middle), -0.5), np.full(len(middle), 0.5)]
    for m, d in zip(middle.T, delta.T, strict=True):
        first = np.floor(m - np.abs(d) / 2 + 0.5) + 0.5  # borders strictly inside
        last = np.ceil(m + np.abs(d) / 2 - 0.5) - 0.5
        count = np.maximum(last - first + 1, 0).astype(int)
        owner = np.repeat(every, count)
        rank = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
        segments.append(owner)
        cuts.append(np.clip((first[owner] + rank - m[owner]) / d[owner], -0.5, 0.5))
    segment, t = np.concatenate(segments), np.concatenate(cuts)
    order = np.lexsort((t, segment))
    return segment[order], t[order]


def _pixels(position: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.int_], npt.NDArray[np.int_]]:
    """The pixels on both sides of positions on a border, and twice the same pixel elsewhere."""
    low, high = np.ceil(position - 0.5 - ROUNDING), np.floor(position + 0.5 + ROUNDING)
    return low.astype(int), high.astype(int)


def gaussian(sigma: float) -> Kernel:
    """Gaussian of standard deviation `sigma` pixels, > 0, integrated over each pixel, cut at 4σ.

    Raises
    ------
    UsageError
        If sigma is not in (0, 512].
    """
    from scipy.special import ndtr

    _check_extent(sigma, "a Gaussian blur needs a standard deviation", 8)
    radius = max(1, math.ceil(4 * sigma))
    edges = np.arange(-radius, radius + 2) - 0.5
    line = np.diff(ndtr(edges / sigma))
    kernel = np.outer(line, line)
    return kernel / kernel.sum()


def disk(radius: float) -> Kernel:
    """Defocus: uniform disk of `radius` pixels, > 0; each entry is the area of the disk in that pixel.

    Raises
    ------
    UsageError
        If the radius is not in (0, 2048].
    """
    _check_extent(radius, "a disk blur needs a radius", 2)
    samples = 64  # midpoints per pixel across; exact along
    reach = math.floor(radius + 0.5)
    if not reach:
        return np.ones((1, 1))
    centre = np.arange(-reach, reach + 1)
    x = centre[:, None] + (np.arange(samples) + 0.5) / samples - 0.5
    chord = np.sqrt(np.clip(radius**2 - x**2, 0, None))  # half the height of the disk at x
    rows = (np.minimum(y + 0.5, chord) - np.maximum(y - 0.5, -chord) for y in centre)
    kernel = np.stack([np.clip(row, 0, None).mean(axis=1) for row in rows])
    kernel = (kernel + kernel.T) / 2
    return kernel / kernel.sum()


def _check_extent(value: float, sentence: str, factor: float) -> None:
    """Refuse a value that makes a kernel of `factor` times it, in pixels, longer than any may be."""
    if not 0 < value <= MAX_EXTENT / factor:
        raise UsageError(f"{sentence} above 0 and at most {MAX_EXTENT / factor:.0f} pixels, not {value:g}")


# ------------------------------------------------------------------------------------------ from files


def from_file(file: str | Path, centre: bool = True) -> tuple[Kernel, Notes]:
    """Read a measured kernel from an image (PNG, TIFF …), a NumPy file or a MATLAB file (before v7.3).

    The samples, of any depth and scale, are taken as linear intensities; colour images are averaged to grey. A MATLAB
    file must hold one matrix, or one called psf, kernel, k, h or f.

    Parameters
    ----------
    file : its path.
    centre : move the centroid to the origin, see `centred`. Without it, the blur may move the image as well.

    Returns
    -------
    kernel, notes : the normalised kernel and what was done to it, one phrase each.

    Raises
    ------
    InputError
        If the file cannot be read or holds no kernel.
    """
    kernel, notes = normalise(kernel_files.read_samples(file), str(file))
    border = np.concatenate([kernel[0], kernel[-1], kernel[:, 0], kernel[:, -1]])
    if min(kernel.shape) >= 9 and border.min() > FALLEN * kernel.max() and np.ptp(kernel) > 0:
        notes = (*notes, "the kernel does not fall to zero at its border: does the file hold a background or a frame?")
    if not centre:
        return kernel, notes
    kernel, moved = centred(kernel)
    return kernel, (*notes, *moved)


def from_trajectory(file: str | Path) -> Kernel:
    """The kernel of a measured trajectory, see `path`.

    A text file with a line for each sample: x, y at equal intervals of time, or t, x, y, in pixels, x right and y
    down. The columns are told by a header line or by their number; they are separated by commas, semicolons, tabs or
    spaces; '#' begins a comment.

    Raises
    ------
    InputError
        If the file cannot be read or holds no trajectory, with the line.
    """
    points, durations = kernel_files.read_trajectory(file)
    try:
        return path(points, durations)
    except UsageError as error:
        raise InputError(f"{file}: {error}") from error


def to_file(kernel: Kernel, file: str | Path, overwrite: bool = True) -> None:
    """Write a kernel whole or not at all, as the suffix says; see `kernel_files.encode`.

    Raises
    ------
    InputError
        If the suffix is unknown, or the file cannot be written or exists and is not to be overwritten.
    """
    write_bytes(file, kernel_files.encode(kernel, file), overwrite)


def normalise(values: npt.ArrayLike, name: str = "kernel") -> tuple[Kernel, Notes]:
    """Clip negative entries to zero and scale to unit sum.

    Returns
    -------
    kernel, notes : the kernel and what was done to it, one phrase each.

    Raises
    ------
    InputError
        If it is not a two-dimensional array of finite numbers with a positive sum.
    """
    array = np.atleast_2d(np.asarray(values))
    while array.ndim > 2 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != 2 or array.dtype.kind not in "biuf" or array.size == 0:
        raise InputError(f"{name}: a kernel is a two-dimensional array of numbers, not {array.dtype} {array.shape}")
    kernel = array.astype(np.float64)
    if not np.isfinite(kernel).all():
        raise InputError(f"{name}: the kernel contains NaN or infinite values")
    scale = float(np.abs(kernel).max()) or 1.0
    kernel /= scale  # the sum of huge entries is no number
    total = kernel.sum()
    if total <= 0:
        raise InputError(f"{name}: the kernel sums to {scale * float(total):.4g}, but a blur kernel has a positive sum")
    notes = []
    if (kernel < 0).any():
        notes.append(f"{int((kernel < 0).sum())} negative entries of the kernel set to zero")
        kernel = np.clip(kernel, 0, None)
        total = kernel.sum()
    if abs(scale * float(total) - 1) > 1e-6:
        notes.append(f"kernel divided by its sum {scale * float(total):.6g}")
    return kernel / total, tuple(notes)


def centred(kernel: Kernel) -> tuple[Kernel, Notes]:
    """Move the centroid to the origin by whole pixels, without interpolation, and cut off margins of zeros.

    At most half a pixel remains between them. A background that was not subtracted pulls the centroid.

    Returns
    -------
    kernel, notes : the kernel and, if it was moved, by how much.
    """
    h, w = kernel.shape
    # At half a pixel it stays where it is, also where rounding of the samples makes that a little more.
    column, row = (math.copysign(math.ceil(abs(d) - 0.501), d) for d in _moments(kernel)[0])
    result = _framed(kernel, (h // 2 + int(row), w // 2 + int(column)))
    if not (row or column):
        return result, ()
    return result, (f"kernel centred: moved by {directions(-column, -row)}",)


def directions(x: float, y: float) -> str:
    """A displacement in pixels, x to the right and y down, in words."""
    parts = [(x, "right" if x > 0 else "left"), (y, "down" if y > 0 else "up")]
    return ", ".join(f"{abs(v):.3g} {word}" for v, word in parts if v) or "0"


def _framed(kernel: Kernel, origin: tuple[int, int]) -> Kernel:
    """The support of a kernel in the smallest frame whose origin is the entry `origin` of it."""
    window, margins = [], []
    for axis in (0, 1):
        used = np.flatnonzero(kernel.any(axis=1 - axis))
        before, after = int(origin[axis] - used[0]), int(used[-1] - origin[axis])
        side = max(2 * before, 2 * after + 1)
        window.append(slice(used[0], used[-1] + 1))
        margins.append((side // 2 - before, side - 1 - side // 2 - after))
    return np.pad(kernel[tuple(window)], margins)


# ------------------------------------------------------------------------------------------ properties


@dataclass(frozen=True)
class Properties:
    """What a kernel does to an image.

    Attributes
    ----------
    total : its sum.
    centroid : x (right) and y (down) from the origin, in pixels.
    deviations : standard deviations along and across its principal axis, in pixels.
    angle : direction of that axis in degrees, counter-clockwise from the horizontal, in [0, 180); None if it is round.
    otf_max, otf_min : range of the modulus of the transfer function.
    weak : share of the frequencies whose modulus is below `WEAK`.
    """

    total: float
    centroid: tuple[float, float]
    deviations: tuple[float, float]
    angle: float | None
    otf_max: float
    otf_min: float
    weak: float


def properties(kernel: Kernel, size: tuple[int, int] = (256, 256)) -> Properties:
    """Properties of a kernel, its transfer function at the frequencies of images of `size` (height, width)."""
    centroid, covariance = _moments(kernel)
    variances, axes = np.linalg.eigh(covariance)
    minor, major = (math.sqrt(max(float(v), 0.0)) for v in variances)
    x, y = axes[:, 1]
    angle = None if major - minor <= 1e-6 * major else math.degrees(math.atan2(-y, x)) % 180
    modulus = mtf(kernel, size)
    top, bottom = float(modulus.max()), float(modulus.min())
    return Properties(float(kernel.sum()), centroid, (major, minor), angle, top, bottom, weak_share(kernel, size))


def weak_share(kernel: Kernel, size: tuple[int, int] = (256, 256)) -> float:
    """Share of the frequencies of images of `size` that a blur scales by less than `WEAK`."""
    return float((mtf(kernel, size) < WEAK).mean())


def mtf(kernel: Kernel, size: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Modulus of the transfer function, exact at the frequencies of periodic images of `size`, zero frequency first.

    A kernel larger than the image wraps around.
    """
    margins = [(0, -have % want) for have, want in zip(kernel.shape, size, strict=True)]
    padded = np.pad(kernel, margins)
    h, w = padded.shape
    folded = padded.reshape(h // size[0], size[0], w // size[1], size[1]).sum(axis=(0, 2))
    return np.abs(np.fft.fft2(folded))


def _moments(kernel: Kernel) -> tuple[tuple[float, float], npt.NDArray[np.float64]]:
    """Centroid (x, y) from the origin and the covariance matrix about it."""
    h, w = kernel.shape
    down, right = kernel.sum(axis=1), kernel.sum(axis=0)
    total = kernel.sum()
    y, x = np.arange(h) - h // 2, np.arange(w) - w // 2
    cx, cy = float(right @ x / total), float(down @ y / total)
    xy = float((y - cy) @ kernel @ (x - cx))
    xx, yy = float(right @ (x - cx) ** 2), float(down @ (y - cy) ** 2)
    return (cx, cy), np.array([[xx, xy], [xy, yy]]) / total
