"""What an image file carries besides its pixels, and how PNG and TIFF hold it where Pillow does not write them."""

from __future__ import annotations

import io
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

if TYPE_CHECKING:
    from PIL.Image import Exif
    from PIL.Image import Image as Pillow

ORIENTATION, X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 0x0112, 282, 283, 296
EXIF_IFD, GPS_IFD, INTEROP_IFD = 0x8769, 0x8825, 0xA005
DESCRIPTION, SOFTWARE, XMP, IMAGEJ = 270, 305, 700, 50839
PIXELS_ACROSS, PIXELS_DOWN = 0xA002, 0xA003

EXPOSURE_TAGS = {33434, 33437}
"""Exposure time and aperture, which cameras write (EXIF 2.3)."""

TEXT_TAGS = {270, 271, 272, 305, 306, 315, 33432}
"""Tags of a TIFF that describe the picture and not the layout of its file: description, camera, software, date,
artist, copyright."""

LAYOUT_TAGS = {*range(254, 260), 262, 263, 264, 265, 266, 273, 277, 278, 279, 280, 281, 284, *range(288, 293), 301, 317}
LAYOUT_TAGS |= {*range(318, 326), 330, 332, 333, 334, 336, 337, 338, 339, 340, 341, 342, 347, *range(512, 522)}
LAYOUT_TAGS |= {*range(529, 533), 34675}
"""Tags that describe how the pixels of the file they came from are stored."""

KEPT_CHUNKS = (b"gAMA", b"cHRM", b"sRGB", b"cICP", b"tEXt", b"zTXt", b"iTXt")
"""Chunks of a PNG that go as they are into another: how its colours are meant, and texts."""

TEXT_CHUNKS = {b"tEXt", b"zTXt", b"iTXt"}
LOST_CHUNKS = {b"bKGD": "the background colour is not kept", b"sBIT": "the numbers of significant bits are not kept"}
"""Chunks of a PNG that are of the samples as they were, and what to say of them."""

EXIF_TEXTS = (b"Raw profile type exif\0", b"Raw profile type APP1\0")
XMP_TEXT = b"XML:com.adobe.xmp\0"
LONGEST_TEXT = 2**25
"""Bytes of a profile or text in a PNG, decompressed."""

PLACEHOLDER = 0xFFFFFF00
"""Value of the entry before that of a directory; tifffile does not write entries of directories itself."""


@dataclass(frozen=True)
class Metadata:
    """EXIF data, ICC profile and XMP data as bytes (empty if there are none), and the resolution in dots per inch.

    `density` is the resolution of a TIFF in a unit of its own, such as the micrometres of a microscope, or of a PNG
    that tells the shape of its pixels by it; formats without room for it leave it out. `png_chunks` are those of a PNG
    that another PNG can hold; other formats leave them out.
    """

    exif: bytes = b""
    icc_profile: bytes = b""
    dpi: tuple[float, float] | None = None
    xmp: bytes = b""
    density: tuple[float, float] | None = None
    png_chunks: bytes = b""

    @property
    def kinds(self) -> str:
        """What there is besides the resolution, in words; empty if nothing."""
        parts = {"EXIF": self.exif, "ICC profile": self.icc_profile, "XMP": self.xmp}
        return " and ".join(name for name, value in parts.items() if value)

    def lost_in(self, file_format: str) -> tuple[str, ...]:
        """What a format has no room for and is not worth a refusal, in words."""
        kinds = {kind for kind, _ in png_chunks(bytes(8) + self.png_chunks)}
        colours = bool(kinds & {b"gAMA", b"cHRM", b"cICP"}) and b"sRGB" not in kinds and not self.icc_profile
        other = file_format != "PNG"
        room = file_format == "TIFF" or (file_format == "PNG" and bool(_shape_chunk(self)))
        lost = {
            "a resolution in a unit of its own": bool(self.density) and not room,
            "the resolution": bool(self.dpi) and file_format == "NPY",
            "the texts of a PNG": bool(kinds & TEXT_CHUNKS) and other,
            "what a PNG says of its colours": colours and other,
        }
        return tuple(words for words, true in lost.items() if true)

    def pillow_arguments(self, file_format: str) -> dict[str, Any]:
        """Arguments of Pillow's `save`; a PNG gets its XMP data from `text_chunks`."""
        fields: dict[str, Any] = {"exif": self.exif, "icc_profile": self.icc_profile, "dpi": self.dpi}
        if file_format != "PNG":
            fields["xmp"] = self.xmp
        if file_format == "WEBP" and self.dpi:
            fields["exif"] = self._exif_with_resolution()
        if file_format == "BMP" and not self.dpi:
            fields["dpi"] = (0, 0)  # unknown; Pillow would write 96
        return {name: value for name, value in fields.items() if value}

    def _exif_with_resolution(self) -> bytes:
        """EXIF data that hold the resolution, for a format without another place."""
        from PIL.TiffImagePlugin import IFDRational

        assert self.dpi is not None
        exif = load_exif(self.exif)
        for tag, value in zip((X_RESOLUTION, Y_RESOLUTION), self.dpi, strict=True):
            exif[tag] = IFDRational(round(1000 * value), 1000)
        exif[RESOLUTION_UNIT] = 2
        _make_writable(exif)
        return exif.tobytes()


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


def tells_exposure(exif: bytes) -> bool:
    """Whether EXIF data hold the exposure time or the aperture of a camera."""
    return not EXPOSURE_TAGS.isdisjoint(load_exif(exif).get_ifd(EXIF_IFD)) if exif else False


def exif_of(picture: Pillow) -> Exif:
    """EXIF data of a Pillow image; empty if damaged."""
    from PIL.Image import Exif

    try:
        return picture.getexif()
    except Exception:  # whatever the parser trips over; the pixels are still good
        return Exif()


def split(
    exif: Exif, icc_profile: bytes, dpi: tuple[float, float] | None, xmp: bytes, *, tiff: bool
) -> tuple[Metadata, int]:
    """Metadata to keep and the orientation (1 to 8), which is taken out. A TIFF's layout is left out."""
    orientation = exif.pop(ORIENTATION, 1)
    for tag, written in ((DESCRIPTION, '{"shape":'), (SOFTWARE, "tifffile.py")):
        if str(exif.get(tag, "")).startswith(written):
            del exif[tag]  # tifffile's, of the array and the program in the file it came from
    density = resolution_of(exif) if tiff and exif.get(RESOLUTION_UNIT, 2) == 1 else None
    if density == (1, 1):  # what tifffile writes where nothing is known
        density = None
    _make_writable(exif)
    for tag in list(exif):
        if tiff and tag not in TEXT_TAGS | {EXIF_IFD, GPS_IFD}:
            del exif[tag]
    if dpi is not None:
        dpi = (float(dpi[0]), float(dpi[1]))
        if not all(0 < value < 1e6 for value in dpi):
            dpi = None
    if orientation in range(5, 9):
        _swap(exif, X_RESOLUTION, Y_RESOLUTION)
        if isinstance(exif.get(EXIF_IFD), dict):
            _swap(exif[EXIF_IFD], PIXELS_ACROSS, PIXELS_DOWN)
    try:
        kept = exif.tobytes() if len(exif) else b""
    except Exception:  # entries that cannot be written again
        kept = b""
    if orientation not in range(1, 9):
        orientation = 1
    if orientation >= 5:
        dpi, density = dpi and dpi[::-1], density and density[::-1]
    return Metadata(kept, icc_profile, dpi, upright_xmp(xmp), density), orientation


def upright_xmp(xmp: bytes) -> bytes:
    """XMP data that say that the image is upright."""
    return re.sub(rb"""(tiff:Orientation(?:=["']|>)\s*)[2-8]""", rb"\g<1>1", xmp)


def _swap(entries: Any, one: int, other: int) -> None:
    if one in entries and other in entries:
        entries[one], entries[other] = entries[other], entries[one]


class _Text(str):
    """A text that becomes the bytes it was: Pillow reads texts as Latin-1 and writes all but ASCII as '?'."""

    def encode(self, encoding: str = "latin-1", errors: str = "replace") -> bytes:
        return super().encode("latin-1", "replace")


def _raw(value: Any) -> Any:
    return _Text(value) if isinstance(value, str) else value


def _make_writable(exif: Exif) -> None:
    """Texts and directories as Pillow writes them unharmed; directories without readable entries go."""
    for tag in list(exif):
        exif[tag] = _raw(exif[tag])
    for tag in (EXIF_IFD, GPS_IFD):
        entries = _directory(exif, tag) if tag in exif else {}
        if entries:
            exif[tag] = entries
        else:
            exif.pop(tag, None)


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
    """Kinds and bytes (with length and checksum) of the undamaged chunks of a PNG file before its end."""
    position = 8
    while position + 12 <= len(data):
        (length,) = struct.unpack(">I", data[position : position + 4])
        chunk = data[position : position + length + 12]
        kind, content, checksum = chunk[4:8], chunk[4:-4], chunk[-4:]
        if kind == b"IEND":
            return
        if len(chunk) == length + 12 and checksum == struct.pack(">I", zlib.crc32(content)):
            yield kind, chunk
        position += length + 12


def own_png_chunks(data: bytes) -> bytes:
    """The chunks of a PNG file that another can hold as they are, for an image that is shown upright.

    Texts that hold EXIF or XMP data are left out: these become such data proper.
    """
    return b"".join(
        chunk
        for kind, chunk in png_chunks(data)
        if kind in KEPT_CHUNKS and not chunk[8:].startswith((*EXIF_TEXTS, XMP_TEXT))
    )


def png_xmp(data: bytes) -> bytes:
    """XMP data of a PNG file; empty if there are none, or they are damaged."""
    for kind, chunk in png_chunks(data):
        if kind == b"iTXt" and chunk[8:].startswith(XMP_TEXT):
            try:
                _, _, text = chunk[8 + len(XMP_TEXT) + 2 : -4].split(b"\0", 2)
                compressed = chunk[8 + len(XMP_TEXT)]
                return zlib.decompressobj().decompress(text, LONGEST_TEXT) if compressed else text
            except (ValueError, zlib.error):
                return b""
    return b""


def png_notes(data: bytes) -> list[str]:
    """What no PNG gets of a PNG file, one phrase each."""
    kinds = {kind for kind, _ in png_chunks(data)}
    return [words for kind, words in LOST_CHUNKS.items() if kind in kinds]


def png_density(data: bytes, orientation: int) -> tuple[float, float] | None:
    """Resolution of a PNG file without a unit, for an image that is shown upright, if its pixels are not square."""
    for kind, chunk in png_chunks(data):
        if kind == b"pHYs" and len(chunk) == 21:
            across, down, unit = struct.unpack(">IIB", chunk[8:17])
            if unit == 0 and across and down and across != down:
                return (down, across) if orientation >= 5 else (across, down)
    return None


def text_chunks(metadata: Metadata) -> bytes:
    """The chunks that a PNG gets besides those that Pillow writes."""
    xmp = XMP_TEXT + bytes(4) + metadata.xmp  # not compressed, no language, no translation
    return (_chunk(b"iTXt", xmp) if metadata.xmp else b"") + _shape_chunk(metadata) + metadata.png_chunks


def _shape_chunk(metadata: Metadata) -> bytes:
    """The chunk for a resolution without a unit; empty if there is none, or a PNG cannot hold it."""
    if metadata.density is None or metadata.dpi:
        return b""
    if not all(float(value).is_integer() and 0 < value < 2**31 for value in metadata.density):
        return b""
    return _chunk(b"pHYs", struct.pack(">IIB", *map(int, metadata.density), 0))


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def insert_in_png(data: bytes, chunks: bytes) -> bytes:
    """A PNG file with chunks added after its header."""
    header_end = 8 + 25
    return data[:header_end] + chunks + data[header_end:]


def add_to_png(data: bytes, metadata: Metadata) -> bytes:
    """A PNG file with metadata added, in the chunks that Pillow would write."""
    from PIL import Image as Pillow

    buffer = io.BytesIO()
    Pillow.new("L", (1, 1)).save(buffer, "PNG", **metadata.pillow_arguments("PNG"))
    extra = [chunk for kind, chunk in png_chunks(buffer.getvalue()) if kind in (b"iCCP", b"pHYs", b"eXIf")]
    return insert_in_png(data, b"".join(extra) + text_chunks(metadata))


# ------------------------------------------------------------------------------------- resolution


def exif_dpi(exif: Exif) -> tuple[float, float] | None:
    """Resolution in EXIF data or the directory of a TIFF in dots per inch, if there is one with a unit."""
    unit, resolution = {2: 1.0, 3: 2.54}.get(exif.get(RESOLUTION_UNIT, 2)), resolution_of(exif)
    return (resolution[0] * unit, resolution[1] * unit) if unit and resolution else None


def resolution_of(exif: Exif) -> tuple[float, float] | None:
    """Resolution in EXIF data or the directory of a TIFF in their own unit."""
    x, y = exif.get(X_RESOLUTION), exif.get(Y_RESOLUTION)
    try:
        return (float(x), float(y)) if x and y and 0 < float(x) < 1e9 and 0 < float(y) < 1e9 else None
    except (TypeError, ValueError, ZeroDivisionError):  # damaged entries
        return None


def dpi_of(picture: Pillow, exif: Exif) -> tuple[float, float] | None:
    """Resolution of a Pillow image in dots per inch: that of the file, or else of its EXIF data."""
    if picture.format not in ("JPEG", "MPO"):
        return picture.info.get("dpi") or exif_dpi(exif)
    # Of a JPEG, Pillow makes one up where there is none, or takes one side of the EXIF data for both.
    unit = {1: 1.0, 2: 2.54}.get(picture.info.get("jfif_unit", 0))
    density = picture.info.get("jfif_density")
    return (density[0] * unit, density[1] * unit) if unit and density else exif_dpi(exif)


# ------------------------------------------------------------------------------------------- TIFF


def exif_of_tags(tags: Any) -> Exif:
    """What is kept of the directory of a TIFF that tifffile has read, for those that Pillow cannot read."""
    from PIL.Image import Exif
    from PIL.TiffImagePlugin import IFDRational

    exif = Exif()
    for tag in tags:
        if tag.code in (X_RESOLUTION, Y_RESOLUTION):
            exif[tag.code] = IFDRational(*tag.value)
        elif tag.code in (ORIENTATION, RESOLUTION_UNIT):
            exif[tag.code] = int(tag.value)
        elif tag.code in TEXT_TAGS and tag.code not in exif:  # the first of several descriptions is the picture's
            exif[tag.code] = tag.value
    return exif


def tiff_arguments(metadata: Metadata) -> dict[str, Any]:
    """Arguments of tifffile's `imwrite`; `finish_tiff` must follow."""
    from PIL.TiffImagePlugin import IFDRational

    exif = load_exif(metadata.exif) if metadata.exif else {}
    tags: list[tuple[int, int, int, Any, bool]] = []
    elsewhere = {*LAYOUT_TAGS, X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT, EXIF_IFD, GPS_IFD, INTEROP_IFD}
    for tag in sorted(set(exif) - elsewhere):
        value = exif[tag]
        if isinstance(value, str):
            text = value.encode("latin-1", "replace") + b"\0"
            tags.append((tag, 2, len(text), text, True))
        elif isinstance(value, bytes):
            tags.append((tag, 1, len(value), value, True))
        elif isinstance(value, IFDRational):
            tags.append((tag, 5, 1, (value.numerator, value.denominator), True))
        elif isinstance(value, int):
            tags.append((tag, 4, 1, value, True))
        elif isinstance(value, tuple) and all(isinstance(entry, int) and entry >= 0 for entry in value):
            tags.append((tag, 4, len(value), value, True))
    for tag in (EXIF_IFD, GPS_IFD):
        if tag in exif:
            tags.append((tag - 1, 4, 1, PLACEHOLDER, True))  # becomes the entry of the directory, in its order
    arguments: dict[str, Any] = {"extratags": tags, "metadata": None, "software": False}
    if metadata.xmp:
        tags.append((XMP, 1, len(metadata.xmp), metadata.xmp, True))
    if metadata.icc_profile:
        arguments["iccprofile"] = metadata.icc_profile
    if metadata.dpi or metadata.density:
        unit = "INCH" if metadata.dpi else "NONE"
        arguments |= {"resolution": metadata.dpi or metadata.density, "resolutionunit": unit}
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
