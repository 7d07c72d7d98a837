"""Quality of a restored image. NumPy only, so that scoring needs no deep-learning library."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Peak = Literal["range", "reference-max"]


def psnr(reference: npt.NDArray[Any], test: npt.NDArray[Any], peak: Peak = "range") -> float:
    """Peak signal-to-noise ratio 10·log₁₀(peak²/MSE) in dB; infinite for equal images.

    Parameters
    ----------
    reference, test : arrays of one shape, values nominally in [0, 1].
    peak : ``"range"`` is 1.0, the data range, as in published tables; ``"reference-max"`` is max |reference|.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    if reference.shape != test.shape:
        raise ValueError(f"the images differ in shape: {reference.shape} and {test.shape}")
    reference = reference.astype(np.float64)
    mse = float(np.mean((reference - test) ** 2))
    top = 1.0 if peak == "range" else float(np.abs(reference).max())
    if mse == 0:
        return math.inf
    return 10 * math.log10(top**2 / mse) if top > 0 else -math.inf


def ssim(reference: npt.NDArray[Any], test: npt.NDArray[Any]) -> float:
    """Structural similarity (Wang et al. 2004) of two (H, W, C) images, data range 1.0, mean over channels.

    Gaussian weights of σ = 1.5 and biased covariances, the parameters of the paper.

    Raises
    ------
    ValueError
        If the shapes differ or a side is shorter than the 11-pixel window.
    """
    from skimage.metrics import structural_similarity

    if reference.shape != test.shape:
        raise ValueError(f"the images differ in shape: {reference.shape} and {test.shape}")
    if min(reference.shape[:2]) < 11:
        raise ValueError("SSIM needs at least 11 pixels on both sides")
    value = structural_similarity(
        reference.astype(np.float64),
        test.astype(np.float64),
        data_range=1.0,
        channel_axis=2,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    return float(value)
