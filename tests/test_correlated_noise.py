"""Noise that neighbouring pixels share: that it is found, and that texture and white noise are not taken for it."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from scipy.ndimage import convolve1d, gaussian_filter, uniform_filter
from skimage import data

from pnp_cli import (
    Blur,
    Choices,
    Image,
    add_gaussian_noise,
    estimate_noise,
    kernels,
    prepare_deblurring,
    read_image,
    to_tensor,
    weights,
    write_image,
)
from pnp_cli.correlated_noise import (
    SMOOTH_DEVIATION,
    estimate_noise_of_phases,
    find_correlated_noise,
    white_level,
)
from pnp_cli.denoising import noise_to_remove
from pnp_cli.measurement import measure_errors

from .conftest import SAMPLES, Run
from .helpers import compressed, psnr_of, shared_noise

PHOTOS = {"cat": data.chelsea(), "coffee": data.coffee(), "astronaut": data.astronaut(), "rocket": data.rocket()}


def eight_bits(pixels: np.ndarray) -> np.ndarray:
    return (np.round(255 * pixels.clip(0, 1)) / 255).astype(np.float32)


def mosaicked(shape: tuple[int, ...], level: float) -> np.ndarray:
    """White noise of the samples of a Bayer mosaic, each colour interpolated linearly."""
    white = np.random.default_rng(0).normal(0, level / 255, shape[:2])
    rows, columns = np.indices(shape[:2]) % 2
    red, blue = (rows + columns == 0), (rows * columns == 1)
    means = []
    for sampled in (red, ~red & ~blue, blue):
        weights = uniform_filter(sampled.astype(float), 3, mode="wrap")
        means.append(np.where(sampled, white, uniform_filter(white * sampled, 3, mode="wrap") / weights))
    return np.stack(means, axis=2)


@pytest.mark.parametrize("name", PHOTOS)
def test_white_noise_and_texture_are_not_taken_for_it(name: str) -> None:
    clean = (PHOTOS[name] / 255).astype(np.float32)
    assert find_correlated_noise(clean) is None
    for level in (1, 2, 5, 20):
        assert find_correlated_noise(eight_bits(add_gaussian_noise(clean, level / 255, 0))) is None
    photon = add_gaussian_noise(clean, 0.5 / 255, 0, photon=0.004)
    assert find_correlated_noise(eight_bits(photon)) is None


def finely_rounded(pixels: np.ndarray, subsampling: int) -> Image:
    """Pixels on the 0-255 scale, in a JPEG file of quality 99 whose colours have all pixels (0) or every fourth (2)."""
    buffer = io.BytesIO()
    samples = np.round(pixels.clip(0, 255)).astype(np.uint8)
    PIL.Image.fromarray(samples).save(buffer, "JPEG", quality=99, subsampling=subsampling)
    return read_image(buffer.getvalue())


def structures(grain: float) -> np.ndarray:
    """(256, 256): spots everywhere, of a size and no colour, on a grey background."""
    spots = gaussian_filter(np.random.default_rng(1).random((256, 256)) ** 20, grain)
    return 0.05 + 0.9 * spots / spots.max()


@pytest.mark.parametrize("grain", [1.0, 2.5])
def test_structures_of_a_micrograph_are_not_taken_for_it(grain: float) -> None:
    """Neither in grey, nor in one colour or tinted, nor beside a background without noise; also with white noise."""
    plane = structures(grain)
    green, tinted = (plane[:, :, None] * np.array(colour) for colour in ((0, 1, 0), (1, 0.8, 0.5)))
    for picture in (plane[:, :, None], np.repeat(plane[:, :, None], 3, axis=2), green, tinted):
        for level in (0, 3):
            noise = np.random.default_rng(0).normal(0, level / 255, picture.shape) * (picture > 0)
            assert not noise_to_remove(eight_bits(picture + noise)).correlated
    coloured = np.stack([structures(grain), plane.T, plane[::-1]], axis=2)
    coloured[:, 128:] = 0.2
    assert find_correlated_noise(eight_bits(coloured)) is None


def test_part_of_the_range() -> None:
    """Noise is found in images of a linear sensor that are dark, too."""
    noisy = eight_bits(data.coffee() / 255 + shared_noise(data.coffee().shape, 12))
    found = find_correlated_noise(noisy)
    dark = find_correlated_noise(0.05 * noisy)
    assert found is not None
    assert dark is not None
    assert np.mean(dark.curve.variances) == pytest.approx(0.05**2 * np.mean(found.curve.variances), rel=0.1)


@pytest.mark.parametrize("name", PHOTOS)
def test_smooth_noise_is_removed_from_phases(name: str) -> None:
    """Of its own level, in which it is white: within 15 %."""
    clean = PHOTOS[name] / 255
    found = find_correlated_noise(eight_bits(clean + shared_noise(clean.shape, 12)))
    assert found is not None
    assert found.smooth
    assert 255 * np.sqrt(np.mean(found.in_phases.variances)) == pytest.approx(12, rel=0.15)
    assert find_correlated_noise(eight_bits(clean + shared_noise(clean.shape, 3))) is not None


def test_noise_that_is_hardly_smooth_is_removed_from_the_whole() -> None:
    """At a level between its deviation and that of its power at low frequencies."""
    for picture in PHOTOS.values():
        noise = gaussian_filter(np.random.default_rng(0).normal(size=picture.shape), (0.5, 0.5, 0))
        found = find_correlated_noise(eight_bits(picture / 255 + 8 / 255 * noise / noise.std()))
        assert found is not None
        assert not found.smooth
        assert 8 < 255 * np.sqrt(np.mean(found.curve.variances)) < 8 * 1.7


def test_demosaicked_noise() -> None:
    """That depends on the brightness, too: its curve follows within 20 %."""
    clean = data.coffee() / 255
    noise = mosaicked(clean.shape, 1) * np.sqrt(36 * (0.2 + clean.mean(2, keepdims=True)))
    found = noise_to_remove(eight_bits(clean + noise))
    assert found.correlated
    dark, bright = (255 * float(found.curve.variance(torch.tensor(b))) ** 0.5 for b in (0.2, 0.65))
    assert bright / dark == pytest.approx(np.sqrt(0.85 / 0.4), rel=0.2)
    constant = noise_to_remove(eight_bits(clean + noise), constant=True).curve
    assert constant.constant
    assert dark < 255 * constant.variances[0] ** 0.5 < bright


@pytest.mark.parametrize("quality", [95, 80])
def test_before_compression(quality: int) -> None:
    """Noise that was shared before it was compressed is told from white noise and texture, its harm within 30 %."""
    for name in ("cat", "rocket"):
        picture = PHOTOS[name]
        noise = mosaicked(picture.shape, 25)
        pixels, jpeg = compressed(picture + 255 * noise, quality)
        found = noise_to_remove(pixels, jpeg)
        assert found.correlated
        harm = 28 * (SMOOTH_DEVIATION if found.stride == 2 else 1)  # in phases it is smaller
        assert 255 * found.curve.variances[0] ** 0.5 == pytest.approx(harm, rel=0.3)
        for white in (0, 4, 25):
            noisy = picture + np.random.default_rng(0).normal(0, white, picture.shape)
            assert not noise_to_remove(*compressed(noisy, quality)).correlated


@pytest.mark.parametrize("name", ["astronaut", "rocket"])
def test_smooth_noise_before_compression(name: str) -> None:
    """As simple demosaicking leaves it, in files that hold half the colours: most of its pixels no longer show it."""
    picture = PHOTOS[name]
    noise = picture_noise = np.random.default_rng(0).normal(size=picture.shape)
    for axis in (0, 1):
        noise = convolve1d(noise, [0.25, 0.5, 0.25], axis=axis)
    noise *= 8 / noise.std()
    found = noise_to_remove(*compressed(picture + noise, 88))
    assert found.correlated
    assert 255 * found.curve.variances[0] ** 0.5 == pytest.approx(12, rel=0.2), "what it counts as without compression"
    for white in (0, 2, 8):
        assert not noise_to_remove(*compressed(picture + white * picture_noise, 88)).correlated


def test_in_a_finely_rounded_file() -> None:
    """Noise of a JPEG file that depends on the brightness is found in its pixels; white noise is not taken for it.

    That holds where colours are stored at half the resolution, too, which makes white noise in them look shared.
    """
    picture = data.coffee()
    level = 1.2 - picture.mean(2, keepdims=True) / 255
    for subsampling in (0, 2):
        file = finely_rounded(picture + 255 * mosaicked(picture.shape, 25) * level, subsampling)
        found = noise_to_remove(file.pixels, file.jpeg)
        assert found.correlated
        dark, bright = (255 * float(found.curve.variance(torch.tensor(b))) ** 0.5 for b in (0.1, 0.7))
        assert dark > 1.3 * bright
        for white in (0, 3, 8, 20):
            file = finely_rounded(picture + np.random.default_rng(0).normal(0, white, picture.shape), subsampling)
            assert not noise_to_remove(file.pixels, file.jpeg).correlated


def test_noise_of_a_finely_rounded_file_under_blur(small_weights: Path) -> None:
    """It depends on the brightness, and with the precision of the blocks the theorem still holds."""
    picture = data.coffee()[:224, 100:324]
    noise = 255 * mosaicked(picture.shape, 25) * (1.2 - picture.mean(2, keepdims=True) / 255)
    file = finely_rounded(picture + noise, 0)
    assert file.jpeg is not None
    y = to_tensor(file)
    errors = measure_errors(y, kernels.motion(5, 0), jpeg=file.jpeg)
    assert errors.correlated
    assert not errors.curve.constant
    choices = Choices(jpeg=file.jpeg, settings={"max_iter": 40})
    deblurring = prepare_deblurring(y, kernels.motion(5, 0), weights.load(small_weights), choices)
    deblurring.guarantee.require()
    end = deblurring.run()
    assert end.solution.checked > 10
    assert not end.violations
    assert measure_errors(y, kernels.motion(5, 0), photon=0.0, jpeg=file.jpeg).curve.constant


def test_where_many_samples_are_black() -> None:
    """As in a dark photograph: most blocks hold some."""
    dark = 0.25 * data.coffee() / 255
    noisy = eight_bits(dark + shared_noise(dark.shape, 12))
    assert (noisy == 0).mean() > 0.1
    assert find_correlated_noise(noisy) is not None


def test_images_that_do_not_tell() -> None:
    """Small ones, flat ones, those that are clipped everywhere, and those of other channels."""
    rng = np.random.default_rng(0)
    for shape in ((1, 1, 3), (7, 300, 3), (40, 40, 3), (64, 64, 2)):
        assert find_correlated_noise(rng.random(shape, np.float32)) is None
    assert find_correlated_noise(np.full((128, 128, 3), 0.5, np.float32)) is None
    assert find_correlated_noise(np.ones((128, 128, 1), np.float32)) is None
    negative = np.repeat(-rng.random((128, 128, 1), np.float32), 3, axis=2)
    assert find_correlated_noise(negative) is None


def test_the_level_of_phases(photo: Image) -> None:
    noisy = photo.pixels + shared_noise(photo.pixels.shape, 20)
    assert 255 * estimate_noise(noisy) < 12
    assert 255 * estimate_noise_of_phases(noisy, 2) == pytest.approx(20, rel=0.1)
    assert estimate_noise_of_phases(np.full((1, 1, 3), 0.5, np.float32), 2) == 0
    assert estimate_noise_of_phases(noisy[:3, :5], 2) == estimate_noise(noisy[:3, :5]) > 0, "no phase is large enough"


@pytest.mark.parametrize("kernel", [kernels.motion(20, 110), kernels.disk(4)], ids=["motion", "disk"])
def test_under_blur(kernel: np.ndarray) -> None:
    """White noise is taken for white, also in a JPEG file; that neighbours share noise is noticed."""
    scene = torch.from_numpy(data.chelsea().transpose(2, 0, 1) / 255.0)[None]
    seen = Blur(kernel, data.chelsea().shape[:2], dtype=torch.float64).forward(scene)[0, :, 24:-24, 24:-24]
    blurred = seen.permute(1, 2, 0).numpy()
    white = blurred + np.random.default_rng(0).normal(0, 5 / 255, blurred.shape)
    assert find_correlated_noise(eight_bits(blurred)) is None
    assert find_correlated_noise(eight_bits(white)) is None
    assert not noise_to_remove(*compressed(255 * white, 90)).correlated
    found = find_correlated_noise(eight_bits(blurred + shared_noise(blurred.shape, 6)))
    assert found is not None
    assert found.smooth
    assert 255 * np.sqrt(np.mean(found.in_phases.variances)) == pytest.approx(6, rel=0.15)


def test_white_level() -> None:
    """Between the deviation and its bound, the root of the noise's power at low frequencies."""
    assert white_level(0.1, 1) == 0.1
    for n in (2, 3, 8):
        assert white_level(0.1, n - 1) < white_level(0.1, n) < 0.1 * n


def test_the_command(pnp: Run, photo: Image, tmp_path: Path) -> None:
    """Shared noise is found out and goes; it stays if it is said to be white, or its level is given."""
    pixels = read_image(SAMPLES / "coffee.png").pixels[130:274, 180:324]
    noisy = photo.with_pixels(pixels + shared_noise(pixels.shape, 20))
    write_image(replace(noisy, depth="float32"), tmp_path / "noisy.tif")
    scores = []
    for i, (options, stride, correlated) in enumerate(
        (
            ((), 2, True),
            (("--correlation", "2"), 2, True),
            (("--correlation", "1"), 1, False),
            (("--sigma", "20"), 1, False),
            (("--sigma", "20", "--correlation", "2"), 2, True),
        )
    ):
        target = tmp_path / f"{i}.tif"
        result = pnp("denoise", tmp_path / "noisy.tif", "-o", target, "--json", *options)
        assert result.returncode == 0
        fields = json.loads(result.stdout)
        assert (fields["correlation"], fields["correlated"]) == (stride, correlated)
        assert (b"neighbouring pixels share the noise" in result.stderr) == correlated
        assert b"try --correlation 2" not in result.stderr
        scores.append(psnr_of(pixels, read_image(target).pixels))
    assert min(scores[0], scores[1], scores[4]) > max(scores[2] + 6, scores[3] + 2)
    assert scores[0] == pytest.approx(scores[4], abs=0.3)
    grey = noisy.with_pixels(pixels[:, :, :1] + shared_noise((*pixels.shape[:2], 1), 20))
    write_image(replace(grey, depth="float32"), tmp_path / "grey.tif")
    result = pnp("denoise", tmp_path / "grey.tif", "-o", tmp_path / "out.tif")
    assert b"grey.tif: if noise is left, neighbouring pixels share it; try --correlation 2" in result.stderr
    assert pnp("denoise", tmp_path / "noisy.tif", "--correlation", 0).returncode == 2
