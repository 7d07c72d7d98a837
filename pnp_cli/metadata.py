"""What an image file carries besides its pixels, and how PNG and TIFF hold it where Pillow does not write them."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

if TYPE_CHECKING:
    from PIL.Image import Exif
    from PIL.Image import Image as Pillow

ORIENTATION, X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 0x0112, 282, 283, 296
EXIF_IFD, GPS_IFD, INTEROP_IFD = 0x8769, 0x8825, 0xA005

TEXT_TAGS = {270, 271, 272, 305, 306, 315, 33432}
"""Tags of a TIFF that describe the picture and not the layout of its file: description, camera, software, date,
artist, copyright."""

PLACEHOLDER = 0xFFFFFF00
"""Value of the entry before that of a directory; tifffile does not write entries of directories itself."""


@dataclass(frozen=True)
class Metadata:
    """EXIF data and ICC profile as bytes (empty if there are none), and the resolution in dots per inch."""

    exif: bytes = b""
    icc_profile: bytes = b""
    dpi: tuple[float, float] | None = None

    @property
    def kinds(self) -> str:
        """What there is besides the resolution, in words; empty if nothing."""
        return " and ".join(name for name, value in (("EXIF", self.exif), ("ICC profile", self.icc_profile)) if value)

    def pillow_arguments(self) -> dict[str, Any]:
        """Arguments of Pillow's `save`."""
        fields = {"exif": self.exif, "icc_profile": self.icc_profile, "dpi": self.dpi}
        return {name: value for name, value in fields.items() if value}


def load_exif(data: bytes) -> Exif:
    """EXIF data, or the directory of a whole classic TIFF file, which has the same layout; empty if damaged."""
    from PIL import Image as Pillow

    exif = Pillow.Exif()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # damaged entries are left out
        try:
            exif.load(data)
        except Exception:  # whatever the parser trips over; the pixels are still good
            return Pillow.Exif()
    return exif


def exif_of(picture: Pillow) -> Exif:
    """EXIF data of a Pillow image; empty if damaged."""
    from PIL.Image import Exif

    try:
        return picture.getexif()
    except Exception:  # whatever the parser trips over; the pixels are still good
        return Exif()


def split(exif: Exif, icc_profile: bytes, dpi: tuple[float, float] | None, *, tiff: bool) -> tuple[Metadata, int]:
    """Metadata to keep and the orientation (1 to 8), which is taken out. A TIFF's layout is left out."""
    orientation = exif.pop(ORIENTATION, 1)
    for tag in list(exif):
        exif[tag] = _raw(exif[tag])
    directories = {tag: _directory(exif, tag) for tag in (EXIF_IFD, GPS_IFD) if tag in exif}
    for tag in list(exif):
        if tiff and tag not in TEXT_TAGS:
            del exif[tag]
    for tag, entries in directories.items():
        if entries:
            exif[tag] = entries
        else:
            exif.pop(tag, None)
    if dpi is not None:
        dpi = (float(dpi[0]), float(dpi[1]))
        if not all(0 < value < 1e6 for value in dpi):
            dpi = None
    try:
        kept = exif.tobytes() if len(exif) else b""
    except Exception:  # entries that cannot be written again
        kept = b""
    if orientation not in range(1, 9):
        orientation = 1
    if orientation >= 5 and dpi is not None:
        dpi = dpi[::-1]
    return Metadata(kept, icc_profile, dpi), orientation


class _Text(str):
    """A text that becomes the bytes it was: Pillow reads texts as Latin-1 and writes all but ASCII as '?'."""

    def encode(self, encoding: str = "latin-1", errors: str = "replace") -> bytes:
        return super().encode("latin-1", "replace")


def _raw(value: Any) -> Any:
    return _Text(value) if isinstance(value, str) else value


def _directory(exif: Exif, tag: int) -> dict[int, Any]:
    try:
        entries = {key: _raw(value) for key, value in exif.get_ifd(tag).items()}
        entries.pop(INTEROP_IFD, None)  # an offset into the file it came from
        return entries
    except Exception:  # a damaged directory
        return {}


def apply_orientation(array: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Turn and mirror an array (H, W, …) so that it is shown upright; the tag's values 1 to 8 as in EXIF 2.3."""
    if orientation in (2, 3, 7, 8):
        array = array[:, ::-1]
    if orientation in (3, 4, 6, 7):
        array = array[::-1]
    if orientation >= 5:
        array = array.swapaxes(0, 1)
    return array


# -------------------------------------------------------------------------------------------- PNG


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kinds and bytes (with length and checksum) of the chunks of a PNG file."""
    position = 8
    while position + 8 <= len(data):
        (length,) = struct.unpack(">I", data[position : position + 4])
        yield data[position + 4 : position + 8], data[position : position + length + 12]
        position += length + 12


def add_to_png(data: bytes, metadata: Metadata) -> bytes:
    """A PNG file with metadata added, in the chunks that Pillow would write."""
    from PIL import Image as Pillow

    buffer = io.BytesIO()
    Pillow.new("L", (1, 1)).save(buffer, "PNG", **metadata.pillow_arguments())
    extra = [chunk for kind, chunk in png_chunks(buffer.getvalue()) if kind in (b"iCCP", b"pHYs", b"eXIf")]
    header_end = 8 + 25
    return data[:header_end] + b"".join(extra) + data[header_end:]


# ------------------------------------------------------------------------------------------- TIFF


def tiff_dpi(exif: Exif) -> tuple[float, float] | None:
    """Resolution of the directory of a TIFF in dots per inch, if it has one with a unit."""
    unit = {2: 1.0, 3: 2.54}.get(exif.get(RESOLUTION_UNIT, 2))
    x, y = exif.get(X_RESOLUTION), exif.get(Y_RESOLUTION)
    if unit is None or not x or not y:
        return None
    return float(x) * unit, float(y) * unit


def tiff_arguments(metadata: Metadata) -> dict[str, Any]:
    """Arguments of tifffile's `imwrite`; `finish_tiff` must follow."""
    exif = load_exif(metadata.exif) if metadata.exif else {}
    tags: list[tuple[int, int, int, Any, bool]] = []
    for tag in sorted(TEXT_TAGS & set(exif)):
        text = str(exif[tag]).encode("latin-1", "replace") + b"\0"
        tags.append((tag, 2, len(text), text, True))
    for tag in (EXIF_IFD, GPS_IFD):
        if tag in exif:
            tags.append((tag - 1, 4, 1, PLACEHOLDER, True))  # becomes the entry of the directory, in its order
    arguments: dict[str, Any] = {"extratags": tags, "metadata": None, "software": False}
    if metadata.icc_profile:
        arguments["iccprofile"] = metadata.icc_profile
    if metadata.dpi:
        arguments |= {"resolution": metadata.dpi, "resolutionunit": "INCH"}
    return arguments


def finish_tiff(data: bytes, metadata: Metadata) -> bytes:
    """Append the EXIF and GPS directories to a little-endian TIFF and enter their places."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    if not metadata.exif:
        return data
    out = bytearray(data)
    exif = load_exif(metadata.exif)
    for tag in (EXIF_IFD, GPS_IFD):
        if tag not in exif:
            continue
        directory = ImageFileDirectory_v2(prefix=b"II")
        for key, value in exif.get_ifd(tag).items():
            directory[key] = _raw(value)
        place = out.find(struct.pack("<HHII", tag - 1, 4, 1, PLACEHOLDER))
        if place < 0:
            raise ValueError("a file of this size has no room for EXIF data")
        if len(out) % 2:
            out += b"\0"
        out[place : place + 12] = struct.pack("<HHII", tag, 4, 1, len(out))
        out += directory.tobytes(len(out))
    return bytes(out)
