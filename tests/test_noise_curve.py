"""Noise that depends on the brightness: its curve is found where there is one, and used by the commands."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import skimage.data
import torch

from pnp_cli import (
    Blur,
    Choices,
    NoiseCurve,
    UsageError,
    add_gaussian_noise,
    estimate_noise_curve,
    kernels,
    prepare_deblurring,
    read_image,
    to_tensor,
    weights,
)
from pnp_cli.images import Image, write_image
from pnp_cli.noise_curve import root_mean_square
from pnp_cli.tensors import to_pixels

from .conftest import SAMPLES, Run
from .helpers import psnr_of, shared_noise

Pixels = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def scene() -> Image:
    """A photograph of dark and bright parts and strong colours, 300 x 300 pixels."""
    image = read_image(SAMPLES / "coffee.png")
    return image.with_pixels(image.pixels[50:350, 150:450])


def photographs() -> list[Pixels]:
    """Whole ones in colour: one of textures, one with a face and much black, one of fur."""
    others = skimage.data.astronaut(), skimage.data.chelsea()
    return [read_image(SAMPLES / "coffee.png").pixels, *(np.float32(pixels) / 255 for pixels in others)]


def grey(pixels: Pixels) -> Pixels:
    """The mean of the colours, (H, W, 1)."""
    return pixels.mean(axis=2, keepdims=True)


def test_the_variance_is_linear_between_its_points_and_constant_beyond() -> None:
    curve = NoiseCurve((0.2, 0.4, 0.8), (1.0, 3.0, 2.0))
    expected = [(0.0, 1.0), (0.2, 1.0), (0.4, 3.0), (0.8, 2.0), (1.0, 2.0)]
    np.testing.assert_allclose(curve.points(), expected, rtol=1e-6)
    np.testing.assert_allclose(NoiseCurve((-1, 3), (0, 4)).points(), [(0, 1), (1, 2)], rtol=1e-6)
    places = torch.tensor([-1.0, 0.0, 0.2, 0.3, 0.4, 0.6, 0.8, 2.0])
    torch.testing.assert_close(curve.variance(places), torch.tensor([1.0, 1.0, 1.0, 2.0, 3.0, 2.5, 2.0, 2.0]))


def test_photon_noise() -> None:
    """sigma² + gain · brightness, in black and below sigma²; without a gain it is white."""
    curve = NoiseCurve.photon(0.1, 0.04)
    torch.testing.assert_close(
        curve.variance(torch.tensor([-0.5, 0.0, 0.5, 1.0, 3.0])), torch.tensor([0.01, 0.01, 0.03, 0.05, 0.13])
    )
    assert NoiseCurve.photon(0.1, 0) == NoiseCurve.white(0.1)
    assert NoiseCurve.white(0.1).levels(torch.rand(1, 3, 4, 4)) == pytest.approx(0.1)
    for wrong in ((-0.1, 0.0), (0.1, -1.0), (0.1, float("nan")), (float("inf"), 0.0)):
        with pytest.raises(UsageError, match="not negative"):
            NoiseCurve.photon(*wrong)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (3, 2), (40, 31)])
def test_the_map_has_the_size_of_the_image(size: tuple[int, int]) -> None:
    curve = NoiseCurve.photon(0.1, 0.04)
    levels = curve.levels(torch.full((2, 3, *size), 0.5))
    assert isinstance(levels, torch.Tensor)
    torch.testing.assert_close(levels, torch.full((2, 1, *size), 0.03**0.5))
    assert root_mean_square(levels) == pytest.approx(0.03**0.5)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("sigma", "gain"), [(2, 0.5), (0.5, 2), (5, 4)])
def test_the_curve_of_photon_noise_is_found(channels: int, sigma: float, gain: float) -> None:
    """Within 15 % or half a level at all brightnesses that are frequent, though nothing is said."""
    for pixels in photographs():
        clean = pixels if channels == 3 else grey(pixels)
        noisy = add_gaussian_noise(clean, sigma / 255, 0, gain / 255)
        curve = estimate_noise_curve(noisy)
        assert curve is not None
        truth = NoiseCurve.photon(sigma / 255, gain / 255)
        places = torch.from_numpy(np.quantile(clean, [0.1, 0.25, 0.5, 0.75, 0.9]).astype(np.float32))
        torch.testing.assert_close(
            curve.variance(places).sqrt(), truth.variance(places).sqrt(), rtol=0.15, atol=0.5 / 255
        )


@pytest.mark.parametrize("channels", [1, 3])
def test_linear_images_need_not_end_at_white(channels: int) -> None:
    """As of telescopes: with a background around 0, and objects many times as bright as white, or a tenth of it."""
    pixels = photographs()[1]
    clean = pixels if channels == 3 else grey(pixels)
    for factor in (0.1, 1, 7):
        scaled = factor * (clean - 0.05)
        noisy = add_gaussian_noise(scaled, factor * 3 / 255, 0, factor * 2 / 255)
        curve = estimate_noise_curve(noisy)
        assert curve is not None
        assert list(curve.brightness) == sorted(set(curve.brightness))
        truth = NoiseCurve.photon(factor * 3 / 255, factor * 2 / 255)
        places = torch.from_numpy(np.quantile(scaled, [0.1, 0.5, 0.9]).astype(np.float32))
        found, expected = curve.variance(places).sqrt(), truth.variance(places).sqrt()
        torch.testing.assert_close(found, expected, rtol=0.15, atol=0)


def test_a_grey_image_in_three_channels_has_the_curve_of_the_one() -> None:
    noisy = add_gaussian_noise(grey(photographs()[1]), 2 / 255, 0, 2 / 255)
    assert estimate_noise_curve(noisy.repeat(3, axis=2)) == estimate_noise_curve(noisy) is not None


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("sigma", [0, 1, 15, 50])
def test_white_noise_has_no_curve(channels: int, sigma: float) -> None:
    for pixels in photographs():
        clean = pixels if channels == 3 else grey(pixels)
        noisy = add_gaussian_noise(clean, sigma / 255, 0)
        for version in (noisy, (noisy.clip(0, 1) * 255).round() / 255):
            assert estimate_noise_curve(version.astype(np.float32)) is None


def test_what_is_not_white_and_what_is_too_small_has_none(scene: Image) -> None:
    assert estimate_noise_curve(scene.pixels + shared_noise(scene.pixels.shape, 10)) is None
    small = [scene.pixels[:rows, :columns] for rows in (1, 4, 9) for columns in (1, 5, 50)]
    for pixels in (np.zeros((40, 40, 3)), np.full((40, 40, 1), 0.5), *small, *(grey(part) for part in small)):
        assert estimate_noise_curve(pixels.astype(np.float32)) is None
    red = np.zeros_like(scene.pixels)
    red[:, :, :1] = add_gaussian_noise(scene.pixels[:, :, :1], 1 / 255, 0, 3 / 255)
    assert estimate_noise_curve(red) is None, "the others hold no noise"


def test_the_curve_is_worth_it_in_denoising(pnp: Run, scene: Image, tmp_path: Path) -> None:
    """Found out or given it is better than a level; a level that is given is taken for the same everywhere."""
    scene = scene.with_pixels(scene.pixels[:200, :200])
    noisy = replace(scene.with_pixels(add_gaussian_noise(scene.pixels, 1 / 255, 0, 3 / 255)), depth="float32")
    write_image(noisy, tmp_path / "noisy.tif")
    scores = {}
    for name, options in {
        "found": (),
        "given": ("--sigma", 1, "--photon", 3),
        "level": ("--photon", 0),
        "level given": ("--sigma", 18),
    }.items():
        target = tmp_path / f"{name}.tif"
        result = pnp("denoise", tmp_path / "noisy.tif", "-o", target, "--json", *options)
        assert result.returncode == 0, result.stderr
        fields = json.loads(result.stdout)
        curved = name in ("found", "given")
        assert (fields["noise_curve"] is not None) == curved
        assert (b"fixed map of the noise" in result.stderr) == (b"on average" in result.stderr) == curved
        assert not fields["averaged"]
        assert fields["averaged_for_fixed_reference"]
        scores[name] = psnr_of(scene.pixels, read_image(target).pixels)
    assert min(scores["found"], scores["given"]) > max(scores["level"], scores["level given"]) + 0.7
    assert scores["found"] > scores["given"] - 0.15


def test_with_a_noise_map_a_plain_network_is_averaged_for_that_map_only(
    pnp: Run, photo: Image, small_weights: Path, tmp_path: Path
) -> None:
    write_image(photo, tmp_path / "in.png")
    for k, averaged in ((0, True), (2, False)):
        out, options = tmp_path / f"{k}.png", ("-w", small_weights, "--sigma", 3, "--photon", k, "--repeat", 5)
        result = pnp("denoise", tmp_path / "in.png", "-o", out, "--json", *options)
        assert result.returncode == 0
        fields = json.loads(result.stdout)
        assert fields["averaged"] is averaged
        assert fields["averaged_for_fixed_reference"]
        assert fields["violations"] == []
        assert all(b <= a + 1e-3 for a, b in zip(fields["residuals"], fields["residuals"][1:], strict=False))
        if k:
            assert fields["noise_curve"][0] == pytest.approx([0, 3])
            assert fields["noise_curve"][1] == pytest.approx([255, (9 + 2 * 255) ** 0.5])


@pytest.mark.parametrize("patch", [0, 128])
def test_deblurring_weighs_by_the_curve(scene: Image, small_weights: Path, patch: int) -> None:
    """Better than with a level, under the same theorem, whole and in patches."""
    scene = scene.with_pixels(scene.pixels[:144, :176])
    kernel = kernels.motion(9, 30)
    frame = (slice(8, -8), slice(8, -8))
    seen = Blur(kernel, scene.size).forward(to_tensor(scene))[0].permute(1, 2, 0).numpy()[frame]
    y = to_tensor(scene.with_pixels(add_gaussian_noise(seen, 0.5 / 255, 0, 0.5 / 255)))
    loaded = weights.load(small_weights)
    scores = []
    for photon in (0.0, None):
        deblurring = prepare_deblurring(y, kernel, loaded, Choices(photon=photon, patch=patch, settings={"tol": 1e-3}))
        deblurring.guarantee.require()
        assert deblurring.errors.curve.constant == (photon == 0)
        assert deblurring.plan.guarantee.lipschitz <= 1 / deblurring.plan.settings.envelope
        end = deblurring.run()
        assert end.converged
        assert end.violations == ()
        assert end.discrepancy is not None
        assert 0.8 < end.discrepancy < 1.1
        scores.append(psnr_of(scene.pixels[frame], to_pixels(end.frame)))
    assert scores[1] > scores[0] + 0.2


def test_blur_makes_photon_noise(pnp: Run, photo: Image, tmp_path: Path) -> None:
    write_image(photo, tmp_path / "in.png")
    command = ("blur", tmp_path / "in.png", "--gaussian", 0.01, "--noise", 2)
    assert pnp(*command, "-o", tmp_path / "a.npy", "--photon", 1.5, "--json").returncode == 0
    difference = 255 * (np.load(tmp_path / "a.npy") - photo.pixels)
    expected = 4 + 1.5 * 255 * photo.pixels
    for half in (photo.pixels < 0.3, photo.pixels > 0.6):
        assert np.square(difference[half]).mean() == pytest.approx(expected[half].mean(), rel=0.05)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("denoise", "--photon", 2), b"give that, too"),
        (("deblur", "--disk", 2, "--photon", 2), b"give that, too"),
        (("denoise", "--sigma", 2, "--photon", -1), b"--photon must be"),
        (("blur", "--disk", 2, "--photon", "auto"), b"--photon must be"),
    ],
)
def test_photon_noise_that_makes_no_sense(
    pnp: Run, photo_file: Path, tmp_path: Path, arguments: tuple[object, ...], words: bytes
) -> None:
    result = pnp(*arguments, photo_file, "-o", tmp_path / "out.png")
    assert result.returncode == 2
    assert words in result.stderr
    assert not (tmp_path / "out.png").exists()
