"""Images far below white: scaling one only scales what is made of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pnp_cli import Choices, certify, estimate_noise, kernels, prepare_deblurring, read_image, to_tensor, weights
from pnp_cli.conditioned import ConditionedNetwork
from pnp_cli.errors import UsageError
from pnp_cli.exposure import Brightened, brightened, find_gain

from .conftest import SAMPLES, Run
from .helpers import small_conditioned, small_network, steepest


def test_the_gain_leaves_an_image_below_white() -> None:
    for value, gain in ((1.5, 1), (0.51, 1), (0.5, 2), (0.26, 2), (0.25, 4), (1 / 65535, 32768), (1e-9, 65536)):
        assert find_gain(torch.full((1, 3, 20, 31), value), 0.0) == gain
        assert find_gain(torch.full((1, 1, 1, 1), value), 0.0) == gain
    assert find_gain(torch.zeros(1, 1, 3, 3), 0.0) == find_gain(-torch.ones(1, 1, 3, 3), 0.0) == 1
    dark = torch.rand(1, 3, 40, 50) / 16
    assert find_gain(dark, 0.1) == 1, "mostly noise"
    assert find_gain(dark, 0.02) == 8
    assert find_gain(dark, 0.001) == 16
    dark[..., 7, 7] = 1
    assert find_gain(dark, 0.001) >= 8, "a hot pixel"
    dark[..., ::10] = 1
    assert find_gain(dark, 0.001) == 1, "lines as thin as that"
    for row, column in ((0, 0), (32, 0), (0, 44), (32, 44)):
        bright = torch.full((1, 1, 38, 50), 0.01)
        bright[..., row : row + 6, column : column + 6] = 0.9
        assert find_gain(bright, 0.0) == 1, "a window, and be it in a corner"


@pytest.mark.parametrize("network", [small_network(centre=0.5), small_conditioned()])
def test_a_brightened_denoiser(network: ConditionedNetwork) -> None:
    network = network.double()
    darker, x = Brightened(8, network), torch.rand(2, 3, 17, 30, dtype=torch.float64) / 8
    levels = (0.01, torch.tensor([0.01, 0.02], dtype=torch.float64), torch.rand(2, 1, 17, 30, dtype=torch.float64) / 80)
    for sigma in levels:
        torch.testing.assert_close(darker(x, sigma), network(8 * x, 8 * sigma) / 8)
        torch.testing.assert_close(darker.estimate(x, sigma), network.estimate(8 * x, 8 * sigma) / 8)
        operator = network.condition(8 * x, 8 * sigma, noisy=False)
        torch.testing.assert_close(darker.condition(x, sigma, noisy=False)(x, sigma), operator(8 * x, 8 * sigma) / 8)
    assert torch.equal(darker(x, 0.0), x)
    assert certify(darker) == certify(network)
    assert steepest(darker, x, 0.02) <= 1
    assert brightened(1, network) is network
    with pytest.raises(UsageError, match="positive factor"):
        brightened(0, network)


def test_scenes_brighter_than_white_are_white_for_the_guide() -> None:
    """The guide was trained on images in [0, 1]; elsewhere it would say anything."""
    network = small_conditioned().double()
    with torch.no_grad():
        for shape in ((1, 3, 16, 16), (1, 1, 16, 16)):
            highlight = torch.full(shape, 3.0, dtype=torch.float64)
            maps = network.condition(highlight, 0.01, noisy=False).maps
            brighter = network.condition(highlight + 0.5, 0.01, noisy=False).maps
            white = network.condition(highlight / 3 + 0.1, 0.01, noisy=False).maps
            for scale in maps:
                torch.testing.assert_close(brighter[scale][..., 1:-1, 1:-1], maps[scale][..., 1:-1, 1:-1])
                torch.testing.assert_close(white[scale][..., 1:-1, 1:-1], maps[scale][..., 1:-1, 1:-1])


def test_noise_of_dark_images_is_found() -> None:
    """12 bits in a file of 16: the noise is below a count of 8 bits, and yet no rounding error."""
    image = read_image(SAMPLES / "coffee.png")
    noise = np.random.default_rng(0).standard_normal(image.pixels.shape, dtype=np.float32)
    for level in (2.55, 7.65):
        noisy = image.pixels + level / 255 * noise
        assert level / 255 < estimate_noise(noisy) < 1.5 * level / 255, "the picture has some of its own"
        assert estimate_noise(noisy / 16) == pytest.approx(estimate_noise(noisy) / 16, rel=1e-4)
        hot = noisy / 16
        hot[100, 200] = 1
        assert estimate_noise(hot) == pytest.approx(estimate_noise(noisy) / 16, rel=0.05)


def test_deblurring_is_scaled_with_the_image(small_weights: Path) -> None:
    """Its settings are chosen for the image as the denoiser sees it, so the iterates differ by rounding only."""
    image = read_image(SAMPLES / "coffee_blurred.png")
    y, kernel = to_tensor(image)[:, :, 100:164, 100:180], kernels.motion(15, 30)
    y = 0.9 * y / y.max()
    loaded = weights.load(small_weights)
    frames = {}
    for scale in (1.0, 1 / 16):
        deblurring = prepare_deblurring(scale * y, kernel, loaded, Choices(noise=scale * 2.55 / 255, clipped=False))
        assert deblurring.gain == 1 / scale
        end = deblurring.run()
        assert not end.violations
        frames[scale] = end.frame / scale
    torch.testing.assert_close(frames[1 / 16], frames[1.0], rtol=0, atol=2e-3)


@pytest.mark.parametrize("command", ["denoise", "deblur", "ista"])
def test_commands(pnp: Run, tmp_path: Path, small_weights: Path, command: str) -> None:
    """A dark file is restored as a bright one is; the report and the record say what was done."""
    pixels = read_image(SAMPLES / "coffee_blurred.png").pixels[100:164, 100:180]
    pixels = 0.9 * pixels / pixels.max()
    options: list[object] = ["--motion", 15, 30] if command != "denoise" else []
    options += ["-w", small_weights] if command != "ista" else []
    results = []
    for scale in (1.0, 1 / 16):
        source, target = tmp_path / f"{scale}.npy", tmp_path / f"{scale}_out.npy"
        np.save(source, (scale * pixels).astype(np.float32))
        run = pnp(command, source, "-o", target, "--sigma", 2.55 * scale, "--json", *options)
        assert run.returncode == 0, run.stderr
        record = json.loads(run.stdout)
        assert record["gain"] == 1 / scale
        if command != "ista":
            assert (b"16 times as bright" in run.stderr) == (scale < 1)
        results.append(np.load(target) / scale)
    np.testing.assert_allclose(results[1], results[0], rtol=0, atol=2e-3)
    assert np.abs(results[0] - pixels).max() > 0.01
