"""Motion blur estimated from photographs of which the frame shows a part."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import fftconvolve
from skimage import data

from pnp_cli import estimate_motion, kernels
from pnp_cli.motion import NOTHING

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


def test_it_turns_with_the_picture() -> None:
    pixels = seen("astronaut", kernels.motion(14, 25))
    for picture, angle in ((np.rot90(pixels), 115), (pixels[:, ::-1], 155), (pixels[::-1], 155)):
        found = estimate_motion(np.ascontiguousarray(picture))
        assert turned(found.angle, angle) < 2
        assert abs(found.length - 14) < 0.7


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize(
    "kernel", [np.ones((1, 1)), kernels.gaussian(2), kernels.disk(4)], ids=["sharp", "gaussian", "disk"]
)
def test_other_blurs_are_not_clear(name: str, kernel: np.ndarray) -> None:
    assert not estimate_motion(seen(name, kernel)).clear


def test_images_without_content() -> None:
    for shape in ((1, 1, 3), (40, 500, 1)):
        assert estimate_motion(np.random.default_rng(0).random(shape, dtype=np.float32)) == NOTHING
    assert estimate_motion(np.full((100, 100, 3), 0.5, np.float32)) == NOTHING
    noise = np.random.default_rng(0).random((128, 128, 1), dtype=np.float32)
    assert not estimate_motion(noise).clear
