"""What a JPEG file says of its rounding, against the errors that the files of another program have."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow
from scipy.fft import dctn

from pnp_cli import read_image
from pnp_cli.images import Image
from pnp_cli.jpeg import SIDE, YCBCR, JpegRounding
from pnp_cli.metadata import apply_orientation

ROUNDING = 2 / 255
"""More than rounding the pixels to 8 bits does to a coefficient of a block."""


def compress(pixels: np.ndarray, orientation: int = 1, **options: Any) -> Image:
    """8-bit pixels as a JPEG file of Pillow's, read."""
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Pillow.fromarray(pixels).save(buffer, "JPEG", exif=exif.tobytes(), **options)
    return read_image(buffer.getvalue())


def noise(*shape: int, deviation: float = 25) -> np.ndarray:
    """Pixels around mid-grey that need no clipping."""
    values = np.random.default_rng(0).normal(127, deviation, shape)
    return values.clip(40, 215).astype(np.uint8)


def blocks(errors: np.ndarray, rounding: JpegRounding) -> np.ndarray:
    """The whole blocks of errors (H, W, C) in components, (N, C, 8, 8)."""
    planes = np.moveaxis(errors @ rounding.components.T, 2, 0)
    planes = planes[:, rounding.origin[0] :, rounding.origin[1] :]
    rows, columns = (n // SIDE for n in planes.shape[1:])
    cells = planes[:, : rows * SIDE, : columns * SIDE].reshape(len(planes), rows, SIDE, columns, SIDE)
    return cells.transpose(1, 3, 0, 2, 4).reshape(-1, len(planes), SIDE, SIDE)


def largest(errors: np.ndarray, rounding: JpegRounding) -> np.ndarray:
    """The largest error of every coefficient, in steps, beyond what 8 bits explain: (C, 8, 8)."""
    coefficients = dctn(blocks(errors, rounding), axes=(2, 3), norm="ortho")
    return np.asarray((np.abs(coefficients).max(0) - ROUNDING) / rounding.steps)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_blocks_are_where_the_orientation_has_put_them(orientation: int) -> None:
    """Every coefficient is off by half a step at most, and by nearly as much somewhere; not so in a shifted grid."""
    pixels = noise(83, 94)
    image = compress(pixels, orientation, quality=30)
    assert image.jpeg is not None
    errors = image.pixels - apply_orientation(pixels, orientation)[:, :, None] / 255
    assert largest(errors, image.jpeg).max() <= 0.5
    assert largest(errors, image.jpeg).mean() > 0.4
    for part in (image.jpeg.of_part(1, 0), image.jpeg.of_part(0, 1)):
        assert largest(errors, part).max() > 0.6


@pytest.mark.parametrize("kind", [{"subsampling": 0}, {"keep_rgb": True}])
def test_colours(kind: dict[str, Any]) -> None:
    pixels = noise(80, 96, 3)
    image = compress(pixels, quality=60, **kind)
    assert image.jpeg is not None
    np.testing.assert_array_equal(image.jpeg.components, np.eye(3) if "keep_rgb" in kind else YCBCR)
    errors = image.pixels - pixels / 255
    assert largest(errors, image.jpeg).max() <= 0.5
    assert largest(errors, image.jpeg).mean() > 0.4


def test_a_header_of_jfif_means_brightness_and_colours() -> None:
    """Whatever Adobe's says, since that is how it is decoded."""
    buffer = io.BytesIO()
    Pillow.fromarray(noise(16, 16, 3)).save(buffer, "JPEG", keep_rgb=True)
    jfif = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"
    plain, marked = (read_image(data) for data in (buffer.getvalue(), b"\xff\xd8" + jfif + buffer.getvalue()[2:]))
    assert plain.jpeg is not None
    assert marked.jpeg is not None
    assert not plain.jpeg.luminous
    assert marked.jpeg.luminous
    assert np.abs(plain.pixels - marked.pixels).mean() > 0.1, "they are decoded in different ways"


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (8, 8), (9, 23)])
@pytest.mark.parametrize("mode", [(), (3,)])
def test_small_files(size: tuple[int, int], mode: tuple[int, ...]) -> None:
    image = compress(noise(*size, *mode), progressive=True)
    assert image.jpeg is not None
    assert image.jpeg.steps.shape == ((*mode, 1)[0], SIDE, SIDE)
    assert np.linalg.eigvalsh(image.jpeg.covariance())[0] > 0


@pytest.mark.parametrize(("subsampling", "axes"), [(1, (2,)), (2, (1, 2))])
def test_colours_of_a_lower_resolution(subsampling: int, axes: tuple[int, ...]) -> None:
    """Their low frequencies have the steps of twice the frequency, larger by the pixels that share one, but not beyond
    the largest of brightness."""
    pixels = noise(16, 16, 3)
    full, half = (compress(pixels, quality=60, subsampling=s).jpeg for s in (0, subsampling))
    assert full is not None
    assert half is not None
    np.testing.assert_array_equal(half.steps[0], full.steps[0])
    expected = full.steps[1:]
    for axis in axes:
        expected = np.take(expected, np.minimum(2 * np.arange(SIDE), SIDE - 1), axis) * np.sqrt(2)
    np.testing.assert_allclose(half.steps[1:], np.minimum(expected, full.steps[0].max()))


def test_covariance_is_that_of_the_errors() -> None:
    """Where few coefficients are rounded to zero."""
    pixels = noise(512, 512, 3, deviation=30)
    image = compress(pixels, quality=92, subsampling=0)
    assert image.jpeg is not None
    errors = np.moveaxis(image.pixels - pixels / 255, 2, 0).reshape(3, 64, SIDE, 64, SIDE)
    samples = errors.transpose(1, 3, 0, 2, 4).reshape(-1, 3 * SIDE**2).astype(np.float64)
    covariance = image.jpeg.covariance() + np.eye(3 * SIDE**2) / 12 / 255**2  # of the rounding to 8 bits
    # Whitened by it, the errors have about unit variance in every direction.
    whitened = np.linalg.solve(np.linalg.cholesky(covariance), samples.T)
    variances = np.square(whitened).mean(1)
    assert 0.9 < variances.mean() < 1.1
    assert variances.min() > 0.7
    assert variances.max() < 1.4


def test_level_for_a_denoiser() -> None:
    """At least that of noise and errors together; more in colour, where compression has changed the noise."""
    grey, colour = (compress(noise(16, 16, *shape), quality=80).jpeg for shape in ((), (3,)))
    assert grey is not None
    assert colour is not None
    assert grey.level_with(0) == grey.level
    assert colour.level_with(0) == colour.level
    last = 0.0
    for level in np.linspace(0.001, 0.2, 30):
        assert grey.level_with(level) == pytest.approx(np.hypot(level, grey.level))
        assert np.hypot(level, colour.level) <= colour.level_with(level) <= np.hypot(1.4 * level, colour.level)
        assert colour.level_with(level) > last
        last = colour.level_with(level)


def test_what_has_no_rounding() -> None:
    buffer = io.BytesIO()
    Pillow.fromarray(noise(16, 16, 3)).save(buffer, "PNG")
    assert read_image(buffer.getvalue()).jpeg is None
    buffer = io.BytesIO()
    Pillow.fromarray(noise(16, 16, 4), "CMYK").save(buffer, "JPEG")
    assert read_image(buffer.getvalue()).jpeg is None
    buffer = io.BytesIO()
    Pillow.fromarray(noise(16, 16)).save(buffer, "JPEG")
    start = buffer.getvalue().index(b"\xff\xdb") + 5
    damaged = buffer.getvalue()[:start] + b"\0" + buffer.getvalue()[start + 1 :]
    assert read_image(damaged).jpeg is None, "a step of zero"
    image = compress(noise(16, 16))
    assert image.jpeg is not None
    assert image.for_output("uint16").jpeg is image.jpeg
    assert image.with_pixels(image.pixels).jpeg is None, "other pixels were not rounded like that"
