"""Motion blur estimated from photographs of which the frame shows a part."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.fft import idctn
from scipy.signal import fftconvolve
from skimage import data

from pnp_cli import estimate_motion, kernels
from pnp_cli.jpeg import JpegRounding
from pnp_cli.jpeg_spectrum import spectrum_of_rounding
from pnp_cli.light import to_light, to_samples
from pnp_cli.motion import NOTHING

from .helpers import compressed

PICTURES = {
    "astronaut": lambda: data.astronaut()[:360, 60:420] / 255,
    "camera": lambda: data.camera()[40:400, 40:400, None] / 255,
    "chelsea": lambda: data.chelsea() / 255,
    "coffee": lambda: data.coffee()[:, 100:500] / 255,
}


def seen(name: str, kernel: np.ndarray, noise: float = 0.004) -> np.ndarray:
    """What the frame shows of the blurred scene."""
    blurred = fftconvolve(PICTURES[name](), kernel[..., None], mode="valid", axes=(0, 1))
    return (blurred + np.random.default_rng(0).normal(0, noise, blurred.shape)).clip(0, 1).astype(np.float32)


def turned(a: float, b: float) -> float:
    """Angle between two directions, in degrees."""
    return abs((a - b + 90) % 180 - 90)


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize(("length", "angle"), [(9.0, 30.0), (17.5, 117.0), (31.0, 75.0)])
def test_known_motions_are_found(name: str, length: float, angle: float) -> None:
    found = estimate_motion(seen(name, kernels.motion(length, angle)))
    assert abs(found.length - length) < 1
    assert turned(found.angle, angle) < 3
    assert 0 <= found.angle < 180
    assert found.clear


@pytest.mark.parametrize(
    ("name", "quality", "length", "angle"),
    [
        ("astronaut", 92, 9.0, 30.0),
        ("camera", 92, 9.0, 30.0),
        ("chelsea", 85, 17.5, 117.0),
        ("coffee", 85, 17.5, 117.0),
        ("astronaut", 75, 31.0, 75.0),
        ("chelsea", 75, 31.0, 75.0),
    ],
)
def test_motions_are_found_in_compressed_files(name: str, quality: int, length: float, angle: float) -> None:
    """Rounding leaves little of high frequencies, which would count as noise; in light its errors are others."""
    kernel = kernels.motion(length, angle)
    pixels, jpeg = compressed(255 * seen(name, kernel), quality)
    light = fftconvolve(to_light(torch.from_numpy(PICTURES[name]())).numpy(), kernel[..., None], "valid", axes=(0, 1))
    of_light = compressed(255 * to_samples(torch.from_numpy(light)).numpy(), quality)
    for found in (estimate_motion(pixels, jpeg), estimate_motion(*of_light, linear_light=True)):
        assert abs(found.length - length) < 1
        assert turned(found.angle, angle) < 3
        assert found.clear
    assert not estimate_motion(*compressed(255 * seen(name, np.ones((1, 1))), quality)).clear


def test_what_rounding_passes_on() -> None:
    """Of Laplace-distributed coefficients: all of large ones, nothing of small ones, and as measured between."""
    rng = np.random.default_rng(0)
    steps = np.full((1, 8, 8), 0.1)
    for deviation in (0.01, 0.05, 0.1, 0.3, 2.0):
        coefficients = rng.laplace(scale=deviation / 2**0.5, size=(40, 50, 8, 8))
        rounded = 0.1 * np.round(coefficients / 0.1)
        blocks = idctn(rounded, axes=(2, 3), norm="ortho")
        pixels = blocks.swapaxes(1, 2).reshape(320, 400, 1)
        found = spectrum_of_rounding(pixels, JpegRounding(steps, np.eye(1)))
        gain = (coefficients * rounded)[..., 1:, 1:].mean() / np.square(coefficients[..., 1:, 1:]).mean()
        rest = np.square(rounded - gain * coefficients)[..., 1:, 1:].mean()
        assert found.passed[1:, 1:].mean() ** 0.5 == pytest.approx(gain, abs=0.02)
        assert found.added[1:, 1:].mean() == pytest.approx(rest, rel=0.05, abs=1e-7)
        total = np.square(rounded[..., 1:, 1:]).mean()
        assert found.share[1:, 1:].mean() == pytest.approx(1 - rest / total if total else 0, abs=0.05)
    passed, added, share = found.at(np.array([0.0, -0.5, 0.2]), np.array([0.0, 0.5, 0.1]))
    np.testing.assert_allclose(passed, 1, atol=0.01)
    np.testing.assert_allclose(share, 1, atol=0.01)
    np.testing.assert_allclose(added, 0.01 / 12, rtol=0.1)
    np.testing.assert_allclose(found.scaled(2.0).added, 4 * found.added)


def test_it_turns_with_the_picture() -> None:
    pixels = seen("astronaut", kernels.motion(14, 25))
    for picture, angle in ((np.rot90(pixels), 115), (pixels[:, ::-1], 155), (pixels[::-1], 155)):
        found = estimate_motion(np.ascontiguousarray(picture))
        assert turned(found.angle, angle) < 2
        assert abs(found.length - 14) < 0.7


OTHERS = {"sharp": np.ones((1, 1)), "gaussian": kernels.gaussian(2), "disk": kernels.disk(4)}


@pytest.mark.parametrize(
    ("name", "kernel"),
    [
        ("chelsea", "sharp"),
        ("coffee", "sharp"),
        ("astronaut", "gaussian"),
        ("coffee", "gaussian"),
        ("astronaut", "disk"),
        ("camera", "disk"),
    ],
)
def test_other_blurs_are_not_clear(name: str, kernel: str) -> None:
    assert not estimate_motion(seen(name, OTHERS[kernel])).clear


def test_images_without_content() -> None:
    for shape in ((1, 1, 3), (40, 500, 1)):
        assert estimate_motion(np.random.default_rng(0).random(shape, dtype=np.float32)) == NOTHING
    assert estimate_motion(np.full((100, 100, 3), 0.5, np.float32)) == NOTHING
    noise = np.random.default_rng(0).random((128, 128, 1), dtype=np.float32)
    assert not estimate_motion(noise).clear
