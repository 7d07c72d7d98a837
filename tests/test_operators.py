"""The blur operator: exact adjoint, true convolution, exact extreme singular values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.signal import fftconvolve
from torch import Tensor

from pnp_cli import InputError, UsageError, kernels
from pnp_cli.operators import Blur

from .helpers import relative_dot_test

SIZES = [(16, 16), (17, 24), (15, 9), (33, 7)]
ASYMMETRIC = np.array([[0.1, 0.2, 0.0], [0.0, 0.3, 0.25], [0.0, 0.05, 0.1]])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "kernel", [ASYMMETRIC, kernels.motion(6.3, 25), np.ones((2, 4)) / 8], ids=["3x3", "motion", "even"]
)
def test_adjoint(size: tuple[int, int], kernel: np.ndarray) -> None:
    blur = Blur(kernel, size, dtype=torch.float64)
    x = torch.empty(2, 3, *size, dtype=torch.float64)
    relative_dot_test(blur.forward, blur.adjoint, x)
    u = torch.randn_like(x)
    torch.testing.assert_close(blur.normal(u), blur.adjoint(blur.forward(u)))


def dense(blur: Blur) -> np.ndarray:
    n = blur.size[0] * blur.size[1]
    basis = torch.eye(n, dtype=torch.float64).reshape(n, 1, *blur.size)
    return blur.forward(basis).reshape(n, n).numpy().T


@pytest.mark.parametrize("size", [(8, 8), (7, 10)])
def test_constants_are_the_extreme_singular_values(size: tuple[int, int]) -> None:
    blur = Blur(ASYMMETRIC, size, dtype=torch.float64)
    singular = np.linalg.svd(dense(blur), compute_uv=False)
    assert blur.lipschitz == pytest.approx(singular[0] ** 2, rel=1e-12)
    assert blur.strong_convexity == pytest.approx(singular[-1] ** 2, rel=1e-9)


@pytest.mark.parametrize(
    "kernel", [ASYMMETRIC, kernels.motion(5, 70), np.ones((2, 4)) / 8], ids=["3x3", "motion", "even"]
)
def test_it_is_convolution_not_correlation(kernel: np.ndarray) -> None:
    x = np.random.default_rng(0).random((20, 23))
    h, w = kernel.shape
    periodic = np.pad(x, ((h, h), (w, w)), mode="wrap")
    full = fftconvolve(periodic, kernel)
    expected = full[h + h // 2 :, w + w // 2 :][:20, :23]  # origin at (h // 2, w // 2)
    got = Blur(kernel, x.shape, dtype=torch.float64).forward(torch.from_numpy(x)[None, None])
    np.testing.assert_allclose(got[0, 0].numpy(), expected, atol=1e-12)


class Crop:
    """A boundary that restricts: the scene goes on by three pixels on every side."""

    name = "crop"
    is_identity = False

    def canvas(self, size: tuple[int, int], kernel_size: tuple[int, int]) -> tuple[int, int]:
        return size[0] + 6, size[1] + 6

    def restrict(self, x: Tensor) -> Tensor:
        return x[:, :, 3:-3, 3:-3]

    def extend(self, y: Tensor) -> Tensor:
        return F.pad(y, (3, 3, 3, 3))


def test_another_boundary() -> None:
    """K = restrict ∘ convolution: exact adjoint, bounds of the singular values, no closed-form prox."""
    blur = Blur(ASYMMETRIC, (5, 4), Crop(), dtype=torch.float64)
    relative_dot_test(blur.forward, blur.adjoint, torch.empty(1, 2, 11, 10))
    basis = torch.eye(110, dtype=torch.float64).reshape(110, 1, 11, 10)
    singular = np.linalg.svd(blur.forward(basis).reshape(110, 20).numpy(), compute_uv=False)
    assert blur.strong_convexity == 0
    assert singular[0] ** 2 <= blur.lipschitz
    torch.testing.assert_close(blur.normal(basis), blur.adjoint(blur.forward(basis)))
    y = torch.rand(1, 1, 5, 4, dtype=torch.float64)
    with pytest.raises(UsageError, match="crop boundary"):
        blur.prox(blur.adjoint(y), blur.adjoint_spectrum(y), 1.0)


@pytest.mark.parametrize("size", [(32, 48), (37, 51)])
@pytest.mark.parametrize(
    "kernel", [kernels.disk(3), kernels.gaussian(2), kernels.motion(10, 45), kernels.motion(7.3, 11)]
)
def test_a_blur_has_exactly_norm_1(kernel: np.ndarray, size: tuple[int, int]) -> None:
    assert Blur(kernel, size).lipschitz == 1.0


def test_kernel_larger_than_the_image() -> None:
    with pytest.raises(InputError, match="5x9 kernel is larger than the 8x8 image"):
        Blur(np.ones((5, 9)) / 45, (8, 8))
