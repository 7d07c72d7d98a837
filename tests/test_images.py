"""Image files: exact round trips, what is refused, and that a file is whole or absent."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
import tifffile
from PIL import Image as Pillow

from pnp_cli import InputError, UsageError, images
from pnp_cli.images import Image, encode_image, read_image, write_image
from pnp_cli.metadata import Metadata

RNG = np.random.default_rng(0)


def levels(shape: tuple[int, ...], white: int) -> np.ndarray:
    return RNG.integers(0, white + 1, shape)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".webp", ".npy"])
@pytest.mark.parametrize("channels", [1, 3])
def test_8_bit_round_trip(tmp_path: Path, suffix: str, channels: int) -> None:
    samples = levels((7, 10, channels), 255)
    path = tmp_path / f"image{suffix}"
    write_image(Image((samples / 255).astype(np.float32)), path)
    back = read_image(path)
    assert back.depth == "uint8"
    expected = np.repeat(samples, 3, axis=2) if suffix == ".webp" and channels == 1 else samples  # WebP has no grey
    np.testing.assert_array_equal(np.rint(back.pixels * 255), expected)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".npy"])
@pytest.mark.parametrize("channels", [1, 3])
def test_16_bit_round_trip(tmp_path: Path, suffix: str, channels: int) -> None:
    samples = levels((7, 10, channels), 65535)
    path = tmp_path / f"image{suffix}"
    write_image(Image((samples / 65535).astype(np.float32), "uint16"), path)
    back = read_image(path)
    assert back.depth == "uint16"
    np.testing.assert_array_equal(np.rint(back.pixels.astype(float) * 65535), samples)


@pytest.mark.parametrize("suffix", [".tif", ".npy"])
def test_float_round_trip_does_not_clip(tmp_path: Path, suffix: str) -> None:
    pixels = RNG.normal(0.5, 0.5, (6, 5, 3)).astype(np.float32)
    assert pixels.min() < 0
    write_image(Image(pixels, "float32"), tmp_path / f"image{suffix}")
    back = read_image(tmp_path / f"image{suffix}")
    assert back.depth == "float32"
    np.testing.assert_array_equal(back.pixels, pixels)


def test_jpeg_is_close_and_keeps_exif(tmp_path: Path) -> None:
    y, x = np.mgrid[0:32, 0:40] / 40
    picture = Pillow.fromarray(np.stack([x, y, 0.5 + 0 * x], axis=2).__mul__(255).astype(np.uint8))
    exif = Pillow.Exif()
    exif[0x010E] = "a description"
    exif[0x0112] = 6  # to be shown turned by 90 degrees
    picture.save(tmp_path / "in.jpg", quality=95, exif=exif)
    image = read_image(tmp_path / "in.jpg")
    assert image.size == (40, 32)
    assert "EXIF orientation applied" in image.notes
    write_image(image, tmp_path / "out.jpg")
    with Pillow.open(tmp_path / "out.jpg") as back:
        assert back.getexif()[0x010E] == "a description"
        assert back.getexif().get(0x0112, 1) == 1
        np.testing.assert_allclose(np.asarray(back) / 255, image.pixels, atol=0.05)


def test_transparency_is_carried_along(tmp_path: Path) -> None:
    samples = levels((5, 6, 4), 255).astype(np.uint8)
    Pillow.fromarray(samples).save(tmp_path / "in.png")
    image = read_image(tmp_path / "in.png")
    assert image.pixels.shape == (5, 6, 3)
    write_image(image.with_pixels(1 - image.pixels), tmp_path / "out.png")
    back = np.asarray(Pillow.open(tmp_path / "out.png"))
    np.testing.assert_array_equal(back[:, :, 3], samples[:, :, 3])
    np.testing.assert_array_equal(back[:, :, :3], 255 - samples[:, :, :3])
    with pytest.raises(InputError, match="transparency"):
        encode_image(image, "JPEG")


YCBCR = pytest.param(
    "YCbCr",
    marks=pytest.mark.skipif(
        int(PIL.__version__.split(".")[0]) < 13, reason="older Pillow cannot read back the YCbCr TIFF that it writes"
    ),
)


@pytest.mark.parametrize("mode", ["1", "P", "CMYK", YCBCR])
def test_other_modes_are_converted_and_said(tmp_path: Path, mode: str) -> None:
    suffix = ".tif" if mode in ("CMYK", "YCbCr") else ".png"
    Pillow.fromarray(levels((8, 9, 3), 255).astype(np.uint8)).convert(mode).save(tmp_path / f"in{suffix}")
    image = read_image(tmp_path / f"in{suffix}")
    words = {"1": "black and white", "P": "a palette"}.get(mode, mode)
    assert any(f"converted from {words} to " in note for note in image.notes)
    with Pillow.open(tmp_path / f"in{suffix}") as picture:
        expected = np.asarray(picture.convert("L" if mode == "1" else "RGB")).astype(np.float32) / 255
    np.testing.assert_array_equal(np.squeeze(image.pixels), expected)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "1", "P", "CMYK", YCBCR])
def test_tiff_to_tiff(tmp_path: Path, mode: str) -> None:
    """The layout tags of the file that was read must not reach the file that is written."""
    picture = Pillow.fromarray(levels((8, 9, 4), 255).astype(np.uint8)).convert(mode)
    picture.save(tmp_path / "in.tif", description="a description")
    image = read_image(tmp_path / "in.tif")
    write_image(image, tmp_path / "out.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "out.tif").pixels, image.pixels)
    with Pillow.open(tmp_path / "out.tif") as back:
        assert back.tag_v2[270] == "a description"


def test_transparent_colour_and_camera_previews(tmp_path: Path) -> None:
    samples = levels((5, 6, 3), 255).astype(np.uint8)
    Pillow.fromarray(samples).save(tmp_path / "key.png", transparency=tuple(int(v) for v in samples[2, 3]))
    alpha = read_image(tmp_path / "key.png").alpha
    assert alpha is not None
    assert alpha[2, 3] == 0
    assert alpha.max() == 1
    first, second = (Pillow.fromarray(levels((16, 16, 3), 255).astype(np.uint8)) for _ in range(2))
    first.save(tmp_path / "camera.jpg", format="MPO", save_all=True, append_images=[second])
    image = read_image(tmp_path / "camera.jpg")
    assert "first picture" in image.notes[0]


def test_deep_tiff_keeps_its_profile_and_refuses_other_colour_spaces(tmp_path: Path) -> None:
    deep = levels((4, 5, 4), 65535).astype(np.uint16)
    tifffile.imwrite(tmp_path / "in.tif", deep[:, :, :3], photometric="rgb", iccprofile=b"profile")
    write_image(read_image(tmp_path / "in.tif"), tmp_path / "out.tif")
    with tifffile.TiffFile(tmp_path / "out.tif") as back:
        assert back.pages.first.tags["InterColorProfile"].value == b"profile"
    tifffile.imwrite(tmp_path / "cmyk.tif", deep, photometric="separated")
    with pytest.raises(InputError, match="SEPARATED"):
        read_image(tmp_path / "cmyk.tif")


def test_what_a_format_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="of this size"):
        encode_image(Image(np.zeros((1, 20_000, 1), np.float32)), "WEBP")
    with pytest.raises(InputError, match="cannot hold that much EXIF"):
        encode_image(Image(np.zeros((4, 4, 3), np.float32), metadata=Metadata(exif=b"x" * 70_000)), "JPEG")


def test_files_of_other_writers(tmp_path: Path) -> None:
    deep = levels((4, 5, 3), 65535).astype(np.uint16)
    tifffile.imwrite(tmp_path / "planar.tif", np.moveaxis(deep, 2, 0), planarconfig="separate", photometric="rgb")
    np.testing.assert_array_equal(np.rint(read_image(tmp_path / "planar.tif").pixels * 65535.0), deep)
    np.save(tmp_path / "big.npy", deep.astype(">u2"))
    np.testing.assert_array_equal(read_image(tmp_path / "big.npy").pixels, deep / np.float32(65535))
    np.save(tmp_path / "double.npy", deep / 65535)
    np.testing.assert_allclose(read_image(tmp_path / "double.npy").pixels, deep / 65535, atol=1e-7)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("planar", [False, True])
def test_further_channels_of_a_tiff(tmp_path: Path, dtype: type, channels: int, planar: bool) -> None:
    """An extra channel is the transparency at every depth, whatever the file calls it and however it is laid out."""
    samples = levels((20, 24, channels), np.iinfo(dtype).max).astype(dtype)
    tifffile.imwrite(
        tmp_path / "in.tif",
        np.moveaxis(samples, 2, 0) if planar else samples,
        planarconfig="separate" if planar else "contig",
        photometric="rgb" if channels == 4 else "minisblack",
        extrasamples=["unspecified"],
        compression="zlib",
        bigtiff=planar,
        byteorder=">",
    )
    image = read_image(tmp_path / "in.tif")
    assert image.alpha is not None
    found = np.concatenate([image.pixels, image.alpha[:, :, None]], axis=2)
    np.testing.assert_array_equal(found, samples / np.float32(np.iinfo(dtype).max))


@pytest.mark.parametrize(
    ("samples", "options", "words"),
    [
        (np.zeros((9, 9, 5), np.uint8), {"photometric": "rgb"}, "RGB with 5 channels"),
        (
            np.zeros((9, 9, 3), np.uint8),
            {"photometric": "minisblack", "planarconfig": "contig"},
            "grey with 3 channels",
        ),
        (np.zeros((9, 9, 4), np.uint8), {"photometric": "rgb", "extrasamples": ["assocalpha"]}, "multiplied"),
        (np.zeros((9, 9), np.int8), {}, "type int8"),
    ],
)
def test_ambiguous_tiffs_are_refused(tmp_path: Path, samples: np.ndarray, options: dict[str, Any], words: str) -> None:
    tifffile.imwrite(tmp_path / "in.tif", samples, **options)
    with pytest.raises(InputError, match=words):
        read_image(tmp_path / "in.tif")


def png(width: int, height: int, bits: int, colour: int, rows: bytes, *more: tuple[bytes, bytes]) -> bytes:
    """A PNG file by hand; `more` are chunks between its header and its rows, which begin with a filter byte each."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), *more, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, body) for kind, body in chunks)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_transparent_grey_level(bits: int) -> None:
    """The level that is transparent is scaled like the samples."""
    columns = 8 // bits
    values = [1 % 2**bits if i % 3 else 0 for i in range(columns)]
    byte = sum(value << (8 - bits * (i + 1)) for i, value in enumerate(values))
    image = read_image(png(columns, 1, bits, 0, bytes([0, byte]), (b"tRNS", b"\0\1")), "key.png")
    assert image.alpha is not None
    assert image.alpha[0].tolist() == [0 if value == 1 else 1 for value in values]
    np.testing.assert_allclose(image.pixels[0, :, 0], np.array(values) / (2**bits - 1))


def test_chunks_of_a_png_go_into_another(tmp_path: Path) -> None:
    """How its colours are meant, and its texts; `for_output` can strip them."""
    own = ((b"gAMA", struct.pack(">I", 100000)), (b"tEXt", b"Title\0A name"))
    for bits, sample in ((8, b"\x30"), (16, b"\x30\x31")):
        image = read_image(png(1, 1, bits, 0, b"\0" + sample, *own), "linear.png")
        write_image(image, tmp_path / "out.png")
        with Pillow.open(tmp_path / "out.png") as back:
            assert back.info["gamma"] == 1.0
            assert back.info["Title"] == "A name"
        np.testing.assert_array_equal(read_image(tmp_path / "out.png").pixels, image.pixels)
        write_image(image.for_output(strip=True), tmp_path / "out.png")
        with Pillow.open(tmp_path / "out.png") as back:
            assert not back.info


def png_16_bit_colour() -> bytes:
    return png(2, 1, 16, 2, b"\0" + bytes(range(12)))


def jpeg() -> bytes:
    return encode_image(Image(RNG.random((64, 64, 3), dtype=np.float32)), "JPEG")


def npy(array: np.ndarray) -> bytes:
    return encode_image(Image(array.astype(np.float32), "float32"), "NPY")


BAD = {
    "empty.png": (b"", "empty"),
    "text.png": (b"this is no picture", "not an image file"),
    "truncated.jpg": (jpeg()[:700], "not a readable image"),
    "truncated.png": (encode_image(Image(RNG.random((64, 64, 3), dtype=np.float32)), "PNG")[:3000], "not a readable"),
    "deep.png": (png_16_bit_colour()[:-20], "not a readable image"),
    "nan.npy": (npy(np.full((3, 3, 1), np.nan)), "the image contains NaN"),
    "infinite.npy": (npy(np.full((3, 3, 1), np.inf)), "the image contains NaN or inf"),
    "counts.npy": (npy(np.full((3, 3, 1), 200.0)), "white must be 1.0"),
    "zero.npy": (npy(np.zeros((0, 3, 3))), "no pixels"),
    "many.npy": (npy(np.zeros((3, 3, 7))), "1 to 4 channels"),
    "pickle.npy": (
        b"\x93NUMPY\x01\x00\x46\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }" + b" " * 20,
        "not",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_named_with_the_reason(tmp_path: Path, name: str) -> None:
    content, reason = BAD[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=reason) as caught:
        read_image(path)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nan_and_several_pages_in_a_tiff(tmp_path: Path) -> None:
    pixels = np.ones((4, 4), np.float32)
    tifffile.imwrite(tmp_path / "pages.tif", np.stack([pixels, pixels]), photometric="minisblack")
    with pytest.raises(InputError, match="several pages"):
        read_image(tmp_path / "pages.tif")
    pixels[1, 2] = np.nan
    tifffile.imwrite(tmp_path / "nan.tif", pixels)
    with pytest.raises(InputError, match="NaN"):
        read_image(tmp_path / "nan.tif")


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_image(tmp_path / "absent.png")
    with pytest.raises(InputError, match="is a folder"):
        read_image(tmp_path)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(b"precious")

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InputError, match="No space left"):
        write_image(Image(np.zeros((2, 2, 3), np.float32)), path)
    assert path.read_bytes() == b"precious"
    assert [p.name for p in tmp_path.iterdir()] == ["image.png"]


def test_unknown_suffix_and_impossible_depth(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.xyz"):
        write_image(Image(np.zeros((2, 2, 3), np.float32)), tmp_path / "a.xyz")
    with pytest.raises(InputError, match="16-bit"):
        write_image(Image(np.zeros((2, 2, 3), np.float32), "uint16"), tmp_path / "a.jpg")


def test_list_images(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "notes.txt", ".hidden.png", "sub/c.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [p.name for p in images.list_images(tmp_path)] == ["a.JPG", "b.png"]
    assert [p.name for p in images.list_images(tmp_path, recursive=True)] == ["a.JPG", "b.png", "c.tif"]
