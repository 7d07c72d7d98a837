"""The blur operator: exact adjoint, true convolution, exact extreme singular values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.signal import fftconvolve

from pnp_cli import InputError, UsageError, kernels
from pnp_cli.boundaries import BoundaryModel, Free, Periodic, Reflect, boundary_model
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


BOUNDED = [Free, Reflect, Periodic]


@pytest.mark.parametrize("boundary", BOUNDED)
@pytest.mark.parametrize("size", [(9, 8), (4, 5)])
@pytest.mark.parametrize(
    "kernel",
    [ASYMMETRIC, kernels.motion(4.3, 25), np.ones((2, 4)) / 8, np.eye(1, 3)],
    ids=["3x3", "motion", "even", "shift"],
)
def test_every_boundary(boundary: BoundaryModel, size: tuple[int, int], kernel: np.ndarray) -> None:
    """K = crop ∘ convolution ∘ enlarge: exact adjoint, and L never below a dense SVD."""
    blur = Blur(kernel, size, boundary, dtype=torch.float64)
    height, width = blur.scene
    relative_dot_test(blur.forward, blur.adjoint, torch.empty(1, 2, height, width))
    basis = torch.eye(height * width, dtype=torch.float64).reshape(height * width, 1, height, width)
    singular = np.linalg.svd(blur.forward(basis).reshape(height * width, -1).numpy(), compute_uv=False)
    assert singular[0] ** 2 <= blur.lipschitz * (1 + 1e-12)
    assert singular[-1] ** 2 >= blur.strong_convexity * (1 - 1e-12)
    normal = blur.adjoint(blur.forward(basis))
    torch.testing.assert_close(blur.normal(basis), normal)
    spectrum = torch.fft.irfft2(blur.adjoint_spectrum(blur.forward_spectrum(torch.fft.rfft2(basis))), s=blur.scene)
    torch.testing.assert_close(spectrum, normal)


@pytest.mark.parametrize(
    "kernel", [ASYMMETRIC, kernels.motion(7, 20), np.ones((2, 4)) / 8], ids=["3x3", "motion", "even"]
)
def test_free_boundary_is_what_a_frame_sees_of_a_larger_scene(kernel: np.ndarray) -> None:
    scene = np.random.default_rng(0).random((30, 33))
    seen = fftconvolve(scene, kernel, mode="valid")
    h, w = kernel.shape
    frame = (30 - h + 1, 33 - w + 1)
    blur = Blur(kernel, frame, Free, dtype=torch.float64)
    assert blur.scene[0] >= 30
    assert blur.scene[1] >= 33
    x = torch.zeros(1, 1, *blur.scene, dtype=torch.float64)
    x[0, 0, :30, :33] = torch.from_numpy(scene)
    np.testing.assert_allclose(blur.forward(x)[0, 0].numpy(), seen, atol=1e-12)
    # The frame lies where the kernel's origin puts it.
    top, left = h - 1 - h // 2, w - 1 - w // 2
    np.testing.assert_array_equal(
        blur.boundary.frame_of(x)[0, 0].numpy(), scene[top : top + frame[0], left : left + frame[1]]
    )
    y = torch.from_numpy(seen)[None, None]
    torch.testing.assert_close(blur.boundary.frame_of(blur.boundary.extrapolate(y)), y, rtol=0, atol=0)


def test_reflection_is_that_of_scipy() -> None:
    x = np.random.default_rng(0).random((20, 23))
    blur = Blur(ASYMMETRIC, x.shape, Reflect, dtype=torch.float64)
    got = blur.forward(torch.from_numpy(x)[None, None])[0, 0].numpy()
    np.testing.assert_allclose(got, ndimage.convolve(x, ASYMMETRIC, mode="reflect"), atol=1e-12)


def test_a_symmetric_kernel_has_norm_1_under_reflection() -> None:
    assert Blur(kernels.disk(2.3), (20, 17), Reflect).lipschitz == 1.0
    assert Blur(kernels.motion(9, 40), (20, 17), Reflect).lipschitz > 1.0, "its mirror image differs"


@pytest.mark.parametrize("size", [(32, 48), (37, 51)])
@pytest.mark.parametrize(
    "kernel", [kernels.disk(3), kernels.gaussian(2), kernels.motion(10, 45), kernels.motion(7.3, 11)]
)
def test_a_blur_has_exactly_norm_1(kernel: np.ndarray, size: tuple[int, int]) -> None:
    assert Blur(kernel, size).lipschitz == 1.0


@pytest.mark.parametrize("boundary", [Free, Periodic])
@pytest.mark.parametrize("scale", [1e-7, 0.3, 1 - 3e-13, 1 + 3e-13, 1e7])
@pytest.mark.parametrize("kernel", [ASYMMETRIC, kernels.motion(5, 70)], ids=["3x3", "motion"])
def test_the_norm_is_never_rounded_down(kernel: np.ndarray, scale: float, boundary: BoundaryModel) -> None:
    """A kernel of another sum has the norm that belongs to its sum, be it tiny or all but 1."""
    assert scale**2 < Blur(scale * kernel, (20, 17), boundary).lipschitz < scale**2 * (1 + 1e-11)


@pytest.mark.parametrize("kernel", [ASYMMETRIC, kernels.disk(2.3)], ids=["3x3", "disk"])
def test_the_bound_under_reflection_scales_with_the_kernel(kernel: np.ndarray) -> None:
    one, tiny = (Blur(scale * kernel, (20, 17), Reflect).lipschitz for scale in (1, 1e-7))
    assert 0 < tiny == pytest.approx(1e-14 * one, rel=1e-11)


def test_kernels_with_negative_entries_or_nothing() -> None:
    sharpening = np.array([[0.0, -0.25, 0.0], [-0.25, 2.0, -0.25], [0.0, -0.25, 0.0]])
    assert 9 < Blur(sharpening, (16, 16)).lipschitz < 9 * (1 + 1e-11)
    assert Blur(np.zeros((3, 3)), (16, 16)).lipschitz == 0


def test_unknown_boundary() -> None:
    assert boundary_model("free") is Free
    with pytest.raises(UsageError, match="free, periodic, reflect"):
        boundary_model("mirror")


def test_kernel_larger_than_the_image() -> None:
    with pytest.raises(InputError, match="5x9 kernel is larger than the 8x8 image"):
        Blur(np.ones((5, 9)) / 45, (8, 8))
