"""Many files through the command: names, conflicts, records, interruption, and a real cluster."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from pnp_cli import denoisers, kernels, read_image, weights
from pnp_cli.cli.paths import FileOptions, Source, target_of
from pnp_cli.errors import StorageError
from pnp_cli.images import Image, write_image

from .conftest import Run
from .helpers import installed_command, small_network

Processes = tuple[str, list["subprocess.Popen[bytes]"]]


@pytest.fixture
def folder(tmp_path: Path, photo: Image) -> Path:
    """Five small pictures in a tree."""
    for i, name in enumerate(("a.png", "b.tif", "sub/c.png", "sub/d.jpg", "sub/deeper/e.png")):
        write_image(photo.with_pixels(photo.pixels[8 * i : 8 * i + 24, :32]), tmp_path / "in" / name)
    return tmp_path / "in"


def common(small_weights: Path) -> tuple[object, ...]:
    return ("-w", small_weights, "-s", 10)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def names(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_templates(pnp: Run, folder: Path, tmp_path: Path, small_weights: Path) -> None:
    out = tmp_path / "out"
    result = pnp("denoise", folder, "-r", "-o", f"{out}/{{stem}}-clean.{{ext}}", *common(small_weights))
    assert result.returncode == 0, result.stderr
    assert names(out) == ["a-clean.png", "b-clean.tif", "c-clean.png", "d-clean.png", "e-clean.png"]
    result = pnp("denoise", folder / "a.png", "-o", "{parent}/again/{stem}.{ext}", *common(small_weights))
    assert (folder / "again/a.png").exists()
    named = f"{tmp_path}/named/{{name}}.png"
    assert pnp("denoise", folder, "-o", named, *common(small_weights)).returncode == 0
    assert "a.png.png" in names(tmp_path / "named")
    result = pnp("denoise", folder, "-o", "{title}.png", *common(small_weights))
    assert result.returncode == 2
    assert "{stem}" in result.stderr.decode()


@pytest.mark.parametrize(
    ("output", "form", "words"),
    [
        ("o.png", "jpg", "o.png: ends in .png, but --format is jpg; end it in .jpg, or give --format png"),
        ("o.TIFF", "png", "o.TIFF: ends in .TIFF, but --format is png; end it in .png, or give --format tiff"),
        ("out/{stem}.png", "jpg", "out/a.png: ends in .png, but --format is jpg"),
        ("out/{name}", "WEBP", "out/a.png: ends in .png, but --format is WEBP; end it in .webp"),
    ],
)
def test_a_name_of_another_format_is_refused(
    pnp: Run, folder: Path, small_weights: Path, output: str, form: str, words: str
) -> None:
    before = names(folder)
    result = pnp("denoise", "a.png", "-o", output, "--format", form, *common(small_weights), cwd=folder)
    assert result.returncode == 2
    assert f"pnp: error: {words}" in result.stderr.decode()
    assert names(folder) == before


@pytest.mark.parametrize(
    ("output", "form", "written", "magic"),
    [
        ("o.jpeg", "jpg", "o.jpeg", b"\xff\xd8\xff"),
        ("o.tif", "TIFF", "o.tif", b"II*\0"),
        ("plain", "png", "plain", b"\x89PNG"),
        ("photo.v2", "jpg", "photo.v2", b"\xff\xd8\xff"),
        ("out/{name}.{ext}", "jpg", "out/a.png.jpg", b"\xff\xd8\xff"),
        ("out/", "jpg", "out/a.jpg", b"\xff\xd8\xff"),
    ],
)
def test_a_format_for_names_that_say_none_or_the_same(
    pnp: Run, folder: Path, small_weights: Path, output: str, form: str, written: str, magic: bytes
) -> None:
    """The name is taken as it was given; the format is the one that was asked for."""
    result = pnp("denoise", "a.png", "-o", output, "--format", form, *common(small_weights), cwd=folder)
    assert result.returncode == 0, result.stderr
    assert (folder / written).read_bytes()[: len(magic)] == magic


def test_an_output_folder_above_the_inputs(pnp: Run, folder: Path, tmp_path: Path, small_weights: Path) -> None:
    """Only what lies in an output folder below the inputs is left out; and nothing to do is said."""
    assert pnp("denoise", folder, "-o", f"{tmp_path}/", *common(small_weights)).returncode == 0
    assert {"a.png", "b.tif"} <= {path.name for path in tmp_path.iterdir()}
    (folder / "only").mkdir()
    for picture in folder.glob("*.*"):
        picture.rename(folder / "only" / picture.name)
    result = pnp("denoise", folder, "-r", "-o", folder / "only", "--on-exists", "skip", *common(small_weights))
    assert result.returncode == 0
    sub = folder / "sub"
    for picture in sub.rglob("*.*"):
        picture.unlink()
    result = pnp("denoise", folder, "-r", "-o", folder / "only", *common(small_weights))
    assert result.returncode == 2
    assert "nothing but" in result.stderr.decode()


def test_collisions_are_found_before_any_work(pnp: Run, folder: Path, tmp_path: Path, small_weights: Path) -> None:
    out = tmp_path / "out"
    result = pnp("denoise", folder / "a.png", folder / "a.png", "-o", f"{out}/", *common(small_weights))
    assert result.returncode == 2
    assert "is given twice" in result.stderr.decode()
    assert not out.exists()
    manifest = ("--manifest", folder / "a.png", "--on-exists", "overwrite")
    result = pnp("denoise", folder / "a.png", "-o", f"{out}/", *manifest, *common(small_weights))
    assert result.returncode == 2
    assert "manifest would replace an input" in result.stderr.decode()
    assert not out.exists()


def test_the_files_of_options_are_checked_alike(pnp: Run, photo_file: Path, tmp_path: Path) -> None:
    """Every command refuses a picture that is a folder, exists, or is another file that it writes."""
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "mine.png").write_bytes(b"mine")
    before = names(tmp_path)
    kernel = ("kernel", "--disk", 2, "-o", "k.png", "--picture")
    ista = ("ista", photo_file, "--disk", 2, "-o", "o.png", "--manifest", "k.png", "--picture")
    for command, first in ((kernel, "output"), (ista, "manifest")):
        for picture, words in (
            ("folder.png", "--picture: folder.png is a folder; give it the name of a file"),
            ("mine.png", "mine.png: exists already; choose another --picture"),
            ("link/k.png", f"the {first} and the picture would both be written to link/k.png; rename one"),
        ):
            result = pnp(*command, picture, cwd=tmp_path)
            assert result.returncode == 2
            assert words in result.stderr.decode()
    assert names(tmp_path) == before


def test_existing_outputs_are_found_before_any_work(
    pnp: Run, folder: Path, tmp_path: Path, small_weights: Path
) -> None:
    out = tmp_path / "out"
    (out / "sub").mkdir(parents=True)
    (out / "sub/c.png").write_bytes(b"precious")
    (out / "sub/d.png").write_bytes(b"precious")
    result = pnp("denoise", folder, "-r", "-o", out, *common(small_weights))
    assert result.returncode == 2
    assert f"{out}/sub/c.png and 1 more exist already" in result.stderr.decode()
    assert names(out) == ["sub/c.png", "sub/d.png"]
    assert (out / "sub/c.png").read_bytes() == b"precious"


def test_a_link_that_leads_nowhere_is_an_existing_output(
    pnp: Run, folder: Path, tmp_path: Path, small_weights: Path
) -> None:
    """It is refused beforehand, or replaced as a file; what it points to does not come into being."""
    link = tmp_path / "o.png"
    link.symlink_to(tmp_path / "nowhere.png")
    run = ("denoise", folder / "a.png", "-o", link, *common(small_weights))
    refused = pnp(*run)
    assert refused.returncode == 2
    assert "exists already" in refused.stderr.decode()
    skipped = pnp(*run, "--on-exists", "skip")
    assert skipped.returncode == 2, "nothing is there that could be kept"
    assert "a link that leads nowhere" in skipped.stderr.decode()
    assert link.is_symlink()
    assert pnp(*run, "--on-exists", "overwrite").returncode == 0
    assert not link.is_symlink()
    assert read_image(link).size == (24, 32)
    assert not (tmp_path / "nowhere.png").exists()


def test_outputs_are_told_from_inputs_through_links(
    pnp: Run, folder: Path, tmp_path: Path, small_weights: Path
) -> None:
    """A folder read under one name and written under another is one folder."""
    (tmp_path / "link").symlink_to(folder)
    run = ("denoise", tmp_path / "link", "-o", f"{folder}/{{stem}}.clean.{{ext}}", *common(small_weights))
    assert pnp(*run).returncode == 0
    made = names(folder)
    assert {"a.clean.png", "b.clean.tif"} <= set(made)
    assert pnp(*run, "--on-exists", "skip").returncode == 0
    assert names(folder) == made


def test_a_dry_run_of_denoise(pnp: Run, folder: Path, tmp_path: Path, small_weights: Path) -> None:
    """What would be done, for every input that can be read, and nothing written."""
    manifest = tmp_path / "run.json"
    plan = ("--dry-run", "--json", "-o", tmp_path / "out", "--manifest", manifest)
    result = pnp("denoise", folder / "a.png", folder / "none.png", *plan, "-w", small_weights)
    assert result.returncode == 1
    good, bad = (json.loads(line) for line in result.stdout.splitlines())
    assert good["ok"]
    assert good["averaged"]
    assert good["sigma_origin"] == "estimated"
    assert (good["output"], good["target"]) == (None, str(tmp_path / "out/a.png"))
    assert not bad["ok"]
    assert not (tmp_path / "out").exists()
    assert not manifest.exists()
    write_image(read_image(folder / "a.png"), tmp_path / "out/a.png")
    again = pnp("denoise", folder / "a.png", "--dry-run", "-o", tmp_path / "out", "-w", small_weights)
    assert again.returncode == 0
    assert "out/a.png, which exists already" in again.stderr.decode()


def test_a_batch_beside_its_inputs_resumes(pnp: Run, folder: Path, tmp_path: Path, small_weights: Path) -> None:
    """Outputs of the first run, beside the inputs or in a folder below them, are not inputs of the second."""
    for output in ((), ("-o", f"{folder}/clean/")):
        first = pnp("denoise", folder, "-r", *output, *common(small_weights))
        assert first.returncode == 0, first.stderr
        made = names(folder)
        second = pnp("denoise", folder, "-r", *output, *common(small_weights), "--on-exists", "skip")
        assert second.returncode == 0, second.stderr
        assert "skipped, 0 failed" in second.stderr.decode()
        assert names(folder) == made


def test_a_resumed_manifest_keeps_the_first_entries(
    pnp: Run, folder: Path, tmp_path: Path, small_weights: Path
) -> None:
    manifest = tmp_path / "run.json"
    run = ("denoise", folder, "-r", "-o", tmp_path / "out", "--manifest", manifest, "--on-exists", "skip")
    assert pnp(*run, *common(small_weights)).returncode == 0
    before = {entry["input"]: entry for entry in json.loads(manifest.read_text())["files"]}
    (tmp_path / "out/a.png").unlink()
    assert pnp(*run, *common(small_weights)).returncode == 0
    after = {entry["input"]: entry for entry in json.loads(manifest.read_text())["files"]}
    assert {entry["output_sha256"] for entry in after.values()} == {entry["output_sha256"] for entry in before.values()}


def entries(manifest: Path) -> list[dict[str, Any]]:
    return json.loads(manifest.read_text())["files"]


def test_a_resumed_manifest_keeps_what_the_run_does_not_touch(
    pnp: Run, folder: Path, tmp_path: Path, small_weights: Path
) -> None:
    """Entries go by input and output, those of other files stay in front, and what failed before is replaced."""
    manifest = tmp_path / "run.json"
    (folder / "broken.png").write_bytes(b"nothing")
    run = ("denoise", *common(small_weights), "--manifest", manifest, "--on-exists", "skip")
    assert pnp(*run, folder, "-o", f"{tmp_path}/one/").returncode == 1
    first = entries(manifest)
    assert [Path(entry["input"]).name for entry in first] == ["a.png", "b.tif", "broken.png"]
    for name in ("a.png", "broken.png"):
        write_image(read_image(folder / "sub/c.png"), tmp_path / "two" / name)
    (folder / "broken.png").write_bytes((folder / "a.png").read_bytes())
    result = pnp(*run, folder / "broken.png", folder / "a.png", "-o", f"{tmp_path}/two/")
    assert "0 of 2 files done, 2 skipped" in result.stderr.decode()
    second = entries(manifest)
    assert [entry["output"] for entry in second] == [
        *(f"{tmp_path}/one/{name}" for name in ("a.png", "b.tif")),
        *(f"{tmp_path}/two/{name}" for name in ("broken.png", "a.png")),
    ]
    assert second[1] == first[1] | {"run": {"options": {"output": f"{tmp_path}/one/"}}}
    assert [set(entry) for entry in second[2:]] == [{"input", "ok", "seconds", "output", "skipped"}] * 2
    (tmp_path / "one/b.tif").unlink()
    assert pnp(*run, folder, "-o", f"{tmp_path}/one/").returncode == 0
    third = entries(manifest)
    assert third[:2] == [entry | {"run": {"options": {"output": f"{tmp_path}/two/"}}} for entry in second[2:]]
    assert third[2] == first[0], "as if it had been made by this run"
    assert [sha256(Path(entry["output"])) for entry in third[2:]] == [entry["output_sha256"] for entry in third[2:]]
    assert pnp(*run, folder / "sub/c.png", "-o", f"{tmp_path}/one/b.tif", "--on-exists", "overwrite").returncode == 0
    assert len(entries(manifest)) == 1, "a new record, since nothing is resumed"


def test_a_resumed_manifest_forgets_what_is_not_there_any_more(
    pnp: Run, folder: Path, tmp_path: Path, small_weights: Path
) -> None:
    """An output that somebody changed is not what the earlier entry made, and one made anew is of its new input."""
    manifest, out = tmp_path / "run.json", tmp_path / "out"
    run = ("denoise", *common(small_weights), "--manifest", manifest, "--on-exists", "skip")
    assert pnp(*run, folder, "-o", f"{out}/").returncode == 0
    first = entries(manifest)
    write_image(read_image(folder / "sub/c.png"), out / "a.png")
    (out / "b.tif").unlink()
    assert pnp(*run, folder / "a.png", folder / "b.tif", "-o", f"{out}/{{stem}}.{{ext}}").returncode == 0
    changed, made = entries(manifest)
    assert "output_sha256" not in changed
    assert made["output_sha256"] == first[1]["output_sha256"]
    (out / "b.tif").unlink()
    assert pnp(*run, folder / "sub/c.png", "-o", out / "b.tif").returncode == 0
    assert [Path(entry["input"]).name for entry in entries(manifest)] == ["a.png", "c.png"]


def test_a_resumed_manifest_says_what_was_different_then(
    pnp: Run, folder: Path, tmp_path: Path, small_weights: Path
) -> None:
    """Weights replaced meanwhile, and another working folder: names and hashes are those of the run that made it."""
    own, manifest = tmp_path / "own.safetensors", tmp_path / "run.json"
    own.write_bytes(small_weights.read_bytes())
    run = ("denoise", "-s", 10, "-w", own, "--manifest", manifest, "--on-exists", "skip")
    assert pnp(*run, "a.png", "b.tif", "-o", "out/", cwd=folder).returncode == 0
    first = entries(manifest)
    used = sha256(own)
    weights.save(own, small_network(scales=(2, 1)))
    sub = folder / "sub"
    there = pnp(*run, "c.png", "../a.png", "-o", "../out/", cwd=sub)
    assert "1 of 2 files done, 1 skipped" in there.stderr.decode()
    record = json.loads(manifest.read_text())
    then = {"options": {"output": "out/"}, "read": {str(own): used}, "folder": str(folder)}
    assert record["files"][0] == first[1] | {"run": then}
    assert record["files"][2] == first[0] | {"run": then}, "skipped, and still what the first run made"
    assert (record["read"], record["folder"]) == ({str(own): sha256(own)}, str(sub))
    assert pnp(*run, "a.png", "b.tif", "-o", "out/", cwd=folder).returncode == 0
    then = {"options": {"output": "../out/"}, "folder": str(sub)}
    assert [entry.get("run") for entry in entries(manifest)] == [then, *[{"read": {str(own): used}}] * 2]


def test_a_manifest_resumed_twice_says_what_each_run_read(
    pnp: Run, folder: Path, tmp_path: Path, small_weights: Path
) -> None:
    """An entry never names a file that another run has read."""
    first, second, manifest = tmp_path / "first.safetensors", tmp_path / "second.safetensors", tmp_path / "run.json"
    first.write_bytes(small_weights.read_bytes())
    weights.save(second, small_network(scales=(2, 1)))
    run = ("-o", f"{tmp_path}/out/", "--manifest", manifest, "-s", 10, "--on-exists", "skip")
    inputs = []
    for name, own in (("a.png", first), ("b.tif", second), ("c.png", first)):
        inputs.append(folder / name)
        if not inputs[-1].exists():
            write_image(read_image(folder / "a.png"), inputs[-1])
        assert pnp("denoise", *inputs, "-w", own, *run).returncode == 0
    read = [entry.get("run", {}).get("read") for entry in entries(manifest)]
    assert read == [None, {str(second): sha256(second)}, None]
    assert json.loads(manifest.read_text())["read"] == {str(first): sha256(first)}


def test_what_cannot_be_resumed_is_refused(pnp: Run, folder: Path, tmp_path: Path, small_weights: Path) -> None:
    manifest = tmp_path / "run.json"
    run = (folder / "a.png", "-o", tmp_path / "o.png", "--manifest", manifest, "--on-exists", "skip")
    assert pnp("blur", "--disk", 1, *run).returncode == 0
    record = json.loads(manifest.read_text())
    for content, words in (
        (json.dumps(record), "is a manifest of pnp blur; choose another --manifest"),
        (json.dumps(record | {"command": "denoise", "files": [3]}), "not a manifest"),
        ("[]", "not a manifest"),
        ("{", "not a manifest"),
    ):
        manifest.write_text(content)
        result = pnp("denoise", *common(small_weights), *run)
        assert result.returncode == 2
        assert words in result.stderr.decode()
        assert manifest.read_text() == content


def test_output_names() -> None:
    options = FileOptions("denoise", "denoised")
    assert target_of(Source(Path("x/photo.jpg")), options, False) == Path("x/photo.denoised.png")
    assert target_of(Source(Path("x/photo.tif")), options, False) == Path("x/photo.denoised.tif")
    assert target_of(Source(None), options, False) is None
    mirrored = FileOptions("denoise", "denoised", output="out", recursive=True)
    assert target_of(Source(Path("in/sub/p.png"), Path("in")), mirrored, True) == Path("out/sub/p.png")
    webp = FileOptions("denoise", "denoised", output="out/", file_format="webp")
    assert target_of(Source(Path("p.png")), webp, False) == Path("out/p.webp")


def test_summary_and_skipping(pnp: Run, folder: Path, tmp_path: Path, small_weights: Path) -> None:
    out = tmp_path / "out"
    (folder / "broken.png").write_bytes(b"nothing")
    first = pnp("denoise", folder, "-r", "-o", out, *common(small_weights))
    assert first.returncode == 1
    assert "5 of 6 files done, 1 failed" in first.stderr.decode()
    (out / "a.png").unlink()
    second = pnp("denoise", folder, "-r", "-o", out, "--on-exists", "skip", *common(small_weights))
    assert "1 of 6 files done, 4 skipped, 1 failed" in second.stderr.decode()


def test_an_output_that_another_process_has_made_meanwhile_is_skipped(
    pnp: Run, photo_file: Path, tmp_path: Path
) -> None:
    """It comes into being after the input was looked for and before it is read."""
    for mode, code in (("skip", 0), ("error", 1)):
        out = tmp_path / f"{mode}.png"
        feed(tmp_path / f"{mode}-in.png", photo_file.read_bytes(), lambda out=out: out.write_bytes(b"theirs"))  # type: ignore[misc]
        run = (tmp_path / f"{mode}-in.png", "-o", out, "--disk", 1, "--on-exists", mode, "--json")
        result = pnp("blur", *run)
        assert result.returncode == code, result.stderr
        assert json.loads(result.stdout).get("skipped", False) == (code == 0)
        assert out.read_bytes() == b"theirs"
        assert not list(tmp_path.glob(".*"))


def test_an_interrupted_batch_of_many_files_restarts_at_once(
    pnp: Run, photo: Image, tmp_path: Path, small_weights: Path
) -> None:
    (tmp_path / "in").mkdir()
    write_image(photo.with_pixels(photo.pixels[:16, :16]), tmp_path / "in/0.png")
    content = (tmp_path / "in/0.png").read_bytes()
    for i in range(1, 1000):
        (tmp_path / f"in/{i}.png").write_bytes(content)
    arguments = ["denoise", tmp_path / "in", "-o", tmp_path / "out", *common(small_weights)]
    process = subprocess.Popen([installed_command(), *map(str, arguments)], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not len(list((tmp_path / "out").glob("*.png"))) > 20:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"files done" in stderr
    assert b"Traceback" not in stderr
    for path in (tmp_path / "out").iterdir():
        assert read_image(path).size == (16, 16), "every output is whole"
    # All but a few are there: the rest is done, and what is there is not even read.
    for i in range(990):
        (tmp_path / f"out/{i}.png").write_bytes(b"kept")
    start = time.monotonic()
    result = pnp(*arguments, "--on-exists", "skip")
    assert result.returncode == 0, result.stderr[-500:]
    assert time.monotonic() - start < 30
    assert len(list((tmp_path / "out").glob("*.png"))) == 1000
    assert (tmp_path / "out/7.png").read_bytes() == b"kept"


def test_manifest_reproduces(pnp: Run, folder: Path, tmp_path: Path, small_weights: Path) -> None:
    records = []
    for run in ("one", "two"):
        manifest = tmp_path / f"{run}.json"
        (tmp_path / "pnp.toml").write_text("tol = 0.5\n")
        np.save(tmp_path / "k.npy", kernels.motion(5, 20))
        blur = ("--kernel", tmp_path / "k.npy", "-o", tmp_path / run, "--manifest", manifest)
        blur += ("--config", tmp_path / "pnp.toml")
        result = pnp("deblur", folder / "a.png", folder / "none.png", *blur, *common(small_weights))
        assert result.returncode == 1
        records.append(json.loads(manifest.read_text()))
    one, two = records
    assert one["versions"]["torch"]
    assert one["arguments"][0] == "deblur"
    assert one["options"]["tol"] == 0.5
    assert one["read"][str(tmp_path / "k.npy")] == hashlib.sha256((tmp_path / "k.npy").read_bytes()).hexdigest()
    assert str(tmp_path / "pnp.toml") in one["read"]
    good, bad = one["files"]
    assert bad["ok"] is False
    assert "no such file" in bad["error"]
    assert good["input_sha256"] == hashlib.sha256((folder / "a.png").read_bytes()).hexdigest()
    assert good["output_sha256"] == hashlib.sha256((tmp_path / "one/a.png").read_bytes()).hexdigest()
    assert good["output_sha256"] == two["files"][0]["output_sha256"]
    assert good["weights_sha256"] == hashlib.sha256(small_weights.read_bytes()).hexdigest()
    assert good["plan"]["step"] > 0
    assert good["solution"]["residuals"]
    again = pnp("denoise", folder / "a.png", "--manifest", tmp_path / "one.json", *common(small_weights))
    assert again.returncode == 2
    assert "exists already" in again.stderr.decode()


def feed(pipe: Path, content: bytes, before: Callable[[], object] = lambda: None) -> None:
    """Put content into a new named pipe, as soon as somebody reads it, and after `before`."""
    os.mkfifo(pipe)

    def write() -> None:
        with pipe.open("wb") as stream:
            before()
            stream.write(content)

    threading.Thread(target=write, daemon=True).start()


def test_the_manifest_says_what_was_read_when_it_was_read(
    pnp: Run, photo_file: Path, tmp_path: Path, small_weights: Path
) -> None:
    """Weights that are replaced while a batch runs are those that were used; and what came from a pipe is named."""
    own, k = tmp_path / "own.safetensors", tmp_path / "k.npy"
    own.write_bytes(small_weights.read_bytes())
    used = sha256(own)
    np.save(tmp_path / "file.npy", kernels.motion(5, 20))
    feed(k, (tmp_path / "file.npy").read_bytes())
    feed(tmp_path / "late.png", photo_file.read_bytes(), lambda: weights.save(own, small_network(scales=(2, 1))))
    run = ("--kernel", k, "-w", own, "-o", f"{tmp_path}/out/", "--manifest", tmp_path / "run.json", "--max-iter", 2)
    result = pnp("deblur", photo_file, tmp_path / "late.png", *run, "--reference", photo_file)
    assert result.returncode == 0, result.stderr
    record = json.loads((tmp_path / "run.json").read_text())
    assert {entry["weights_sha256"] for entry in record["files"]} == {used} != {sha256(own)}
    assert record["read"] == {
        str(own): used,
        str(photo_file): sha256(photo_file),
        str(k): sha256(tmp_path / "file.npy"),
    }


def test_grey_weights_are_named_where_they_were_used_and_never_replaced(
    pnp: Run, photo: Image, tmp_path: Path, small_weights: Path
) -> None:
    own, twin = tmp_path / "own.safetensors", tmp_path / "own-grey.safetensors"
    own.write_bytes(small_weights.read_bytes())
    weights.save(twin, small_network(scales=(2, 1)))
    write_image(photo, tmp_path / "colour.png")
    write_image(photo.with_pixels(photo.pixels[:, :, :1]), tmp_path / "grey.png")
    for name, read in (("colour", {own}), ("grey", {own, twin})):
        manifest = tmp_path / f"{name}.json"
        result = pnp("denoise", tmp_path / f"{name}.png", "-s", 10, "-w", own, "--manifest", manifest)
        assert result.returncode == 0, result.stderr
        assert json.loads(manifest.read_text())["read"] == {str(path): sha256(path) for path in read}
    before = twin.read_bytes()
    for output in (("-o", twin, "--format", "png"), ("-o", tmp_path / "o.png", "--manifest", twin)):
        result = pnp("denoise", tmp_path / "colour.png", "-s", 10, "-w", own, *output, "--on-exists", "overwrite")
        assert result.returncode == 2
        assert "would replace an input" in result.stderr.decode()
    assert twin.read_bytes() == before


def test_configuration_file(pnp: Run, folder: Path, tmp_path: Path, small_weights: Path) -> None:
    config = tmp_path / "pnp.toml"
    config.write_text(f'weights = "{small_weights}"\nquiet = true\n[denoise]\nsigma = 12.5\nrepeat = 2\n')
    result = pnp("denoise", folder / "a.png", "-o", tmp_path / "o.png", "--config", config, "--json")
    fields = json.loads(result.stdout)
    assert (fields["sigma"], fields["weights"], len(fields["residuals"])) == (12.5, small_weights.stem, 2)
    assert result.stderr == b""
    result = pnp("denoise", folder / "a.png", "-o", tmp_path / "p.png", "--config", config, "--json", "-s", 3)
    assert json.loads(result.stdout)["sigma"] == 3, "what is given wins"
    for text, words in (
        ("[denoise]\nsgima = 3", "sgima"),
        ("nonsense = 1", "nonsense"),
        ("[", "not a usable"),
        ("[denoise]\nrepeat = 'often'", "pnp.toml: repeat cannot be 'often'"),
        ("quality = 200", "pnp.toml: quality cannot be 200"),
    ):
        config.write_text(text)
        result = pnp("denoise", folder / "a.png", "-o", tmp_path / "q.png", "--config", config)
        assert result.returncode == 2
        assert words in result.stderr.decode()
        assert "Traceback" not in result.stderr.decode()


def test_quiet_verbose(pnp: Run, folder: Path, tmp_path: Path, small_weights: Path) -> None:
    arguments = ("deblur", folder / "a.png", "--motion", 5, 20, *common(small_weights))
    loud = pnp(*arguments, "-o", tmp_path / "v.png", "-v").stderr.decode()
    assert "iteration 1, residual" in loud
    assert "time " in loud
    assert pnp(*arguments, "-o", tmp_path / "w.png", "-q").stderr == b""
    assert pnp(*arguments, "-o", tmp_path / "x.png", "-q", "-v").returncode == 2


# ---------------------------------------------------------------------------------------- cluster


@pytest.fixture
def mixed(tmp_path: Path, photo: Image) -> Path:
    """Pictures as floats: seven of one size, one of them in grey, one of another size, and a file that is none."""
    tops = {"1": 0, "2": 30, "4": 40, "5": 10, "6": 50, "7": 20, "8": 55, "9": 5}
    for name, top in tops.items():
        pixels = photo.pixels[top : top + (20 if name == "4" else 24), :32]
        pixels = pixels.mean(axis=2, keepdims=True) if name == "6" else pixels
        write_image(Image(pixels, "float32"), tmp_path / f"in/{name}.npy")
    (tmp_path / "in/3.npy").write_bytes(b"nothing")
    return tmp_path / "in"


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images the plain network gets, call by call."""
    seen: list[int] = []
    body = denoisers.EulerNetwork.body

    def counting(self: denoisers.EulerNetwork, x: Tensor, sigma: Tensor) -> Tensor:
        seen.append(len(x))
        return body(self, x, sigma)

    monkeypatch.setattr(denoisers.EulerNetwork, "body", counting)
    return seen


@pytest.mark.parametrize("options", [("-s", 20), ("-s", 5, "--photon", 3)])
@pytest.mark.parametrize("network", ["small_weights", "conditioned_weights"])
def test_images_of_one_size_are_denoised_together(
    pnp: Run, mixed: Path, sizes: list[int], network: str, options: tuple[object, ...], request: pytest.FixtureRequest
) -> None:
    """Each is denoised as alone, the records come in the order of the files, and a bad file is that one alone."""
    command = ("denoise", mixed, "-w", request.getfixturevalue(network), "--json", *options)
    facts, calls = {}, {}
    for batch in (1, 2, 8):
        result = pnp(*command, "-o", f"{mixed}-{batch}/", "--batch", batch, "--manifest", f"{mixed}-{batch}.json")
        assert result.returncode == 1
        facts[batch], calls[batch] = [json.loads(line) for line in result.stdout.splitlines()], sizes.copy()
        sizes.clear()
        ends = [(Path(fact["input"]).stem, fact["ok"]) for fact in facts[batch]]
        assert ends == [(str(i), i != 3) for i in range(1, 10)]
        assert all("seconds" in fact for fact in facts[batch] if fact["ok"])
        entries = json.loads(Path(f"{mixed}-{batch}.json").read_text())["files"]
        assert [(Path(entry["input"]).stem, entry["ok"]) for entry in entries] == ends
    assert calls == {1: [1] * 8, 2: [2, 1, 1, 1, 2, 1], 8: [2, 1, 1, 1, 3]}
    for batch in (2, 8):
        for i in (1, 2, 4, 5, 6, 7, 8, 9):
            alone, together = (read_image(Path(f"{mixed}-{b}/{i}.npy")).pixels for b in (1, batch))
            assert np.abs(alone - together).max() < 1e-6
            before, after = (facts[b][i - 1]["residuals"] for b in (1, batch))
            assert after == pytest.approx(before, rel=1e-4)


@pytest.mark.parametrize(
    ("extra", "most"), [((), 3), (("--repeat", 2), 1), (("--ensemble",), 1), (("--tile", 64), 1), (("--tile", 96), 2)]
)
def test_what_goes_together(
    pnp: Run, photo: Image, tmp_path: Path, small_weights: Path, sizes: list[int], extra: tuple[object, ...], most: int
) -> None:
    """No more than fits into a tile, and nothing that takes several calls of the network anyway."""
    for i in range(3):
        write_image(photo.with_pixels(photo.pixels[i : i + 60, :64]), tmp_path / f"in/{i}.png")
    command = ("denoise", tmp_path / "in", *common(small_weights), "-o", tmp_path / "out/", "--batch", 8)
    assert pnp(*command, *extra).returncode == 0
    assert max(sizes) == most
    assert names(tmp_path / "out") == ["0.png", "1.png", "2.png"]


def test_what_is_too_much_together_is_done_alone(
    pnp: Run, mixed: Path, small_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    estimate = denoisers.EulerNetwork.estimate

    def short_of_memory(self: denoisers.EulerNetwork, x: Tensor, sigma: float | Tensor) -> Tensor:
        sizes.append(len(x))
        if len(x) > 1:
            raise RuntimeError("not enough memory")
        return estimate(self, x, sigma)

    monkeypatch.setattr(denoisers.EulerNetwork, "estimate", short_of_memory)
    (mixed / "3.npy").unlink()
    result = pnp("denoise", mixed, "-o", f"{mixed}-out/", *common(small_weights), "--batch", 8)
    assert result.returncode == 0, result.stderr
    assert sizes == [2, 1, 1, 1, 1, 1, 3, 1, 1, 1]
    assert len(names(Path(f"{mixed}-out"))) == 8


def test_the_first_that_fails_ends_a_batch_of_several(
    pnp: Run, mixed: Path, small_weights: Path, tmp_path: Path
) -> None:
    command = ("denoise", mixed, "-o", tmp_path / "out/", *common(small_weights), "--batch", 8, "--fail-fast")
    assert pnp(*command).returncode == 1
    assert names(tmp_path / "out") == ["1.npy", "2.npy"], "what waited before it is done"


def test_a_full_disk_ends_a_batch_of_several(
    pnp: Run, mixed: Path, small_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for those that wait: nothing could be written any more."""

    def write(path: Path, data: bytes, overwrite: bool = False) -> None:
        if path.name == "8.npy":
            raise StorageError(f"{path}: no space left")
        path.write_bytes(data)

    monkeypatch.setattr("pnp_cli.cli.batch.write_bytes", write)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/2.npy").write_bytes(b"kept")
    (mixed / "3.npy").unlink()
    options = ("--batch", 8, "--on-exists", "skip")
    result = pnp("denoise", mixed, "-o", tmp_path / "out/", *common(small_weights), *options)
    assert result.returncode == 1
    assert names(tmp_path / "out") == ["1.npy", "2.npy", "4.npy", "5.npy", "6.npy", "7.npy"]
    assert (tmp_path / "out/2.npy").read_bytes() == b"kept"
    assert b"5 of 8 files done, 1 skipped, 1 failed, 1 not done" in result.stderr


def test_several_at_a_time_are_not_for_a_cluster(pnp: Run, mixed: Path, small_weights: Path) -> None:
    refused = pnp("denoise", mixed, *common(small_weights), "--batch", 8, "--scheduler", "tcp://127.0.0.1:8786")
    assert refused.returncode == 2
    assert b"leave it out with --scheduler" in refused.stderr


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@pytest.fixture(scope="module")
def cluster() -> Iterator[Processes]:
    """A scheduler and two worker processes of their own, as a user would start them; a test that kills one is last."""
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment}
    start = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--port", str(port), "--no-dashboard"]
    scheduler = subprocess.Popen(start, **quiet)  # type: ignore[call-overload]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-dashboard"]
    workers = [subprocess.Popen([*worker, "--no-nanny"], **quiet) for _ in range(2)]  # type: ignore[call-overload]
    try:
        from distributed import Client

        with Client(address, timeout=60, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
        yield address, workers
    finally:
        for process in (*workers, scheduler):
            process.kill()
            process.wait()


def test_cluster_gives_the_same_files(
    pnp: Run,
    folder: Path,
    tmp_path: Path,
    conditioned_weights: Path,
    cluster: Processes,
) -> None:
    (folder / "broken.png").write_bytes(b"nothing")
    options = ("-r", "--motion", 5, 20, "-w", conditioned_weights, "--max-iter", 30, "--json")
    here = pnp("deblur", folder, "-o", tmp_path / "here", *options)
    there = pnp("deblur", folder, "-o", tmp_path / "there", *options, "--scheduler", cluster[0])
    assert there.returncode == here.returncode == 1
    assert names(tmp_path / "here") == names(tmp_path / "there")
    for name in names(tmp_path / "here"):
        a, b = (read_image(tmp_path / place / name).pixels for place in ("here", "there"))
        np.testing.assert_allclose(a, b, atol=1.01 / 255)
    failed = [json.loads(line) for line in there.stdout.splitlines()]
    assert {Path(f["input"]).name for f in failed if not f["ok"]} == {"broken.png"}
    assert "5 of 6 files done, 1 failed" in there.stderr.decode()


def test_cluster_of_grey_images_resumes(pnp: Run, photo: Image, tmp_path: Path, cluster: Processes) -> None:
    """Workers get the grey weights of the machine that sends the work, and what is there is not sent to them."""
    for name, network in (("own", small_network()), ("own-grey", small_network(scales=(2, 1)))):
        weights.save(tmp_path / f"{name}.safetensors", network)
    write_image(photo, tmp_path / "in/colour.png")
    for name in ("a", "b"):
        write_image(photo.with_pixels(photo.pixels[:, :, :1]), tmp_path / f"in/{name}.png")
    run = ("denoise", "in", "-s", 10, "-w", "own.safetensors", "--json")
    there = (*run, "-o", "there/", "--scheduler", cluster[0], "--manifest", "run.json")
    here = pnp(*run, "-o", "here/", cwd=tmp_path)  # below a folder that is not that of the workers
    first = pnp(*there, cwd=tmp_path)
    assert here.returncode == first.returncode == 0, first.stderr
    used = [{f["input"]: f["weights_sha256"] for f in map(json.loads, r.stdout.splitlines())} for r in (here, first)]
    assert used[0] == used[1]
    read = {f"{name}.safetensors": sha256(tmp_path / f"{name}.safetensors") for name in ("own", "own-grey")}
    assert set(used[0].values()) == set(read.values())
    assert json.loads((tmp_path / "run.json").read_text())["read"] == read
    (tmp_path / "there/b.png").unlink()
    (tmp_path / "there/a.png").write_bytes(b"kept")
    (tmp_path / "in/broken.png").write_bytes(b"nothing")
    again = pnp(*there, "--on-exists", "skip", cwd=tmp_path)
    assert again.returncode == 1
    assert "1 of 4 files done, 2 skipped, 1 failed" in again.stderr.decode()
    assert (tmp_path / "there/a.png").read_bytes() == b"kept"
    a, b = (read_image(tmp_path / place / "b.png").pixels for place in ("here", "there"))
    np.testing.assert_allclose(a, b, atol=1.01 / 255)
    hashes = {entry["input"]: entry.get("output_sha256") for entry in entries(tmp_path / "run.json")}
    same = {f"in/{name}.png": sha256(tmp_path / f"there/{name}.png") for name in ("colour", "b")}
    assert hashes == same | {"in/a.png": None, "in/broken.png": None}


def test_the_files_of_a_killed_worker_are_done_by_another(
    pnp: Run, photo: Image, tmp_path: Path, small_weights: Path, cluster: Processes
) -> None:
    address, workers = cluster
    names_of_files = sorted(f"{i}.png" for i in range(16))
    for name in names_of_files:
        write_image(photo.with_pixels(photo.pixels[:40, :48]), tmp_path / "in" / name)
    out = tmp_path / "out"
    done_before: list[str] = []

    def kill() -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not list(out.glob("*.png")):
            time.sleep(0.01)
        workers[0].send_signal(signal.SIGKILL)
        workers[0].wait()
        done_before.extend(path.name for path in out.glob("*.png"))

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    options = ("--motion", 5, 20, "-w", small_weights, "--tol", 0, "--max-iter", 60, "--scheduler", address)
    result = pnp("deblur", tmp_path / "in", "-o", out, *options)
    killer.join(timeout=120)
    assert result.returncode == 0, result.stderr.decode()[-2000:]
    assert 0 < len(done_before) < 16, "it was killed amid the work"
    assert names(out) == names_of_files


@pytest.mark.parametrize("address", ["nonsense", "tcp://host", "tcp://host:port", "http://host:8786", ""])
def test_what_is_no_address_is_refused_at_once(pnp: Run, folder: Path, small_weights: Path, address: str) -> None:
    result = pnp("denoise", folder / "a.png", *common(small_weights), "--scheduler", address)
    assert result.returncode == 2
    assert "is not an address such as tcp://host:8786" in result.stderr.decode()


def test_no_scheduler_is_one_sentence(
    pnp: Run, folder: Path, small_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import distributed

    client = distributed.Client

    def impatient(address: str, timeout: float, **rest: Any) -> distributed.Client:
        return client(address, timeout=timeout / 10, **rest)

    monkeypatch.setattr(distributed, "Client", impatient)
    address = f"tcp://127.0.0.1:{free_port()}"
    result = pnp(
        "denoise", folder / "a.png", *common(small_weights), "--scheduler", address, "--manifest", folder / "run.json"
    )
    assert result.returncode == 2
    assert "no Dask scheduler answers" in result.stderr.decode()
    assert not (folder / "run.json").exists()
    assert "Traceback" not in result.stderr.decode()
