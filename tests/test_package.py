"""The package: cheap imports, the API of the README, and a wheel that works outside the repository."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest

import pnp_cli
from pnp_cli.images import Image, read_image, write_image

from .conftest import Run
from .helpers import installed_command

ROOT = Path(__file__).parent.parent


def modules_after(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint(*sys.modules)"
    return set(
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    )


@pytest.mark.parametrize("code", ["import pnp_cli", "import pnp_cli.cli", "from pnp_cli import psnr, read_image"])
def test_imports_without_torch(code: str) -> None:
    assert "torch" not in modules_after(code)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["psnr", "PHOTO", "PHOTO", "--ssim"], ["deblur", "--help"]]
)
def test_commands_without_torch(arguments: list[str], photo_file: Path) -> None:
    argv = ["pnp", *[str(photo_file) if a == "PHOTO" else a for a in arguments]]
    run = "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code"
    code = f"sys.argv = {argv!r}\nfrom pnp_cli.cli import main\n{run}"
    assert "torch" not in modules_after(code)


def test_weights_load_without_the_compiler() -> None:
    """Operations on the meta device that are written in Python import all of torch.compile: a second of every start."""
    assert "torch._dynamo" not in modules_after("from pnp_cli import weights\nweights.load('conditioned')")


def test_every_public_name_exists() -> None:
    for name in pnp_cli.__all__:
        assert getattr(pnp_cli, name) is not None


def test_the_example_of_the_readme(photo: Image, tmp_path: Path) -> None:
    """The Python code in it, on a smaller picture."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    for name in ("coffee_blurred.png", "coffee_sharp.png"):
        assert name in code
    write_image(photo, tmp_path / "coffee_blurred.png")
    exec(code.replace("sample_images/", "").replace("coffee_", f"{tmp_path}/coffee_"), {})
    assert read_image(tmp_path / "coffee_sharp.png").size == photo.size


def test_python_m(pnp: Run) -> None:
    module = subprocess.run([sys.executable, "-m", "pnp_cli", "--version"], capture_output=True, check=True)
    assert module.stdout == pnp("--version").stdout


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("pnp deblur --boundary ", ["free", "periodic", "reflect"]),
        ("pnp denoise --weights h", ["huber", "huber-grey"]),
        ("pnp kernel --on-exists ", ["error", "skip", "overwrite"]),
    ],
)
def test_a_shell_completes_values(line: str, words: list[str]) -> None:
    typed = len(line.split()) - (not line.endswith(" "))
    asked = {"COMP_WORDS": line, "COMP_CWORD": str(typed), "_PNP_COMPLETE": "complete_bash"}
    command = [installed_command()]
    result = subprocess.run(command, env=os.environ | asked, capture_output=True, check=True, text=True)
    assert result.stdout.split() == words


def test_help_lists_commands_and_exit_codes(pnp: Run) -> None:
    text = pnp("--help").stdout.decode()
    for word in ("denoise", "deblur", "ista", "blur", "psnr", "certify", "train-denoiser", "Exit codes"):
        assert word in text


def test_the_wheel_carries_the_weights(tmp_path: Path, photo_file: Path) -> None:
    """Built offline from the sources; unpacked elsewhere it restores an image."""
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
        assert "pnp_cli/weights/huber.safetensors" in archive.namelist()
        assert any(name.endswith("licenses/LICENSE") for name in archive.namelist())
    code = f"""
import sys
sys.path.insert(0, {str(site)!r})
import pnp_cli
assert pnp_cli.__file__.startswith({str(site)!r}), pnp_cli.__file__
sys.argv = ["pnp", "denoise", {str(photo_file)!r}, "-o", "out.png", "-s", "10"]
from pnp_cli.cli import main
main()
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (tmp_path / "out.png").exists(), result.stderr


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of the GNU C library")
def test_freed_memory_is_used_again() -> None:
    """Otherwise a call of this network on an image of this size takes 50,000 new pages, every time."""
    script = """
        import resource
        from pnp_cli.allocation import tune_allocation
        tune_allocation()
        import torch
        from pnp_cli.presets import PRESETS, build
        network, x, pages = build(PRESETS["huber"]), torch.rand(1, 3, 400, 400), []
        with torch.inference_mode():
            for _ in range(8):
                network(x, 0.1)
                pages.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
        print(pages[-1] - pages[3])
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 20_000
