"""Blur kernels (point-spread functions) as NumPy arrays: non-negative, of unit sum.

The origin of a kernel of shape (h, w) is its entry (h // 2, w // 2). Blurring is convolution: a kernel with
a single 1 one pixel to the right of the origin moves the image one pixel to the right.
"""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import InputError, UsageError
from .images import read_image

Kernel = npt.NDArray[np.float64]

MAX_EXTENT = 4096
"""Longest side of a kernel made from parameters, in pixels."""


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
    _check_extent(length, "a motion blur needs a length", length)
    if not math.isfinite(angle):
        raise UsageError(f"a motion blur needs a finite angle, not {angle:g}")
    theta = math.radians(angle)
    # Exact zeros for horizontal and vertical, where rounding would smear into the neighbouring row.
    dx, dy = (0.0 if abs(v) < 1e-12 else v for v in (math.cos(theta), -math.sin(theta)))
    half = length / 2
    radius_x, radius_y = (max(0, math.ceil(half * abs(d) - 0.5)) for d in (dx, dy))
    cuts = [np.array([-half, half])]
    for d, radius in ((dx, radius_x), (dy, radius_y)):
        if d:
            edges = (np.arange(-radius, radius + 2) - 0.5) / d  # where the path crosses pixel borders
            cuts.append(edges[np.abs(edges) < half])
    t = np.unique(np.concatenate(cuts))
    middle, piece = (t[1:] + t[:-1]) / 2, np.diff(t)
    columns = np.rint(middle * dx).astype(int) + radius_x
    rows = np.rint(middle * dy).astype(int) + radius_y
    kernel = np.zeros((2 * radius_y + 1, 2 * radius_x + 1))
    np.add.at(kernel, (rows, columns), piece)
    kernel = (kernel + kernel[::-1, ::-1]) / 2  # centred to the last bit
    return kernel / kernel.sum()


def gaussian(sigma: float) -> Kernel:
    """Gaussian of standard deviation `sigma` pixels, > 0, integrated over each pixel, cut at 4σ.

    Raises
    ------
    UsageError
        If sigma is not in (0, 512].
    """
    from scipy.special import ndtr

    _check_extent(sigma, "a Gaussian blur needs a standard deviation", 8 * sigma)
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
    _check_extent(radius, "a disk blur needs a radius", 2 * radius)
    samples = 64  # midpoints per pixel across; exact along
    reach = math.floor(radius + 0.5)
    centre = np.arange(-reach, reach + 1)
    x = centre[:, None] + (np.arange(samples) + 0.5) / samples - 0.5
    chord = np.sqrt(np.clip(radius**2 - x**2, 0, None))  # half the height of the disk at x
    rows = [np.minimum(y + 0.5, chord) - np.maximum(y - 0.5, -chord) for y in centre]
    kernel = np.stack([np.clip(row, 0, None).mean(axis=1) for row in rows])
    kernel = (kernel + kernel.T) / 2
    return kernel / kernel.sum()


def _check_extent(value: float, sentence: str, extent: float) -> None:
    if not (value > 0 and extent <= MAX_EXTENT):
        largest = MAX_EXTENT * value / extent if value > 0 and math.isfinite(value) else MAX_EXTENT
        raise UsageError(f"{sentence} above 0 and at most {largest:.0f} pixels, not {value:g}")


def from_file(path: str | Path) -> tuple[Kernel, tuple[str, ...]]:
    """Read a kernel from an image (PNG, TIFF …), a NumPy file or a MATLAB file (before v7.3).

    Colour images are averaged to grey. A MATLAB file must hold one matrix, or one called psf, kernel, k,
    h or f.

    Returns
    -------
    kernel, notes : the normalised kernel and what was done to it, one phrase each.

    Raises
    ------
    InputError
        If the file cannot be read or holds no kernel.
    """
    path = Path(path)
    if path.suffix.lower() == ".mat":
        values = _from_mat(path)
    elif path.suffix.lower() == ".npy":
        values = _from_npy(path)
    else:
        values = read_image(path).pixels.mean(axis=2, dtype=np.float64)
    return normalise(values, str(path))


def normalise(values: npt.ArrayLike, name: str = "kernel") -> tuple[Kernel, tuple[str, ...]]:
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
    total = kernel.sum()
    if total <= 0:
        raise InputError(f"{name}: the kernel sums to {total:.4g}, but a blur kernel has a positive sum")
    notes = []
    if (kernel < 0).any():
        notes.append(f"{int((kernel < 0).sum())} negative entries of the kernel set to zero")
        kernel = np.clip(kernel, 0, None)
        total = kernel.sum()
    if abs(total - 1) > 1e-6:
        notes.append(f"kernel divided by its sum {total:.6g}")
    return kernel / total, tuple(notes)


def _from_npy(path: Path) -> npt.NDArray[Any]:
    try:
        return np.asarray(np.load(io.BytesIO(path.read_bytes()), allow_pickle=False))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # malformed headers raise anything
        raise InputError(f"{path}: not a NumPy array file") from error


def _from_mat(path: Path) -> npt.NDArray[Any]:
    from scipy.io import loadmat

    try:
        variables = loadmat(io.BytesIO(path.read_bytes()))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    except NotImplementedError as error:
        raise InputError(f"{path}: is a MATLAB v7.3 file; save it with '-v7' or as .npy") from error
    except Exception as error:  # malformed headers raise anything
        raise InputError(f"{path}: not a MATLAB file") from error
    matrices = {k: v for k, v in variables.items() if isinstance(v, np.ndarray) and v.ndim == 2 and v.size > 1}
    for name in ("psf", "kernel", "k", "h", "f"):
        if name in matrices:
            return np.asarray(matrices[name])
    if len(matrices) == 1:
        return np.asarray(next(iter(matrices.values())))
    found = ", ".join(matrices) or "none"
    raise InputError(f"{path}: cannot tell which matrix is the kernel ({found}); name it 'psf'")
