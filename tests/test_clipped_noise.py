"""Noise that black and white cut off: its mean comes back, its level is found, and what is no noise stays."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pnp_cli import Choices, NoiseCurve, add_gaussian_noise, kernels, prepare_deblurring, read_image, to_tensor, weights
from pnp_cli import clipped_noise as module
from pnp_cli.clipped_noise import restore_clipped, share_restored, within_range_of
from pnp_cli.denoising import noise_to_remove
from pnp_cli.images import Image, write_image
from pnp_cli.measurement import measure_errors
from pnp_cli.tensors import to_pixels

from .conftest import SAMPLES, Run
from .helpers import psnr_of


def noisy(scene: Tensor, sigma: float) -> Tensor:
    """As a file of floats in [0, 1] holds it."""
    generator = torch.Generator().manual_seed(1)
    return (scene + sigma * torch.randn(scene.shape, generator=generator)).clamp(0, 1)


def night() -> np.ndarray:
    """Stars on a black sky, (200, 300, 3)."""
    generator = np.random.default_rng(0)
    sky = np.zeros((200, 300, 3), np.float32)
    for row, column in zip(generator.integers(3, 197, 60), generator.integers(3, 297, 60), strict=True):
        across, down = np.mgrid[-3:4, -3:4]
        sky[row - 3 : row + 4, column - 3 : column + 4] += np.exp(-(across**2 + down**2) / 2.5)[:, :, None]
    return sky.clip(0, 1)


@pytest.mark.parametrize("white", [False, True])
@pytest.mark.parametrize("distance", [0.0, 0.25, 0.5, 1.0, 2.0, 3.0])
def test_mean_and_level_come_back(distance: float, white: bool) -> None:
    """Of a flat scene so many deviations from black or white, where clipping takes up to 0.4 of them and 42 %."""
    sigma = 0.1
    scene = torch.full((1, 3, 200, 200), abs(white - distance * sigma))
    y = noisy(scene, sigma)
    expected = restore_clipped(y, NoiseCurve.white(sigma))
    drawn = restore_clipped(y, NoiseCurve.white(sigma), torch.Generator().manual_seed(0))
    assert float((expected - scene).mean()) == pytest.approx(0, abs=0.03 * sigma)
    assert float((drawn - scene).mean()) == pytest.approx(0, abs=0.03 * sigma)
    assert float(drawn.std()) == pytest.approx(sigma, rel=0.03)
    below = 0.5 * math.erfc(distance / math.sqrt(2))
    assert share_restored(y, expected) == pytest.approx(below, abs=0.01)


@pytest.mark.parametrize(("sigma", "scene"), [(0.7, 1), (1, 1), (1.5, 0), (2, 1), (5, 2)])
def test_black_of_integers_is_below_half_a_count(sigma: float, scene: float) -> None:
    """Levels of 8 bits: small noise is rounded, too, and the level that is found holds that."""
    y = (255 * noisy(torch.full((1, 3, 200, 200), scene / 255), sigma / 255)).round() / 255
    for generator in (None, torch.Generator().manual_seed(0)):
        restored = restore_clipped(y, NoiseCurve.white(sigma / 255), generator)
        assert 255 * float(restored.mean()) == pytest.approx(scene, abs=0.06 * sigma)
    found = noise_to_remove(to_pixels(y)).curve.variances[0] ** 0.5
    assert 255 * found == pytest.approx(math.hypot(sigma, 12**-0.5), rel=0.1)


def test_white_is_black_upside_down() -> None:
    y = noisy(torch.linspace(0, 0.4, 90).expand(1, 3, 40, 90), 0.1)
    curve = NoiseCurve.white(0.1)
    torch.testing.assert_close(restore_clipped(1 - y, curve), 1 - restore_clipped(y, curve))


def test_the_scene_is_found_from_its_clipped_mean() -> None:
    """t ↦ tΦ(t) + φ(t) + edge·Φ(t) and its inverse."""
    normal = torch.distributions.Normal(0.0, 1.0)
    for edge in (0.0, 0.1, 0.5, 1.0):
        scene = torch.linspace(-edge, 5, 501, dtype=torch.float64)
        mean = (scene + edge) * normal.cdf(scene) + normal.log_prob(scene).exp()
        found = module._scene_of(mean, torch.full_like(mean, edge))
        torch.testing.assert_close(found, scene, rtol=0, atol=1e-4)


def test_images_are_restored_by_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    y = noisy(torch.zeros(1, 3, 50, 60), 0.1)
    curve = NoiseCurve((0.0, 1.0), (0.01, 0.04))
    whole = restore_clipped(y, curve)
    monkeypatch.setattr(module, "PART", 7 * 180)
    torch.testing.assert_close(restore_clipped(y, curve), whole)


def test_what_was_not_cut_off_stays() -> None:
    curve = NoiseCurve.white(0.1)
    grey = noisy(torch.full((1, 1, 30, 30), 0.5), 0.05)
    below = noisy(torch.zeros(1, 3, 30, 30), 0.1)
    below[..., 0, 0] = -0.01  # a file that can hold such values has cut off nothing
    for image in (grey, below):
        assert restore_clipped(image, curve) is image
        assert share_restored(image, image) == 0
    single = grey.clone()
    single[..., 5, 5] = 0
    assert restore_clipped(single, curve) is single
    assert restore_clipped(noisy(torch.zeros(1, 3, 9, 9), 0.1), NoiseCurve.white(0.0)).min() == 0
    masked = noisy(torch.full((1, 3, 60, 60), 0.4), 0.05)
    masked[..., 30:] = 0
    assert torch.equal(restore_clipped(masked, NoiseCurve.white(0.05))[..., 33:], masked[..., 33:])
    drawing = (torch.rand(1, 3, 40, 40) < 0.5).float()  # black and white without noise
    for level in (0.0, 0.01):
        torch.testing.assert_close(restore_clipped(drawing, NoiseCurve.white(level)), drawing)


def test_results_stay_where_files_can_hold_them() -> None:
    dark = torch.tensor([0.0, 2.0]).reshape(1, 1, 1, 2)
    bright = torch.tensor([-1.0, 1.0]).reshape(1, 1, 1, 2)
    result = torch.tensor([-0.5, 1.5]).reshape(1, 1, 1, 2)
    assert torch.equal(within_range_of(result, result.clone()), result)
    assert within_range_of(dark, result.clone()).flatten().tolist() == [0, 1.5]
    assert within_range_of(bright, result.clone()).flatten().tolist() == [-0.5, 1]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("level", [5, 25, 50])
def test_its_level_is_found(level: float, channels: int) -> None:
    """Half of the samples of a black sky are black, and the deviation of all is 0.58 of that of the noise."""
    pixels = add_gaussian_noise(night()[:, :, :channels], level / 255, 0).clip(0, 1)
    pixels = (255 * pixels).round() / np.float32(255)
    found = noise_to_remove(pixels).curve
    assert found.constant
    assert 255 * found.variances[0] ** 0.5 == pytest.approx(level, rel=0.1)
    plain = noise_to_remove(pixels, clipped=False).curve
    assert 255 * plain.variances[0] ** 0.5 < 0.8 * level


def test_under_blur() -> None:
    """`deblur` finds its level, and starts from what samples were before, unless told that they are what they are."""
    kernel = kernels.gaussian(1.5)
    pixels = add_gaussian_noise(night(), 20 / 255, 0).clip(0, 1)
    y = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    assert 255 * measure_errors(y, kernel, clipped=True).noise == pytest.approx(20, rel=0.1)
    assert 255 * measure_errors(y, kernel).noise < 17
    loaded = weights.load("huber")
    restored = prepare_deblurring(y, kernel, loaded, Choices()).y
    assert abs(float(restored.median())) < 2 / 255 < float(y.mean()) - float(restored.mean())
    assert torch.equal(prepare_deblurring(y, kernel, loaded, Choices(clipped=False)).y, y)


@pytest.mark.parametrize("name", ["in.png", "in.tif"])
def test_denoise(pnp: Run, tmp_path: Path, name: str) -> None:
    """Skies are black again, and the report and the record say why; floats stay in the range of the input, too."""
    source, target = tmp_path / name, tmp_path / f"out_{name}"
    pixels = add_gaussian_noise(night(), 25 / 255, 0).clip(0, 1)
    write_image(Image(pixels, "uint8" if name == "in.png" else "float32"), source)
    scores = []
    for options in ([], ["--no-clipped"]):
        run = pnp("denoise", source, "-o", target, "-w", "huber", "--json", "--on-exists", "overwrite", *options)
        assert run.returncode == 0, run.stderr
        record = json.loads(run.stdout)
        assert (b"cut off noise" in run.stderr) == (record["clipped"] > 0) == (not options)
        result = read_image(target).pixels
        assert options or result.min() >= 0
        scores.append(psnr_of(night(), result))
    assert record["clipped"] == 0
    assert scores[0] > scores[1] + 6


def test_a_photograph_gains(pnp: Run, tmp_path: Path) -> None:
    truth = read_image(SAMPLES / "coffee.png")
    truth = truth.with_pixels(truth.pixels[::2, ::2])
    y = to_tensor(truth)
    y = (255 * noisy(y, 40 / 255)).round() / 255
    write_image(Image(to_pixels(y), "uint8"), tmp_path / "noisy.png")
    scores = []
    for options in ([], ["--no-clipped"]):
        run = pnp("denoise", tmp_path / "noisy.png", "-o", tmp_path / "out.png", "--on-exists", "overwrite", *options)
        assert run.returncode == 0, run.stderr
        scores.append(psnr_of(truth.pixels, read_image(tmp_path / "out.png").pixels))
    assert scores[0] > scores[1] + 0.3
