"""Files of kernels and trajectories: samples as they are stored; `kernels` makes kernels of them."""

from __future__ import annotations

import io
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import InputError, UsageError
from .files import read_bytes
from .images import MAX_PIXELS, Image, encode_image, read_image

Samples = npt.NDArray[Any]

SUFFIXES = (".npy", ".tif", ".tiff", ".png", ".mat")
"""Files that kernels are written to."""

TEXT_SUFFIXES = (".csv", ".tsv", ".txt")
"""Files that hold numbers as text, which kernels are not read from."""

MATLAB_NAMES = ("psf", "kernel", "k", "h", "f")
"""What a kernel may be called in a MATLAB file of several matrices; the first is what we call it."""


# ------------------------------------------------------------------------------------------ kernels


def read_samples(file: str | Path) -> Samples:
    """The samples (h, w) of a kernel file, of any depth and scale; colours are averaged.

    Raises
    ------
    InputError
        If it cannot be read, or it is not clear which of its matrices is the kernel.
    """
    name, suffix, data = str(file), Path(file).suffix.lower(), read_bytes(file)
    if suffix in TEXT_SUFFIXES:
        raise InputError(f"{name}: is a text file; save the kernel as NPY, MAT, PNG or TIFF, or give a --trajectory")
    if suffix == ".mat":
        return _from_mat(data, name)
    if suffix == ".npy":
        return _from_npy(data, name)
    samples = _from_deep_tiff(data)
    return read_image(data, name).pixels.mean(axis=2, dtype=np.float64) if samples is None else samples


def _from_npy(data: bytes, name: str) -> Samples:
    try:
        return np.asarray(np.load(io.BytesIO(data), allow_pickle=False))
    except Exception as error:  # malformed headers raise anything
        raise InputError(f"{name}: not a NumPy array file") from error


def _from_mat(data: bytes, name: str) -> Samples:
    from scipy.io import loadmat

    try:
        variables = loadmat(io.BytesIO(data))
    except NotImplementedError as error:
        raise InputError(f"{name}: is a MATLAB v7.3 file; save it with '-v7' or as .npy") from error
    except Exception as error:  # malformed headers raise anything
        raise InputError(f"{name}: not a MATLAB file") from error
    matrices = {k: v for k, v in variables.items() if isinstance(v, np.ndarray) and v.ndim == 2 and v.size > 0}
    for known in MATLAB_NAMES:
        if known in matrices:
            return np.asarray(matrices[known])
    larger = {k: v for k, v in matrices.items() if v.size > 1}
    if len(larger) == 1:
        return np.asarray(next(iter(larger.values())))
    found = ", ".join(larger) or "none"
    raise InputError(f"{name}: cannot tell which matrix is the kernel ({found}); name it 'psf'")


def _from_deep_tiff(data: bytes) -> Samples | None:
    """Samples of an upright grey TIFF of more than 8 bits, whose white need not be 1; None if it is something else."""
    import tifffile

    try:
        with tifffile.TiffFile(io.BytesIO(data)) as tiff:
            page = tiff.pages.first
            plain = page.photometric == tifffile.PHOTOMETRIC.MINISBLACK and page.samplesperpixel == 1
            deep = page.dtype is not None and page.dtype.itemsize > 1
            upright = page.tags.valueof("Orientation", 1) == 1
            size = page.imagelength, page.imagewidth
            if len(tiff.pages) == 1 and plain and deep and upright and math.prod(size) <= MAX_PIXELS:
                return np.asarray(page.asarray()).reshape(size)
    except Exception:  # decoders raise anything on malformed input; `read_image` says what is wrong
        pass
    return None


def require_suffix(file: str | Path) -> str:
    """The suffix of `file`, in lower case.

    Raises
    ------
    UsageError
        If kernels are not written to such files.
    """
    suffix = Path(file).suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(f"{file}: cannot write kernels to files ending in '{suffix}'; use one of {' '.join(SUFFIXES)}")
    return suffix


def encode(kernel: npt.NDArray[np.float64], file: str | Path) -> bytes:
    """Bytes of a kernel file, as the suffix of `file` says.

    .npy holds float64, .tif float32, .png 16 bits, scaled to the maximum, .mat (v5) the matrix 'psf' in float64.

    Raises
    ------
    InputError
        If kernels are not written to such files.
    """
    suffix, buffer = require_suffix(file), io.BytesIO()
    if suffix == ".png":
        pixels = (kernel / kernel.max())[:, :, None].astype(np.float32)
        return encode_image(Image(pixels, "uint16"), "PNG", str(file))
    if suffix in (".tif", ".tiff"):
        return encode_image(Image(kernel[:, :, None].astype(np.float32), "float32"), "TIFF", str(file))
    if suffix == ".mat":
        from scipy.io import savemat

        savemat(buffer, {MATLAB_NAMES[0]: kernel}, format="5", do_compression=True)
    else:
        np.save(buffer, kernel)
    return buffer.getvalue()


# ------------------------------------------------------------------------------------------ trajectories


def read_trajectory(file: str | Path) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Points (N, 2), x and y, and durations (N - 1,) of a table of samples; see `kernels.from_trajectory`.

    Where columns are separated by semicolons or tabs, numbers may have a decimal comma.

    Raises
    ------
    InputError
        With the file, the line, and the reason.
    """
    rows = _read_rows(file)
    header = rows.pop(0) if rows and all(_number(cell) is None for cell in rows[0][1]) else None
    if len(rows) < 2:
        raise InputError(
            f"{file}: a trajectory needs at least two samples, lines of x,y or t,x,y, but there are {len(rows)}"
        )
    width = len(header[1] if header else rows[0][1])
    columns = _columns_by_name(file, *header) if header else _columns_by_number(file, width)
    table = np.empty((len(rows), len(columns)))
    for index, (line, cells) in enumerate(rows):
        if len(cells) != width:
            raise InputError(f"{file}, line {line}: has {len(cells)} columns instead of {width}; complete the line")
        for place, column in enumerate(columns):
            value = _number(cells[column])
            if value is None or not math.isfinite(value):
                raise InputError(f"{file}, line {line}: '{cells[column]}' is not a number; repair or remove the line")
            table[index, place] = value
    if len(columns) == 2:
        return table, np.ones(len(table) - 1)
    durations = np.diff(table[:, 2])
    if (durations < 0).any():
        line = rows[int(np.argmax(durations < 0)) + 1][0]
        raise InputError(f"{file}, line {line}: the time runs backwards; sort the lines by time")
    return table[:, :2], durations


def _read_rows(file: str | Path) -> list[tuple[int, list[str]]]:
    """Line numbers and cells of what is neither empty nor a comment."""
    try:
        text = read_bytes(file).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: is not a text file; save the trajectory as CSV in UTF-8") from error
    lines = [(number, line.split("#")[0].strip()) for number, line in enumerate(text.splitlines(), 1)]
    lines = [(number, line) for number, line in lines if line]
    delimiter = next((d for d in ";\t," if lines and d in lines[0][1]), None)  # None is any white space
    rows = [(number, [cell.strip(" \"'") for cell in line.split(delimiter)]) for number, line in lines]
    if delimiter in (";", "\t"):
        rows = [(number, [cell.replace(",", ".") for cell in cells]) for number, cells in rows]
    return rows


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _columns_by_name(file: str | Path, line: int, names: list[str]) -> list[int]:
    """Places of x, y and, if there is one, t or time; units in brackets do not count."""
    plain = [re.sub(r"\s*[(\[].*", "", name).lower() for name in names]
    plain = ["t" if name == "time" else name for name in plain]
    for name in "xyt":
        count = plain.count(name)
        if count > 1 or (count == 0 and name != "t"):
            number = "no column is" if count == 0 else f"{count} columns are"
            raise InputError(f"{file}, line {line}: {number} called {name}; name them x, y or t, x, y")
    return [plain.index(name) for name in "xyt" if name in plain]


def _columns_by_number(file: str | Path, width: int) -> list[int]:
    """Places of x, y and t in a table without a header: x, y or t, x, y."""
    if width not in (2, 3):
        raise InputError(f"{file}: has {width} columns, not x, y or t, x, y; name them in a header line")
    return [0, 1] if width == 2 else [1, 2, 0]
