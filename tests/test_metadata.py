"""What files carry besides pixels survives a round trip through every format that can hold it."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import exifread
import numpy as np
import pytest
import tifffile
from PIL import Image as Pillow
from PIL import ImageCms, ImageOps
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import IFDRational

from pnp_cli import InputError
from pnp_cli.images import Image, encode_image, lost_in, read_image, write_image
from pnp_cli.metadata import Metadata, apply_orientation, insert_in_png

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SUFFIXES = [".jpg", ".png", ".tif", ".webp"]


def camera_exif(orientation: int = 1) -> Pillow.Exif:
    exif = Pillow.Exif()
    exif[271] = "A camera maker"
    exif[270] = "a picture with an ä".encode("latin-1")  # as text Pillow would write a question mark
    exif[0x0112] = orientation
    exif[0x8769] = {33434: IFDRational(1, 125), 37386: IFDRational(50), 36867: "2026:01:02 03:04:05"}
    exif[0x8825] = {1: "N", 2: (48.0, 8.0, 14.0), 3: "E", 4: (11.0, 34.0, 31.0)}
    return exif


def picture(mode: str = "RGB") -> Pillow.Image:
    y, x = np.mgrid[0:24, 0:40]
    samples = np.stack([6 * x, 10 * y, 120 + 0 * x, 255 - x], axis=2).astype(np.uint8)
    return Pillow.fromarray(samples).convert(mode)


def make(path: Path, mode: str = "RGB", orientation: int = 1) -> Path:
    picture(mode).save(path, exif=camera_exif(orientation).tobytes(), icc_profile=PROFILE, dpi=(300, 300))
    return path


def tags(path: Path) -> dict[str, str]:
    """EXIF by a reader that is neither Pillow nor ours; of a WebP, whose chunk it does not find, from that chunk."""
    if path.suffix == ".webp":
        with Pillow.open(path) as picture:
            path = path.with_suffix(".exif.tif")
            path.write_bytes(picture.info.get("exif", b"").removeprefix(b"Exif\0\0"))
    with path.open("rb") as stream:
        found = exifread.process_file(stream, details=False)
    return {name: str(value) for name, value in found.items()}


@pytest.mark.parametrize("before", SUFFIXES)
@pytest.mark.parametrize("after", SUFFIXES)
def test_exif_profile_and_resolution_survive(tmp_path: Path, before: str, after: str) -> None:
    source, target = make(tmp_path / f"in{before}"), tmp_path / f"out{after}"
    write_image(read_image(source), target)
    found = tags(target)
    assert found["Image Make"] == "A camera maker"
    if before != ".tif":  # of which Pillow itself, which made it here, writes a question mark
        assert b"a picture with an \xe4" in read_image(target).metadata.exif
    assert found["EXIF ExposureTime"] == "1/125"
    assert found["EXIF DateTimeOriginal"] == "2026:01:02 03:04:05"
    assert found["GPS GPSLatitudeRef"] == "N"
    assert found["GPS GPSLatitude"] == "[48, 8, 14]"
    with Pillow.open(target) as back:
        assert back.info["icc_profile"] == PROFILE
        assert back.size == (40, 24)
    if before != ".webp":  # for which Pillow, which made it here, wrote none
        dpi = read_image(target).metadata.dpi
        assert dpi is not None
        assert tuple(round(v) for v in dpi) == (300, 300)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_orientation_is_applied_once(tmp_path: Path, suffix: str, orientation: int) -> None:
    source, target = make(tmp_path / f"in{suffix}", orientation=orientation), tmp_path / f"out{suffix}"
    image = read_image(source)
    write_image(image, target)
    with Pillow.open(source) as raw:
        upright = ImageOps.exif_transpose(raw)
        np.testing.assert_array_equal(np.rint(image.pixels * 255), np.asarray(upright))
    with Pillow.open(target) as back:
        assert back.getexif().get(0x0112, 1) == 1
        assert back.size == upright.size
    assert ("EXIF orientation applied" in image.notes) == (orientation != 1)


def test_orientations_against_pillow() -> None:
    for orientation in range(1, 9):
        exif = Pillow.Exif()
        exif[0x0112] = orientation
        buffer = io.BytesIO()
        picture().save(buffer, "PNG", exif=exif)
        expected = np.asarray(ImageOps.exif_transpose(Pillow.open(buffer)))
        np.testing.assert_array_equal(apply_orientation(np.asarray(picture()), orientation), expected)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bits_with_everything(tmp_path: Path, suffix: str, channels: int) -> None:
    samples = np.random.default_rng(0).integers(0, 65536, (6, 7, channels)).astype(np.float32) / 65535
    colours = channels - (channels in (2, 4))
    alpha = samples[:, :, colours] if colours < channels else None
    metadata = Metadata(camera_exif().tobytes(), PROFILE, (254.0, 254.0))
    path = tmp_path / f"deep{suffix}"
    write_image(Image(samples[:, :, :colours], "uint16", alpha, metadata), path)
    back = read_image(path)
    assert back.depth == "uint16"
    np.testing.assert_array_equal(back.pixels, samples[:, :, :colours])
    if alpha is not None:
        np.testing.assert_array_equal(back.alpha, alpha)
    assert back.metadata.icc_profile == PROFILE
    assert back.metadata.dpi == pytest.approx((254, 254), rel=1e-3)
    assert tags(path)["EXIF ExposureTime"] == "1/125"
    again = tmp_path / f"again{suffix}"
    write_image(back, again)
    assert read_image(again).metadata == back.metadata


def test_deep_tiff_is_turned(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).integers(0, 65536, (6, 9, 3)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "in.tif", samples, photometric="rgb", extratags=[(274, 3, 1, 6, True)])
    image = read_image(tmp_path / "in.tif")
    np.testing.assert_array_equal(np.rint(image.pixels * 65535), np.rot90(samples, -1))
    assert image.notes == ("EXIF orientation applied",)


def test_transparent_colour_of_a_deep_png(tmp_path: Path) -> None:
    import struct
    import zlib

    samples = np.random.default_rng(0).integers(0, 65536, (3, 4, 3)).astype(np.float32) / 65535
    samples[1, 2] = np.array([1, 2, 3]) / 65535
    data = encode_image(Image(samples, "uint16"), "PNG")
    body = b"tRNS" + struct.pack(">HHH", 1, 2, 3)
    chunk = struct.pack(">I", 6) + body + struct.pack(">I", zlib.crc32(body))
    image = read_image(data[:33] + chunk + data[33:])
    assert image.depth == "uint16"
    assert image.alpha is not None
    assert image.alpha[1, 2] == 0
    assert image.alpha.sum() == 11


def test_what_cannot_be_kept_is_refused_unless_stripped(tmp_path: Path) -> None:
    image = read_image(make(tmp_path / "in.jpg"))
    for file_format in ("BMP", "NPY"):
        with pytest.raises(InputError, match="EXIF and ICC profile"):
            encode_image(image, file_format)
        assert encode_image(image.for_output(strip=True), file_format)
    stripped = tmp_path / "bare.jpg"
    write_image(image.for_output(strip=True), stripped)
    assert tags(stripped) == {}
    with Pillow.open(stripped) as back:
        assert "icc_profile" not in back.info
    with pytest.raises(InputError, match="cannot hold float"):
        encode_image(Image(image.pixels, "float32"), "PNG")
    assert encode_image(Image(image.pixels, "float32").for_output("uint16"), "PNG")


def test_damaged_exif_does_not_lose_the_picture(tmp_path: Path) -> None:
    picture().save(tmp_path / "in.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xffgarbage")
    image = read_image(tmp_path / "in.jpg")
    assert image.size == (24, 40)
    write_image(image, tmp_path / "out.jpg")


def chunk(kind: bytes, content: bytes, checksum: int | None = None) -> bytes:
    checksum = zlib.crc32(kind + content) if checksum is None else checksum
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


@pytest.mark.parametrize(
    "damage",
    [
        lambda png: png[:-12] + chunk(b"tEXt", b"a\0text")[:9],
        lambda png: png[:-12] + chunk(b"tEXt", b"a\0text", checksum=5) + png[-12:],
        lambda png: png + chunk(b"tEXt", b"a\0text"),
    ],
    ids=["cut", "wrong checksum", "behind the end"],
)
def test_a_damaged_text_does_not_damage_the_output(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    picture("RGB").save(tmp_path / "x.png")
    (tmp_path / "x.png").write_bytes(damage((tmp_path / "x.png").read_bytes()))
    write_image(read_image(tmp_path / "x.png"), tmp_path / "y.png")
    with Pillow.open(tmp_path / "y.png") as written:
        np.testing.assert_array_equal(written, picture("RGB"))


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("form", ['<x tiff:Orientation="6" a="b"/>', "<x><tiff:Orientation>6</tiff:Orientation></x>"])
def test_an_orientation_in_xmp_is_applied_once(tmp_path: Path, compressed: bool, form: str) -> None:
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", form, zip=compressed)
    info.add_text("Title", "kept")
    picture("RGB").save(tmp_path / "x.png", pnginfo=info)
    for before, after in (("x", "y"), ("y", "z")):
        write_image(read_image(tmp_path / f"{before}.png"), tmp_path / f"{after}.png")
        with Pillow.open(tmp_path / f"{after}.png") as written:
            assert written.info["Title"] == "kept"
            assert written.info["XML:com.adobe.xmp"] == form.replace("6", "1")
            np.testing.assert_array_equal(written, picture("RGB").transpose(Pillow.Transpose.ROTATE_270))


def test_the_size_in_exif_data_is_turned_with_the_image(tmp_path: Path) -> None:
    exif = camera_exif(6)
    exif[0x8769] = {40962: 40, 40963: 24}
    picture("RGB").save(tmp_path / "x.jpg", exif=exif.tobytes())
    write_image(read_image(tmp_path / "x.jpg"), tmp_path / "y.jpg")
    with Pillow.open(tmp_path / "y.jpg") as written:
        assert written.size == (24, 40)
        assert dict(written.getexif().get_ifd(0x8769)) == {40962: 24, 40963: 40}


def test_cmyk_loses_the_profile_of_its_colour_space(tmp_path: Path) -> None:
    make(tmp_path / "in.jpg", mode="CMYK")
    image = read_image(tmp_path / "in.jpg")
    assert image.metadata.icc_profile == b""
    assert "converted from CMYK to RGB" in image.notes


def test_big_tiff(tmp_path: Path) -> None:
    """Its directory is not that of a classic TIFF, but says the same."""
    samples = np.arange(60, dtype=np.uint16).reshape(4, 5, 3) * 1000
    tifffile.imwrite(
        tmp_path / "in.tif",
        samples,
        bigtiff=True,
        photometric="rgb",
        description="a description",
        resolution=(300, 200),
        resolutionunit="INCH",
        extratags=[(274, 3, 1, 6, True)],
    )
    image = read_image(tmp_path / "in.tif")
    assert image.size == (5, 4)
    assert image.metadata.dpi == (200, 300)
    write_image(image, tmp_path / "out.tif")
    with tifffile.TiffFile(tmp_path / "out.tif") as back:
        tags = back.pages.first.tags
        assert tags["ImageDescription"].value == "a description"
        assert tags["XResolution"].value[0] / tags["XResolution"].value[1] == 200
        np.testing.assert_array_equal(back.asarray(), np.rot90(samples, -1))


def test_resolution_is_neither_invented_nor_averaged(tmp_path: Path) -> None:
    exif = camera_exif()
    picture().save(tmp_path / "none.jpg", exif=exif.tobytes())
    exif[282], exif[283], exif[296] = IFDRational(300), IFDRational(200), 2
    picture().save(tmp_path / "exif.jpg", exif=exif.tobytes())
    exif[274] = 6
    picture().save(tmp_path / "turned.jpg", exif=exif.tobytes())
    for name, dpi in (("none", None), ("exif", (300, 200)), ("turned", (200, 300))):
        image = read_image(tmp_path / f"{name}.jpg")
        assert image.metadata.dpi == dpi
        for suffix in (".png", ".webp", ".tif", ".jpg", ".bmp"):
            write_image(image.for_output(strip=True) if suffix == ".bmp" else image, tmp_path / f"out{suffix}")
            found = read_image(tmp_path / f"out{suffix}").metadata.dpi
            if dpi is None or suffix == ".bmp":
                assert found is None
            else:
                assert found == pytest.approx(dpi, rel=1e-3)


def test_every_exif_tag_that_is_no_layout_reaches_a_tiff(tmp_path: Path) -> None:
    exif = camera_exif()
    exif[0x4746] = 4  # Rating
    exif[0x9C9B] = "Title".encode("utf-16le")  # XPTitle
    picture().save(tmp_path / "in.jpg", exif=exif.tobytes())
    write_image(read_image(tmp_path / "in.jpg"), tmp_path / "out.tif")
    with tifffile.TiffFile(tmp_path / "out.tif") as back:
        tags = back.pages.first.tags
        assert tags[0x4746].value == 4
        assert bytes(tags[0x9C9B].value) == "Title".encode("utf-16le")
        assert tags["Make"].value == "A camera maker"


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf xmp:Rating="4" tiff:Orientation="1">\xc3\xa4</rdf></x:xmpmeta>'


@pytest.mark.parametrize("source", SUFFIXES)
@pytest.mark.parametrize("target", SUFFIXES)
def test_xmp_goes_from_format_to_format(tmp_path: Path, source: str, target: str) -> None:
    path, extra = tmp_path / f"in{source}", {"xmp": XMP}
    if source == ".png":
        info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", XMP.decode())
        extra = {"pnginfo": info}
    elif source == ".tif":
        extra = {"tiffinfo": {700: XMP}}
    picture().save(path, **extra)  # type: ignore[arg-type]
    image = read_image(path)
    assert image.metadata.xmp == XMP
    write_image(image, tmp_path / f"out{target}")
    with Pillow.open(tmp_path / f"out{target}") as written:
        found = written.info.get("xmp")
        assert found == XMP
    write_image(image.for_output(strip=True), tmp_path / f"bare{target}")
    assert XMP not in (tmp_path / f"bare{target}").read_bytes()


def test_xmp_behind_the_pixels_of_a_png(tmp_path: Path) -> None:
    """Where programs put it that add it to a finished file."""
    path = tmp_path / "x.png"
    picture().save(path, exif=camera_exif().tobytes())
    data = path.read_bytes()
    content = b"iTXtXML:com.adobe.xmp\0" + bytes(4) + XMP
    chunk = struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))
    path.write_bytes(data[:-12] + chunk + data[-12:])
    assert read_image(path).metadata.xmp == XMP


def test_xmp_of_an_odd_type(tmp_path: Path) -> None:
    """As a text it is read; a number is none, and no number of bytes to make up."""
    text = (700, 2, len(XMP) + 1, XMP + b"\0", True)
    for tag, xmp in ((text, XMP), ((700, 3, 1, 300, True), b""), ((700, 4, 1, 2 * 10**8, True), b"")):
        tifffile.imwrite(tmp_path / "x.tif", np.zeros((4, 5), np.uint8), metadata=None, extratags=[tag])
        assert read_image(tmp_path / "x.tif").metadata.xmp == xmp


def test_no_resolution_is_none(tmp_path: Path) -> None:
    """tifffile writes 1 in no unit where nothing is known."""
    write_image(Image(np.zeros((4, 5, 1), np.float32), "float32"), tmp_path / "x.tif")
    assert lost_in(read_image(tmp_path / "x.tif"), "NPY") == ()


def test_a_resolution_in_a_unit_of_its_own(tmp_path: Path) -> None:
    """Pixels per micrometre, as ImageJ writes them, not square ones, of a picture that is turned."""
    path = tmp_path / "in.tif"
    unit = {"resolution": (3.2, 1.6), "resolutionunit": "NONE", "description": "ImageJ=1.54f\nunit=um\n"}
    tifffile.imwrite(path, np.zeros((4, 5), np.uint16), metadata=None, extratags=[(274, 3, 1, 6, True)], **unit)
    image = read_image(path)
    assert image.metadata.dpi is None
    write_image(image, tmp_path / "out.tif")
    with tifffile.TiffFile(tmp_path / "out.tif") as back:
        tags = back.pages.first.tags
        assert tags["ResolutionUnit"].value == 1
        across, down = (n / d for n, d in (tags["XResolution"].value, tags["YResolution"].value))
        assert (across, down) == pytest.approx((1.6, 3.2))
        assert "unit=um" in tags["ImageDescription"].value
    assert any("resolution" in note for note in lost_in(image, "PNG"))
    assert lost_in(image, "TIFF") == ()


def test_what_is_not_kept_is_said(tmp_path: Path) -> None:
    picture().save(tmp_path / "x.jpg", comment="a comment")
    assert "the comment is not kept" in read_image(tmp_path / "x.jpg").notes
    labels = {"Info": "Leica 63x"}
    tifffile.imwrite(tmp_path / "x.tif", np.zeros((4, 5), np.uint16), imagej=True, metadata=labels)
    assert any("ImageJ" in note for note in read_image(tmp_path / "x.tif").notes)
    np.save(tmp_path / "x.npy", np.zeros((4, 5), np.float16))
    assert "stored as floats of 32 bits, not 16" in read_image(tmp_path / "x.npy").notes


def test_texts_of_a_png_that_no_other_format_holds_are_said(tmp_path: Path) -> None:
    texts = PngInfo()
    texts.add_text("Title", "a title")
    texts.add(b"gAMA", struct.pack(">I", 100_000))
    picture().save(tmp_path / "x.png", pnginfo=texts)
    image = read_image(tmp_path / "x.png")
    for file_format in ("JPEG", "TIFF", "WEBP", "BMP", "NPY"):
        said = [
            f"{file_format} has no room for {words}"
            for words in ("the texts of a PNG", "what a PNG says of its colours")
        ]
        assert list(lost_in(image, file_format)) == said
    assert lost_in(image, "PNG") == ()
    picture().save(tmp_path / "plain.png", icc_profile=PROFILE)
    assert lost_in(read_image(tmp_path / "plain.png"), "JPEG") == ()


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("orientation", [1, 6])
def test_the_shape_of_pixels_is_kept(tmp_path: Path, bits: int, orientation: int) -> None:
    """A resolution without a unit, and what belongs to the samples as they were is said."""
    extra = PngInfo()
    extra.add(b"bKGD", bytes(6))
    extra.add(b"sBIT", bytes([5, 5, 5]))
    picture().save(tmp_path / "x.png", pnginfo=extra, exif=camera_exif(orientation).tobytes())
    shape = b"pHYs" + struct.pack(">IIB", 3, 2, 0)
    chunk = struct.pack(">I", 9) + shape + struct.pack(">I", zlib.crc32(shape))
    data = insert_in_png((tmp_path / "x.png").read_bytes(), chunk)
    image = read_image(data).for_output("uint16" if bits == 16 else None)
    assert {"the background colour is not kept", "the numbers of significant bits are not kept"} <= set(image.notes)
    assert all("not kept" not in note for note in image.for_output(strip=True).notes)
    write_image(image, tmp_path / "y.png")
    with Pillow.open(tmp_path / "y.png") as back:
        assert back.info["aspect"] == ((3, 2) if orientation == 1 else (2, 3))
    write_image(image, tmp_path / "y.tif")
    assert read_image(tmp_path / "y.tif").metadata.density == image.metadata.density
    assert lost_in(image, "JPEG") == ("JPEG has no room for a resolution in a unit of its own",)


def test_the_program_that_wrote_the_input_is_no_metadata(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "x.tif", np.zeros((4, 5), np.float32))
    image = read_image(tmp_path / "x.tif")
    assert image.metadata.kinds == ""
    write_image(image, tmp_path / "x.npy")


def test_a_large_profile_survives_in_a_png(tmp_path: Path) -> None:
    profile = PROFILE + np.random.default_rng(0).bytes(2**21)
    profile = struct.pack(">I", len(profile)) + profile[4:]
    picture().save(tmp_path / "x.jpg", icc_profile=profile)
    write_image(read_image(tmp_path / "x.jpg"), tmp_path / "x.png")
    assert read_image(tmp_path / "x.png").metadata.icc_profile == profile


def test_damaged_metadata_say_nothing_by_themselves(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    picture().save(tmp_path / "x.tif", exif=camera_exif().tobytes())
    data = bytearray((tmp_path / "x.tif").read_bytes())
    place = data.find(struct.pack("<HHI", 36867, 2, 20))
    assert place > 0
    data[place + 4 : place + 8] = struct.pack("<I", 2**20)
    (tmp_path / "x.tif").write_bytes(data)
    read_image(tmp_path / "x.tif")
    assert not recwarn.list
