"""Point-spread functions: unit sum, conventions, exact areas and times, centring, files."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import tifffile
import torch
from scipy.io import loadmat, savemat
from scipy.signal import fftconvolve

from pnp_cli import Blur, InputError, UsageError, kernels
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


@pytest.mark.parametrize(("length", "angle"), [(3 * 2**0.5, 45), (3 * 2**0.5, 135), (3 + 5e-16, 0), (2, -60)])
def test_motion_that_ends_at_a_pixel_border_up_to_rounding(length: float, angle: float) -> None:
    kernel = kernels.motion(length, angle)
    np.testing.assert_array_equal(kernel, kernel[::-1, ::-1])
    assert kernel.shape in ((3, 3), (1, 3), (3, 1))
    assert kernel.sum() == pytest.approx(1, abs=1e-14)


# ------------------------------------------------------------------------------------------ paths

CORNER = [(0, 0), (6, 0), (6, 4)]
"""Right, then down."""


def centroid(kernel: np.ndarray) -> tuple[float, float]:
    """x and y from the origin."""
    rows, columns = np.indices(kernel.shape)
    total = kernel.sum()
    y, x = (kernel * rows).sum() / total, (kernel * columns).sum() / total
    return x - kernel.shape[1] // 2, y - kernel.shape[0] // 2


def blurred_point(kernel: np.ndarray, side: int = 33) -> np.ndarray:
    """The image of a point in the middle; the blur is that of the package."""
    point = torch.zeros(1, 1, side, side, dtype=torch.float64)
    point[..., side // 2, side // 2] = 1
    return Blur(kernel, (side, side), dtype=torch.float64).forward(point)[0, 0].numpy()


def test_motion_is_the_path_of_two_points() -> None:
    end = np.array([np.cos(np.radians(25)), -np.sin(np.radians(25))]) * 9.3
    np.testing.assert_allclose(kernels.path([(4, -7), np.add((4, -7), end)]), kernels.motion(9.3, 25), atol=1e-14)


@pytest.mark.parametrize("weights", [None, [1.0, 0.5, 0.0, 2.0, 1.5, 0.7]])
def test_path_against_samples_in_time(weights: list[float] | None) -> None:
    rng = np.random.default_rng(3)
    points = rng.uniform(-9, 9, (7, 2))
    points[5] = points[4]
    kernel = kernels.path(points, weights)
    durations = np.hypot(*np.diff(points, axis=0).T) if weights is None else np.array(weights)
    clock = np.concatenate([[0], np.cumsum(durations)])
    times = (np.arange(400_000) + 0.5) / 400_000 * clock[-1]
    segment = np.searchsorted(clock, times, side="right") - 1
    share = (times - clock[segment]) / durations[segment]
    track = points[segment] + share[:, None] * (points[segment + 1] - points[segment])
    pixels = np.rint(track - track.mean(axis=0)).astype(int) + np.array(kernel.shape)[::-1] // 2
    counts = np.zeros(kernel.shape)
    np.add.at(counts, (pixels[:, 1], pixels[:, 0]), 1 / len(times))
    np.testing.assert_allclose(kernel, counts, atol=5e-5)
    assert kernel.sum() == pytest.approx(1, abs=1e-14)


def test_only_the_shape_of_a_path_and_the_ratio_of_its_weights_count() -> None:
    points, weights = np.array([(0, 0), (12, 3), (20, -5), (20, -5.0)]), np.array([1, 0.5, 3])
    kernel = kernels.path(points, weights)
    np.testing.assert_allclose(kernels.path(np.add(points, (1000.3, -77.7)), 1e-3 * weights), kernel, atol=1e-10)
    np.testing.assert_allclose(kernels.path(points[::-1], weights[::-1]), kernel, atol=1e-14)


def test_standing_still_counts() -> None:
    rest = [(0, 0), (0, 0), (4, 0), (4, 0)]
    np.testing.assert_array_equal(kernels.path(rest, [3, 0, 1]), [[0, 0, 0.75, 0, 0, 0, 0.25]])
    assert kernels.path([(5, 5), (5, 5)], [2]).tolist() == [[1.0]]


def test_what_is_between_two_pixels_goes_half_to_each() -> None:
    np.testing.assert_array_equal(kernels.path([(0, 0), (0, 0), (1, 0), (1, 0)], [1, 0, 1]), [[0.25, 0.5, 0.25]])
    there_and_back = kernels.path([(0, 0), (5, 0), (5, 1), (0, 1)], [1, 0, 1])
    np.testing.assert_allclose(there_and_back, np.outer([0.25, 0.5, 0.25], np.full(5, 0.2)), atol=1e-15)


def test_a_path_smears_in_its_own_direction() -> None:
    """Convolution, not correlation: the image of a point is the path, corner at the upper right."""
    kernel = kernels.path(CORNER)
    image = blurred_point(kernel)
    bright = image > 1e-3
    rows, columns = np.flatnonzero(bright.any(axis=1)), np.flatnonzero(bright.any(axis=0))
    box = bright[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    assert box[0].all()
    assert box[:, -1].all()
    assert not box[1:, :-1].any()
    x, y = centroid(image)
    assert max(abs(x), abs(y)) <= 0.5
    picture = np.random.default_rng(0).random((40, 41))
    expected = fftconvolve(picture, kernel)  # its origin is the entry (0, 0)
    h, w = kernel.shape
    got = Blur(kernel, picture.shape, dtype=torch.float64).forward(torch.from_numpy(picture)[None, None])[0, 0]
    same = expected[h // 2 :, w // 2 :][:40, :41]
    np.testing.assert_allclose(got.numpy()[h:-h, w:-w], same[h:-h, w:-w], atol=1e-12)


@pytest.mark.parametrize(
    ("points", "weights", "reason"),
    [
        ([(0, 0)], None, "at least two points"),
        ([], None, "at least two points"),
        ([(0, 0, 1), (1, 1, 2)], None, "at least two points"),
        ([(0, 0), (np.nan, 1)], None, "finite"),
        ([("a", "b"), ("c", "d")], None, "numbers"),
        ([(1, 1), (1, 1)], None, "no time"),
        ([(0, 0), (1, 1)], [0], "no time"),
        ([(0, 0), (1, 1)], [-1], "weights of at least 0"),
        ([(0, 0), (1, 1)], [1, 1], "needs 1 weights"),
        ([(0, 0), (5000, 0)], None, "2048 pixels"),
        ([(-1e308, 0), (1e308, 0)], None, "2048 pixels"),
    ],
)
def test_paths_that_make_no_sense(points: list[tuple[float, ...]], weights: list[float] | None, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        kernels.path(points, weights)


SAMPLES = "0,0\n6,0\n6,4\n"


@pytest.mark.parametrize(
    "text",
    [
        SAMPLES,
        "x,y\n" + SAMPLES,
        "# camera 3\n\ny;x\n0;0\n0;6,0 # corner\n4,0;6\n",
        "x\ty\n0\t0\n6,0\t0\n6\t4\n",
        "0 0\n 6  0\n6\t4",
        "t,x,y\n0.5,0,0\n1.5,6,0\n2.5,6,4\n",
        "10,0,0\r\n20,6,0\r\n30,6,4\r\n",
        '\ufeff"Time [ms]", "name", "Y (px)", "X (px)"\n1, a, 0, 0\n2, b, 0, 6\n3, c, 4, 6\n',
    ],
)
def test_trajectories(tmp_path: Path, text: str) -> None:
    file = tmp_path / "track.csv"
    file.write_text(text, encoding="utf-8", newline="")
    np.testing.assert_array_equal(kernels.from_trajectory(file), kernels.path(CORNER, [1, 1]))


def test_durations_of_a_trajectory(tmp_path: Path) -> None:
    (tmp_path / "track.csv").write_text("0,0,0\n3,0,0\n3,4,0\n4,4,0\n")
    np.testing.assert_array_equal(kernels.from_trajectory(tmp_path / "track.csv"), [[0, 0, 0.75, 0, 0, 0, 0.25]])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "no such file"),
        (b"", "at least two samples"),
        (b"x,y\n0,0\n", "at least two samples"),
        (b"0,0\n1,two\n", "line 2: 'two' is not a number"),
        (b"0,0\n#\n1,nan\n", "line 3: 'nan' is not a number"),
        (b"0,0\n1,\n", "line 2: '' is not a number"),
        (b"0,0\n1,2,3\n", "line 2: has 3 columns instead of 2"),
        (b"0,0,0,0\n1,1,1,1\n", "4 columns, not x, y or t, x, y"),
        (b"u,v\n0,0\n1,1\n", "line 1: no column is called x"),
        (b"x,y,x\n0,0,0\n1,1,1\n", "line 1: 2 columns are called x"),
        (b"0,0,0\n2,1,0\n1,2,0\n", "line 3: the time runs backwards"),
        (b"1,0,0\n1,1,0\n", "takes no time"),
        (b"0,0\n1e5,0\n", "2048 pixels"),
        (b"\xff\xfe0\x000\x00", "not a text file"),
    ],
)
def test_bad_trajectories(tmp_path: Path, content: bytes | None, reason: str) -> None:
    file = tmp_path / "track.csv"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=rf"track\.csv.*{reason}"):
        kernels.from_trajectory(file)


# ------------------------------------------------------------------------------------------ other shapes


@pytest.mark.parametrize("radius", [0.005, 0.4, 1.0, 2.7, 8.0])
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


# ------------------------------------------------------------------------------------------ properties


def test_properties_of_a_line() -> None:
    """The transfer function of n equal entries is the Dirichlet kernel."""
    facts = kernels.properties(kernels.motion(15, 0), (64, 128))
    f = np.fft.fftfreq(128)
    dirichlet = np.abs(np.sin(15 * np.pi * f[1:]) / (15 * np.sin(np.pi * f[1:])))
    assert facts.otf_max == pytest.approx(1, abs=1e-14)
    assert facts.otf_min == pytest.approx(dirichlet.min(), abs=1e-14)
    assert facts.weak == (dirichlet < 0.05).sum() / 128
    assert facts.deviations == pytest.approx((np.sqrt((15**2 - 1) / 12), 0))
    assert facts.angle == 0


def test_properties_along_the_principal_axis() -> None:
    facts = kernels.properties(kernels.motion(60, 30))
    assert facts.angle == pytest.approx(30, abs=0.2)
    assert facts.deviations[0] == pytest.approx(60 / np.sqrt(12), rel=0.005)
    assert kernels.properties(kernels.motion(60, -30)).angle == pytest.approx(150, abs=0.2)
    disk = kernels.properties(kernels.disk(6))
    assert disk.angle is None
    assert disk.deviations == pytest.approx((3, 3), rel=0.01)  # R/2, and the pixel
    assert kernels.properties(kernels.motion(1, 0)).deviations == (0, 0)
    assert kernels.properties(np.array([[0, 0, 0.25, 0.75]])).centroid == pytest.approx((0.75, 0))


@pytest.mark.parametrize("size", [(8, 8), (5, 16), (32, 31)])
def test_mtf_is_that_of_the_blur_even_if_the_kernel_wraps(size: tuple[int, int]) -> None:
    kernel = np.random.default_rng(0).random((7, 12))
    rows, columns = np.indices(kernel.shape)
    for u, v in ((0, 0), (1, 3), (4, 5)):
        phase = np.exp(-2j * np.pi * (u * rows / size[0] + v * columns / size[1]))
        assert kernels.mtf(kernel, size)[u, v] == pytest.approx(abs((kernel * phase).sum()), abs=1e-12)


# ------------------------------------------------------------------------------------------ centring

OFF_CENTRE = np.zeros((8, 11))
OFF_CENTRE[1:3, 0:4] = [[0.4, 0.1, 0.0, 0.1], [0.0, 0.2, 0.1, 0.1]]


@pytest.mark.parametrize(
    "values",
    [OFF_CENTRE, OFF_CENTRE[::-1, ::-1], OFF_CENTRE.T, OFF_CENTRE[:4, :10], np.eye(1, 9), np.arange(8.0).reshape(2, 4)],
    ids=["even", "flipped", "odd", "cut", "one", "small"],
)
def test_a_centred_kernel_leaves_a_point_where_it_is(tmp_path: Path, values: np.ndarray) -> None:
    np.save(tmp_path / "k.npy", values)
    kernel, _ = kernels.from_file(tmp_path / "k.npy")
    assert max(map(abs, centroid(blurred_point(kernel)))) <= 0.5
    np.testing.assert_array_equal(np.sort(kernel[kernel > 0]), np.sort(values[values > 0]) / values.sum())
    as_it_is, notes = kernels.from_file(tmp_path / "k.npy", centre=False)
    np.testing.assert_allclose(centroid(blurred_point(as_it_is)), centroid(values), atol=1e-12)
    assert not any("centred" in note for note in notes)
    again, notes = kernels.centred(kernel)
    np.testing.assert_array_equal(again, kernel)
    assert notes == ()


def test_centring_says_what_it_did() -> None:
    kernel, notes = kernels.centred(OFF_CENTRE)
    assert notes == ("kernel centred: moved by 4 right, 3 down",)
    np.testing.assert_array_equal(kernel, np.pad(OFF_CENTRE[1:3, 0:4], ((1, 0), (1, 0))))
    assert kernels.centred(OFF_CENTRE[::-1, ::-1])[1] == ("kernel centred: moved by 4 left, 2 up",)


@pytest.mark.parametrize("shape", [(2, 2), (4, 1), (3, 4), (5, 5)])
def test_even_kernels_stay_half_a_pixel_off(shape: tuple[int, int]) -> None:
    """Between two pixels there is no better one, so nothing moves, whatever the rounding says."""
    for noise in (0, 1e-6, -1e-6):
        values = np.ones(shape)
        values[0, 0] += noise
        kernel, notes = kernels.centred(values / values.sum())
        assert kernel.shape == shape
        assert notes == ()


def test_margins_of_zeros_are_cut_off() -> None:
    kernel = kernels.motion(5, 20)
    np.testing.assert_array_equal(kernels.centred(np.pad(kernel, ((4, 4), (7, 7))))[0], kernel)


# ------------------------------------------------------------------------------------------ files

ARRAY = np.array([[0, 1, 2], [3, 0, 1]])


def test_kernel_files_agree(tmp_path: Path) -> None:
    np.save(tmp_path / "k.npy", ARRAY.astype(float))
    savemat(tmp_path / "k.mat", {"psf": ARRAY.astype(float), "other": np.eye(3)})
    write_image(Image((ARRAY / 3)[:, :, None]), tmp_path / "k.png")
    for name in ("k.npy", "k.mat", "k.png"):
        kernel, _ = kernels.from_file(tmp_path / name)
        np.testing.assert_allclose(kernel, ARRAY / ARRAY.sum(), atol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "peak"), [(np.uint8, 255), (np.uint16, 60000), (np.int32, 3e6), (np.float32, 3e4), (np.float64, 3e-9)]
)
@pytest.mark.parametrize("suffix", ["npy", "tif", "mat"])
def test_any_depth_and_scale(tmp_path: Path, suffix: str, dtype: type, peak: float) -> None:
    values, file = (ARRAY * (peak / 3)).astype(dtype), tmp_path / f"k.{suffix}"
    if suffix == "npy":
        np.save(file, values)
    elif suffix == "tif":
        tifffile.imwrite(file, values)
    else:
        savemat(file, {"k": values})
    np.testing.assert_allclose(kernels.from_file(file)[0], ARRAY / ARRAY.sum(), atol=1e-7)


@pytest.mark.parametrize("depth", ["uint8", "uint16"])
def test_coloured_png(tmp_path: Path, depth: Literal["uint8", "uint16"]) -> None:
    colours = np.stack([ARRAY, ARRAY, np.zeros_like(ARRAY)], axis=2) / 3
    write_image(Image(colours, depth), tmp_path / "k.png")
    np.testing.assert_allclose(kernels.from_file(tmp_path / "k.png")[0], ARRAY / ARRAY.sum(), atol=1e-7)


@pytest.mark.parametrize(("suffix", "accuracy"), [("npy", 1e-15), ("mat", 1e-15), ("tif", 1e-7), ("png", 1e-5)])
@pytest.mark.parametrize(
    "kernel",
    [kernels.motion(9.5, 30), kernels.path(CORNER), kernels.motion(6, 0), kernels.motion(6, 90), np.ones((1, 1))],
    ids=["motion", "path", "row", "column", "one"],
)
def test_what_is_written_is_read(tmp_path: Path, suffix: str, accuracy: float, kernel: np.ndarray) -> None:
    kernels.to_file(kernel, tmp_path / f"k.{suffix}")
    again, notes = kernels.from_file(tmp_path / f"k.{suffix}")
    np.testing.assert_allclose(again, kernel, atol=accuracy, rtol=0)
    assert not any("centred" in note for note in notes)


@pytest.mark.parametrize("suffix", ["npy", "mat", "tif", "png"])
def test_off_centre_kernels_are_read_as_they_are_if_asked(tmp_path: Path, suffix: str) -> None:
    kernels.to_file(OFF_CENTRE, tmp_path / f"k.{suffix}")
    as_it_is, _ = kernels.from_file(tmp_path / f"k.{suffix}", centre=False)
    np.testing.assert_allclose(as_it_is, OFF_CENTRE / OFF_CENTRE.sum(), atol=1e-5)
    centred, notes = kernels.from_file(tmp_path / f"k.{suffix}")
    np.testing.assert_allclose(centred, kernels.centred(OFF_CENTRE / OFF_CENTRE.sum())[0], atol=1e-5)
    assert "kernel centred: moved by 4 right, 3 down" in notes


def test_matlab_finds_psf(tmp_path: Path) -> None:
    kernels.to_file(kernels.motion(5, 20), tmp_path / "k.mat")
    assert (tmp_path / "k.mat").read_bytes().startswith(b"MATLAB 5.0 MAT-file")
    np.testing.assert_array_equal(loadmat(tmp_path / "k.mat")["psf"], kernels.motion(5, 20))


def test_writing_refuses(tmp_path: Path) -> None:
    file = tmp_path / "k.npy"
    kernels.to_file(np.ones((1, 1)), file)
    with pytest.raises(InputError, match=r"k\.npy.*exists"):
        kernels.to_file(kernels.disk(2), file, overwrite=False)
    assert np.load(file).shape == (1, 1)
    with pytest.raises(UsageError, match=r"k\.gif.*\.npy \.tif"):
        kernels.to_file(kernels.disk(2), tmp_path / "k.gif")


@pytest.mark.parametrize("shape", [(9, 1), (1, 9), (1, 1), (4, 3)])
def test_orientation_is_kept(tmp_path: Path, shape: tuple[int, int]) -> None:
    values = np.arange(1.0, 1 + shape[0] * shape[1]).reshape(shape)
    np.save(tmp_path / "k.npy", values)
    np.testing.assert_allclose(kernels.from_file(tmp_path / "k.npy", centre=False)[0], values / values.sum())
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


@pytest.mark.parametrize("name", ["k.npy", "k.mat", "k.png", "k.tif"])
@pytest.mark.parametrize("content", [None, b"", b"text", b"\x93NUMPY\x01\x00garbage", b"II*\0\x08\0\0\0garbage"])
def test_unreadable_kernel_files(tmp_path: Path, name: str, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=name):
        kernels.from_file(tmp_path / name)


def test_ambiguous_matlab_file(tmp_path: Path) -> None:
    savemat(tmp_path / "two.mat", {"a": np.ones((3, 3)), "b": np.ones((3, 3))})
    with pytest.raises(InputError, match=r"two\.mat.*which matrix"):
        kernels.from_file(tmp_path / "two.mat")


def test_a_file_that_is_more_than_a_kernel(tmp_path: Path) -> None:
    """A drawing of a kernel has a background; text is not a kernel."""
    drawing = np.full((20, 20), 0.9)
    drawing[5:14, 5:14] = kernels.disk(4)
    np.save(tmp_path / "drawing.npy", drawing)
    assert any("border" in note for note in kernels.from_file(tmp_path / "drawing.npy")[1])
    np.save(tmp_path / "kernel.npy", kernels.disk(4))
    assert kernels.from_file(tmp_path / "kernel.npy")[1] == ()
    (tmp_path / "k.csv").write_text("0,0\n1,1\n")
    with pytest.raises(InputError, match=r"k\.csv: is a text file"):
        kernels.from_file(tmp_path / "k.csv")
