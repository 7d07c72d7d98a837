"""Image files: the only place that knows pixel formats.

A path or a byte stream becomes an `Image` (float pixels in [0, 1] plus what the file carried), and an `Image`
becomes the bytes of a file, at the depth it had. A depth, a transparency, EXIF data or a profile that a format cannot
hold is refused, never dropped.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import struct
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from . import metadata as meta
from .errors import InputError, UsageError
from .files import Limit, read_bytes, write_bytes
from .jpeg import JpegRounding, rounding_of
from .metadata import Metadata

Depth = Literal["uint8", "uint16", "float32"]

WHITES: dict[Depth, float] = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}
"""The sample that is white, by depth."""

MODES = {
    "1": "black and white",
    "L": "grey",
    "P": "a palette",
    "PA": "a palette with alpha",
    "La": "grey with premultiplied alpha",
    "RGBa": "RGB with premultiplied alpha",
    "RGB": "RGB",
    "RGBA": "RGB with alpha",
}
"""What Pillow's modes are called in notes, where their names do not say it."""

PART = 2**20
"""Pixels that are made samples at a time: beside large images is no room for another copy of them."""

Array = npt.NDArray[np.floating[Any]]

FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
    ".webp": "WEBP",
    ".npy": "NPY",
}
"""File suffixes that are read and written, and their formats."""

PILLOW_FORMATS = ("PNG", "JPEG", "MPO", "TIFF", "BMP", "WEBP")
"""What Pillow is to decode, and nothing else that it knows."""

FLOAT_FORMATS = ("TIFF", "NPY")
"""Formats that hold float samples."""

DEEP_FORMATS = ("PNG", *FLOAT_FORMATS)
"""Formats that hold 16-bit samples."""

CLASSIC_TIFF, BIG_TIFF = (b"II*\0", b"MM\0*"), (b"II+\0", b"MM\0+")
"""First bytes of TIFF files."""

BEGINNINGS = (b"\x89PNG", b"\xff\xd8", b"II", b"MM", b"BM", b"RIFF", b"\x93NUMPY")
"""First bytes of all files that are read."""

BYTES_PER_PIXEL, BYTES_BESIDE = 32, 2**26
"""Bytes that an image file may have: of four doubles for each pixel, and of metadata."""

BARE_FORMATS = ("BMP", "NPY")
"""Formats that hold neither EXIF data nor an ICC profile."""

MAX_SIDE = {"JPEG": 65500, "WEBP": 16383}
"""Longest side that a format holds, where that is less than anyone has."""

LONGEST_SEGMENT = 65533 - 29
"""Bytes of EXIF or XMP data that a JPEG holds."""

MAX_FLOAT = 4.0
"""Float images beyond ±4 are surely not on the [0, 1] scale (8- or 16-bit counts in a float file)."""


MAX_PIXELS = 89_478_485
"""Images of more pixels are refused unless asked for: a small file may claim any size. Pillow's own limit."""


@dataclass(frozen=True)
class Image:
    """Pixels and what came with them.

    Attributes
    ----------
    pixels : float32 array (H, W, C), C = 1 (grey) or 3 (RGB), white is 1.0. One that was read is a view of planes
        (C, H, W), and not contiguous.
    depth : how the samples are stored in the file.
    alpha : float32 array (H, W) in [0, 1], or None; carried along unchanged.
    metadata : EXIF data, ICC profile and resolution of the file.
    notes : what reading changed, one phrase each, for the report.
    jpeg : how the file rounded these pixels if it is a JPEG, or None.
    photograph : whether its EXIF data hold the exposure of a camera.
    """

    pixels: Array
    depth: Depth = "uint8"
    alpha: Array | None = None
    metadata: Metadata = field(default_factory=Metadata)
    notes: tuple[str, ...] = ()
    jpeg: JpegRounding | None = None
    photograph: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.pixels.shape[0], self.pixels.shape[1]

    @property
    def kind(self) -> str:
        """Size and colours in words, as in "640x480 in colour"."""
        height, width, channels = self.pixels.shape
        return f"{width}x{height} in {'grey' if channels == 1 else 'colour'}"

    def for_output(self, depth: Depth | None = None, strip: bool = False) -> Image:
        """The same pixels to be stored with another depth, if given, or without metadata and notes on these."""
        if strip:
            notes = tuple(note for note in self.notes if not note.endswith("not kept"))
            return replace(self, depth=depth or self.depth, metadata=Metadata(), notes=notes)
        return replace(self, depth=depth or self.depth)

    def with_pixels(self, pixels: npt.ArrayLike) -> Image:
        """The same image with other pixels (H, W, C)."""
        return replace(self, pixels=np.asarray(pixels, dtype=np.float32), jpeg=None)


# ---------------------------------------------------------------------------------------- reading


def read_image(source: str | Path | bytes, name: str | None = None, max_pixels: int = MAX_PIXELS) -> Image:
    """Read an image file, or the bytes of one.

    Parameters
    ----------
    source : path, or the content of an image file.
    name : what to call it in messages; the path by default.
    max_pixels : height times width of the largest image that is decoded.

    Raises
    ------
    InputError
        With one sentence that names the file and the reason.
    """
    name = name or (str(source) if not isinstance(source, bytes) else "standard input")
    data = source if isinstance(source, bytes) else read_bytes(source, file_limit(max_pixels))
    if not data:
        raise InputError(f"{name}: the file is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged metadata
            if data[:6] == b"\x93NUMPY":
                image = _read_npy(data, name, max_pixels)
            elif data[:4] in (*CLASSIC_TIFF, *BIG_TIFF):
                image = _read_tiff(data, name, max_pixels) or _read_pillow(data, name, max_pixels)
            else:
                image = _read_pillow(data, name, max_pixels)
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(f"{name}: not enough memory to decode the image") from error
    except Exception as error:  # decoders raise anything on malformed input
        reason = f"not a readable image ({_first_line(error)}); it may be damaged, save or download it again"
        raise InputError(f"{name}: {reason}") from error
    return replace(image, photograph=meta.tells_exposure(image.metadata.exif))


def _require_pixels(size: tuple[int, ...], name: str, max_pixels: int) -> None:
    pixels = math.prod(size)
    if pixels > max_pixels:
        raise InputError(f"{name}: claims {pixels} pixels, more than {max_pixels}; {RAISE_LIMIT}")


RAISE_LIMIT = "if that is right, raise the limit of pixels (--max-pixels)"


def file_limit(max_pixels: int = MAX_PIXELS) -> Limit:
    """How much is read of a file for an image of at most so many pixels."""
    return Limit(BYTES_PER_PIXEL * max_pixels + BYTES_BESIDE, RAISE_LIMIT, lambda head: head.startswith(BEGINNINGS))


def _read_npy(data: bytes, name: str, max_pixels: int) -> Image:
    stream = io.BytesIO(data)
    major, _ = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
    try:
        shape, _, dtype = read_header(stream)
    except Exception as error:  # a header is parsed as Python
        raise InputError(f"{name}: its header is damaged; save the array again") from error
    _require_pixels(shape[:2], name, max_pixels)
    if not dtype.hasobject and math.prod(shape) * dtype.itemsize > len(data):
        raise InputError(f"{name}: not a readable image (it is shorter than its header says); save it again")
    return _from_array(np.load(io.BytesIO(data), allow_pickle=False), name)


_pillow_limit = threading.Lock()


@contextlib.contextmanager
def _no_pillow_limit() -> Iterator[None]:
    """Pillow's limits are globals that would refuse what was asked for; ours is checked before any decoding.

    A profile or text may be as large as a JPEG holds, which may become a PNG.
    """
    from PIL import Image as Pillow
    from PIL import PngImagePlugin

    with _pillow_limit:
        before = Pillow.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK
        Pillow.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = None, meta.LONGEST_TEXT
        try:
            yield
        finally:
            Pillow.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = before


@_no_pillow_limit()
def _read_pillow(data: bytes, name: str, max_pixels: int) -> Image:
    from PIL import Image as Pillow
    from PIL import UnidentifiedImageError

    try:
        picture: Pillow.Image = Pillow.open(io.BytesIO(data))
    except UnidentifiedImageError as error:
        raise InputError(f"{name}: not an image file of a known kind; convert it to PNG or TIFF first") from error
    if picture.format not in PILLOW_FORMATS:
        raise InputError(f"{name}: {picture.format} files are not read; convert it to PNG or TIFF first")
    _require_pixels(picture.size, name, max_pixels)
    kept, orientation = _metadata_of(picture)
    if picture.format == "TIFF":  # Pillow itself turns these
        picture.getexif()[meta.ORIENTATION] = orientation
    picture.load()
    notes: list[str] = ["the comment is not kept"] if picture.format == "JPEG" and "comment" in picture.info else []
    if getattr(picture, "n_frames", 1) > 1:
        if picture.format != "MPO":
            raise InputError(f"{name}: has several pages or frames; split it into single images first")
        notes.append("the first picture of the file")  # cameras append a preview to their JPEGs
    rounding = rounding_of(picture)
    bits = data[24] if picture.format == "PNG" else 8
    if bits == 16:
        import imagecodecs  # Pillow decodes 16-bit colours to 8 bits

        image = _from_array(imagecodecs.png_decode(data), name)
    else:
        key = picture.info.get("transparency")
        if bits < 8 and isinstance(key, int) and picture.mode in ("1", "L"):
            level = min(key * (255 // (2**bits - 1)), 255)  # Pillow scales the samples, and lately this of one bit
            picture = picture.convert("L")
            picture.info["transparency"] = level
        image = _from_picture(picture, notes)
    if picture.format == "PNG":
        own, density = meta.own_png_chunks(data), meta.png_density(data, orientation)
        kept = replace(kept, xmp=meta.upright_xmp(meta.png_xmp(data)), density=density, png_chunks=own)
        notes += meta.png_notes(data)
    image = replace(image, metadata=kept, notes=tuple(notes), jpeg=rounding)
    return _upright(image, orientation, turned=picture.format == "TIFF")


def _metadata_of(picture: Any) -> tuple[Metadata, int]:
    """What to keep of a Pillow image besides its pixels, and its orientation, which is taken out of it."""
    exif, tiff = meta.exif_of(picture), picture.format == "TIFF"
    dpi = meta.exif_dpi(exif) if tiff else meta.dpi_of(picture, exif)
    profile = picture.info.get("icc_profile") or b""
    if picture.mode not in ("1", "L", "LA", "RGB", "RGBA", "P", "PA", "I;16", "La", "RGBa"):
        profile = b""  # it describes the colour space that the pixels are converted from
    return meta.split(exif, profile, dpi, _bytes(picture.info.get("xmp")), tiff=tiff)


def _bytes(value: Any) -> bytes:
    """A value that should be bytes."""
    if isinstance(value, str):
        value = value.encode("utf-8", "replace")
    return value if isinstance(value, bytes) else b""


def _upright(image: Image, orientation: int, turned: bool = False) -> Image:
    """The image as it is to be shown; `turned` if the decoder has done it."""
    if orientation == 1:
        return image
    image = replace(image, notes=(*image.notes, "EXIF orientation applied"))
    if turned:
        return image
    alpha = None if image.alpha is None else meta.apply_orientation(image.alpha, orientation)
    pixels = meta.apply_orientation(image.pixels, orientation)
    jpeg = None if image.jpeg is None else image.jpeg.upright(orientation, image.size)
    return replace(image, pixels=pixels, alpha=alpha, jpeg=jpeg)


def _from_picture(picture: Any, notes: list[str]) -> Image:
    """8-bit pixels of a Pillow image; adds to `notes` what had to be converted."""
    if "transparency" in picture.info and picture.mode in ("L", "RGB"):
        picture = picture.convert(picture.mode + "A")
    mode = picture.mode
    if mode not in ("L", "RGB", "LA", "RGBA"):
        has_alpha = "transparency" in picture.info or mode in ("PA", "La", "RGBa")
        target = "L" if mode == "1" else ("RGBA" if has_alpha else "RGB")
        notes.append(f"converted from {MODES.get(mode, mode)} to {MODES[target]}")
        picture = picture.convert(target)
    return _from_array(np.asarray(picture), "")


def _read_tiff(data: bytes, name: str, max_pixels: int) -> Image | None:
    """Read a TIFF of grey or RGB samples with tifffile; None if it is for Pillow, which converts other colours."""
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        if len(tiff.pages) > 1:
            raise InputError(f"{name}: has several pages; split it into single images first")
        page = tiff.pages.first
        _require_pixels((page.imagelength, page.imagewidth), name, max_pixels)
        grey = page.photometric == tifffile.PHOTOMETRIC.MINISBLACK
        if not grey and page.photometric != tifffile.PHOTOMETRIC.RGB:
            if page.dtype is None or page.dtype.itemsize == 1:
                return None
            space = tifffile.PHOTOMETRIC(page.photometric).name
            raise InputError(f"{name}: is a deep TIFF in the colour space {space}; convert it to RGB or grey first")
        if page.dtype is None or page.bitspersample < 8:
            return None
        if page.bitspersample not in (8, 16, 32, 64):
            raise InputError(f"{name}: has {page.bitspersample} bits per sample; convert it to 8, 16 or 32 bits first")
        if tifffile.EXTRASAMPLE.ASSOCALPHA in page.extrasamples:
            raise InputError(f"{name}: its colours are multiplied by the alpha channel; save it with straight alpha")
        if page.samplesperpixel - (1 if grey else 3) not in (0, 1):
            kind = "grey" if grey else "RGB"
            raise InputError(
                f"{name}: is {kind} with {page.samplesperpixel} channels; convert it to {kind}, or {kind} and alpha"
            )
        if len(page.dataoffsets) < math.prod(page.chunked):
            raise InputError(f"{name}: is not whole, parts of the image are missing; save it again")
        array = page.asarray()
        if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and array.ndim == 3:
            array = np.moveaxis(array, 0, -1)
        profile = page.tags.get("InterColorProfile")
        xmp = page.tags.get(meta.XMP)
        big = data[:4] in BIG_TIFF
        exif = meta.exif_of_tags(page.tags) if big else meta.load_exif(data)
        lost = big and any(tag in page.tags for tag in (meta.EXIF_IFD, meta.GPS_IFD))
        tables = meta.IMAGEJ in page.tags
    image = _from_array(array, name)
    colours, dpi = profile.value if profile else b"", meta.exif_dpi(exif)
    kept, orientation = meta.split(exif, colours, dpi, _bytes(xmp.value) if xmp else b"", tiff=True)
    gone = {"EXIF directories of a BigTIFF": lost, "ImageJ's information, overlays and colour tables": tables}
    notes = (*image.notes, *(f"{what} are not kept" for what, there in gone.items() if there))
    return _upright(replace(image, metadata=kept, notes=notes), orientation)


def _from_array(array: npt.NDArray[Any], name: str) -> Image:
    """Image of an array (H, W) or (H, W, C): unsigned integers by their range, floats as they are."""
    if not array.size:
        raise InputError(f"{name}: the image has no pixels")
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 2, 3, 4):
        raise InputError(
            f"{name}: has shape {array.shape}; expected (height, width) or (height, width, channels) "
            "with 1 to 4 channels"
        )
    depth: Depth
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    bits = 8 * array.dtype.itemsize
    notes = (f"stored as floats of 32 bits, not {bits}",) if array.dtype.kind == "f" and bits != 32 else ()
    if array.dtype == np.uint8 or array.dtype == np.bool_:
        depth = "uint8"
    elif array.dtype == np.uint16:
        depth = "uint16"
    elif array.dtype.kind == "f":
        depth = "float32"
        if not np.isfinite(array).all():
            raise InputError(f"{name}: the image contains NaN or infinite values; replace them first")
        largest = np.abs(array).max(initial=0)
        if largest > MAX_FLOAT:
            raise InputError(
                f"{name}: float values reach {largest:.4g}, but white must be 1.0; divide by the white level first"
            )
    else:
        raise InputError(f"{name}: samples of type {array.dtype} are not supported; use uint8, uint16 or float")
    planes = np.empty((array.shape[2], *array.shape[:2]), np.float32)  # in memory as tensors have them
    np.divide(np.moveaxis(array, 2, 0), 1.0 if array.dtype == np.bool_ else WHITES[depth], out=planes)
    colours = len(planes) - (len(planes) in (2, 4))
    alpha = planes[colours] if len(planes) > colours else None
    return Image(np.moveaxis(planes[:colours], 0, 2), depth, alpha, notes=notes)


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0][:200]


# ---------------------------------------------------------------------------------------- writing


def format_of(path: str | Path) -> str:
    """Format that the suffix of `path` names.

    Raises
    ------
    UsageError
        If the suffix is not one of `FORMATS`.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        known = " ".join(FORMATS)
        raise UsageError(f"{path}: cannot write files ending in '{suffix}'; use one of {known}")
    return FORMATS[suffix]


def natural_suffix(image: Image) -> str:
    """Suffix of a lossless format that keeps the depth of `image`."""
    return ".tif" if image.depth == "float32" else ".png"


def require_format(image: Image, file_format: str, name: str = "output") -> None:
    """Raise `InputError` if `encode_image` would, so that nobody works in vain."""
    if image.depth == "uint16" and file_format not in DEEP_FORMATS:
        raise InputError(
            f"{name}: {file_format} cannot hold 16-bit samples; write a .png or .tif, or store 8 bits (--bit-depth 8)"
        )
    if image.depth == "float32" and file_format not in FLOAT_FORMATS:
        raise InputError(
            f"{name}: {file_format} cannot hold float samples; write a .tif, or store 8 or 16 bits (--bit-depth)"
        )
    if image.alpha is not None and file_format in ("JPEG", "BMP"):
        raise InputError(f"{name}: {file_format} cannot hold the transparency of this image; write a .png")
    if image.metadata.kinds and file_format in BARE_FORMATS:
        kinds = image.metadata.kinds
        other = natural_suffix(image)
        raise InputError(
            f"{name}: {file_format} cannot hold the {kinds} of this image; write a {other}, or do without (--strip)"
        )
    if file_format == "JPEG" and max(len(image.metadata.exif), len(image.metadata.xmp)) > LONGEST_SEGMENT:
        raise InputError(f"{name}: JPEG cannot hold that much EXIF or XMP data; write a .png, or do without (--strip)")
    if max(image.size) > MAX_SIDE.get(file_format, max(image.size)):
        raise InputError(f"{name}: {file_format} cannot hold images of this size; write a .png or .tif")


def lost_in(image: Image, file_format: str) -> tuple[str, ...]:
    """What the format has no room for and is not worth a refusal, one phrase each."""
    lost = [f"{file_format} has no room for {words}" for words in image.metadata.lost_in(file_format)]
    if image.pixels.shape[2] == 1 and file_format == "WEBP":
        lost.append("WEBP has no grey, so it becomes RGB")
    return tuple(lost)


def encode_image(image: Image, file_format: str, name: str = "output", quality: int = 95) -> bytes:
    """Bytes of an image file.

    Values are clipped to [0, 1] and rounded for integer depths; floats are stored as they are. `quality` (1 to 100)
    is for JPEG.

    Raises
    ------
    InputError
        If the format cannot hold the image.
    """
    require_format(image, file_format, name)
    samples = _samples_of(image)
    try:
        if file_format == "NPY":
            return _encode_npy(samples)
        if file_format == "TIFF":
            return _encode_tiff(samples, image)
        if file_format == "PNG" and image.depth == "uint16":
            import imagecodecs  # Pillow writes no 16-bit colours

            return meta.add_to_png(bytes(imagecodecs.png_encode(samples)), image.metadata)
        data = _encode_pillow(samples, file_format, image.metadata, quality)
        return meta.insert_in_png(data, meta.text_chunks(image.metadata)) if file_format == "PNG" else data
    except (ValueError, OSError, struct.error) as error:  # metadata that the format has no room for
        raise InputError(f"{name}: cannot be written as {file_format} ({_first_line(error)})") from error


def _samples_of(image: Image) -> npt.NDArray[Any]:
    """What a file holds of an image: (H, W) or (H, W, C), in this order in memory."""
    height, width = image.size
    colours = image.pixels.shape[2]
    samples = np.empty((height, width, colours + (image.alpha is not None)), image.depth)
    rows = -(-PART // width)
    for part in (slice(top, top + rows) for top in range(0, height, rows)):
        values = image.pixels[part]
        if image.alpha is not None:
            values = np.dstack([values, image.alpha[part]])
        if image.depth != "float32":
            values = np.clip(values, 0, 1) * np.float32(WHITES[image.depth])
            np.rint(values, out=values)
        samples[part] = values
    return samples[:, :, 0] if samples.shape[2] == 1 else samples


def _encode_npy(samples: npt.NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, samples)
    return buffer.getvalue()


def _encode_tiff(samples: npt.NDArray[Any], image: Image) -> bytes:
    import tifffile

    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer,
        samples,
        byteorder="<",
        photometric="rgb" if image.pixels.shape[2] == 3 else "minisblack",
        extrasamples=["unassalpha"] if image.alpha is not None else None,
        compression=None if image.depth == "float32" else "adobe_deflate",
        **meta.tiff_arguments(image.metadata),
    )
    return meta.finish_tiff(buffer.getvalue(), image.metadata)


def _encode_pillow(samples: npt.NDArray[Any], file_format: str, metadata: Metadata, quality: int) -> bytes:
    from PIL import Image as Pillow

    options: dict[str, dict[str, Any]] = {
        "JPEG": {"quality": quality, "subsampling": 0 if quality >= 90 else 2},
        "WEBP": {"lossless": True, "exact": True},  # exact: colours under full transparency, too
    }
    buffer = io.BytesIO()
    arguments = options.get(file_format, {}) | metadata.pillow_arguments(file_format)
    Pillow.fromarray(samples).save(buffer, format=file_format, **arguments)
    return buffer.getvalue()


def write_image(image: Image, path: str | Path) -> None:
    """Write `image` to `path`, in the format of its suffix: whole, or not at all.

    Raises
    ------
    InputError
        If the format cannot hold the image or the file cannot be written.
    """
    path = Path(path)
    write_bytes(path, encode_image(image, format_of(path), str(path)))


def list_images(folder: str | Path, recursive: bool = False, closed: list[Path] | None = None) -> list[Path]:
    """Image files of a folder by name, sorted; hidden files and folders are left out, links to folders not followed.

    Parameters
    ----------
    folder : its path.
    recursive : whether to search below it, too.
    closed : takes the folders that cannot be read.

    Raises
    ------
    InputError
        If a folder cannot be read and there is no `closed`.
    """

    def note(error: OSError) -> None:
        if closed is None:
            raise InputError(f"{error.filename}: cannot be read ({error.strerror})") from error
        closed.append(Path(error.filename))

    found: list[Path] = []
    for place, below, names in os.walk(folder, onerror=note):
        below[:] = [name for name in below if recursive and not name.startswith(".")]
        paths = [Path(place) / name for name in names if not name.startswith(".")]
        found += [p for p in paths if p.suffix.lower() in FORMATS and _may_be_file(p)]
    return sorted(found)


def _may_be_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # reading it will say why
        return True
