"""What the commands show on a terminal: bars while they work, tables at the end, and how Ctrl-C leaves it.

All but Ctrl-C is asked of commands in this process, with the terminal in place of its standard streams.
"""

from __future__ import annotations

import codecs
import os
import re
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from pnp_cli.cli import main
from pnp_cli.cli.console import part_done
from pnp_cli.denoisers import DnCNNArchitecture
from pnp_cli.images import Image, write_image
from pnp_cli.presets import PRESETS

from .helpers import installed_command

fcntl, pty, termios = (pytest.importorskip(name) for name in ("fcntl", "pty", "termios"))

BAR = "━"
CURSOR_OFF, CURSOR_ON, WIPE = "\x1b[?25l", "\x1b[?25h", "\x1b[2K"
"""Control sequences of a terminal: hide the cursor, show it, clear the line."""

TAKE_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Run a command for which the keys typed at its terminal are, such as Ctrl-C."""


IGNORED = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR")
"""Environment variables that say what a terminal is like."""


class Terminal:
    """The installed command on a terminal of 100 columns that holds all its streams.

    Attributes
    ----------
    shown : all that it has written there, with the control sequences.
    """

    def __init__(self, cwd: Path, *arguments: object) -> None:
        self.shown = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._leader, follower = pty.openpty()
        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("4H", 30, 100, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-c", TAKE_TERMINAL, installed_command(), *map(str, arguments)],
            cwd=cwd,
            stdin=follower,
            stdout=follower,
            stderr=follower,
            env={k: v for k, v in os.environ.items() if k not in IGNORED} | {"TERM": "xterm", "PYTHONUTF8": "1"},
            start_new_session=True,
        )
        os.close(follower)

    def read(self) -> bool:
        """Wait for more output; false at its end."""
        try:
            chunk = os.read(self._leader, 2**16)
        except OSError:  # what Linux calls the end
            chunk = b""
        self.shown += self._decoder.decode(chunk)
        return bool(chunk)

    def read_until(self, text: str) -> None:
        while text not in self.shown and self.read():
            pass
        assert text in self.shown, self.shown

    def type(self, keys: bytes) -> None:
        os.write(self._leader, keys)

    def end(self) -> int:
        """Read all there is; the exit code."""
        while self.read():
            pass
        return self.process.wait()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._leader)


@contextmanager
def terminal(cwd: Path, *arguments: object) -> Iterator[Terminal]:
    session = Terminal(cwd, *arguments)
    watchdog = threading.Timer(300, session.process.kill)
    watchdog.start()
    try:
        yield session
    finally:
        watchdog.cancel()
        session.close()


@contextmanager
def standard_streams(end: int) -> Iterator[None]:
    """Have a file descriptor in place of this process's standard input, output and error, for Python and below it."""
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
            kept = os.dup(number)
            stack.callback(os.close, kept)
            stack.callback(os.dup2, kept, number)
            os.dup2(end, number)
            patch.setattr(sys, name, stack.enter_context(open(os.dup(end), mode, encoding="utf-8")))
        yield


def ended(cwd: Path, *arguments: object) -> tuple[int, str]:
    """The exit code of a command in this process, and all that it writes to its terminal of 100 columns."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("4H", 30, 100, 0, 0))
    chunks: list[bytes] = []

    def read() -> None:
        try:
            while chunk := os.read(leader, 2**16):
                chunks.append(chunk)
        except OSError:  # what Linux calls the end
            pass

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd)
        patch.setattr(sys, "argv", ["pnp", *map(str, arguments)])
        for name in IGNORED:
            patch.delenv(name, raising=False)
        patch.setenv("TERM", "xterm")
        with standard_streams(follower), pytest.raises(SystemExit) as end:
            main()
    os.close(follower)
    reader.join(timeout=60)
    os.close(leader)
    shown = b"".join(chunks).decode()
    assert "Traceback" not in shown
    return int(end.value.code or 0), shown


def shown_by(cwd: Path, *arguments: object) -> str:
    """All that a command in this process writes to its terminal; it ends well."""
    code, shown = ended(cwd, *arguments)
    assert code == 0, shown
    return shown


def words(shown: str) -> str:
    """Without control sequences."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)


def assert_bar(shown: str, label: str) -> None:
    """It was there with its label, the last one is wiped out, and the cursor is back."""
    assert re.search(rf"{re.escape(label)} +{BAR}{{40}}", words(shown)), shown
    assert shown.count(CURSOR_OFF) == shown.count(CURSOR_ON) == 1
    assert shown.rindex(BAR) < min(shown.index(CURSOR_ON), shown.rindex(WIPE))


@pytest.fixture
def place(photo: Image, tmp_path: Path) -> Path:
    """A folder with two photographs in a folder `in`."""
    for name in ("one", "[two]"):
        write_image(photo, tmp_path / f"in/{name}.png")
    return tmp_path


def test_denoise(place: Path, small_weights: Path) -> None:
    """A bar of the files, below it one of the file, and above both what is said."""
    shown = shown_by(place, "denoise", "in", "-o", "out", "-w", small_weights, "-s", 10, "--repeat", 3)
    assert_bar(shown, "files")
    assert_bar(shown, "in/[two].png")
    assert "2/2" in words(shown)
    for line in ("in/[two].png: sigma 10 (0-255 scale, given)", "wrote out/[two].png"):
        assert f"{line}\r\n" in words(shown)


def test_deblur(place: Path, small_weights: Path) -> None:
    shown = shown_by(
        place, "deblur", "in/one.png", "-o", "o.png", "--disk", 2, "-w", small_weights, "--max-iter", 30, "--verbose"
    )
    assert_bar(shown, "in/one.png")
    assert "  iteration 2, residual" in words(shown)
    assert "\nwrote o.png\r\n" in words(shown)


def test_ista(place: Path) -> None:
    shown = shown_by(place, "ista", "in/one.png", "-o", "o.png", "--disk", 2, "--max-iter", 40)
    assert_bar(shown, "in/one.png")
    assert "\nwrote o.png\r\n" in words(shown)


def test_blur(place: Path) -> None:
    """One file is no batch, so there is no bar."""
    assert_bar(shown_by(place, "blur", "in", "-o", "out", "--disk", 1), "files")
    shown = shown_by(place, "blur", "in/one.png", "-o", "o.png", "--disk", 1)
    assert BAR not in shown
    assert shown.endswith("wrote o.png\r\n")


def test_quiet(place: Path, small_weights: Path) -> None:
    assert shown_by(place, "denoise", "in", "-o", "out", "-w", small_weights, "-s", 10, "-q") == ""


def test_train_denoiser(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bar in place of the lines of the log."""
    monkeypatch.setitem(PRESETS, "dncnn", DnCNNArchitecture(3, 8))
    arguments = ("--preset", "dncnn", "--steps", 101, "--batch", 1, "--crop", 8, "-o", "w.safetensors")
    shown = shown_by(place, "train-denoiser", "in", *arguments)
    assert_bar(shown, "dncnn")
    assert "\nstep 100 " not in words(shown)
    assert '"step": 100' in (place / "w.log.jsonl").read_text()


def test_certify(place: Path, small_weights: Path) -> None:
    lines = words(shown_by(place, "certify", small_weights)).splitlines()
    headings = next(line for line in lines if line.startswith("layer"))
    assert headings.split() == ["layer", "shape", "‖A‖", "≤", "‖A‖", "≥", "gap", "τ", "α", "=", "τ‖A‖²/2"]
    assert sum(line.startswith("steps.") for line in lines) == 3
    assert any(line.startswith("verdict: AVERAGED") for line in lines)


def test_psnr(place: Path) -> None:
    """A table with names and the mean, where a pipe gets bare numbers."""
    lines = words(shown_by(place, "psnr", "in/one.png", "in/one.png", "in/[[]two].png", "--ssim")).splitlines()
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]
    assert rows == [[name, "inf", "1.0000"] for name in ("in/one.png", "in/[two].png", "mean")]


def test_names_do_not_command_the_terminal(place: Path, photo: Image) -> None:
    """Control characters in the names of files are spelled out, in messages and in tables."""
    name = "a\x1b]0;title\x07\x9b2Jb.png"
    write_image(photo, place / name)
    shown = shown_by(place, "blur", name, "-o", "o.png", "--disk", 1)
    assert r"a\x1b]0;title\x07\x9b2Jb.png: disk, radius 1 px" in shown
    shown = shown_by(place, "psnr", name, name)
    assert r"a\x1b]0;title\x07\x9b2Jb.png" in shown


def test_an_image_is_not_for_a_terminal(place: Path) -> None:
    code, shown = ended(place, "blur", "in/one.png", "-o", "-", "--disk", 1)
    assert code == 2
    assert "redirect it or give -o a file" in shown
    shown_by(place, "blur", "in/one.png", "-o", "-", "--disk", 1, "--dry-run")


def test_kernel(place: Path) -> None:
    lines = shown_by(place, "kernel", "--motion", 5, 30).splitlines()
    assert [line.split()[0] for line in lines] == ["kernel", "size", "centroid", "deviation", "|OTF|"]


def test_help(place: Path) -> None:
    for arguments in (("--help",), ("deblur", "--help")):
        assert "Usage: pnp" in words(shown_by(place, *arguments))


def test_ctrl_c(photo: Image, tmp_path: Path, small_weights: Path) -> None:
    """Typed while the bars are there: they go, the cursor comes back, and what is not done is said."""
    for i in range(40):
        write_image(photo, tmp_path / f"in/{i:02}.png")
    with terminal(tmp_path, "denoise", "in", "-o", "out", "-w", small_weights, "-s", 10, "--repeat", 20) as session:
        session.read_until("wrote out/02.png")
        session.type(b"\x03")
        assert session.end() == 130
    assert_bar(session.shown, "files")
    assert "not done" in words(session.shown)
    assert "Traceback" not in session.shown
    assert 3 <= len(list((tmp_path / "out").iterdir())) < 40


def test_what_is_left_follows_the_residual() -> None:
    """Iterations end at a tolerance long before their limit, which tells nothing of the time."""
    assert part_done(5, 200, 1.0, 1.0, 1e-4) == 5 / 200
    assert part_done(5, 200, 1e-2, 1.0, 1e-4) == pytest.approx(0.5)
    assert part_done(5, 200, 1e-5, 1.0, 1e-4) == 1
    assert part_done(200, 200, 0.5, 1.0, 1e-4) == 1
    for first, tolerance in ((1.0, 0.0), (1e-5, 1e-4)):
        assert part_done(50, 200, 1e-5, first, tolerance) == 50 / 200
    for value in (0.0, float("inf"), float("nan")):
        assert part_done(50, 200, value, 1.0, 1e-4) == 50 / 200
