"""What goes wrong outside the program: every output is whole or absent, the inputs untouched, the exit code right."""

from __future__ import annotations

import hashlib
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile

from pnp_cli import read_image
from pnp_cli.files import write_bytes
from pnp_cli.images import Image, write_image

from .conftest import Run
from .helpers import installed_command


def error_lines(result: subprocess.CompletedProcess[bytes]) -> list[str]:
    text = result.stderr.decode()
    assert "Traceback" not in text
    return [line for line in text.splitlines() if "error:" in line]


def test_killed_in_the_middle_of_a_batch(photo: Image, tmp_path: Path, small_weights: Path) -> None:
    for i in range(60):
        write_image(photo, tmp_path / f"in/{i:02}.png")
    content = {p.name: p.read_bytes() for p in (tmp_path / "in").iterdir()}
    out = tmp_path / "out"
    arguments = ["denoise", tmp_path / "in", "-o", out, "-w", small_weights, "-s", 10, "-q"]
    process = subprocess.Popen([installed_command(), *map(str, arguments)])
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and len(list(out.glob("*.png"))) < 5:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait(timeout=30) == -signal.SIGKILL
    written = sorted(out.glob("*.png"))
    assert 5 <= len(written) < 60
    for path in written:
        assert read_image(path).size == photo.size
    assert {p.name: p.read_bytes() for p in (tmp_path / "in").iterdir()} == content


def interrupt(signum: int, frame: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # opened, interrupted, closed by itself
def test_an_interruption_at_any_instant_of_a_write(tmp_path: Path) -> None:
    """A thousand writes, each interrupted a little later: a file is whole or absent, and nothing else stays behind."""
    start = time.perf_counter()
    for i in range(20):
        write_bytes(tmp_path / f"{i}", b"content")
    usual_time = (time.perf_counter() - start) / 20
    usual = signal.signal(signal.SIGALRM, interrupt)
    outcomes = set()
    try:
        for i in range(1000):
            target = tmp_path / f"{i}.bin"
            try:
                signal.setitimer(signal.ITIMER_REAL, max(1e-6, usual_time * (i % 250) / 200))
                write_bytes(target, b"content", overwrite=i % 2 == 0)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                pass
            outcomes.add(target.exists())
            assert not target.exists() or target.read_bytes() == b"content"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, usual)
    assert outcomes == {False, True}, "some came before the write, some after it"
    assert not list(tmp_path.glob(".*"))


def test_a_disk_that_is_full(photo: Image, tmp_path: Path) -> None:
    """Writes beyond 2000 bytes fail, as on a full disk: nothing stays behind, not even a temporary file."""
    write_image(photo, tmp_path / "in.png")
    out = tmp_path / "out"
    out.mkdir()
    (out / "in.png").write_bytes(b"an older result")
    arguments = [tmp_path / "in.png", "-o", f"{out}/", "--disk", 1, "--on-exists", "overwrite"]
    result = subprocess.run(
        [installed_command(), "blur", *map(str, arguments)],
        capture_output=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)),
    )
    assert result.returncode == 1
    assert "cannot be written" in error_lines(result)[0]
    assert [p.name for p in out.iterdir()] == ["in.png"]
    assert (out / "in.png").read_bytes() == b"an older result"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB, where the user may make one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if (
        not shutil.which("mount")
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("may not mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_small_disk_fills_up(pnp: Run, photo: Image, tmp_path: Path, small_disk: Path) -> None:
    for i in range(6):
        write_image(photo, tmp_path / f"in/{i}.png")
    record = tmp_path / "run.json"
    result = pnp("blur", tmp_path / "in", "-o", f"{small_disk}/", "--disk", 1, "--noise", 5, "--manifest", record)
    written = sorted(small_disk.iterdir())
    assert result.returncode == 1
    assert 0 < len(written) < 5
    (error,) = error_lines(result)
    assert "cannot be written (No space left on device)" in error
    assert f"{len(written)} of 6 files done, 1 failed, {5 - len(written)} not done" in result.stderr.decode()
    assert not json.loads(record.read_text())["finished"]
    for path in written:
        assert path.suffix == ".png"
        assert read_image(path).size == photo.size


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that nobody can write to")
def test_a_folder_that_cannot_be_written(pnp: Run, photo_file: Path) -> None:
    result = pnp("blur", photo_file, "-o", "/proc/out/", "--disk", 1)
    assert result.returncode in (1, 2), "only who is not root is told beforehand"
    assert len(error_lines(result)) == 1


def test_a_disk_that_is_read_only_is_found_before_any_work(pnp: Run, photo: Image, small_disk: Path) -> None:
    """Also by a dry run, and for the files that options name; what is there already may be skipped."""
    place = small_disk.parent
    write_image(photo, place / "a.png")
    write_image(photo, small_disk / "a.png")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for arguments in (
        ("-o", "disk/new/deeper/"),
        ("-o", "disk/b.png", "--dry-run"),
        ("-o", "disk/a.png", "--on-exists", "overwrite"),
        ("-o", "b.png", "--manifest", "disk/run.json"),
    ):
        result = pnp("blur", "a.png", "--disk", 1, *arguments, cwd=place)
        assert result.returncode == 2
        assert f"the folder {small_disk} cannot be written to" in error_lines(result)[0]
        assert not (place / "b.png").exists()
    result = pnp("kernel", "--disk", 1, "--picture", "disk/k.png", cwd=place)
    assert result.returncode == 2
    assert "choose another --picture" in error_lines(result)[0]
    assert pnp("blur", "a.png", "--disk", 1, "-o", "disk/", "--on-exists", "skip", cwd=place).returncode == 0


def test_what_is_replaced_hands_on_its_mode_and_its_links(pnp: Run, photo_file: Path, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    real, link = tmp_path / "store/real.png", tmp_path / "link.png"
    real.write_bytes(b"older")
    real.chmod(0o604)
    link.symlink_to("store/real.png")
    result = pnp("blur", photo_file, "-o", link, "--disk", 1, "--on-exists", "overwrite")
    assert result.returncode == 0, result.stderr
    assert link.is_symlink()
    assert read_image(real).size == read_image(photo_file).size
    assert real.stat().st_mode & 0o777 == 0o604
    assert [p.name for p in (tmp_path / "store").iterdir()] == ["real.png"]


def test_two_outputs_that_are_one_file_through_a_link(pnp: Run, photo: Image, tmp_path: Path) -> None:
    for name in ("in/a.png", "in/b.png", "out/a.png"):
        write_image(photo, tmp_path / name)
    (tmp_path / "out/b.png").symlink_to("a.png")
    result = pnp("blur", "in", "-o", "out/", "--disk", 1, "--on-exists", "overwrite", cwd=tmp_path)
    assert result.returncode == 2
    assert "would both be written to" in error_lines(result)[0]


def test_symbolic_links(pnp: Run, photo: Image, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    write_image(photo, folder / "a.png")
    (folder / "loop").symlink_to(folder)
    (folder / "x.png").symlink_to(folder / "y.png")
    (folder / "y.png").symlink_to(folder / "x.png")
    (folder / "linked.png").symlink_to(folder / "a.png")
    result = pnp("blur", folder, "-r", "-o", tmp_path / "out", "--disk", 1)
    assert result.returncode == 0, result.stderr
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.png", "linked.png"]
    result = pnp("blur", folder / "x.png", "-o", tmp_path / "x.png", "--disk", 1)
    assert result.returncode == 1
    assert "x.png" in error_lines(result)[0]


def test_an_output_that_is_a_link_to_the_input(pnp: Run, photo_file: Path) -> None:
    content = photo_file.read_bytes()
    link = photo_file.with_name("link.png")
    link.symlink_to(photo_file)
    result = pnp("blur", photo_file, "-o", link, "--disk", 1, "--on-exists", "overwrite")
    assert result.returncode == 2
    assert photo_file.read_bytes() == content


def test_names(pnp: Run, photo: Image, tmp_path: Path) -> None:
    for name in ("größe 写真 \N{PILE OF POO}.png", "-dash.png", "semi;colon & [brackets].png", "a{b}.png"):
        path = tmp_path / name
        write_image(photo, path)
        result = pnp("blur", path, "--disk", 1)
        assert result.returncode == 0, result.stderr
        assert path.with_name(f"{path.stem}.blurred.png").exists()
    long = tmp_path / ("x" * 250 + ".png")
    write_image(photo, tmp_path / "short.png")
    os.rename(tmp_path / "short.png", long)
    result = pnp("blur", long, "--disk", 1)
    assert result.returncode == 1
    assert "File name too long" in error_lines(result)[0]
    assert pnp("blur", long, "-o", tmp_path / "out.png", "--disk", 1).returncode == 0
    result = pnp("blur", tmp_path / ("y" * 300 + ".png"), "--disk", 1)
    assert result.returncode == 1
    assert len(error_lines(result)) == 1


@pytest.mark.parametrize(
    ("size", "fitting"),
    [
        ((1, 1), ("--motion", 1, 0)),
        ((1, 10_000), ("--motion", 5, 0)),
        ((2000, 1), ("--motion", 5, 90)),
        ((3, 7), ("--disk", 1)),
    ],
    ids=["1x1", "1x10000", "2000x1", "3x7"],
)
def test_extreme_sizes(
    pnp: Run, tmp_path: Path, size: tuple[int, int], fitting: tuple[object, ...], conditioned_weights: Path
) -> None:
    """Restored whenever the kernel fits into the image, which one of 5 x 5 pixels does not."""
    pixels = np.random.default_rng(0).random((*size, 3), dtype=np.float32)
    write_image(Image(pixels), tmp_path / "in.png")
    denoise = ("denoise", tmp_path / "in.png", "-o", tmp_path / "out.png", "-s", 20)
    deblur = ("deblur", tmp_path / "in.png", "-o", tmp_path / "sharp.png", *fitting)
    for command, output in ((denoise, "out.png"), (deblur, "sharp.png")):
        result = pnp(*command, "-w", conditioned_weights)
        assert result.returncode == 0, result.stderr
        assert read_image(tmp_path / output).size == size
    result = pnp("deblur", tmp_path / "in.png", "-o", tmp_path / "d.png", "--gaussian", 0.4, "-w", conditioned_weights)
    assert result.returncode == 1
    (line,) = error_lines(result)
    assert f"the 5x5 kernel is larger than the {size[0]}x{size[1]} image" in line
    assert not (tmp_path / "d.png").exists()


def test_a_file_that_changes_while_it_is_read(pnp: Run, photo: Image, tmp_path: Path) -> None:
    """It is opened once: what was read is what was hashed and restored, whatever its name leads to by then."""
    path, other = tmp_path / "in.png", tmp_path / "other.png"
    write_image(photo, tmp_path / "photo.png")
    content = (tmp_path / "photo.png").read_bytes()
    write_image(photo.with_pixels(1 - photo.pixels), other)
    os.mkfifo(path)

    def change() -> None:
        with open(path, "wb") as stream:  # waits until the command has opened it for reading
            os.replace(other, path)
            stream.write(content)

    writer = threading.Thread(target=change, daemon=True)
    writer.start()
    result = pnp("blur", path, "-o", tmp_path / "out.png", "--disk", 1, "--json")
    writer.join(timeout=60)
    assert result.returncode == 0, result.stderr
    record = json.loads(result.stdout)
    assert record["input_sha256"] == hashlib.sha256(content).hexdigest()
    assert record["output_sha256"] == hashlib.sha256((tmp_path / "out.png").read_bytes()).hexdigest()
    assert pnp("blur", tmp_path / "photo.png", "-o", tmp_path / "expected.png", "--disk", 1).returncode == 0
    assert (tmp_path / "out.png").read_bytes() == (tmp_path / "expected.png").read_bytes()


def test_a_damaged_file_gets_one_sentence(installed: Run, photo: Image, tmp_path: Path) -> None:
    """Also where the decoding library logs its own."""
    write_image(photo, tmp_path / "in.tif")
    data = bytearray((tmp_path / "in.tif").read_bytes())
    data[12] = data[24] = 200  # types of the entries of the width and the height
    (tmp_path / "in.tif").write_bytes(data)
    result = installed("psnr", tmp_path / "in.tif", tmp_path / "in.tif")
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert b"in.tif: the image has no pixels" in result.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["in.tif"]


def test_pipes_and_weights_are_safe(pnp: Run, photo_file: Path, tmp_path: Path, small_weights: Path) -> None:
    """A kernel may come from a pipe, which is read once; the weights in use are no output."""
    os.mkfifo(tmp_path / "k.npy")
    buffer = io.BytesIO()
    np.save(buffer, np.ones((3, 3)))
    writer = threading.Thread(target=(tmp_path / "k.npy").write_bytes, args=(buffer.getvalue(),), daemon=True)
    writer.start()
    result = pnp(
        "blur", photo_file, "--kernel", tmp_path / "k.npy", "-o", tmp_path / "a.png", "--manifest", tmp_path / "m.json"
    )
    assert result.returncode == 0, result.stderr
    before = small_weights.read_bytes()
    for output in (("-o", small_weights, "--format", "png"), ("--manifest", small_weights)):
        result = pnp("denoise", photo_file, "-w", small_weights, "-s", 5, *output, "--on-exists", "overwrite")
        assert result.returncode == 2
        assert "would replace an input" in result.stderr.decode()
    assert small_weights.read_bytes() == before


def test_a_batch_below_its_folder_by_a_template_resumes(pnp: Run, photo_file: Path, tmp_path: Path) -> None:
    common = ("blur", photo_file.parent, "-r", "--disk", 1, "-o", f"{photo_file.parent}/out/{{stem}}.{{ext}}")
    assert pnp(*common).returncode == 0
    result = pnp(*common, "--on-exists", "skip")
    assert result.returncode == 0, result.stderr


def test_huge_kernels_one_plane_tiffs_and_closed_streams(pnp: Run, photo_file: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "huge.npy", np.full((3, 3), 1e308))
    assert pnp("kernel", "--kernel", tmp_path / "huge.npy").returncode == 0
    tifffile.imwrite(tmp_path / "one.tif", np.zeros((1, 16, 24), np.uint8))
    assert read_image(tmp_path / "one.tif").size == (16, 24)
    command = f"{installed_command()} blur {photo_file} --disk 1 -o - --format npy 2>&-"
    piped = subprocess.run(["sh", "-c", command], capture_output=True, check=False)
    assert piped.returncode == 0
    assert piped.stdout[:6] == b"\x93NUMPY"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_other_signals_stop_like_an_interruption(
    photo: Image, tmp_path: Path, small_weights: Path, number: signal.Signals
) -> None:
    """What `timeout`, a scheduler and a closed terminal send: whole files, no temporary ones, a manifest, 130."""
    for i in range(40):
        write_image(photo, tmp_path / f"in/{i:02}.png")
    out, manifest = tmp_path / "out", tmp_path / "run.json"
    arguments = ["denoise", tmp_path / "in", "-o", out, "-w", small_weights, "-s", 10, "--manifest", manifest]
    usual = signal.signal(number, signal.SIG_DFL)  # it is ignored by the command if it is ignored here, as under nohup
    process = subprocess.Popen([installed_command(), *map(str, arguments)], stderr=subprocess.PIPE)
    signal.signal(number, usual)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and len(list(out.glob("*.png"))) < 3:
        time.sleep(0.002)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "not done" in stderr.decode()
    assert stderr.decode().rstrip().endswith("pnp: interrupted")
    record = json.loads(manifest.read_text())
    assert not record["finished"]
    assert {Path(entry["output"]).name for entry in record["files"]} == {p.name for p in out.iterdir()}


def test_an_impatient_ctrl_c(photo: Image, tmp_path: Path, small_weights: Path) -> None:
    """Many within milliseconds, at several instants of the work: as one, and nothing half-written stays behind."""
    for i in range(40):
        write_image(photo, tmp_path / f"in/{i:02}.png")
    for case in range(3):
        out, manifest = tmp_path / f"out{case}", tmp_path / f"{case}.json"
        arguments = ["denoise", tmp_path / "in", "-o", out, "-w", small_weights, "-s", 10, "--manifest", manifest]
        process = subprocess.Popen([installed_command(), *map(str, arguments)], stderr=subprocess.PIPE)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and len(list(out.glob("*.png"))) < 2 + case:
            time.sleep(0.001)
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
            time.sleep(0.001)
        stderr = process.communicate(timeout=60)[1].decode()
        assert process.returncode == 130, stderr
        assert "Traceback" not in stderr
        assert "ignored" not in stderr
        assert not list(tmp_path.rglob("*.part"))
        record = json.loads(manifest.read_text())
        assert {Path(entry["output"]).name for entry in record["files"]} == {p.name for p in out.iterdir()}


INTERRUPTED = """
import os, signal, sys

class Interruption:
    def find_spec(self, name, path, target=None):
        if name == module:
            os.kill(os.getpid(), signal.SIGINT)

module = sys.argv.pop(1)
sys.meta_path.insert(0, Interruption())
from pnp_cli.__main__ import main
main()
"""
"""The command, with a Ctrl-C at the moment when a module is about to be imported."""


@pytest.mark.parametrize("module", ["typer", "torch", "torch._C", "torch.nn.functional", "pnp_cli.weights", "PIL"])
def test_an_interruption_while_libraries_are_imported(photo_file: Path, small_weights: Path, module: str) -> None:
    """Of the command line, before torch, inside it, after it, and for the first file."""
    arguments = ["denoise", str(photo_file), "-w", str(small_weights), "-s", "10"]
    result = subprocess.run([sys.executable, "-c", INTERRUPTED, module, *arguments], capture_output=True, check=False)
    assert result.returncode == 130, result.stderr
    assert b"Traceback" not in result.stderr
    assert list(photo_file.parent.iterdir()) == [photo_file]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that takes nothing")
@pytest.mark.parametrize("command", ["psnr", "kernel", "kernel --json", "certify", "blur"])
def test_data_for_an_output_that_takes_nothing(photo_file: Path, small_weights: Path, command: str) -> None:
    """One sentence on a full disk, and none for a reader that is gone; also where Python keeps data until the end."""
    rest = {"psnr": [photo_file, photo_file], "kernel": ["--disk", 2], "certify": [small_weights]}
    rest["blur"] = [photo_file, "--disk", 1, "-q", "-o", "-", "--format", "png"]
    words = [installed_command(), *command.split(), *map(str, rest[command.split()[0]])]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with open("/dev/full", "wb") as full:
        result = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, check=False, env=environment)
    assert result.returncode == 1
    assert result.stderr.decode().splitlines() == error_lines(result)
    assert "standard output: cannot be written (No space left on device)" in error_lines(result)[0]
    reading, writing = os.pipe()
    os.close(reading)
    result = subprocess.run(words, stdout=writing, stderr=subprocess.PIPE, check=False, env=environment)
    os.close(writing)
    assert result.returncode == 1
    assert result.stderr == b""


def test_data_for_a_closed_output_are_an_error(photo_file: Path) -> None:
    for arguments in (["psnr", photo_file, photo_file], ["kernel", "--disk", 2, "--json"]):
        command = " ".join(map(str, [installed_command(), *arguments])) + " >&-"
        result = subprocess.run(["bash", "-c", command], capture_output=True, check=False)
        assert result.returncode == 1
        assert "standard output is closed" in error_lines(result)[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-o", ""), "empty name"),
        (("-o", "o.png", "--manifest", "folder"), "folder is a folder"),
        (("-o", "o.png", "--manifest", ""), "is a folder"),
    ],
)
def test_names_that_are_no_files(pnp: Run, photo_file: Path, arguments: tuple[str, ...], words: str) -> None:
    (photo_file.parent / "folder").mkdir()
    result = pnp("blur", photo_file.name, "--disk", 1, *arguments, cwd=photo_file.parent)
    assert result.returncode == 2
    assert words in error_lines(result)[0]
    assert sorted(p.name for p in photo_file.parent.iterdir()) == ["folder", photo_file.name]


def test_a_file_where_a_folder_should_be(pnp: Run, photo_file: Path) -> None:
    for output in ("x.png", "deeper/x.png"):
        result = pnp("blur", photo_file, "--disk", 1, "-o", photo_file / output, "--dry-run")
        assert result.returncode == 2
        assert f"{photo_file} is no folder" in error_lines(result)[0]


def test_an_interruption_between_a_file_and_its_entry(
    pnp: Run, photo: Image, tmp_path: Path, small_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that was written is on record, though the message that says so was interrupted."""
    from pnp_cli.cli import batch

    say = batch.say

    def interrupted(line: str, quiet: bool = False) -> None:
        if line.startswith("wrote") and line.endswith("01.png"):
            raise KeyboardInterrupt
        say(line, quiet)

    for i in range(3):
        write_image(photo, tmp_path / f"in/{i:02}.png")
    monkeypatch.setattr(batch, "say", interrupted)
    out, manifest = tmp_path / "out", tmp_path / "run.json"
    result = pnp("denoise", tmp_path / "in", "-o", out, "-w", small_weights, "-s", 10, "--manifest", manifest)
    assert result.returncode == 130
    record = json.loads(manifest.read_text())
    assert [Path(entry["output"]).name for entry in record["files"]] == ["00.png", "01.png"]
    assert record["files"][1]["output_sha256"] == hashlib.sha256((out / "01.png").read_bytes()).hexdigest()
