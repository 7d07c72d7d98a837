"""`pnp deblur`: boundaries, patches, kernels that are estimated, and what the report says about them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.signal import fftconvolve
from skimage import data

from pnp_cli import kernels, read_image, write_image
from pnp_cli.cli.kernel_options import complete_auto
from pnp_cli.errors import UsageError
from pnp_cli.images import Image
from pnp_cli.light import to_light, to_samples

from .conftest import Run
from .helpers import psnr_of, shared_noise

SCENE = data.astronaut()[40:240, 60:280].mean(axis=2) / 255


def photographed(scene: np.ndarray, path: Path) -> Path:
    """A photograph taken with a camera that moved by 15 pixels at 30 degrees: a frame of a larger scene."""
    seen = fftconvolve(scene, kernels.motion(15, 30), mode="valid")
    seen += np.random.default_rng(0).normal(0, 2 / 255, seen.shape)
    write_image(Image(seen.clip(0, 1).astype(np.float32)[..., None]), path)
    return path


@pytest.fixture
def moved(tmp_path: Path) -> Path:
    """Such a photograph, of `SCENE`."""
    return photographed(SCENE, tmp_path / "moved.png")


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    """One that is restored in two patches of 256 pixels."""
    return photographed(data.astronaut()[60:190, 60:400].mean(axis=2) / 255, tmp_path / "wide.png")


def one_object(result) -> dict[str, object]:  # type: ignore[no-untyped-def]
    assert result.returncode == 0, result.stderr
    (line,) = result.stdout.splitlines()
    return dict(json.loads(line))


def test_an_unknown_scene_beyond_the_frame(pnp: Run, moved: Path, small_weights: Path) -> None:
    """The free boundary restores the edges, where the periodic one rings."""
    kernel = kernels.motion(15, 30)
    top, left = kernel.shape[0] - 1 - kernel.shape[0] // 2, kernel.shape[1] - 1 - kernel.shape[1] // 2
    seen = read_image(moved)
    height, width = seen.size
    truth = SCENE[top : top + height, left : left + width]
    scores = {}
    for boundary in ("free", "periodic"):
        out = moved.with_name(f"{boundary}.png")
        result = pnp(
            "deblur", moved, "-o", out, "--motion", 15, 30, "-w", small_weights, "--boundary", boundary, "--json"
        )
        fields = one_object(result)
        assert fields["boundary"] == boundary
        assert fields["solution"]["violations"] == []  # type: ignore[index]
        assert (fields["solution"]["inexactness"] > 1e-3) == (boundary == "free")  # type: ignore[index]
        assert ("conjugate gradients" in result.stderr.decode()) == (boundary == "free")
        assert read_image(out).size == seen.size
        border = np.ones((height, width), bool)
        border[20:-20, 20:-20] = False
        restored = read_image(out).pixels[..., 0]
        scores[boundary] = [psnr_of(truth[where], restored[where]) for where in (border, ~border)]
    assert scores["free"][0] > scores["periodic"][0] + 3
    assert scores["free"][1] > scores["periodic"][1] - 0.1
    before = psnr_of(truth, seen.pixels[..., 0])
    assert min(scores["free"]) > before


def test_patches(pnp: Run, wide: Path, small_weights: Path) -> None:
    common = ("deblur", wide, "--motion", 15, 30, "-w", small_weights, "--tol", 1e-3, "--json")
    whole = one_object(pnp(*common, "-o", wide.with_name("whole.png")))
    result = pnp(*common, "-o", wide.with_name("parts.png"), "--patch", 256)
    parts = one_object(result)
    assert (whole["patches"], parts["patches"]) == (1, 2)
    assert "of the patch with the largest relative residual" in result.stderr.decode()
    pixels = [read_image(wide.with_name(name)).pixels for name in ("whole.png", "parts.png")]
    assert psnr_of(*pixels) > 38
    refused = pnp(*common, "-o", wide.with_name("c.png"), "--patch", 100)
    assert refused.returncode == 2
    assert "at least 256" in refused.stderr.decode()


def test_patches_where_memory_is_short(
    pnp: Run, wide: Path, small_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The side is in the record, and asking for it gives the same pixels on a machine with more memory."""
    common = ("deblur", wide, "--motion", 15, 30, "-w", small_weights, "--json", "--max-iter", 12)
    with monkeypatch.context() as patch:
        patch.setattr("pnp_cli.patches.SMALLEST", 256)
        patch.setattr("pnp_cli.patches.free_memory", lambda device: 2 * 1000 * 200**2)
        short = one_object(pnp(*common, "-o", wide.with_name("short.png")))
    assert short["patches"] > 1  # type: ignore[operator]
    asked = one_object(pnp(*common, "-o", wide.with_name("asked.png"), "--patch", short["patch_side"]))
    assert asked["output_sha256"] == short["output_sha256"]


@pytest.mark.parametrize(
    ("sigma", "angle", "verdict"),
    [(2.0, 30, "noise alone is left"), (8.0, 30, "LESS than noise is left"), (2.0, 120, "MORE than noise is left")],
)
def test_what_is_left_is_judged(
    pnp: Run, moved: Path, small_weights: Path, sigma: float, angle: float, verdict: str
) -> None:
    """With the right noise level and kernel, with too high a level, and with the motion across."""
    out = moved.with_name("out.png")
    result = pnp("deblur", moved, "-o", out, "--motion", 15, angle, "--sigma", sigma, "-w", small_weights)
    assert result.returncode == 0
    assert verdict in result.stderr.decode()


@pytest.mark.parametrize("command", ["deblur", "ista"])
def test_noise_that_is_given_and_too_little(pnp: Run, moved: Path, small_weights: Path, command: str) -> None:
    """It would come back as texture. The picture holds noise of 2."""
    network = ["-w", small_weights] if command == "deblur" else []
    for sigma, doubted in ((0, True), (0.5, True), (2, False), (8, False)):
        result = pnp(command, moved, "--motion", 15, 30, "--sigma", sigma, "--dry-run", *network)
        assert result.returncode == 0
        assert ("the image seems to hold noise of 2" in result.stderr.decode()) == doubted


def test_a_ridge_leaves_more_than_noise(pnp: Run, moved: Path, small_weights: Path) -> None:
    result = pnp("deblur", moved, "--motion", 15, 30, "--sigma", 2, "--ridge", 0.1, "-w", small_weights)
    assert "MORE than noise is left" in result.stderr.decode()
    assert "--ridge alone leaves some" in result.stderr.decode()


def test_clipped_highlights(pnp: Run, moved: Path, small_weights: Path) -> None:
    """White is taken for clipped, unless there is more than white; the result is white there, too."""
    bright = moved.with_name("bright.png")
    overexposed = read_image(moved).pixels * 1.4
    write_image(Image(overexposed.clip(0, 1)), bright)
    common = ("deblur", "--motion", 15, 30, "-w", small_weights, "--json", "--max-iter", 30)
    result = pnp(*common, bright, "-o", moved.with_name("a.tif"))
    fields = one_object(result)
    assert fields["clipped"] == pytest.approx((read_image(bright).pixels >= 0.98).mean())
    assert 0.02 < fields["clipped"] < 0.5  # type: ignore[operator]
    assert fields["plan"]["theorem"] == "averaged-box"  # type: ignore[index]
    assert fields["solution"]["violations"] == []  # type: ignore[index]
    assert "are white, so the scene may be brighter there, the box is [0, 4]" in result.stderr.decode()
    assert read_image(moved.with_name("a.tif")).pixels.max() <= 1
    plain = pnp(*common, bright, "-o", moved.with_name("b.tif"), "--no-clipped")
    assert one_object(plain)["clipped"] == 0
    assert "clipped  " not in plain.stderr.decode()
    floats = moved.with_name("floats.tif")
    write_image(Image(overexposed, "float32"), floats)
    assert one_object(pnp(*common, floats, "-o", moved.with_name("c.tif")))["clipped"] == 0


def test_motion_is_estimated(pnp: Run, moved: Path, small_weights: Path) -> None:
    fields = one_object(pnp("deblur", moved, "--motion", "auto", "-w", small_weights, "--json", "--max-iter", 3))
    words = str(fields["kernel"])
    assert "estimated" in words
    length, angle = float(words.split()[1]), float(words.split()[3])
    assert abs(length - 15) < 1
    assert abs(angle - 30) < 3
    assert pnp("kernel", moved, "--motion", "auto", "-o", moved.with_name("k.npy")).returncode == 0
    kernel = np.load(moved.with_name("k.npy"))
    assert kernel.shape == kernels.motion(length, angle).shape


def test_motion_is_estimated_in_the_light(pnp: Run, tmp_path: Path, small_weights: Path) -> None:
    light = fftconvolve(to_light(torch.from_numpy(SCENE)).numpy(), kernels.motion(15, 30), mode="valid")
    seen = to_samples(torch.from_numpy(light)).numpy() + np.random.default_rng(0).normal(0, 1 / 255, light.shape)
    write_image(Image(seen.clip(0, 1).astype(np.float32)[..., None]), tmp_path / "seen.png")
    options = ("--motion", "auto", "--linear-light", "--json")
    restored = one_object(pnp("deblur", tmp_path / "seen.png", *options, "-w", small_weights, "--dry-run"))
    words = str(restored["kernel"])
    assert abs(float(words.split()[1]) - 15) < 1
    assert abs(float(words.split()[3]) - 30) < 3
    assert one_object(pnp("kernel", tmp_path / "seen.png", *options))["input"] == f"{words}, in linear light"


def test_no_clear_motion(pnp: Run, photo_file: Path, small_weights: Path) -> None:
    result = pnp("deblur", photo_file, "--motion", "auto", "-w", small_weights)
    assert result.returncode == 1
    assert "not a clear linear motion blur" in result.stderr.decode()
    assert not list(photo_file.parent.glob("*deblurred*"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("deblur", "x.png", "--disk", 2, "--boundary", "mirror"), "free, periodic, reflect"),
        (("deblur", "x.png", "--motion", "a", "b"), "a length and an angle, or 'auto'"),
        (("deblur", "x.png", "--disk", 2, "--no-center"), "belongs to --kernel"),
        (("deblur", "x.png", "--disk", 2, "--acceleration", "nesterov"), "none, anderson"),
        (("blur", "x.png", "--disk", 2, "--boundary", "free"), "unknown beyond the frame"),
        (("blur", "x.png", "--motion", "auto"), "blurred already"),
        (("kernel", "--motion", "auto"), "give an image together with --motion auto"),
        (("kernel", "x.png", "--disk", 2), "give an image together with --motion auto"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_refused(pnp: Run, photo_file: Path, arguments: tuple[object, ...], words: str) -> None:
    photo_file.rename(photo_file.with_name("x.png"))
    result = pnp(*arguments, cwd=photo_file.parent)
    assert result.returncode == 2
    assert words in result.stderr.decode()


@pytest.mark.parametrize("words", [["15", "a.png"], ["auto", "30"], ["15,30", "-7"], ["15"]])
def test_half_a_motion(words: list[str]) -> None:
    """No word that means something else is taken for the length or the angle."""
    with pytest.raises(UsageError, match=f"as in --motion 15 30, or auto alone, not '{words[0]}"):
        complete_auto(["deblur", "--motion", *words])


def test_auto_is_completed() -> None:
    assert complete_auto(["deblur", "a", "--motion", "auto", "-q"]) == ["deblur", "a", "--motion", "auto", "auto", "-q"]
    assert complete_auto(["--motion", "auto", "auto"]) == ["--motion", "auto", "auto"]
    assert complete_auto(["--motion", "auto"]) == ["--motion", "auto", "auto"]
    assert complete_auto(["auto", "--motion", "3", "4"]) == ["auto", "--motion", "3", "4"]


def test_correlated_noise(pnp: Run, moved: Path, small_weights: Path) -> None:
    """It is found out, unless the option says otherwise, and counted."""
    image = read_image(moved)
    noisy = (image.pixels + shared_noise((*image.size, 3), 8)).clip(0, 1)
    write_image(image.with_pixels(noisy), moved.with_name("y.png"))
    options = ("--motion", 15, 30, "-w", small_weights, "--json", "--dry-run")
    for extra, expected in (((), 1), (("--correlation", 1), 1), (("--correlation", 3), 3)):
        result = pnp("deblur", moved.with_name("y.png"), *options, *extra)
        fields = one_object(result)
        assert fields["correlation"] == expected
        assert fields["correlated"] == (expected > 1 or not extra)
        assert (b"neighbouring pixels share the noise" in result.stderr) == (not extra)
        assert (fields["level"] > 1.3 * fields["noise"]) == (expected > 1)  # type: ignore[operator]
        assert (f"independent from {expected} pixels on".encode() in result.stderr) == (expected > 1)
    assert not one_object(pnp("deblur", moved, *options))["correlated"]
    for wrong in ("0", "1.5", "no"):
        result = pnp("deblur", moved, *options, "--correlation", wrong)
        assert result.returncode == 2
        assert b"auto or a distance of 1 to 8 pixels" in result.stderr


def test_jpeg_files(pnp: Run, moved: Path, small_weights: Path) -> None:
    """What compression did is read from the file, and said; the pixels alone do not say it."""
    file, out = moved.with_suffix(".jpg"), moved.with_name("sharp.png")
    write_image(read_image(moved), file)
    for extra in ((), ("--no-jpeg",)):
        result = pnp(
            *("deblur", file, "-o", out, "--motion", 15, 30, "-w", small_weights, "--json"),
            *("--max-iter", 30, "--on-exists", "overwrite", *extra),
        )
        fields = one_object(result)
        assert (fields["jpeg_error"] is None) == bool(extra)
        assert (b"jpeg        rounding errors" in result.stderr) == (not extra)
        assert (fields["level"] > fields["noise"]) == (not extra)  # type: ignore[operator]
        assert fields["violations"] == []
    ista = ("--motion", 15, 30, "--max-iter", 5, "--json")
    fields = one_object(pnp("ista", file, "-o", moved.with_name("sparse.png"), *ista))
    assert fields["jpeg_error"] > 0  # type: ignore[operator]
    fields = one_object(pnp("ista", moved, "-o", moved.with_name("s.png"), *ista))
    assert fields["jpeg_error"] is None
