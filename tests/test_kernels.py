"""Point-spread functions: unit sum, conventions, exact areas, files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from pnp_cli import InputError, UsageError, kernels
from pnp_cli.images import Image, write_image


@pytest.mark.parametrize("length", [0.3, 1.0, 2.0, 7.0, 12.6, 31.0])
@pytest.mark.parametrize("angle", [0.0, 17.0, 30.0, 45.0, 90.0, 133.3, -60.0, 720.0])
def test_motion_is_a_centred_segment(length: float, angle: float) -> None:
    kernel = kernels.motion(length, angle)
    assert kernel.min() >= 0
    assert kernel.sum() == pytest.approx(1, abs=1e-14)
    np.testing.assert_array_equal(kernel, kernel[::-1, ::-1])
    assert all(side % 2 == 1 for side in kernel.shape)
    rows, columns = np.indices(kernel.shape)
    y, x = rows - kernel.shape[0] // 2, columns - kernel.shape[1] // 2
    # Second moments: L²/12 along the motion, plus at most the 1/12 + 1/12 of the pixel grid.
    theta = np.radians(angle)
    along = x * np.cos(theta) - y * np.sin(theta)
    across = x * np.sin(theta) + y * np.cos(theta)
    assert (kernel * along**2).sum() == pytest.approx(length**2 / 12, abs=0.25 + 0.02 * length)
    assert (kernel * across**2).sum() < 0.26


def test_motion_convention() -> None:
    """Horizontal at 0, rising to the right at 45, vertical at 90; counter-clockwise on the screen."""
    assert kernels.motion(5, 0).shape == (1, 5)
    np.testing.assert_allclose(kernels.motion(5, 0), np.full((1, 5), 0.2))
    assert kernels.motion(5, 90).shape == (5, 1)
    rising = kernels.motion(7, 45)
    assert rising[0, -1] > 0
    assert rising[-1, 0] > 0
    assert rising[0, 0] == 0
    np.testing.assert_allclose(kernels.motion(6, 20), kernels.motion(6, 200), atol=1e-14)


def test_motion_of_fractional_length() -> None:
    np.testing.assert_allclose(kernels.motion(4, 0), [[0.125, 0.25, 0.25, 0.25, 0.125]])
    np.testing.assert_allclose(kernels.motion(1, 0), [[1.0]])


@pytest.mark.parametrize("radius", [0.4, 1.0, 2.7, 8.0])
def test_disk_has_its_area_inside(radius: float) -> None:
    kernel = kernels.disk(radius)
    assert kernel.sum() == pytest.approx(1)
    np.testing.assert_allclose(kernel, kernel.T)
    full = kernel[kernel.shape[0] // 2, kernel.shape[1] // 2]  # the centre pixel lies inside the disk
    if radius > 0.75:
        assert full == pytest.approx(1 / (np.pi * radius**2), rel=1e-3)


def test_gaussian_has_its_variance() -> None:
    for sigma in (0.5, 1.0, 3.3):
        kernel = kernels.gaussian(sigma)
        x = np.arange(kernel.shape[0]) - kernel.shape[0] // 2
        assert (kernel.sum(axis=0) * x**2).sum() == pytest.approx(sigma**2 + 1 / 12, rel=0.03)


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (kernels.motion, (0, 10)),
        (kernels.motion, (-3, 10)),
        (kernels.motion, (5, np.inf)),
        (kernels.motion, (np.nan, 0)),
        (kernels.gaussian, (0,)),
        (kernels.disk, (-1,)),
        (kernels.disk, (np.inf,)),
        (kernels.motion, (1e9, 10)),
        (kernels.gaussian, (1e9,)),
        (kernels.disk, (1e9,)),
    ],
)
def test_parameters_that_make_no_sense(function, arguments: tuple[float, ...]) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError):
        function(*arguments)


ARRAY = np.array([[0, 1, 2], [3, 0, 1]])


def test_kernel_files_agree(tmp_path: Path) -> None:
    np.save(tmp_path / "k.npy", ARRAY.astype(float))
    savemat(tmp_path / "k.mat", {"psf": ARRAY.astype(float), "other": np.eye(3)})
    write_image(Image((ARRAY / 3)[:, :, None]), tmp_path / "k.png")
    for name in ("k.npy", "k.mat", "k.png"):
        kernel, _ = kernels.from_file(tmp_path / name)
        np.testing.assert_allclose(kernel, ARRAY / ARRAY.sum(), atol=1e-6)


@pytest.mark.parametrize("shape", [(9, 1), (1, 9), (1, 1), (4, 3)])
def test_orientation_is_kept(tmp_path: Path, shape: tuple[int, int]) -> None:
    values = np.arange(1.0, 1 + shape[0] * shape[1]).reshape(shape)
    np.save(tmp_path / "k.npy", values)
    np.testing.assert_allclose(kernels.from_file(tmp_path / "k.npy")[0], values / values.sum())
    assert kernels.normalise(values[:, :, None])[0].shape == shape


def test_negative_entries_are_clipped_and_said() -> None:
    kernel, notes = kernels.normalise([[-0.01, 1.0, 1.0]])
    np.testing.assert_allclose(kernel, [[0, 0.5, 0.5]])
    assert "1 negative entries" in notes[0]
    assert kernels.normalise(np.ones((1, 4)) / 4)[1] == ()


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.zeros((3, 3)), "sums to 0"),
        (-np.ones((3, 3)), "sums to -9"),
        (np.full((2, 2), np.nan), "NaN"),
        (np.ones((2, 2, 2)), "two-dimensional"),
        (np.ones((2, 2), complex), "two-dimensional"),
        (np.ones((0, 3)), "two-dimensional"),
    ],
)
def test_unusable_kernels(values: np.ndarray, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        kernels.normalise(values)


@pytest.mark.parametrize("name", ["k.npy", "k.mat", "k.png"])
@pytest.mark.parametrize("content", [None, b"", b"text", b"\x93NUMPY\x01\x00garbage"])
def test_unreadable_kernel_files(tmp_path: Path, name: str, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=name):
        kernels.from_file(tmp_path / name)


def test_ambiguous_matlab_file(tmp_path: Path) -> None:
    savemat(tmp_path / "two.mat", {"a": np.ones((3, 3)), "b": np.ones((3, 3))})
    with pytest.raises(InputError, match=r"two\.mat.*which matrix"):
        kernels.from_file(tmp_path / "two.mat")
