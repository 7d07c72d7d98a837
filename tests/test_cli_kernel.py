"""`pnp kernel`, and the kernel options of the other commands."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.signal import fftconvolve
from skimage import data

from pnp_cli import kernels, read_image
from pnp_cli.cli import main

from .conftest import Run

Call = Callable[..., tuple[int, str, str]]

TRACK = [(0, 0), (6, 0), (6, 4)]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Call:
    """Run a command in this process and in `tmp_path`; the exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pnp", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0), *capsys.readouterr()

    return run


# ------------------------------------------------------------------------------------------ the command


def test_installed_command(installed: Run, tmp_path: Path) -> None:
    result = installed("kernel", "--path", "-3,2 3,2 3,6", "-o", "k.npy", "--picture", "k.png", "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    kernel = np.load(tmp_path / "k.npy")
    np.testing.assert_allclose(kernel, kernels.path(TRACK), atol=1e-15)
    assert kernel.dtype == np.float64
    assert read_image(tmp_path / "k.png").depth == "uint8"
    facts = json.loads(result.stdout)
    assert (facts["schema"], facts["ok"], facts["input"]) == (1, True, "path -3,2 3,2 3,6")
    assert facts["size"] == list(kernel.shape)
    assert facts["weak"] == kernels.properties(kernel).weak
    assert facts["output"] == "k.npy"
    assert result.stderr.decode().splitlines() == ["wrote k.npy", "wrote k.png"]


@pytest.mark.parametrize(
    ("arguments", "slow"), [(["kernel", "--help"], {"scipy", "torch"}), (["kernel", "--disk", "2"], {"torch"})]
)
def test_slow_imports_are_left_out(arguments: list[str], slow: set[str]) -> None:
    run = "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code"
    code = f"import sys\nsys.argv = {['pnp', *arguments]!r}\nfrom pnp_cli.cli import main\n{run}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not slow & set(done.stdout.split())


def test_table(call: Call) -> None:
    code, out, err = call("kernel", "--motion", 15, 0)
    assert code == 0
    lines = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert lines["kernel"] == "motion 15 px, 0 degrees"
    assert lines["size"] == "1x15 (height x width), sum 1"
    assert lines["deviation"] == "4.32 px along 0.0 degrees, 0.00 px across"
    assert lines["|OTF|"].startswith("max 1, min 0.0")
    assert f"below 0.05 at {kernels.properties(kernels.motion(15, 0)).weak:.1%}" in lines["|OTF|"]
    assert err == ""


@pytest.mark.parametrize(("suffix", "accuracy"), [("npy", 1e-15), ("mat", 1e-15), ("tif", 1e-7), ("png", 1e-5)])
def test_every_format_is_read_again(call: Call, tmp_path: Path, suffix: str, accuracy: float) -> None:
    assert call("kernel", "--motion", 9, 20, "-o", f"k.{suffix}", "-q") == (0, "", "")
    np.testing.assert_allclose(kernels.from_file(tmp_path / f"k.{suffix}")[0], kernels.motion(9, 20), atol=accuracy)
    assert call("kernel", "--kernel", f"k.{suffix}")[0] == 0


def test_centring_is_said_and_can_be_left_out(call: Call, tmp_path: Path) -> None:
    values = np.zeros((9, 9))
    values[1, 2:5] = 1
    np.save(tmp_path / "off.npy", values)
    code, out, err = call("kernel", "--kernel", "off.npy", "-o", "centred.npy")
    assert code == 0
    assert "kernel centred: moved by 1 right, 3 down" in err
    assert "off.npy (1x3)" in out
    np.testing.assert_allclose(np.load(tmp_path / "centred.npy"), np.full((1, 3), 1 / 3))
    code, out, err = call("kernel", "--kernel", "off.npy", "--no-center")
    assert code == 0
    assert "centred" not in err
    assert "centroid    1 left, 3 up from the origin" in out


def test_nothing_is_replaced_unasked(call: Call, tmp_path: Path) -> None:
    (tmp_path / "k.npy").write_bytes(b"mine")
    code, _, err = call("kernel", "--disk", 2, "-o", "k.npy", "--picture", "k.png")
    assert code == 2
    assert "k.npy: exists already" in err
    assert [p.name for p in tmp_path.iterdir()] == ["k.npy"]
    assert (tmp_path / "k.npy").read_bytes() == b"mine"
    assert call("kernel", "--disk", 2, "-o", "k.npy", "--on-exists", "overwrite", "-q")[0] == 0
    np.testing.assert_array_equal(np.load(tmp_path / "k.npy"), kernels.disk(2))


def test_inputs_are_never_replaced(call: Call, tmp_path: Path) -> None:
    kernels.to_file(kernels.disk(2), tmp_path / "k.png")
    before = (tmp_path / "k.png").read_bytes()
    for option in ("-o", "--picture"):
        code, _, err = call("kernel", "--kernel", "k.png", option, "./k.png", "--on-exists", "overwrite")
        assert code == 2
        assert "would replace an input" in err
    assert (tmp_path / "k.png").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((), 2, "exactly one blur kernel"),
        (("--disk", 1, "--path", "0,0 1,1"), 2, "exactly one blur kernel"),
        (("--kernel", "k.npy", "--trajectory", "t.csv"), 2, "exactly one blur kernel"),
        (("--path", "0,0 1"), 2, "--path"),
        (("--path", "0,0 1,b"), 2, "--path"),
        (("--path", "0,0"), 2, "at least two points"),
        (("--path", "0,0 0,0"), 2, "no time"),
        (("--trajectory", "absent.csv"), 2, "--trajectory absent.csv: no such file"),
        (("--trajectory", "bad.csv"), 1, "bad.csv, line 2: 'b' is not a number"),
        (("--kernel", "absent.npy"), 2, "absent.npy"),
        (("--disk", 1, "-o", "k.gif"), 2, "k.gif: cannot write kernels"),
        (("--disk", 1, "-o", "-"), 2, "cannot write kernels"),
        (("--disk", 1, "--picture", "k.gif"), 2, "k.gif: cannot write files"),
        (("--disk", 1, "-o", "k.png", "--picture", "k.png"), 2, "both be written to k.png"),
        (("--disk", 1, "-o", "k.npy", "--on-exists", "maybe"), 2, "--on-exists"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else None,
)
def test_refusals(call: Call, tmp_path: Path, arguments: tuple[object, ...], code: int, words: str) -> None:
    (tmp_path / "bad.csv").write_text("0,0\n1,b\n")
    got, out, err = call("kernel", *arguments)
    assert (got, out) == (code, "")
    assert words in err
    assert len(err.splitlines()) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["bad.csv"]


def test_config(call: Call, tmp_path: Path) -> None:
    (tmp_path / "pnp.toml").write_text('path = "0,0 6,0 6,4"\n')
    assert call("kernel", "--config", "pnp.toml", "-o", "k.npy", "-q")[0] == 0
    np.testing.assert_array_equal(np.load(tmp_path / "k.npy"), kernels.path(TRACK))
    assert call("kernel", "--disk", 2, "--config", "pnp.toml", "-o", "typed.npy", "-q")[0] == 0
    np.testing.assert_array_equal(np.load(tmp_path / "typed.npy"), kernels.disk(2))
    (tmp_path / "pnp.toml").write_text('motion = "auto"\n')
    for arguments in (("--config", "pnp.toml"), ("--motion=auto",)):
        code, _, err = call("kernel", *arguments)
        assert code == 2
        assert "an image together with --motion auto" in err
    (tmp_path / "pnp.toml").write_text('on-exists = "skip"\n')
    for words in ("wrote", "skipped"):
        code, _, err = call("kernel", "--disk", 2, "--config", "pnp.toml", "-o", "again.npy")
        assert code == 0
        assert words in err
    (tmp_path / "pnp.toml").write_text("center = false\n")
    assert call("kernel", "--disk", 2, "--config", "pnp.toml", "-q")[0] == 0, "meant for kernels of files"
    (tmp_path / "pnp.toml").write_text("[certify]\ngrid = 32\n")
    code, _, err = call("kernel", "--disk", 2, "--config", "pnp.toml")
    assert code == 2
    assert "'certify' is not an option or command" in err


def test_a_bent_motion_is_followed(call: Call, tmp_path: Path) -> None:
    """The kernel that is written is that of the path, and the description says so."""
    arch = kernels.path([(0, 0), (12, -1.5), (24, 0)])
    blurred = fftconvolve(data.coffee()[:300, 100:400] / 255, arch[..., None], mode="valid", axes=(0, 1))
    np.save(tmp_path / "arch.npy", (blurred + np.random.default_rng(0).normal(0, 0.004, blurred.shape)).astype("f4"))
    code, out, _ = call("kernel", "arch.npy", "--motion", "auto", "-o", "k.npy")
    assert code == 0
    assert "followed along a path that bends by 1." in out
    followed = kernels.from_file(tmp_path / "k.npy")[0]
    rows = followed.sum(axis=1).nonzero()[0]
    assert np.ptp(rows) in (2, 3, 4)


# ------------------------------------------------------------------------------------------ other commands


@pytest.fixture
def point(tmp_path: Path) -> Path:
    """A white pixel in the middle of 33 x 33 black ones."""
    pixels = np.zeros((33, 33), np.float32)
    pixels[16, 16] = 1
    np.save(tmp_path / "point.npy", pixels)
    return tmp_path / "point.npy"


def placed(kernel: np.ndarray) -> np.ndarray:
    """A kernel with its origin in the middle of 33 x 33 pixels."""
    h, w = kernel.shape
    image = np.zeros((33, 33))
    image[16 - h // 2 :, 16 - w // 2 :][:h, :w] = kernel
    return image


@pytest.mark.parametrize("option", ["--path", "--trajectory"])
def test_a_point_is_smeared_along_the_path(call: Call, tmp_path: Path, point: Path, option: str) -> None:
    (tmp_path / "t.csv").write_text("t;x;y\n0;0;0\n6;6;0\n10;6;4\n")
    value = "0,0 6,0 6,4" if option == "--path" else "t.csv"
    assert call("blur", point, "-o", "out.npy", option, value)[0] == 0
    smear = np.load(tmp_path / "out.npy").squeeze()
    np.testing.assert_allclose(smear, placed(kernels.path(TRACK)), atol=1e-6)
    rows, columns = np.nonzero(smear > 1e-3)
    assert smear[rows.min(), columns.min()] > 1e-3
    assert smear[rows.max(), columns.max()] > 1e-3
    assert abs(smear[rows.max(), columns.min()]) < 1e-6


def test_blur_centres_measured_kernels(call: Call, tmp_path: Path, point: Path) -> None:
    values = np.zeros((9, 8))
    values[1:3, 0:2] = [[4, 2], [1, 0]]
    np.save(tmp_path / "off.npy", values)
    code, _, err = call("blur", point, "-o", "centred.npy", "--kernel", "off.npy")
    assert code == 0
    assert "kernel centred: moved by 4 right, 3 down" in err
    assert call("blur", point, "-o", "moved.npy", "--kernel", "off.npy", "--no-center")[0] == 0
    moved, centred = (np.load(tmp_path / f"{name}.npy").squeeze() for name in ("moved", "centred"))
    np.testing.assert_allclose(moved, placed(values / 7), atol=1e-6)
    np.testing.assert_allclose(centred, np.roll(moved, (3, 4), (0, 1)), atol=1e-6)


@pytest.mark.parametrize("command", ["deblur", "ista"])
def test_restorations_take_the_same_kernels(
    call: Call, tmp_path: Path, photo_file: Path, small_weights: Path, command: str
) -> None:
    (tmp_path / "t.csv").write_text("0,0\n4,0\n4,3\n")
    weights = ("-w", small_weights) if command == "deblur" else ()
    for option, value in (("--path", "0,0 4,0 4,3"), ("--trajectory", "t.csv")):
        code, out, err = call(command, photo_file, option, value, "--dry-run", "--json", *weights)
        assert code == 0, err
        assert json.loads(out)["kernel"] == f"{option[2:]} {value}"
    code, _, err = call(command, photo_file, "--trajectory", "t.csv", "-o", "t.csv", *weights)
    assert code == 2
    assert "would replace an input" in err


def test_a_restoration_draws_its_kernel(call: Call, tmp_path: Path, photo_file: Path, small_weights: Path) -> None:
    assert call("kernel", "--motion", 9, 30, "--picture", "k.png", "-q")[0] == 0
    deblur = ("deblur", photo_file, "--motion", 9, 30, "-w", small_weights, "--max-iter", 2, "-o", "out.png")
    code, _, err = call(*deblur, "--picture", "drawn.png")
    assert code == 0
    assert "wrote drawn.png" in err
    assert (tmp_path / "drawn.png").read_bytes() == (tmp_path / "k.png").read_bytes()
    before = (tmp_path / "out.png").read_bytes()
    for arguments, words in (
        ((*deblur, "--picture", "k.png"), "k.png: exists already"),
        ((*deblur, "--picture", "out.png", "--on-exists", "overwrite"), "both be written to out.png"),
        ((*deblur, "--picture", photo_file, "--on-exists", "overwrite"), "would replace an input"),
        (("deblur", photo_file, "--motion", "auto", "auto", "--picture", "new.png"), "needs a given kernel"),
    ):
        code, _, err = call(*arguments)
        assert code == 2
        assert words in err
    assert (tmp_path / "out.png").read_bytes() == before
    assert not (tmp_path / "new.png").exists()
    (tmp_path / "k.png").write_bytes(b"mine")
    assert call(*deblur, "--picture", "k.png", "--on-exists", "skip")[0] == 0
    assert (tmp_path / "k.png").read_bytes() == b"mine"
    assert call(*deblur[:-1], "dry.png", "--picture", "new.png", "--dry-run")[0] == 0
    assert not (tmp_path / "new.png").exists()
