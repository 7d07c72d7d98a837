"""Motion blurs along paths that are neither straight nor even, in photographs of which the frame shows a part."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.fft import irfft2
from scipy.signal import fftconvolve
from skimage import data

from pnp_cli import Blur, estimate_motion, follow_motion, kernels
from pnp_cli.boundaries import Periodic
from pnp_cli.light import to_light, to_samples
from pnp_cli.motion import MotionEstimate
from pnp_cli.motion_path import SCALES, WINDOW, _Objective, _path, _strongest_part

from .helpers import compressed

SCENE = data.astronaut()[40:360, 60:380] / 255
SEGMENT = MotionEstimate(18.0, 24.0, 1.0)


def bent() -> np.ndarray:
    """An arc of 18 pixels on which the motion slows down."""
    t = np.linspace(-0.5, 0.5, 41)
    turn = np.radians(24)
    along, across = 18 * t, 1.6 * (1 - 4 * t**2)
    points = np.stack([along * np.cos(turn) + across * np.sin(turn), across * np.cos(turn) - along * np.sin(turn)], 1)
    return kernels.path(points, 1 + 0.7 * (t[1:] + t[:-1]) / 2)


def seen(kernel: np.ndarray, scene: np.ndarray = SCENE, noise: float = 0.004) -> np.ndarray:
    """What the frame shows of the blurred scene."""
    blurred = fftconvolve(scene, kernel[..., None], mode="valid", axes=(0, 1))
    return (blurred + np.random.default_rng(0).normal(0, noise, blurred.shape)).clip(0, 1).astype(np.float32)


def likeness(a: np.ndarray, b: np.ndarray) -> float:
    """Cosine of two kernels, for the best shift."""
    return float(fftconvolve(a, b[::-1, ::-1]).max() / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize("kind", ["samples", "light", "JPEG"])
def test_a_bent_and_uneven_motion_is_followed(kind: str) -> None:
    truth = bent()
    pixels, jpeg = seen(truth), None
    if kind == "light":
        light = to_light(torch.from_numpy(SCENE)).numpy()
        pixels = to_samples(torch.from_numpy(seen(truth, light, 0.001))).numpy()
    elif kind == "JPEG":
        pixels, jpeg = compressed(255 * pixels, 92)
    found = follow_motion(pixels, SEGMENT, jpeg, linear_light=kind == "light")
    assert found is not None
    segment = kernels.motion(SEGMENT.length, SEGMENT.angle)
    assert 1 - likeness(found.kernel, truth) < (1 - likeness(segment, truth)) / 2
    assert found.bend == pytest.approx(1.6, abs=1)
    assert 1.3 < found.variation < 3.5  # 2.1
    assert found.kernel.sum() == pytest.approx(1)
    np.testing.assert_allclose(kernels.properties(found.kernel).centroid, 0, atol=0.01)


@pytest.mark.parametrize(("length", "angle"), [(9.0, 30.0), (17.5, 117.0), (31.0, 75.0)])
def test_straight_and_even_motions_stand(length: float, angle: float) -> None:
    pixels = seen(kernels.motion(length, angle))
    motion = estimate_motion(pixels)
    assert motion.clear
    assert follow_motion(pixels, motion) is None
    rounded, jpeg = compressed(255 * pixels, 92)
    assert follow_motion(rounded, motion, jpeg) is None


@pytest.mark.parametrize(("length", "angle"), [(20.0, 40.0), (12.0, 150.0)])
@pytest.mark.parametrize("lights", [0.01, 0.07])
def test_clipped_lights_do_not_mislead(lights: float, length: float, angle: float) -> None:
    """What is clipped is no blur of anything, so a motion must not be bent to explain it."""
    brightness = SCENE.mean(axis=2, keepdims=True)
    bright = np.where(brightness > np.quantile(brightness, 1 - lights), 4.0, SCENE)
    pixels = seen(kernels.motion(length, angle), bright)
    assert follow_motion(pixels, MotionEstimate(length, angle, 1.0)) is None


def test_images_that_tell_nothing() -> None:
    rng = np.random.default_rng(0)
    flat, noise = np.full((200, 200, 1), 0.5, np.float32), rng.normal(0.5, 0.05, (200, 200, 1)).astype(np.float32)
    white, small = np.ones((200, 200, 3), np.float32), seen(bent())[:50, :300]
    for pixels in (flat, noise, white, small):
        assert follow_motion(pixels, SEGMENT) is None


def test_white_pixels_do_not_count() -> None:
    """Nothing is left to explain where one of the colours is clipped everywhere."""
    pixels = seen(bent())
    assert follow_motion(pixels, SEGMENT) is not None
    pixels[..., 0] = 1
    assert follow_motion(pixels, SEGMENT) is None


def test_paths_without_parameters_are_segments() -> None:
    points, time = _path(SEGMENT, np.zeros(len(SCALES)))
    np.testing.assert_allclose(kernels.path(points, time), kernels.motion(SEGMENT.length, SEGMENT.angle), atol=1e-12)


def test_the_part_with_the_edges_is_looked_at() -> None:
    grey = np.full((900, 1300, 3), 0.5, np.float32)
    grey[500:640, 1000:1100] = np.random.default_rng(0).random((140, 100, 1))
    rows, columns = _strongest_part(grey)
    assert rows.stop - rows.start == columns.stop - columns.start == WINDOW
    assert rows.start <= 500
    assert rows.stop >= 640
    assert columns.start <= 1000
    assert columns.stop >= 1100
    assert grey[:300, :200][_strongest_part(grey[:300, :200])].shape == (300, 200, 3)


def test_objective_of_an_image_of_few_edges() -> None:
    """The true kernel costs less than another; the derivative is that of the misfit by `Blur`, the image held fixed."""
    scene = np.zeros((96, 96))
    scene[30:60, 20:70] = 1
    truth = np.zeros((15, 15))
    truth[5:10, 3:12] = np.random.default_rng(0).random((5, 9))
    truth /= truth.sum()
    y = fftconvolve(scene, truth, mode="same")
    everywhere = np.ones(y.shape, np.bool_)
    objective = _Objective(y, everywhere, 15, 1e-3)
    least, _ = objective(truth)
    other = kernels.gaussian(1.5)
    other = np.pad(other, (15 - len(other)) // 2)
    x_hat, _ = objective.restored(objective.transformed(other))
    x = torch.from_numpy(irfft2(x_hat, objective.y.shape))[None, None].double()
    blur = Blur(other, objective.y.shape, Periodic, dtype=torch.float64)
    misfit = objective.counted * (blur.forward(x)[0, 0].numpy() - objective.y)
    total, slope = objective(other)
    change = np.random.default_rng(1).random((15, 15))
    ahead = Blur(other + 1e-4 * change, objective.y.shape, Periodic, dtype=torch.float64).forward(x)[0, 0].numpy()
    behind = Blur(other - 1e-4 * change, objective.y.shape, Periodic, dtype=torch.float64).forward(x)[0, 0].numpy()
    quotient = float((objective.counted * ((ahead - objective.y) ** 2 - (behind - objective.y) ** 2)).sum() / 2e-4)
    assert float((slope * change).sum()) == pytest.approx(quotient, rel=1e-3)
    assert 2 * least < total
    assert float((misfit**2).sum()) < total
