"""Noise levels estimated from one image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage import data

from pnp_cli import Blur, estimate_noise, estimate_noise_under_blur, kernels


def test_noise_estimate() -> None:
    """Within 3 % on flat pictures; constant channels and tiny images do not disturb it."""
    rng = np.random.default_rng(0)
    noisy = 0.5 + rng.normal(0, 0.1, (64, 64, 3))
    assert estimate_noise(noisy) == pytest.approx(0.1, rel=0.03)
    noisy[:, :, 1:] = 0
    assert estimate_noise(noisy) == pytest.approx(0.1, rel=0.06)
    for shape in ((1, 1, 1), (1, 50, 3), (2, 2, 3)):
        assert estimate_noise(np.zeros(shape)) == 0
        assert estimate_noise(rng.random(shape)) >= 0


@pytest.mark.parametrize("kernel", [kernels.motion(5, 30), kernels.motion(20, 110), kernels.disk(4)], ids=str)
@pytest.mark.parametrize("level", [1.0, 2.55, 15.0])
def test_knowing_the_kernel(kernel: np.ndarray, level: float) -> None:
    """Within 4 % on photographs that are not periodic; fine texture of the scene does not count as noise."""
    for picture in (data.chelsea(), data.camera()[..., None]):
        scene = torch.from_numpy(picture.transpose(2, 0, 1) / 255.0)[None]
        seen = Blur(kernel, picture.shape[:2], dtype=torch.float64).forward(scene)[0, :, 24:-24, 24:-24]
        pixels = seen.permute(1, 2, 0).numpy() + np.random.default_rng(0).normal(0, level / 255, (*seen.shape[1:], 1))
        assert 255 * estimate_noise_under_blur(pixels, kernel) == pytest.approx(level, rel=0.04)


def test_images_without_noise_or_size() -> None:
    kernel = kernels.motion(3, 0)
    assert estimate_noise_under_blur(np.full((32, 32, 3), 0.3), kernel) == 0
    assert estimate_noise_under_blur(np.zeros((3, 4, 1)), kernel) == 0
