"""Shared fixtures: a real photograph, small certified networks, and the command, in this process and installed."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # several tests at a time: one thread each, also in the commands that they run
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

from pnp_cli import weights
from pnp_cli.cli import main
from pnp_cli.images import Image, read_image, write_image

from .helpers import installed_command, small_conditioned, small_network

SAMPLES = Path(__file__).parent.parent / "sample_images"

Run = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def photo() -> Image:
    """A colour photograph of odd size, 96 x 83 pixels (width x height)."""
    image = read_image(SAMPLES / "coffee.png")
    return image.with_pixels(image.pixels[120:203, 250:346])


@pytest.fixture
def photo_file(photo: Image, tmp_path: Path) -> Path:
    """`photo` as a PNG file."""
    path = tmp_path / "photo.png"
    write_image(photo, path)
    return path


@pytest.fixture(scope="session")
def small_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weight file of `small_network`, so that commands run fast."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    assert weights.save(path, small_network()).averaged
    return path


@pytest.fixture(scope="session")
def conditioned_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weight file of `small_conditioned`."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "guided.safetensors"
    assert weights.save(path, small_conditioned()).averaged
    return path


@pytest.fixture
def pnp(monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]) -> Run:
    """Run the command line in this process, which saves the imports; the result has bytes in stdout and stderr."""

    def run(
        *arguments: object, stdin: bytes | None = None, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        command = ["pnp", *map(str, arguments)]
        capsysbinary.readouterr()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", command)
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin or b"")))
            if cwd:
                patch.chdir(cwd)
            with pytest.raises(SystemExit) as end:
                main()
        return subprocess.CompletedProcess(command, int(end.value.code or 0), *capsysbinary.readouterr())

    return run


@pytest.fixture(scope="session")
def installed() -> Run:
    """Run the installed command in a process of its own; the result as from `pnp`."""
    command = installed_command()

    def run(
        *arguments: object, stdin: bytes | None = None, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [command, *map(str, arguments)],
            input=stdin or b"",
            capture_output=True,
            cwd=cwd,
            timeout=300,
            check=False,
        )

    return run
