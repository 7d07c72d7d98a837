"""The command line, the installed command among it: results on real files, pipes, exit codes, manners on bad input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from scipy.ndimage import gaussian_filter

from pnp_cli import NoiseCurve, read_image, to_tensor, weights
from pnp_cli.clipped_noise import restore_clipped
from pnp_cli.denoisers import DnCNNArchitecture
from pnp_cli.images import Image, encode_image, write_image
from pnp_cli.presets import PRESETS, build

from .conftest import Run
from .helpers import installed_command, psnr_of, small_network

KERNEL = ("--motion", 5, 20)
SHIPPED = {path.stem for folder in weights.shipped_folders() for path in folder.glob("*.safetensors")}


def make_blurred(pnp: Run, photo_file: Path) -> Path:
    path = photo_file.with_name("blurred.tif")
    assert pnp("blur", photo_file, "-o", path, *KERNEL, "--noise", 2.55, "--bit-depth", 16).returncode == 0
    return path


def one_sentence(result: subprocess.CompletedProcess[bytes]) -> str:
    """The error message, which must be a single line and no traceback."""
    lines = [line for line in result.stderr.decode().splitlines() if "error:" in line.lower()]
    assert "Traceback" not in result.stderr.decode()
    assert len(lines) == 1, result.stderr.decode()
    return lines[0]


# ------------------------------------------------------------------------------------ results


def test_blur_and_deblur(pnp: Run, installed: Run, photo: Image, photo_file: Path, small_weights: Path) -> None:
    blurred, sharp = make_blurred(pnp, photo_file), photo_file.with_name("sharp.png")
    result = installed(
        "deblur", blurred, "-o", sharp, *KERNEL, "--sigma", 2.55, "-w", small_weights, "--reference", photo_file
    )
    assert result.returncode == 0, result.stderr
    report = result.stderr.decode()
    for words in ("averaged denoiser, box projection", "L = ", "step", "in (0, ", "converged after", "a-priori bound"):
        assert words in report, words
    assert result.stdout == b""
    before, after = (psnr_of(photo.pixels, read_image(path).pixels) for path in (blurred, sharp))
    assert after > before + 1.5
    assert f"{before:.2f} dB before" in report


def test_shipped_weights_restore_a_photograph_well(pnp: Run, photo: Image, photo_file: Path) -> None:
    blurred, sharp = make_blurred(pnp, photo_file), photo_file.with_name("sharp.tif")
    assert pnp("deblur", blurred, "-o", sharp, *KERNEL).returncode == 0
    before, after = (psnr_of(photo.pixels, read_image(path).pixels) for path in (blurred, sharp))
    assert after > before + 4


def test_deblur_json(pnp: Run, photo_file: Path, small_weights: Path) -> None:
    blurred = make_blurred(pnp, photo_file)
    result = pnp("deblur", blurred, "-o", photo_file.with_name("a.png"), *KERNEL, "-w", small_weights, "--json", "-q")
    assert result.stderr == b""
    (line,) = result.stdout.splitlines()
    fields = json.loads(line)
    assert fields["schema"] == 1
    assert fields["ok"] is True
    assert fields["plan"]["theorem"] in ("averaged-box", "contraction")
    assert 0 < fields["plan"]["step"] < fields["plan"]["step_limit"]
    assert fields["solution"]["converged"] is True
    assert fields["solution"]["violations"] == []
    assert fields["noise"] == pytest.approx(2.55, rel=0.3)


def test_inadmissible_step_is_refused(pnp: Run, photo_file: Path, small_weights: Path) -> None:
    blurred, out = make_blurred(pnp, photo_file), photo_file.with_name("out.png")
    common = ("deblur", blurred, "-o", out, *KERNEL, "-w", small_weights, "--data-term", "least-squares", "--step", 2)
    result = pnp(*common)
    assert result.returncode == 3
    assert "(0, 2) = (0, 2/L)" in one_sentence(result)
    assert not out.exists()
    assert pnp(*common, "--allow-unsafe", "--max-iter", 5).returncode == 0
    assert out.exists()


def test_uncertified_denoiser_is_refused(pnp: Run, photo_file: Path, tmp_path: Path) -> None:
    network, file = small_network(), tmp_path / "unsafe.safetensors"
    network.steps[0].step.fill_(4.0)  # type: ignore[index, union-attr]
    weights.save(file, network)
    blurred, out = make_blurred(pnp, photo_file), photo_file.with_name("out.png")
    result = pnp("deblur", blurred, "-o", out, *KERNEL, "-w", file)
    assert result.returncode == 3
    assert "not certified averaged" in one_sentence(result)
    assert not out.exists()
    assert pnp("certify", file).returncode == 3


def test_dry_run_and_strict(pnp: Run, photo_file: Path, small_weights: Path) -> None:
    blurred, out = make_blurred(pnp, photo_file), photo_file.with_name("out.png")
    result = pnp("deblur", blurred, "-o", out, *KERNEL, "-w", small_weights, "--dry-run")
    assert result.returncode == 0
    assert "theorem" in result.stderr.decode()
    assert not out.exists()
    result = pnp("deblur", blurred, "-o", out, *KERNEL, "-w", small_weights, "--max-iter", 3, "--strict")
    assert result.returncode == 3
    assert "iteration limit" in result.stderr.decode()
    assert not out.exists()
    again = pnp(
        *("deblur", blurred, "-o", out, *KERNEL, "-w", small_weights, "--max-iter", 3, "--strict", "--json"),
        *("--on-exists", "skip"),
    )
    assert again.returncode == 3
    assert "not converged" in json.loads(again.stdout)["error"]


@pytest.mark.parametrize(
    "command", [("denoise",), ("deblur", "--disk", 1), ("ista", "--disk", 1), ("blur", "--disk", 1, "--noise", 2)]
)
def test_dry_runs_write_nothing(pnp: Run, photo_file: Path, command: tuple[object, ...]) -> None:
    out = photo_file.with_name("o.png")
    result = pnp(*command, photo_file, "-o", out, "--dry-run", "--json")
    assert result.returncode == 0, result.stderr
    fields = json.loads(result.stdout)
    assert (fields["output"], fields["target"]) == (None, str(out))
    assert not out.exists()


@pytest.mark.parametrize(
    "command", ["denoise", "deblur", "ista", "blur", "kernel", "psnr", "certify", "train-denoiser"]
)
def test_help_cuts_nothing_on_a_narrow_terminal(pnp: Run, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = pnp(command, "--help").stdout.decode()
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    listed = next(line for line in pnp("--help").stdout.decode().splitlines() if line.startswith(f"  {command} "))
    assert not listed.endswith("...")


def test_help_has_shared_options_around_those_of_the_command(pnp: Run) -> None:
    text = pnp("deblur", "--help").stdout.decode()
    assert text.index("--output") < text.index("--gaussian") < text.index("--strength") < text.index("--strip")


def test_denoise_repeat_is_nonincreasing(pnp: Run, photo_file: Path, small_weights: Path) -> None:
    result = pnp("denoise", photo_file, "-s", 20, "--repeat", 6, "-w", small_weights, "--ensemble", "--json")
    assert result.returncode == 0, result.stderr
    residuals = json.loads(result.stdout)["residuals"]
    assert len(residuals) == 6
    assert residuals == sorted(residuals, reverse=True)
    assert "the residuals are nonincreasing" in result.stderr.decode()
    assert photo_file.with_name("photo.denoised.png").exists()


def test_denoise_in_two_passes_says_what_is_proven(pnp: Run, photo_file: Path, conditioned_weights: Path) -> None:
    common = ("denoise", photo_file, "-s", 20, "-w", conditioned_weights, "--json")
    result = pnp(*common, "--repeat", 5, "-o", photo_file.with_name("five.png"))
    fields = json.loads(result.stdout)
    assert fields["averaged"] is False
    assert fields["averaged_for_fixed_reference"] is True
    assert fields["residuals"] == sorted(fields["residuals"], reverse=True)
    assert fields["violations"] == []
    assert "second pass: averaged for its fixed reference" in result.stderr.decode()
    assert "not known to be nonexpansive" in result.stderr.decode()
    once = photo_file.with_name("once.png")
    assert pnp(*common, "-o", once).returncode == 0
    network = weights.load(conditioned_weights).network
    noisy = restore_clipped(to_tensor(read_image(photo_file)), NoiseCurve.white(20 / 255))
    expected = network.estimate(noisy, 20 / 255)
    np.testing.assert_allclose(to_tensor(read_image(once)), expected.clamp(0, 1), atol=0.51 / 255)


def test_deblur_freezes_its_reference(pnp: Run, photo_file: Path, conditioned_weights: Path) -> None:
    blurred = make_blurred(pnp, photo_file)
    common = ("deblur", blurred, *KERNEL, "-w", conditioned_weights, "--json")
    result = pnp(*common, "-o", photo_file.with_name("a.png"), "--refresh", 3)
    solution = json.loads(result.stdout)["solution"]
    assert solution["references"] == 3
    assert solution["guaranteed_from_iteration"] == 15
    assert solution["violations"] == []
    assert solution["residuals"][14:] == sorted(solution["residuals"][14:], reverse=True)
    assert "3 references, the last frozen at iteration 15" in result.stderr.decode()
    result = pnp(*common, "-o", photo_file.with_name("b.png"), "--refresh", 0)
    assert json.loads(result.stdout)["solution"]["references"] == 0
    assert "references" not in result.stderr.decode()
    assert pnp(*common, "--refresh", -1).returncode == 2


@pytest.mark.parametrize("depth", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_strength_zero_returns_the_same_pixels(pnp: Run, photo: Image, tmp_path: Path, depth: str, suffix: str) -> None:
    if (depth, suffix) == ("float32", "png"):
        suffix = "npy"
    alpha = np.random.default_rng(0).random(photo.size, dtype=np.float32)
    source, target = tmp_path / f"in.{suffix}", tmp_path / f"out.{suffix}"
    write_image(Image(photo.pixels, depth, alpha), source)  # type: ignore[arg-type]
    assert pnp("denoise", source, "-o", target, "-s", 0, "-w", "huber").returncode == 0
    before, after = read_image(source), read_image(target)
    assert after.depth == depth
    np.testing.assert_array_equal(after.pixels, before.pixels)
    np.testing.assert_array_equal(after.alpha, before.alpha)


def test_grey_images_get_the_grey_weights(pnp: Run, photo: Image, tmp_path: Path) -> None:
    grey, colour = tmp_path / "grey.png", tmp_path / "colour.png"
    write_image(photo.with_pixels(photo.pixels[:, :, :1]), grey)
    write_image(photo, colour)
    result = pnp("denoise", grey, colour, "-o", f"{tmp_path}/out/", "-s", 10, "-w", "huber", "--json", "-q")
    assert [json.loads(line)["weights"] for line in result.stdout.splitlines()] == ["huber-grey", "huber"]
    for name in ("own", "own-grey"):
        weights.save(tmp_path / f"{name}.safetensors", small_network())
    own = ("-o", f"{tmp_path}/out2/", "-s", 10, "-w", tmp_path / "own.safetensors", "--json", "-q")
    result = pnp("denoise", grey, colour, *own)
    assert [json.loads(line)["weights"] for line in result.stdout.splitlines()] == ["own-grey", "own"]


def test_denoise_estimates_the_noise(pnp: Run, photo: Image, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noisy = photo.with_pixels(photo.pixels + rng.normal(0, 20 / 255, photo.pixels.shape))
    write_image(replace(noisy, depth="float32"), tmp_path / "noisy.tif")
    result = pnp("denoise", tmp_path / "noisy.tif", "-o", tmp_path / "clean.tif", "--json")
    assert json.loads(result.stdout)["sigma"] == pytest.approx(20, rel=0.2)
    restored = read_image(tmp_path / "clean.tif")
    assert psnr_of(photo.pixels, restored.pixels) > psnr_of(photo.pixels, noisy.pixels) + 4


def test_denoise_of_a_jpeg_file(pnp: Run, photo: Image, tmp_path: Path) -> None:
    """The noise before compression and the rounding count, unless --no-jpeg or a level is given."""
    noisy = photo.with_pixels(photo.pixels + np.random.default_rng(0).normal(0, 20 / 255, photo.pixels.shape))
    (tmp_path / "noisy.jpg").write_bytes(encode_image(noisy, "JPEG", quality=80))
    levels = []
    for extra in ((), ("--no-jpeg",), ("--sigma", 12)):
        target = tmp_path / f"{len(levels)}.png"
        fields = json.loads(pnp("denoise", tmp_path / "noisy.jpg", "-o", target, "--json", *extra).stdout)
        assert (fields["jpeg_error"] is None) == bool(extra)
        levels.append(fields["sigma"])
    assert 20 < levels[0] < 30
    assert levels[1] < 15
    assert levels[2] == 12
    counted, plain = (psnr_of(photo.pixels, read_image(tmp_path / f"{i}.png").pixels) for i in (0, 1))
    assert counted > plain + 2


@pytest.mark.parametrize(
    "extra",
    [
        (),
        ("--spin", 0),
        ("--basis", "dct", "--boundary", "reflect"),
        ("--basis", "haar", "--gamma", 0.001),
    ],
)
def test_ista(pnp: Run, photo: Image, tmp_path: Path, extra: tuple[object, ...]) -> None:
    part, blurred, out = (tmp_path / name for name in ("part.png", "blurred.tif", "out.png"))
    photo = photo.with_pixels(photo.pixels[:48, :57])
    write_image(photo, part)
    motion = ("--motion", 13, 20)
    assert pnp("blur", part, "-o", blurred, *motion, "--noise", 1, "--bit-depth", 16).returncode == 0
    result = pnp("ista", blurred, "-o", out, *motion, "--tol", 0.05, "--json", *extra)
    assert result.returncode == 0, result.stderr
    fields = json.loads(result.stdout)
    assert fields["solution"]["converged"]
    assert fields["solution"]["relative_gap"] <= 0.05
    assert psnr_of(photo.pixels, read_image(out).pixels) > psnr_of(photo.pixels, read_image(blurred).pixels)


def test_ista_by_the_discrepancy_principle(pnp: Run, tmp_path: Path) -> None:
    """Points of light in their own basis: what is left is as large as the noise, and it says so."""
    generator = np.random.default_rng(0)
    points = np.zeros((40, 45, 1), np.float32)
    points[generator.integers(4, 36, 12), generator.integers(4, 41, 12)] = 1
    blurred = generator.normal(gaussian_filter(points, (1, 1, 0)), 0.01).astype(np.float32)
    write_image(Image(blurred), tmp_path / "blurred.tif")
    kernel = ("--gaussian", 1, "--sigma", 2.55, "--basis", "pixel")
    result = pnp("ista", tmp_path / "blurred.tif", "-o", tmp_path / "out.tif", *kernel, "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["solution"]["discrepancy"] == pytest.approx(1, abs=0.02)
    assert b"by the discrepancy principle" in result.stderr
    assert psnr_of(points, read_image(tmp_path / "out.tif").pixels) > psnr_of(points, blurred) + 3


@pytest.mark.parametrize("gamma", ["0", "-1", "inf", "nan", "much"])
def test_ista_gamma(pnp: Run, photo_file: Path, gamma: str) -> None:
    result = pnp("ista", photo_file, *KERNEL, f"--gamma={gamma}", "--dry-run")
    assert result.returncode == 2
    assert "--gamma" in one_sentence(result)


def test_ista_step(pnp: Run, photo_file: Path) -> None:
    for step, extra, code in ((1.99, ("--no-fista",), 0), (2, ("--no-fista",), 3), (1, (), 0), (1.01, (), 3)):
        result = pnp("ista", photo_file, *KERNEL, "--step", step, "--dry-run", *extra)
        assert result.returncode == code, step


def test_blur_does_not_clip_float_outputs(pnp: Run, tmp_path: Path) -> None:
    black = Image(np.zeros((32, 33, 3), np.float32))
    write_image(black, tmp_path / "black.png")
    for name in ("noisy.tif", "noisy.npy"):
        assert pnp("blur", tmp_path / "black.png", "-o", tmp_path / name, "--disk", 1, "--noise", 10).returncode == 0
        pixels = read_image(tmp_path / name).pixels
        assert pixels.std() == pytest.approx(10 / 255, rel=0.05)
        assert pixels.min() < -10 / 255
    assert tifffile.imread(tmp_path / "noisy.tif").dtype == np.float32
    again = tmp_path / "again.npy"
    pnp("blur", tmp_path / "black.png", "-o", again, "--disk", 1, "--noise", 10)
    assert again.read_bytes() == (tmp_path / "noisy.npy").read_bytes()


def test_blur_draws_the_noise_of_every_image_anew(pnp: Run, tmp_path: Path) -> None:
    levels = (0.3, 0.7)
    for i, level in enumerate(levels):
        np.save(tmp_path / f"{i}.npy", np.full((40, 40), level, np.float32))
    inputs = tmp_path / "0.npy", tmp_path / "1.npy"
    assert pnp("blur", *inputs, "-o", f"{tmp_path}/out/", "--disk", 1, "--noise", 10).returncode == 0
    a, b = (read_image(tmp_path / f"out/{i}.npy").pixels - level for i, level in enumerate(levels))
    assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.1


def test_psnr(pnp: Run, installed: Run, photo: Image, photo_file: Path, tmp_path: Path) -> None:
    other = photo.with_pixels(np.clip(photo.pixels + 0.1, 0, 1))
    write_image(other, tmp_path / "other.tif")
    expected = psnr_of(photo.pixels, read_image(tmp_path / "other.tif").pixels)
    result = installed("psnr", photo_file, tmp_path / "other.tif")
    assert result.returncode == 0
    assert float(result.stdout) == pytest.approx(expected, abs=1e-3)
    peak = pnp("psnr", photo_file, tmp_path / "other.tif", "--peak", "reference-max", "--json")
    gain = 20 * np.log10(photo.pixels.max())
    assert json.loads(peak.stdout)["psnr"] == pytest.approx(expected + gain, abs=1e-3)
    assert pnp("psnr", photo_file, tmp_path / "other.tif", "--min-psnr", expected - 1).returncode == 0
    assert pnp("psnr", photo_file, tmp_path / "other.tif", "--min-psnr", expected + 1).returncode == 4
    same = pnp("psnr", photo_file, photo_file, "--ssim")
    assert same.stdout.decode().split() == ["inf", "1.00000"]
    # The PSNR is of the colours, but an image with another transparency is another image.
    glass = replace(photo, alpha=np.full(photo.size, 0.5, np.float32))
    write_image(glass, tmp_path / "glass.png")
    lines = pnp("psnr", tmp_path / "glass.png", photo_file, tmp_path / "glass.png", "--json").stdout.splitlines()
    facts = [json.loads(line) for line in lines]
    assert [(fact["psnr"], fact["identical"]) for fact in facts] == [(None, False), (None, True)]


def test_psnr_of_folders(pnp: Run, photo: Image, tmp_path: Path) -> None:
    """True images are found by name, below the folder, too; an image without one fails by itself."""
    for name in ("a.png", "sub/b.tif"):
        write_image(photo, tmp_path / "true" / name)
    for name in ("a.deblurred.png", "sub/b.png", "c.png"):
        write_image(photo, tmp_path / "got" / name)
    result = pnp("psnr", tmp_path / "true", tmp_path / "got", "-r", "--json")
    assert result.returncode == 1
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [Path(line["reference"]).name for line in lines if line["ok"]] == ["a.png", "b.tif"]
    (bad,) = (line for line in lines if not line["ok"])
    assert "no true image called c" in bad["error"]
    write_image(photo, tmp_path / "true" / "a.tif")
    assert "both called a" in one_sentence(pnp("psnr", tmp_path / "true", tmp_path / "got"))


def test_psnr_has_a_line_for_every_image(pnp: Run, photo_file: Path) -> None:
    for extra, lines in (
        ((), [b"inf", b"nan", b"inf"]),
        (("--ssim",), [b"inf\t1.00000", b"nan\tnan", b"inf\t1.00000"]),
    ):
        result = pnp("psnr", photo_file, photo_file, "absent.png", photo_file, *extra)
        assert result.returncode == 1
        assert result.stdout.splitlines() == lines


def test_standard_input_is_read_once(pnp: Run, photo_file: Path) -> None:
    content = photo_file.read_bytes()
    for arguments in (
        ("psnr", "-", "-"),
        ("psnr", photo_file, "-", "-"),
        ("blur", "--disk", 1, "-", "-", "-o", "out/"),
    ):
        result = pnp(*arguments, stdin=content)
        assert result.returncode == 2
        assert "standard input: is given twice" in one_sentence(result)
    assert pnp("psnr", "-", photo_file, stdin=content).returncode == 0


def test_certify(pnp: Run, installed: Run, small_weights: Path) -> None:
    result = installed("certify", small_weights, "--json")
    assert result.returncode == 0
    fields = json.loads(result.stdout)
    assert fields["averaged"] is True
    assert all(0 <= layer["alpha"] < 1 for layer in fields["layers"])
    table = pnp("certify", small_weights).stdout.decode()
    assert "AVERAGED" in table
    assert "steps.2" in table
    result = pnp("certify", "absent", "dncnn", small_weights, "--json")
    assert result.returncode == 1
    absent, dncnn, small = (json.loads(line) for line in result.stdout.splitlines())
    assert "absent" in absent["error"]
    assert "not certified" in dncnn["error"]
    assert small["ok"]


def test_no_code_hides_a_failed_file(pnp: Run, photo: Image, photo_file: Path, tmp_path: Path) -> None:
    """Of several exit codes every command gives the smallest, whatever the order of the files."""
    other, bad = tmp_path / "other.png", tmp_path / "bad.png"
    write_image(photo.with_pixels(0.5 * photo.pixels), other)
    bad.write_text("not a picture")
    network = small_network()
    network.steps[0].step.fill_(4.0)  # type: ignore[index, union-attr]
    unsafe = tmp_path / "unsafe.safetensors"
    weights.save(unsafe, network)
    for command, good, code in (
        (("psnr", "--min-psnr", 50, photo_file), other, 4),
        (("certify",), unsafe, 3),
        (("deblur", "-o", f"{tmp_path}/out/", *KERNEL, "-w", unsafe), other, 3),
    ):
        assert pnp(*command, good).returncode == code
        for files in ((good, bad), (bad, good)):
            assert pnp(*command, *files).returncode == 1, command[0]
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------------- pipes and files


def test_pipes(pnp: Run, installed: Run, photo: Image, photo_file: Path, small_weights: Path) -> None:
    blurred = installed("blur", "-", "-o", "-", *KERNEL, "--format", "npy", stdin=photo_file.read_bytes())
    assert blurred.returncode == 0
    assert blurred.stdout[:6] == b"\x93NUMPY"
    sharp = pnp("deblur", "-", "-o", "-", *KERNEL, "-w", small_weights, "--format", "png", stdin=blurred.stdout)
    assert sharp.returncode == 1
    assert "cannot hold float samples" in one_sentence(sharp)
    deep = ("--format", "png", "--bit-depth", 16)
    sharp = installed("deblur", "-", "-o", "-", *KERNEL, "-w", small_weights, *deep, stdin=blurred.stdout)
    assert sharp.returncode == 0
    result = read_image(sharp.stdout)
    assert result.pixels.shape == photo.pixels.shape
    assert psnr_of(photo.pixels, result.pixels) > psnr_of(photo.pixels, read_image(blurred.stdout).pixels) + 1
    both = pnp("blur", "-", *KERNEL, "--json", stdin=photo_file.read_bytes())
    assert both.returncode == 2
    assert both.stdout == b""


def test_grey_stays_grey_and_alpha_is_kept(pnp: Run, photo: Image, tmp_path: Path, small_weights: Path) -> None:
    write_image(Image(photo.pixels[:, :, :1]), tmp_path / "grey.png")
    alpha = np.linspace(0, 1, photo.pixels[:, :, 0].size, dtype=np.float32).reshape(photo.size)
    write_image(Image(photo.pixels, alpha=alpha), tmp_path / "alpha.png")
    result = pnp("denoise", tmp_path / "*.png", "-o", tmp_path / "out/", "-w", small_weights, "-s", 10)
    assert result.returncode == 0, result.stderr
    assert read_image(tmp_path / "out/grey.png").pixels.shape[2] == 1
    kept = read_image(tmp_path / "out/alpha.png").alpha
    np.testing.assert_array_equal(kept, read_image(tmp_path / "alpha.png").alpha)


def test_folders_and_existing_files(pnp: Run, photo: Image, tmp_path: Path, small_weights: Path) -> None:
    for name in ("a.png", "sub/b.png"):
        write_image(photo, tmp_path / "in" / name)
    common = ("denoise", tmp_path / "in", "-r", "-o", tmp_path / "out", "-w", small_weights, "-s", 10)
    assert pnp(*common).returncode == 0
    assert sorted(p.relative_to(tmp_path / "out") for p in (tmp_path / "out").rglob("*.png")) == [
        Path("a.png"),
        Path("sub/b.png"),
    ]
    before = (tmp_path / "out/a.png").stat().st_mtime_ns
    refused = pnp(*common)
    assert refused.returncode == 2
    assert "--on-exists" in refused.stderr.decode()
    assert pnp(*common, "--on-exists", "skip").returncode == 0
    assert (tmp_path / "out/a.png").stat().st_mtime_ns == before
    assert pnp(*common, "--on-exists", "overwrite").returncode == 0
    assert (tmp_path / "out/a.png").stat().st_mtime_ns > before


def test_one_bad_file_does_not_stop_the_others(pnp: Run, photo_file: Path, small_weights: Path) -> None:
    bad, out = photo_file.with_name("bad.png"), photo_file.with_name("out")
    bad.write_text("not a picture")
    result = pnp("denoise", bad, photo_file, "-o", f"{out}/", "-w", small_weights, "-s", 10)
    assert result.returncode == 1
    assert "bad.png" in one_sentence(result)
    assert [p.name for p in out.iterdir()] == ["photo.png"]
    result = pnp("denoise", bad, photo_file, "-o", f"{out}2/", "-w", small_weights, "-s", 10, "--fail-fast")
    assert result.returncode == 1
    assert not Path(f"{out}2").exists()


@pytest.mark.parametrize(
    "output", ["new/../photo.png", "new/../{name}", "new/../link.png", "./new/deeper/../../photo.png"]
)
def test_the_input_is_found_behind_folders_that_are_not_there_yet(pnp: Run, photo_file: Path, output: str) -> None:
    content, folder = photo_file.read_bytes(), photo_file.parent
    (folder / "link.png").symlink_to(photo_file)
    for mode in ("error", "skip", "overwrite"):
        result = pnp("blur", "photo.png", "-o", output, "--disk", 1, "--on-exists", mode, cwd=folder)
        assert result.returncode == 2
        assert "would replace an input" in one_sentence(result)
    assert photo_file.read_bytes() == content
    assert not (folder / "new").exists()


def test_outputs_that_are_their_own_inputs_are_not_skipped(pnp: Run, photo: Image, tmp_path: Path) -> None:
    for name in ("a.png", "sub/b.png"):
        write_image(photo, tmp_path / "in" / name)
    result = pnp("blur", "in", "-r", "-o", "in/", "--disk", 1, "--on-exists", "skip", cwd=tmp_path)
    assert result.returncode == 2
    assert "would replace an input" in one_sentence(result)
    for _ in range(2):  # again, where the output of one is an input by itself
        for picture in (tmp_path / "in").glob("*.png"):
            run = ("in/a.png", picture, "--disk", 1, "--on-exists", "skip")
            assert picture.name == "a.png" or pnp("blur", *run, cwd=tmp_path).returncode == 0
        assert pnp("blur", "in/a.png", "--disk", 1, "--on-exists", "skip", cwd=tmp_path).returncode == 0


def test_the_input_is_never_replaced(pnp: Run, photo_file: Path, small_weights: Path) -> None:
    content = photo_file.read_bytes()
    result = pnp("denoise", photo_file, "-o", photo_file, "-w", small_weights, "-s", 10, "--on-exists", "overwrite")
    assert result.returncode == 2
    assert photo_file.read_bytes() == content
    other = photo_file.with_name("other") / "photo.png"
    other.parent.mkdir()
    other.write_bytes(b"not yet read")
    folder = f"{other.parent}/"
    result = pnp("blur", photo_file, other, "-o", folder, "--disk", 1, "--on-exists", "overwrite")
    assert result.returncode == 2
    assert other.read_bytes() == b"not yet read"


def test_ridge_and_box(pnp: Run, photo_file: Path, small_weights: Path) -> None:
    blurred, out = make_blurred(pnp, photo_file), photo_file.with_name("out.npy")
    common = ("deblur", blurred, "-o", out, *KERNEL, "-w", small_weights, "--json", "--on-exists", "overwrite")
    fields = json.loads(pnp(*common, "--ridge", 0.1).stdout)
    assert fields["plan"]["theorem"] == "contraction"
    assert 0 < fields["plan"]["contraction"] < 1
    assert fields["solution"]["error_bound"] > 0
    assert json.loads(pnp(*common, "--no-box").stdout)["plan"]["theorem"] == "averaged"


def test_a_large_envelope_keeps_the_checks_silent(
    pnp: Run, photo: Image, photo_file: Path, small_weights: Path
) -> None:
    """Single precision must not accuse an honest certificate, with clipped samples, too; it is said what it hides."""
    write_image(photo.with_pixels(photo.pixels[43:, :48]), photo_file)
    blurred = make_blurred(pnp, photo_file)
    large = ("--envelope", 1e5, "--max-iter", 60, "--tol", 1e-4)
    result = pnp("deblur", blurred, *KERNEL, "-w", small_weights, *large, "--json")
    fields = json.loads(result.stdout)
    assert fields["clipped"] > 0
    assert fields["solution"]["violations"] == []
    assert fields["solution"]["iterations"] == 60
    assert "single precision" in result.stderr.decode()


def test_reference_of_another_size_is_refused_first(pnp: Run, photo: Image, photo_file: Path, tmp_path: Path) -> None:
    write_image(photo.with_pixels(photo.pixels[1:]), tmp_path / "other.png")
    result = pnp("deblur", photo_file, *KERNEL, "--dry-run", "--reference", tmp_path / "other.png")
    assert result.returncode == 1
    assert "other.png: the reference is" in one_sentence(result)


# ------------------------------------------------------------------------------------------ bad input


def zero_size(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("hello")


def truncated(path: Path) -> None:
    write_image(Image(np.random.default_rng(0).random((64, 64, 3), dtype=np.float32)), path)
    path.write_bytes(path.read_bytes()[:600])


def nan(path: Path) -> None:
    tifffile.imwrite(path, np.full((8, 8), np.nan, np.float32))


def missing(path: Path) -> None:
    pass


def folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("command", ["denoise", "deblur", "ista", "blur", "psnr"])
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (zero_size, "zero.png"),
        (text, "text.png"),
        (truncated, "cut.jpg"),
        (nan, "nan.tif"),
        (missing, "missing.png"),
        (folder, "folder"),
    ],
)
def test_bad_images(pnp: Run, tmp_path: Path, photo_file: Path, command: str, make, name: str) -> None:  # type: ignore[no-untyped-def]
    bad, out = tmp_path / name, tmp_path / "out.png"
    make(bad)
    arguments = {"denoise": (), "psnr": ()}.get(command, ("--disk", 1))
    result = pnp("psnr", photo_file, bad) if command == "psnr" else pnp(command, bad, "-o", out, *arguments)
    assert result.returncode == 1
    assert name in one_sentence(result)
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--disk", 60), 1, "kernel is larger than"),
        (("--disk", -1), 2, "disk"),
        (("--motion", 0, 30), 2, "length"),
        (("--kernel", "zeros.npy"), 1, "zeros.npy"),
        (("--kernel", "negative.npy"), 1, "negative.npy"),
        (("--kernel", "absent.npy"), 2, "--kernel absent.npy: no such file"),
        (("--kernel", "."), 2, "--kernel .: is a folder, but the option takes one file"),
        (("--trajectory", "absent.csv"), 2, "--trajectory absent.csv: no such file"),
        ((), 2, "exactly one blur kernel"),
        (("--disk", 1, "--gaussian", 1), 2, "exactly one blur kernel"),
        (("--disk", 1, "--sigma", -1), 2, "--sigma"),
        (("--disk", 1, "--sigma", 1e6), 2, "--sigma"),
        (("--disk", 1, "--sigma", "much"), 2, "--sigma"),
        (("--disk", 1, "--strength", "nan"), 2, "--strength"),
        (("--disk", 1, "--ridge", -1), 2, "ridge"),
        (("--disk", 1, "--tol", "nan"), 2, "tol"),
        (("--disk", 1, "--envelope", 0), 2, "envelope"),
        (("--disk", 1, "--data-term", "tv"), 2, "data term"),
        (("--disk", 1, "--step", 1e9), 3, "admissible interval"),
        (("--disk", 1, "--weights", "nonsense"), 2, "--weights 'nonsense': no such weights; there are conditioned"),
        (("--disk", 1, "--weights", "hubr"), 2, "--weights 'hubr': no such weights; did you mean huber?"),
        (("--disk", 1, "--weights", "absent.safetensors"), 2, "--weights absent.safetensors: no such weight file"),
        (("--disk", 1, "--weights", "corrupt.safetensors"), 1, "corrupt.safetensors"),
        (("--disk", 1, "--weights", "foreign.safetensors"), 1, "foreign.safetensors"),
        (("--disk", 1, "--device", "tpu"), 2, "tpu"),
        (("--disk", 1, "--device", "mps"), 2, "double precision"),
        (("--disk", 1, "--reference", "absent.png"), 2, "--reference absent.png: no such file"),
        (("--disk", 1, "--reference", "."), 2, "--reference .: is a folder, but the option takes one file"),
        (("--disk", 1, "-o", "q"), 2, "for a folder, end it with a slash"),
        (("--disk", 1, "--on-exists", "maybe"), 2, "--on-exists"),
        (("--disk", 1, "--format", "gif"), 2, "gif"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else None,
)
def test_bad_arguments(
    pnp: Run, tmp_path: Path, photo_file: Path, arguments: tuple[object, ...], code: int, words: str
) -> None:
    from safetensors.numpy import save

    np.save(tmp_path / "zeros.npy", np.zeros((3, 3)))
    np.save(tmp_path / "negative.npy", -np.ones((3, 3)))
    (tmp_path / "corrupt.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0garbage")
    (tmp_path / "foreign.safetensors").write_bytes(save({"w": np.zeros(3, np.float32)}))
    result = pnp("deblur", photo_file, "-o", tmp_path / "out.png", *arguments, cwd=tmp_path)
    assert result.returncode == code, result.stderr
    assert words in one_sentence(result)
    assert not (tmp_path / "out.png").exists()


def test_a_denoiser_that_diverges_writes_nothing(pnp: Run, photo_file: Path, tmp_path: Path) -> None:
    network = build(DnCNNArchitecture(3, 4))
    network.initialise()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(1e30)
    weights.save(tmp_path / "wild.safetensors", network)
    output = tmp_path / "out.png"
    result = pnp("denoise", photo_file, "-o", output, "-w", tmp_path / "wild.safetensors", "--sigma", 25)
    assert result.returncode == 1
    assert "diverged, nothing was written" in one_sentence(result)
    assert not output.exists()


def test_one_is_no_plural(pnp: Run, photo_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.get_num_threads", lambda: 1)
    train = ("train-denoiser", photo_file.parent, "-o", tmp_path / "w.safetensors", "--preset", "dncnn")
    result = pnp(*train, "--steps", 1, "--batch", 1, "--crop", 16, "--device", "cpu")
    assert result.returncode == 0, result.stderr
    assert "dncnn on 1 image, cpu (1 thread)\n" in result.stderr.decode()


@pytest.mark.parametrize(
    "wrong",
    [
        ("--on-exists", "foo"),
        ("--format", "gif"),
        ("--bit-depth", "12"),
        ("-q", "-v"),
        ("-w", "hubr"),
        ("--config", "absent.toml"),
    ],
    ids=" ".join,
)
def test_what_is_no_choice_is_refused_at_once(
    pnp: Run, photo_file: Path, monkeypatch: pytest.MonkeyPatch, wrong: tuple[str, ...]
) -> None:
    """Before torch is imported, which takes seconds, and before anything else is said."""
    monkeypatch.setitem(sys.modules, "torch", None)
    result = pnp("denoise", photo_file, "--sigma", 0.5, *wrong)
    assert result.returncode == 2
    assert result.stderr.decode().splitlines() == [one_sentence(result)]


@pytest.mark.parametrize(
    ("command", "default"),
    [("denoise", "denoised.png"), ("deblur", "deblurred.png"), ("ista", "ista.png"), ("blur", "blurred.png")],
)
def test_the_default_name_is_that_of_the_help(pnp: Run, photo_file: Path, command: str, default: str) -> None:
    words = " ".join(pnp(command, "--help").stdout.decode().split())
    assert f"as photo.{default} for photo.jpg" in words
    kernel = () if command == "denoise" else ("--disk", 1)
    result = pnp(command, photo_file, *kernel, "--dry-run", "--json", "-q")
    assert Path(json.loads(result.stdout)["target"]).name == f"photo.{default}"


def test_unwritable_outputs(pnp: Run, tmp_path: Path, photo_file: Path, small_weights: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for out, code in ((tmp_path / "out.xyz", 2), (tmp_path / "out", 2), (tmp_path / "file" / "out.png", 2)):
        result = pnp("denoise", photo_file, "-o", out, "-w", small_weights, "-s", 10)
        assert result.returncode == code
        assert str(out) in one_sentence(result)
    os.mkfifo(tmp_path / "pipe")
    to_pipe = ("-o", tmp_path / "pipe", "--format", "png", "--on-exists", "overwrite")
    result = pnp("denoise", photo_file, *to_pipe, "-w", small_weights, "-s", 10)
    assert result.returncode == 2
    assert "no regular file" in one_sentence(result)
    assert (tmp_path / "pipe").is_fifo()


def test_names_that_cannot_be_meant(pnp: Run, photo_file: Path, tmp_path: Path) -> None:
    other, out = tmp_path / "other.png", tmp_path / "o.png"
    other.write_bytes(photo_file.read_bytes())
    for arguments, words in (
        ((photo_file, other, "-o", out), "names one file, but there are 2 inputs"),
        ((photo_file, photo_file, "-o", f"{tmp_path}/out/"), "is given twice"),
        ((photo_file, "-o", out, "--manifest", "-"), "standard output; give it the name of a file"),
    ):
        result = pnp("blur", "--disk", 1, *arguments)
        assert result.returncode == 2
        assert words in one_sentence(result)
        assert not out.exists()


def test_a_dry_run_sees_a_kernel_that_does_not_fit(pnp: Run, photo_file: Path) -> None:
    result = pnp("blur", photo_file, "--motion", 500, 3, "-o", photo_file.with_name("o.png"), "--dry-run")
    assert result.returncode == 1
    assert "is larger than" in one_sentence(result)


def test_the_plan_is_in_the_record_of_a_refusal(pnp: Run, photo_file: Path, small_weights: Path) -> None:
    out = photo_file.with_name("o.png")
    step = ("--data-term", "least-squares", "--step", 100)
    for dry in ((), ("--dry-run",)):
        result = pnp("deblur", photo_file, "-o", out, "--disk", 1, *step, "-w", small_weights, "--json", *dry)
        assert result.returncode == 3
        fields = json.loads(result.stdout)
        assert fields["plan"]["theorem"] == "none"
        assert fields["plan"]["failures"][0] in fields["error"]
        assert not out.exists()


def test_wrong_usage_is_2(pnp: Run) -> None:
    for arguments in (
        ("denoise",),
        ("nonsense",),
        ("denoise", "a.png", "--no-such-option"),
        ("denoise", "a", "--repeat", 0),
    ):
        result = pnp(*arguments)
        assert result.returncode == 2
        assert b"Traceback" not in result.stderr


# ------------------------------------------------------------------------------------------- training


def test_training_from_nothing(pnp: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No data at all: scikit-image's pictures; the result is certified and its log is JSON lines.

    The default preset is a smaller network here, which is certified faster.
    """
    monkeypatch.setitem(PRESETS, "huber", replace(PRESETS["huber"], scales=(2, 4), filters=20))
    out = tmp_path / "w.safetensors"
    result = pnp("train-denoiser", "-o", out, "--steps", 3, "--batch", 2, "--crop", 16, "--sigma", 0.1, 0.2)
    assert result.returncode == 0, result.stderr
    assert "--sigma is on the 0-255 scale, so 0.2 is hardly any noise" in result.stderr.decode()
    assert pnp("certify", out).returncode == 0
    (line,) = out.with_suffix(".log.jsonl").read_text().splitlines()
    assert json.loads(line)["step"] == 3
    again = pnp("train-denoiser", "-o", out, "--steps", 3)
    assert again.returncode == 2
    assert "exists already" in one_sentence(again)
    written = out.read_bytes()
    finished = pnp("train-denoiser", "-o", out, "--steps", 2, "--batch", 2, "--crop", 16, "--resume")
    assert finished.returncode == 0
    assert "at step 3 already, so there is nothing to do" in finished.stderr.decode()
    assert out.read_bytes() == written
    out.unlink()
    assert pnp("train-denoiser", "-o", out, "--steps", 3, "--batch", 2, "--crop", 16, "--resume").returncode == 0
    assert weights.load(out).training["steps"] == 3, "a run that was killed before it wrote them"


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_interrupted_training_resumes_bit_for_bit(pnp: Run, tmp_path: Path, photo_file: Path, number: int) -> None:
    common = ["train-denoiser", photo_file.parent, "--steps", 60, "--batch", 2, "--crop", 16, "--preset", "dncnn"]
    assert pnp(*common, "-o", tmp_path / "whole.safetensors").returncode == 0
    out = tmp_path / "parts.safetensors"
    arguments = [installed_command(), *map(str, common), "-o", str(out), "--checkpoint-every", "0"]
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not out.with_suffix(".checkpoint").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130, stderr
    assert b"--resume" in stderr
    assert stderr.decode().count("interrupted") == 1
    assert not out.exists()
    assert pnp(*common, "-o", out, "--resume").returncode == 0
    whole, parts = (weights.load(tmp_path / f"{name}.safetensors").network.state_dict() for name in ("whole", "parts"))
    for name, value in whole.items():
        np.testing.assert_array_equal(value.numpy(), parts[name].numpy())


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("absent",), 1, "absent"),
        (("empty",), 1, "empty"),
        (("--val", "absent"), 1, "absent"),
        (("--preset", "unet"), 2, "unet"),
        (("--start", "hubr"), 2, "--start 'hubr': no such weights; did you mean huber?"),
        (("--sigma", 5, 1), 2, "--sigma"),
        (("--crop", 18), 2, "--crop"),
        (("--grey", 0.5, "--preset", "huber-grey"), 2, "--grey"),
        (("--crop", 4096), 1, "4096 pixels"),
        (("-o", "w.pth"), 2, ".safetensors"),
        (("--time-budget", -1), 2, "--time-budget"),
        (("--checkpoint-every", -1), 2, "--checkpoint-every"),
        (("--validate-every", "nan"), 2, "--validate-every"),
        (("--learning-rate", "nan"), 2, "--learning-rate"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else None,
)
def test_bad_training_arguments(pnp: Run, tmp_path: Path, arguments: tuple[object, ...], code: int, words: str) -> None:
    (tmp_path / "empty").mkdir()
    result = pnp("train-denoiser", "-o", "w.safetensors", "--steps", 1, *arguments, cwd=tmp_path)
    assert result.returncode == code, result.stderr
    assert words in one_sentence(result)
    assert [p.name for p in tmp_path.iterdir()] == ["empty"]
