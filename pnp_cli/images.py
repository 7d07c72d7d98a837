"""Image files: the only place that knows pixel formats.

A path or a byte stream becomes an `Image` (float pixels in [0, 1] plus what the file carried), and an
`Image` becomes a file by writing a temporary file and renaming it, so that a file is whole or absent.
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from .errors import InputError

Depth = Literal["uint8", "uint16", "float32"]
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

FLOAT_FORMATS = ("TIFF", "NPY")
"""Formats that hold float samples, and 16-bit ones of any number of channels."""

MAX_SIDE = {"JPEG": 65500, "WEBP": 16383}
"""Longest side that a format holds, where that is less than anyone has."""

DESCRIPTIVE_TAGS = {270, 271, 272, 305, 306, 315, 33432, 34665, 34853}
"""Tags of a TIFF that describe the picture and not the layout of its file: description, camera, software,
date, artist, copyright, EXIF and GPS."""

MAX_FLOAT = 4.0
"""Float images beyond ±4 are surely not on the [0, 1] scale (8- or 16-bit counts in a float file)."""


@dataclass(frozen=True)
class Image:
    """Pixels and what came with them.

    Attributes
    ----------
    pixels : float32 array (H, W, C), C = 1 (grey) or 3 (RGB), white is 1.0.
    depth : how the samples are stored in the file.
    alpha : float32 array (H, W) in [0, 1], or None; carried along unchanged.
    metadata : Pillow save arguments that keep EXIF, ICC profile and resolution.
    notes : what reading changed, one phrase each, for the report.
    """

    pixels: Array
    depth: Depth = "uint8"
    alpha: Array | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.pixels.shape[0], self.pixels.shape[1]

    def with_pixels(self, pixels: npt.ArrayLike, depth: Depth | None = None) -> Image:
        """The same image with other pixels (H, W, C), and another depth if given."""
        array = np.asarray(pixels, dtype=np.float32)
        return replace(self, pixels=array, depth=depth or self.depth)


# ---------------------------------------------------------------------------------------- reading


def read_image(source: str | Path | bytes, name: str | None = None) -> Image:
    """Read an image file, or the bytes of one.

    Parameters
    ----------
    source : path, or the content of an image file.
    name : what to call it in messages; the path by default.

    Raises
    ------
    InputError
        With one sentence that names the file and the reason.
    """
    name = name or (str(source) if not isinstance(source, bytes) else "standard input")
    data = source if isinstance(source, bytes) else _read_bytes(Path(source), name)
    if not data:
        raise InputError(f"{name}: the file is empty")
    try:
        if data[:6] == b"\x93NUMPY":
            image = _from_array(np.load(io.BytesIO(data), allow_pickle=False), name)
        else:
            image = _read_pillow(data, name)
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(f"{name}: not enough memory to decode the image") from error
    except Exception as error:  # decoders raise anything on malformed input
        raise InputError(f"{name}: not a readable image ({_first_line(error)})") from error
    if 0 in image.pixels.shape:
        raise InputError(f"{name}: the image has no pixels")
    return image


def _read_bytes(path: Path, name: str) -> bytes:
    try:
        if path.is_dir():
            raise InputError(f"{name}: is a folder, not an image file")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{name}: no such file") from error
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror or error})") from error


def _read_pillow(data: bytes, name: str) -> Image:
    from PIL import Image as Pillow
    from PIL import ImageOps, UnidentifiedImageError

    if data[:8] == b"\x89PNG\r\n\x1a\n" and len(data) > 25 and data[24] == 16 and data[25] != 0:
        raise InputError(
            f"{name}: 16-bit colour PNG is not supported (it would lose half its depth); convert it to a 16-bit TIFF"
        )
    if data[:4] in (b"II*\0", b"MM\0*"):
        deep = _read_deep_tiff(data, name)
        if deep is not None:
            return deep
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Pillow.DecompressionBombWarning)
            picture: Pillow.Image = Pillow.open(io.BytesIO(data))
            picture.load()
    except UnidentifiedImageError as error:
        raise InputError(f"{name}: not an image file of a known format") from error
    except (Pillow.DecompressionBombWarning, Pillow.DecompressionBombError) as error:
        raise InputError(f"{name}: the image is too large to be decoded safely") from error
    notes: list[str] = []
    if getattr(picture, "n_frames", 1) > 1:
        if picture.format != "MPO":
            raise InputError(f"{name}: has several pages or frames; split it into single images first")
        notes.append("the first picture of the file")  # cameras append a preview to their JPEGs
    metadata = {k: picture.info[k] for k in ("icc_profile", "dpi") if picture.info.get(k)}
    exif = picture.getexif()
    if exif.get(0x0112, 1) != 1:
        picture = ImageOps.exif_transpose(picture)
        exif = picture.getexif()
        notes.append("EXIF orientation applied")
    if picture.format == "TIFF":  # its EXIF holds the layout of the file as well
        for tag in set(exif) - DESCRIPTIVE_TAGS:
            del exif[tag]
    if len(exif):
        metadata["exif"] = exif.tobytes()

    if "transparency" in picture.info and picture.mode in ("L", "RGB"):
        picture = picture.convert(picture.mode + "A")
    mode = picture.mode
    if mode in ("I;16", "I;16B", "I;16L", "I;16N"):
        array = np.asarray(picture).astype(np.float32) / 65535
        return Image(array[:, :, None], "uint16", None, metadata, tuple(notes))
    if mode in ("F", "I"):
        return replace(_from_array(np.asarray(picture), name), metadata=metadata)
    if mode not in ("L", "RGB", "LA", "RGBA"):
        has_alpha = "transparency" in picture.info or mode in ("PA", "La", "RGBa")
        target = "L" if mode == "1" else ("RGBA" if has_alpha else "RGB")
        if mode != "1":
            metadata.pop("icc_profile", None)  # it described the other colour space
        notes.append(f"converted from {mode} to {target}")
        picture = picture.convert(target)
    array = np.asarray(picture).astype(np.float32) / 255
    if array.ndim == 2:
        return Image(array[:, :, None], "uint8", None, metadata, tuple(notes))
    colours = array.shape[2] - (array.shape[2] in (2, 4))
    alpha = array[:, :, colours] if array.shape[2] > colours else None
    return Image(array[:, :, :colours], "uint8", alpha, metadata, tuple(notes))


def _read_deep_tiff(data: bytes, name: str) -> Image | None:
    """Read a TIFF of more than 8 bits with tifffile; None if it is for Pillow."""
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        if len(tiff.pages) > 1:
            raise InputError(f"{name}: has several pages; split it into single images first")
        page = tiff.pages.first
        if page.dtype is None or page.dtype.itemsize == 1:
            return None
        if page.photometric not in (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB):
            space = tifffile.PHOTOMETRIC(page.photometric).name
            raise InputError(f"{name}: is a deep TIFF in the colour space {space}; convert it to RGB or grey first")
        array = tiff.asarray()
        if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and array.ndim == 3:
            array = np.moveaxis(array, 0, -1)
        profile = page.tags.get("InterColorProfile")
    return replace(_from_array(array, name), metadata={"icc_profile": profile.value} if profile else {})


def _from_array(array: npt.NDArray[Any], name: str) -> Image:
    """Image of an array (H, W) or (H, W, C): unsigned integers by their range, floats as they are."""
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 2, 3, 4):
        raise InputError(
            f"{name}: has shape {array.shape}; expected (height, width) or (height, width, channels) "
            "with 1 to 4 channels"
        )
    depth: Depth
    if array.dtype == np.uint8 or array.dtype == np.bool_:
        depth, white = "uint8", 255.0 if array.dtype == np.uint8 else 1.0
    elif array.dtype == np.uint16:
        depth, white = "uint16", 65535.0
    elif array.dtype.kind == "f":
        depth, white = "float32", 1.0
        if not np.isfinite(array).all():
            raise InputError(f"{name}: the image contains NaN or infinite values; replace them first")
        largest = np.abs(array).max(initial=0)
        if largest > MAX_FLOAT:
            raise InputError(
                f"{name}: float values reach {largest:.4g}, but white must be 1.0; divide by the white level first"
            )
    else:
        raise InputError(f"{name}: samples of type {array.dtype} are not supported; use uint8, uint16 or float")
    pixels = (array / white).astype(np.float32)
    colours = pixels.shape[2] - (pixels.shape[2] in (2, 4))
    alpha = pixels[:, :, colours] if pixels.shape[2] > colours else None
    return Image(pixels[:, :, :colours], depth, alpha)


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0][:200]


# ---------------------------------------------------------------------------------------- writing


def format_of(path: str | Path) -> str:
    """Format that the suffix of `path` names.

    Raises
    ------
    InputError
        If the suffix is not one of `FORMATS`.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        known = " ".join(FORMATS)
        raise InputError(f"{path}: cannot write files ending in '{suffix}'; use one of {known}")
    return FORMATS[suffix]


def natural_suffix(image: Image) -> str:
    """Suffix of a lossless format that keeps the depth of `image`."""
    deep = image.depth == "float32" or (image.depth == "uint16" and image.pixels.shape[2] == 3)
    return ".tif" if deep else ".png"


def require_format(image: Image, file_format: str, name: str = "output") -> None:
    """Raise `InputError` if `encode_image` would, so that nobody works in vain."""
    deep_grey_png = file_format == "PNG" and image.pixels.shape[2] == 1 and image.alpha is None
    if image.depth == "uint16" and file_format not in FLOAT_FORMATS and not deep_grey_png:
        raise InputError(f"{name}: {file_format} cannot hold 16-bit samples of this image; write a .tif")
    if image.alpha is not None and file_format in ("JPEG", "BMP"):
        raise InputError(f"{name}: {file_format} cannot hold the transparency of this image; write a .png")
    if max(image.size) > MAX_SIDE.get(file_format, max(image.size)):
        raise InputError(f"{name}: {file_format} cannot hold images of this size; write a .png or .tif")


def encode_image(image: Image, file_format: str, name: str = "output") -> bytes:
    """Bytes of an image file.

    Values are clipped to [0, 1] and rounded for integer depths. Float pixels are stored as they are in
    TIFF and NPY and as 8 bits elsewhere.

    Raises
    ------
    InputError
        If the format cannot hold the image without loss that was not asked for.
    """
    require_format(image, file_format, name)
    planes = image.pixels
    if image.alpha is not None:
        planes = np.concatenate([planes, image.alpha[:, :, None]], axis=2)
    depth = image.depth
    if depth == "float32" and file_format not in FLOAT_FORMATS:
        depth = "uint8"
    samples: npt.NDArray[Any] = planes
    if depth != "float32":
        white = 255 if depth == "uint8" else 65535
        samples = np.rint(np.clip(planes, 0, 1) * np.float32(white)).astype(depth)
    if samples.shape[2] == 1:
        samples = samples[:, :, 0]

    buffer = io.BytesIO()
    if file_format == "NPY":
        np.save(buffer, samples)
    elif file_format == "TIFF" and depth != "uint8":
        import tifffile

        colour = samples.ndim == 3 and samples.shape[2] >= 3
        photometric = "rgb" if colour else "minisblack"
        extra = ["unassalpha"] if image.alpha is not None else None
        tifffile.imwrite(
            buffer, samples, photometric=photometric, extrasamples=extra, iccprofile=image.metadata.get("icc_profile")
        )
    else:
        _encode_pillow(samples, file_format, image, buffer, name)
    return buffer.getvalue()


def _encode_pillow(samples: npt.NDArray[Any], file_format: str, image: Image, buffer: io.BytesIO, name: str) -> None:
    from PIL import Image as Pillow

    picture = Pillow.fromarray(np.ascontiguousarray(samples))
    lossless: dict[str, dict[str, Any]] = {"WEBP": {"lossless": True}, "TIFF": {"compression": "tiff_adobe_deflate"}}
    options = {"quality": 95} if file_format == "JPEG" else lossless.get(file_format, {})
    try:
        picture.save(buffer, format=file_format, **options, **image.metadata)
    except (ValueError, OSError) as error:  # metadata that the format has no room for
        raise InputError(f"{name}: cannot be written as {file_format} ({_first_line(error)})") from error


def write_image(image: Image, path: str | Path, file_format: str | None = None) -> None:
    """Write `image` to `path`: whole, or not at all.

    Raises
    ------
    InputError
        If the format cannot hold the image or the file cannot be written.
    """
    path = Path(path)
    write_bytes(path, encode_image(image, file_format or format_of(path), str(path)))


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file atomically: a temporary file in the same folder, then a rename; folders are made.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    path = Path(path)
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.stem[:40]}.", suffix=".part", dir=path.parent)
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


# ---------------------------------------------------------------------------------------- folders


def list_images(folder: str | Path, recursive: bool = False) -> list[Path]:
    """Image files of a folder by name, sorted; hidden files are left out."""
    pattern = "**/*" if recursive else "*"
    return sorted(
        p
        for p in Path(folder).glob(pattern)
        if p.suffix.lower() in FORMATS and not p.name.startswith(".") and p.is_file()
    )
