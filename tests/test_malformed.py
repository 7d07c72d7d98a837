"""Malformed files: mutated headers and bodies of every format give an image or one sentence, and nothing else."""

from __future__ import annotations

import io
import os
import subprocess
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pnp_cli import InputError, files
from pnp_cli.images import Image, encode_image, read_image
from pnp_cli.metadata import Metadata

from .conftest import Run
from .helpers import installed_command
from .test_metadata import PROFILE, camera_exif

CASES = 300
"""Mutations of each seed file."""


def seed_files() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    pixels = rng.random((9, 11, 3), dtype=np.float32)
    full = Metadata(camera_exif(6).tobytes(), PROFILE, (300.0, 300.0))
    files = {
        "grey.png": encode_image(Image(pixels[:, :, :1]), "PNG"),
        "deep.png": encode_image(Image(pixels, "uint16", metadata=full), "PNG"),
        "photo.jpg": encode_image(Image(pixels, metadata=full), "JPEG"),
        "plain.tif": encode_image(Image(pixels, metadata=full), "TIFF"),
        "deep.tif": encode_image(Image(pixels, "uint16", pixels[:, :, 0], full), "TIFF"),
        "float.tif": encode_image(Image(pixels, "float32"), "TIFF"),
        "photo.webp": encode_image(Image(pixels, metadata=full), "WEBP"),
        "photo.bmp": encode_image(Image(pixels), "BMP"),
        "array.npy": encode_image(Image(pixels, "float32"), "NPY"),
    }
    return files


def flip(data: bytearray, rng: np.random.Generator) -> None:
    """Some bytes of the first kilobyte become others; small files are nothing but header."""
    for _ in range(int(rng.integers(1, 6))):
        data[int(rng.integers(min(len(data), 1000)))] = int(rng.integers(256))


def extremes(data: bytearray, rng: np.random.Generator) -> None:
    """A run of bytes becomes 0x00 or 0xFF: sizes of zero and of billions."""
    start = int(rng.integers(min(len(data), 300)))
    run = int(rng.integers(1, 9))
    data[start : start + run] = bytes([int(rng.choice([0, 255, 127]))]) * len(data[start : start + run])


def truncate(data: bytearray, rng: np.random.Generator) -> None:
    del data[int(rng.integers(len(data))) :]


def insert(data: bytearray, rng: np.random.Generator) -> None:
    start = int(rng.integers(len(data)))
    data[start:start] = rng.bytes(int(rng.integers(1, 20)))


MUTATIONS: list[Callable[[bytearray, np.random.Generator], None]] = [flip, extremes, truncate, insert]


@pytest.mark.parametrize("name", seed_files())
def test_mutated_files(name: str) -> None:
    content = seed_files()[name]
    rng = np.random.default_rng(sum(name.encode()))
    read = 0
    tracemalloc.start()
    for case in range(CASES):
        data = bytearray(content)
        MUTATIONS[case % len(MUTATIONS)](data, rng)
        start = time.monotonic()
        message = None
        try:
            image = read_image(bytes(data), name)
        except InputError as error:
            message = str(error)
        if message is None:
            read += 1
            assert image.pixels.ndim == 3
            assert np.isfinite(image.pixels).all()
        else:
            assert name in message
            assert "\n" not in message
        assert time.monotonic() - start < 10, "no hang"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2e9, "nothing is allocated for a size that a header only claims"
    assert read < CASES


def test_the_unharmed_files_are_read() -> None:
    for name, content in seed_files().items():
        image = read_image(content, name)
        turned = "EXIF orientation applied" in image.notes
        assert image.size == ((11, 9) if turned else (9, 11)), name


@pytest.mark.parametrize("suffix", ["png", "npy", "tif"])
def test_bombs_are_refused_before_decoding(pnp: Run, tmp_path: Path, suffix: str) -> None:
    """A small file of many pixels; --max-pixels lets it through."""
    bomb = tmp_path / f"bomb.{suffix}"
    bomb.write_bytes(encode_image(Image(np.zeros((600, 500, 1), np.float32)), suffix.upper().replace("TIF", "TIFF")))
    common = ("blur", bomb, "--disk", 1, "--bit-depth", 8, "--on-exists", "overwrite")
    small = pnp(*common, "--max-pixels", 100_000)
    assert small.returncode == 1
    assert "claims 300000 pixels, more than 100000" in small.stderr.decode()
    assert "--max-pixels" in small.stderr.decode()
    assert pnp(*common, "--max-pixels", 300_000).returncode == 0


def test_sizes_beyond_pillows_limit(tmp_path: Path) -> None:
    wide = Image(np.zeros((1, 10_000, 1), np.float32))
    for file_format in ("PNG", "TIFF", "NPY", "BMP"):
        data = encode_image(wide, file_format)
        assert read_image(data).size == (1, 10_000)
        with pytest.raises(InputError, match="claims 10000 pixels, more than 9999"):
            read_image(data, "wide", max_pixels=9_999)


def test_a_damaged_header_of_an_array(pnp: Run, tmp_path: Path) -> None:
    data = encode_image(Image(np.zeros((3, 4, 1), np.float32)), "NPY")
    (tmp_path / "a.npy").write_bytes(data.replace(b"'descr'", b"'nonsen"))
    result = pnp("blur", tmp_path / "a.npy", "--disk", 1)
    assert result.returncode == 1
    assert b"a.npy: its header is damaged" in result.stderr


PNG_HEAD = b"\x89PNG\r\n\x1a\n"


def test_files_without_end_are_refused_soon(pnp: Run, tmp_path: Path) -> None:
    """Devices, and a file that is larger than any image that may be read, though it takes no room on the disk."""
    (tmp_path / "sparse.png").write_bytes(PNG_HEAD)
    os.truncate(tmp_path / "sparse.png", 6 * 2**30)
    (tmp_path / "text.png").write_bytes(b"no picture")
    os.truncate(tmp_path / "text.png", 6 * 2**30)
    (tmp_path / "device.png").symlink_to("/dev/zero")
    blur = ("blur", "--disk", 1, "-o", "o.png")
    for arguments, words in (
        ((*blur, "sparse.png"), "sparse.png: holds more than 2930420384 bytes; if that is right, raise the limit"),
        ((*blur, "text.png"), "text.png: not an image file of a known kind"),
        ((*blur, "device.png"), "device.png: is a device, not a file"),
        (("kernel", "--kernel", "/dev/zero"), "/dev/zero: is a device, not a file"),
        (("kernel", "--kernel", "sparse.png"), "sparse.png: holds more than 1073741824 bytes; is it the right file?"),
    ):
        result = pnp(*arguments, cwd=tmp_path)
        assert result.returncode == 1
        assert words in result.stderr.decode()


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        ("yes", "standard input: not an image file of a known kind"),
        ("printf '\\211PNG\\r\\n\\032\\n'; cat /dev/zero", "standard input: holds more than 67428864 bytes"),
    ],
)
def test_pipes_without_end(photo_file: Path, stream: str, words: str) -> None:
    command = f"( {stream} ) | {installed_command()} psnr {photo_file} - --max-pixels 10000 > /dev/null"
    result = subprocess.run(["sh", "-c", command], capture_output=True, check=False, timeout=60)
    assert result.returncode == 1
    assert words in result.stderr.decode()


def test_a_file_that_is_read_in_pieces_and_one_in_one(tmp_path: Path) -> None:
    data = np.random.default_rng(0).bytes(files.HEAD + 7)
    (tmp_path / "large").write_bytes(data)
    assert files.read_bytes(tmp_path / "large") == data
    assert files.read_stream(io.BytesIO(data), "memory") == data
    with pytest.raises(InputError, match=f"holds more than {files.HEAD} bytes; so"):
        files.read_bytes(tmp_path / "large", files.Limit(files.HEAD, "so"))
