"""Noise levels estimated from one image."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from skimage import data

from pnp_cli import Blur, estimate_noise, estimate_noise_under_blur, kernels, read_image

from .helpers import compressed


def test_noise_estimate() -> None:
    """Within 3 % on flat pictures; constant channels and tiny images do not disturb it."""
    rng = np.random.default_rng(0)
    noisy = 0.5 + rng.normal(0, 0.1, (128, 128, 3))
    assert estimate_noise(noisy) == pytest.approx(0.1, rel=0.03)
    noisy[:, :, 1:] = 0
    assert estimate_noise(noisy) == pytest.approx(0.1, rel=0.06)
    for shape in ((1, 1, 1), (1, 50, 3), (2, 2, 3), (3, 9, 3), (4, 9, 3), (5, 9, 3)):
        assert estimate_noise(np.zeros(shape)) == 0
        assert estimate_noise(rng.random(shape)) >= 0


@pytest.mark.parametrize("level", [1.5, 5.0, 25.0])
def test_texture_in_colour_is_no_noise(level: float) -> None:
    """Within 7 % on a photograph of fur."""
    noisy = data.chelsea() / 255 + np.random.default_rng(0).normal(0, level / 255, data.chelsea().shape)
    assert 255 * estimate_noise(noisy) == pytest.approx(level, rel=0.07)


def test_noise_in_grey_and_after_compression(tmp_path: Path) -> None:
    """Within 8 %, also of pictures full of texture; a JPEG file that has lost its noise in colour is not clean."""
    rng = np.random.default_rng(0)
    for picture in (data.camera(), data.coins(), data.brick(), data.gravel()):
        for level in (5.0, 15.0, 40.0):
            noisy = (picture[..., None] + rng.normal(0, level, (*picture.shape, 1))) / 255
            noisy = noisy if level == 40 else noisy.clip(0, 1)  # black and white do not hold the whole noise
            assert 255 * estimate_noise(noisy) == pytest.approx(level, rel=0.08)
    photo = (data.astronaut() + rng.normal(0, 15, data.astronaut().shape)).clip(0, 255).astype(np.uint8)
    Pillow.fromarray(photo).save(tmp_path / "noisy.jpg", quality=90, subsampling=2)
    assert 255 * estimate_noise(read_image(tmp_path / "noisy.jpg").pixels) > 5


@pytest.mark.parametrize("shape", [(18, 18, 1), (50, 50, 1), (400, 300, 1), (60, 60, 3), (200, 200, 3)])
def test_white_noise_alone_is_measured_without_bias(shape: tuple[int, int, int]) -> None:
    repeats = 60 if math.prod(shape) < 100_000 else 10
    estimates = [estimate_noise(0.5 + np.random.default_rng(i).normal(0, 0.05, shape)) for i in range(repeats)]
    assert np.mean(estimates) == pytest.approx(0.05, rel=0.03)


@pytest.mark.parametrize("kernel", [kernels.motion(5, 30), kernels.motion(20, 110), kernels.disk(4)], ids=str)
@pytest.mark.parametrize("level", [1.0, 2.55, 15.0])
def test_knowing_the_kernel(kernel: np.ndarray, level: float) -> None:
    """Within 4 % on photographs that are not periodic; fine texture of the scene does not count as noise."""
    for picture in (data.chelsea(), data.camera()[..., None]):
        scene = torch.from_numpy(picture.transpose(2, 0, 1) / 255.0)[None]
        seen = Blur(kernel, picture.shape[:2], dtype=torch.float64).forward(scene)[0, :, 24:-24, 24:-24]
        pixels = seen.permute(1, 2, 0).numpy() + np.random.default_rng(0).normal(0, level / 255, (*seen.shape[1:], 1))
        assert 255 * estimate_noise_under_blur(pixels, kernel) == pytest.approx(level, rel=0.04)


def test_a_blurred_photo_in_a_jpeg_file(tmp_path: Path) -> None:
    """Of the noise that compression has left at low frequencies more is seen than its mean over all."""
    kernel = kernels.disk(4)
    scene = torch.from_numpy(data.chelsea().transpose(2, 0, 1) / 255.0)[None]
    seen = Blur(kernel, data.chelsea().shape[:2], dtype=torch.float64).forward(scene)[0, :, 24:-24, 24:-24]
    noisy = 255 * seen.permute(1, 2, 0).numpy() + np.random.default_rng(0).normal(0, 5, (*seen.shape[1:], 3))
    Pillow.fromarray(noisy.clip(0, 255).round().astype(np.uint8)).save(tmp_path / "y.jpg", quality=90)
    level = 255 * estimate_noise_under_blur(read_image(tmp_path / "y.jpg").pixels, kernel)
    assert 2.5 < level < 5


@pytest.mark.parametrize("picture", [data.chelsea(), data.camera()[..., None]], ids=["colour", "grey"])
@pytest.mark.parametrize("quality", [95, 85, 70])
def test_noise_before_compression(picture: np.ndarray, quality: int) -> None:
    """Within 12 %, though most of the noise is gone; of the part that begins between blocks, too."""
    for level in (10.0, 25.0):
        noisy = picture + np.random.default_rng(0).normal(0, level, picture.shape)
        pixels, jpeg = compressed(noisy, quality)
        assert 255 * estimate_noise(pixels, jpeg) == pytest.approx(level, rel=0.12)
        assert 255 * estimate_noise(pixels[5:, 2:], jpeg.of_part(5, 2)) == pytest.approx(level, rel=0.12)
        assert 255 * estimate_noise_under_blur(pixels, kernels.disk(2), jpeg) == pytest.approx(level, rel=0.12)


def test_compression_alone_is_no_noise() -> None:
    """A ramp that is compressed has no more noise than its rounding could hide; a flat picture has none."""
    ramp = np.linspace(60, 200, 256)[None, :, None] * np.ones((256, 1, 3))
    pixels, jpeg = compressed(ramp, 75)
    assert 255 * estimate_noise(pixels, jpeg) < 255 * jpeg.level
    flat = np.full((128, 128, 3), 128.0)
    flat[:8, :8] = 140
    pixels, jpeg = compressed(flat, 75)
    assert 255 * estimate_noise(pixels, jpeg) < 255 * jpeg.level / 2


@pytest.mark.parametrize("shape", [(1, 1, 3), (7, 300, 1), (40, 40, 3)])
def test_small_jpeg_files(shape: tuple[int, int, int]) -> None:
    """With too few blocks, or parts that hold none at all, the pixels tell."""
    pixels, jpeg = compressed(np.random.default_rng(0).normal(128, 9, shape), 90)
    assert estimate_noise(pixels, jpeg) == estimate_noise(pixels)
    kernel = kernels.motion(3, 0)
    assert estimate_noise_under_blur(pixels, kernel, jpeg) == estimate_noise_under_blur(pixels, kernel)
    part = pixels[:4, :4]
    assert estimate_noise(part, jpeg.of_part(3, 3)) == estimate_noise(part)


def test_images_without_noise_or_size() -> None:
    kernel = kernels.motion(3, 0)
    assert estimate_noise_under_blur(np.full((32, 32, 3), 0.3), kernel) == 0
    assert estimate_noise_under_blur(np.zeros((3, 4, 1)), kernel) == 0
