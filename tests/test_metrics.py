"""Scores against scikit-image and the definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from pnp_cli import psnr, ssim

from .helpers import psnr_of


def pair() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    a = rng.random((20, 23, 3), dtype=np.float32) * np.float32(0.8)
    return a, a + rng.normal(0, 0.05, a.shape).astype(np.float32)


def test_psnr() -> None:
    a, b = pair()
    assert psnr(a, b) == pytest.approx(psnr_of(a, b))
    mse = np.mean((a.astype(float) - b) ** 2)
    assert psnr(a, b, "reference-max") == pytest.approx(10 * math.log10(float(a.max()) ** 2 / mse))
    assert psnr(a, a) == math.inf
    assert psnr(np.zeros((2, 2)), np.ones((2, 2)), "reference-max") == -math.inf


def test_ssim() -> None:
    a, b = pair()
    expected = structural_similarity(
        a, b, data_range=1.0, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert ssim(a, b) == pytest.approx(expected, rel=1e-5)
    assert ssim(a, a) == pytest.approx(1)


def test_shapes_must_agree() -> None:
    a, b = pair()
    for score in (psnr, ssim):
        with pytest.raises(ValueError, match="shape"):
            score(a, b[:-1])
    with pytest.raises(ValueError, match="11 pixels"):
        ssim(a[:8], b[:8])
