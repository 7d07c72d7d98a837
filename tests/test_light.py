"""The sRGB curve, against scikit-image, and blur that acted on the light."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from skimage import color

from pnp_cli import Blur, Choices, kernels, prepare_deblurring, to_tensor, weights
from pnp_cli.images import read_image
from pnp_cli.light import slope, to_light, to_samples
from pnp_cli.measurement import measure_errors

from .conftest import SAMPLES, Run
from .helpers import psnr_of


def test_curve() -> None:
    samples = torch.linspace(0, 1, 1001, dtype=torch.float64)
    grey = samples.numpy()[None, :, None].repeat(3, 2)
    luminance = color.rgb2xyz(grey)[0, :, 1]  # of greys it is their light
    np.testing.assert_allclose(to_light(samples).numpy(), luminance, atol=1e-6)


def test_inverse() -> None:
    values = torch.linspace(-1, 3, 4001, dtype=torch.float64)
    torch.testing.assert_close(to_samples(to_light(values)), values, atol=1e-7, rtol=0)
    assert bool((to_light(values).diff() > 0).all())


def test_slope() -> None:
    """Noise in the samples becomes so much noise in the light."""
    samples, step = torch.rand(50, 50, dtype=torch.float64), 1e-6
    change = (to_light(samples + step) - to_light(samples - step)) / (2 * step)
    torch.testing.assert_close(slope(samples), change, rtol=1e-4, atol=0)


@pytest.mark.parametrize("exposure", [0.9, 1.3])
def test_deblurring(small_weights: Path, exposure: float) -> None:
    """Undoing the curve is worth a decibel where the light was blurred; noise is counted in the samples."""
    photo = read_image(SAMPLES / "coffee.png")
    photo = photo.with_pixels(photo.pixels[90:200, 230:360])
    kernel, noise = kernels.motion(15, 60), 2 / 255
    frame = (slice(None), slice(None), slice(9, -9), slice(9, -9))
    light = exposure * to_light(to_tensor(photo))
    seen = to_samples(Blur(kernel, photo.size).forward(light))[frame]
    y = (seen + noise * torch.randn_like(seen)).clamp(0, 1)
    truth = to_samples(light[frame]).clamp(0, 1)
    loaded = weights.load(small_weights)
    scores = []
    for linear_light in (False, True):
        deblurring = prepare_deblurring(y, kernel, loaded, Choices(linear_light=linear_light, settings={"tol": 1e-3}))
        deblurring.guarantee.require()
        end = deblurring.run()
        assert end.converged
        assert end.violations == ()
        assert float(end.frame.min()) >= 0
        assert float(end.frame.max()) <= 1
        scores.append(psnr_of(truth.numpy(), end.frame.numpy()))
    hidden = 0.1 if exposure < 1 else 0.3  # where samples are clipped there is no noise, either
    assert deblurring.errors.noise == pytest.approx(noise, rel=0.2 + hidden)
    assert end.discrepancy is not None
    assert 0.6 < end.discrepancy * deblurring.errors.noise / noise < 1.2
    assert scores[1] > scores[0] + 1


def test_values_beyond_black_and_white(small_weights: Path) -> None:
    """Floats are mirrored at black and go on beyond white; without the box they come back so, by patches, too."""
    image = read_image(SAMPLES / "coffee.png")
    photo = image.with_pixels(image.pixels[100:170, 200:340])
    kernel = kernels.motion(5, 20)
    light = to_light(1.6 * to_tensor(photo) - 0.1)
    y = to_samples(Blur(kernel, photo.size).forward(light))
    loaded = weights.load(small_weights)
    choices = Choices(noise=1 / 255, linear_light=True, settings={"box": False, "tol": 1e-3})
    for patch in (0, 128):
        deblurring = prepare_deblurring(y, kernel, loaded, replace(choices, patch=patch))
        assert deblurring.clipped == 0
        frame = deblurring.run().frame
        assert bool(frame.isfinite().all())
        inside = (slice(None), slice(None), slice(9, -9), slice(9, -9))
        truth = to_samples(light)[inside].numpy()
        assert frame.max() > 1.2
        assert psnr_of(truth, frame[inside].numpy()) > psnr_of(truth, y[inside].numpy()) + 3


def test_noise_beside_lamps_that_are_cut_off() -> None:
    """Their edges reach into all frequencies, by which noise under blur is measured otherwise."""
    kernel = kernels.motion(15, 20)
    scene = 0.02 * torch.rand(1, 3, 200, 260, generator=torch.Generator().manual_seed(0))
    for place in range(30, 200, 40):
        scene[..., place : place + 6, place : place + 6] = 40
    blur = Blur(kernel, (200, 260))
    y = (to_samples(blur.forward(scene)) + 1.5 / 255 * torch.randn(1, 3, 200, 260)).clamp(0, 1)
    y = (255 * y).round() / 255
    assert 255 * measure_errors(y, kernel, linear_light=True, clipped=True).noise == pytest.approx(1.5, rel=0.2)


def test_photographs_of_cameras(pnp: Run, tmp_path: Path, small_weights: Path) -> None:
    """Their EXIF data tell an exposure, and cameras blur light. Whoever knows better may say so."""
    pixels = (255 * np.random.default_rng(0).random((40, 50, 3))).astype(np.uint8)
    picture = PIL.Image.fromarray(pixels)
    exif = PIL.Image.Exif()
    exif[271] = "a scanner"
    picture.save(tmp_path / "scan.jpg", exif=exif)
    exif.get_ifd(0x8769)[33434] = 0.02
    picture.save(tmp_path / "photo.jpg", exif=exif)
    picture.save(tmp_path / "photo.png", exif=exif)
    assert read_image(tmp_path / "photo.jpg").photograph
    assert not read_image(tmp_path / "scan.jpg").photograph
    kernel = ["--motion", 5, 20, "--json", "--dry-run"]
    for command, options in (("deblur", ["-w", small_weights]), ("blur", [])):
        for name, given, linear in (
            ("photo.jpg", [], True),
            ("photo.png", ["--strip"], True),
            ("photo.jpg", ["--no-linear-light"], False),
            ("scan.jpg", [], False),
            ("scan.jpg", ["--linear-light"], True),
        ):
            run = pnp(command, tmp_path / name, *kernel, *options, *given)
            assert run.returncode == 0, run.stderr
            assert json.loads(run.stdout)["linear_light"] is linear
            if command == "deblur":
                assert (b"EXIF data tell" in run.stderr) == (linear and "--linear-light" not in given)
                assert (b"compare --linear-light" in run.stderr) == (not linear and not given)
    assert pnp("blur", tmp_path / "photo.png", "-o", tmp_path / "f.tif", "--motion", 5, 20).returncode == 0
    assert read_image(tmp_path / "f.tif").photograph, "deblurring undoes what blurring did"


def test_commands(pnp: Run, photo_file: Path, small_weights: Path) -> None:
    blurred, sharp = photo_file.with_name("blurred.png"), photo_file.with_name("sharp.png")
    result = pnp("blur", photo_file, "-o", blurred, "--motion", 9, 20, "--linear-light", "--json")
    assert result.returncode == 0
    assert json.loads(result.stdout)["linear_light"] is True
    assert b"in linear light" in result.stderr
    scene = to_light(to_tensor(read_image(photo_file)))
    mean = to_light(to_tensor(read_image(blurred))).mean()
    assert float(mean) == pytest.approx(float(scene.mean()), rel=0.02), "the blur keeps the light"
    result = pnp("deblur", blurred, "-o", sharp, "--motion", 9, 20, "--linear-light", "-w", small_weights, "--json")
    assert result.returncode == 0
    assert json.loads(result.stdout)["linear_light"] is True
    assert json.loads(result.stdout)["slope"] > 1, "the picture is bright"
    assert b"the sRGB curve is undone" in result.stderr
    before, after = (psnr_of(read_image(photo_file).pixels, read_image(p).pixels) for p in (blurred, sharp))
    assert after > before + 2
