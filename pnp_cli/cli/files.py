"""Many files through one command: inputs, output names, errors per file, the summary and the exit code."""

from __future__ import annotations

import glob
import hashlib
import os
import string
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import ConditionError, InputError, PnpError, UsageError
from ..files import read_bytes, write_bytes
from ..images import (
    FLOAT_FORMATS,
    FORMATS,
    Depth,
    Image,
    encode_image,
    format_of,
    list_images,
    natural_suffix,
    read_image,
    require_format,
)
from .console import emit, file_progress, say
from .manifest import Manifest

STREAM = "-"

DEPTHS: dict[str, Depth | None] = {"keep": None, "8": "uint8", "16": "uint16"}
"""Choices of --bit-depth."""

TEMPLATE_FIELDS = ("stem", "ext", "parent")


@dataclass(frozen=True)
class Source:
    """An input: its path (None is standard input) and the folder it was found in, if any.

    `problem` says why there is nothing to read, where that is known beforehand.
    """

    path: Path | None
    root: Path | None = None
    problem: str | None = None

    @property
    def name(self) -> str:
        """What messages call it."""
        return str(self.path) if self.path else "standard input"

    def read_bytes(self) -> bytes:
        """The content of the file.

        Raises
        ------
        InputError
            If there is none.
        """
        if self.problem:
            raise InputError(f"{self.name}: {self.problem}")
        return read_bytes(self.path) if self.path else sys.stdin.buffer.read()

    def read(self) -> Image:
        """Read the image.

        Raises
        ------
        InputError
            If there is none.
        """
        return read_image(self.read_bytes(), self.name)


@dataclass(frozen=True)
class Outcome:
    """What the work on one image gives: the image (None in a dry run), facts for JSON, an exit code."""

    image: Image | None
    fields: dict[str, Any]
    code: int = 0
    unclipped: bool = False
    """Whether formats that hold floats get the pixels as they are."""


Work = Callable[[Image, str], Outcome]


@dataclass(frozen=True)
class FileOptions:
    """The shared file options of a command."""

    command: str
    suffix: str
    """Goes into the default name: NAME.SUFFIX.EXT."""
    output: str | None = None
    file_format: str | None = None
    bit_depth: str = "keep"
    quality: int = 95
    strip: bool = False
    recursive: bool = False
    on_exists: str = "error"
    fail_fast: bool = False
    json: bool = False
    manifest: Path | None = None
    quiet: bool = False
    verbose: bool = False
    protected: tuple[Path | None, ...] = ()
    """Files besides the inputs that an output must not replace."""

    def check(self, sources: Sequence[Source]) -> None:
        """Raise `UsageError` for combinations that make no sense."""
        if self.on_exists not in ("error", "skip", "overwrite"):
            raise UsageError(f"--on-exists must be error, skip or overwrite, not '{self.on_exists}'")
        if self.bit_depth not in DEPTHS:
            raise UsageError(f"--bit-depth must be keep, 8 or 16, not '{self.bit_depth}'")
        if self.file_format is not None and f".{self.file_format.lower()}" not in FORMATS:
            known = ", ".join(s[1:] for s in FORMATS)
            raise UsageError(f"unknown --format '{self.file_format}'; use one of {known}")
        if self.quiet and self.verbose:
            raise UsageError("--quiet and --verbose contradict each other; leave one of them out")
        streams = [source for source in sources if self.writes_to_stdout(source)]
        if streams and self.json:
            raise UsageError("--json and the image both want standard output; give -o a file")
        if streams and len(sources) > 1:
            raise UsageError("standard output takes one image; give -o a folder for several inputs")
        if self.output is not None and self.output != STREAM and len(sources) > 1 and Path(self.output).is_file():
            raise UsageError(f"{self.output} is a file, but there are {len(sources)} inputs; give -o a folder")
        if self.manifest and self.on_exists == "error" and _exists(self.manifest):
            raise UsageError(f"{self.manifest}: exists already; choose another --manifest, or --on-exists overwrite")

    def writes_to_stdout(self, source: Source) -> bool:
        """Whether the result of an input goes to standard output."""
        return self.output == STREAM or (self.output is None and source.path is None)


# ------------------------------------------------------------------------------------------ names


def find_sources(inputs: Sequence[str], recursive: bool = False) -> list[Source]:
    """Expand files, folders and globs, in the order given; what holds no image stays and fails when it is read."""
    sources: list[Source] = []
    for text in inputs:
        path = Path(text)
        if text == STREAM:
            sources.append(Source(None))
        elif not text:
            sources.append(Source(path, problem="an input has an empty name"))
        elif _is_dir(path):
            found = list_images(path, recursive)
            hint = "" if recursive else "; -r searches below it"
            sources += [Source(p, path) for p in found]
            if not found:
                sources.append(Source(path, problem=f"the folder holds no image files{hint}"))
        elif glob.has_magic(text) and not os.path.exists(text):
            matches = sorted(p for p in glob.glob(text, recursive=True) if Path(p).is_file())
            sources += [Source(Path(p)) for p in matches] or [Source(path, problem="matches no file")]
        else:
            sources.append(Source(path))
    return sources


def _is_dir(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # an impossible name, or a folder that may not be looked into
        return False


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False


def target_of(source: Source, options: FileOptions, many: bool) -> Path | None:
    """Where the result of one input goes; None is standard output.

    Raises
    ------
    UsageError
        If the template in the output name has fields that there are not.
    """
    if options.writes_to_stdout(source):
        return None
    suffix = f".{options.file_format.lower()}" if options.file_format else _default_suffix(source)
    stem = source.path.stem if source.path else "stdin"
    if options.output is None:
        assert source.path is not None
        return source.path.with_name(f"{stem}.{options.suffix}{suffix}")
    if "{" in options.output:
        parent = str(source.path.parent) if source.path else "."
        return Path(_fill(options.output, stem=stem, ext=suffix[1:], parent=parent))
    if not many and not _is_folder(options.output):
        return Path(options.output)
    folder = Path(options.output)
    if source.root is not None and source.path is not None:
        folder = folder / source.path.parent.relative_to(source.root)
    return folder / f"{stem}{suffix}"


def _fill(template: str, **fields: str) -> str:
    try:
        names = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    except ValueError as error:
        raise UsageError(f"the output name '{template}' is not a template ({error})") from error
    for name in names:
        if name not in TEMPLATE_FIELDS:
            known = ", ".join(f"{{{known}}}" for known in TEMPLATE_FIELDS)
            raise UsageError(f"the output name '{template}' has the unknown field {{{name}}}; there are {known}")
    return template.format(**fields)


def _is_folder(output: str) -> bool:
    return output.endswith(("/", "\\")) or _is_dir(Path(output))


def _default_suffix(source: Source) -> str:
    """The suffix of the input if its format may hold floats, else that of a lossless format."""
    own = source.path.suffix.lower() if source.path else ""
    return own if FORMATS.get(own) in FLOAT_FORMATS else ".png"


def find_targets(sources: Sequence[Source], options: FileOptions) -> list[Path | None]:
    """The output of every input, checked against each other and against the inputs before any work.

    Raises
    ------
    UsageError
        If two outputs are one file, or an output would replace an input.
    """
    many = len(sources) > 1 or any(s.root for s in sources)
    kept = {path.resolve() for path in (*(s.path for s in sources), *options.protected) if path and _exists(path)}
    targets: list[Path | None] = []
    claimed: dict[Path, str] = {}
    for source in sources:
        target = None if source.problem else target_of(source, options, many)
        targets.append(target)
        if target is None:
            continue
        place = Path(os.path.abspath(target))
        if place in claimed:
            raise UsageError(
                f"{source.name} and {claimed[place]} would both be written to {target}; give -o a template such as "
                "'out/{stem}.{ext}', or rename one"
            )
        claimed[place] = source.name
        if _exists(target) and target.resolve() in kept:
            raise UsageError(f"{source.name}: the output {target} would replace an input; choose another -o")
    return targets


# ------------------------------------------------------------------------------------------- work


def exit_code(error: PnpError) -> int:
    """Exit code of an error."""
    if isinstance(error, ConditionError):
        return 3
    return 2 if isinstance(error, UsageError) else 1


@dataclass
class Tally:
    """How the files of a batch ended."""

    total: int
    done: int = 0
    skipped: int = 0
    codes: list[int] = field(default_factory=list)

    def __str__(self) -> str:
        failed = sum(code != 0 for code in self.codes)
        parts = [f"{self.done} of {self.total} files done"]
        if self.skipped:
            parts.append(f"{self.skipped} skipped")
        parts.append(f"{failed} failed")
        left = self.total - len(self.codes)
        return ", ".join([*parts, *([f"{left} not begun"] if left else [])])


def run_batch(inputs: Sequence[str], options: FileOptions, work: Work) -> int:
    """Read, work on and write every input; returns the exit code of the command.

    A file that fails is reported and the others go on, unless `fail_fast`. What was finished before an
    interruption is kept, and the manifest says so.
    """
    sources = find_sources(inputs, options.recursive)
    options.check(sources)
    targets = find_targets(sources, options)
    tally = Tally(len(sources))
    with _manifest(options) as manifest, file_progress(len(sources), options.quiet) as advance:
        try:
            for source, target in zip(sources, targets, strict=True):
                code = _run_one(source, target, options, work, tally, manifest)
                tally.codes.append(code)
                advance()
                if code and options.fail_fast:
                    break
        finally:
            if len(sources) > 1:
                say(str(tally), options.quiet)
    return max(tally.codes, default=0)


@contextmanager
def _manifest(options: FileOptions) -> Iterator[Manifest]:
    manifest = Manifest(options.command)
    try:
        yield manifest
    finally:
        if options.manifest:
            manifest.write(options.manifest)
            say(f"wrote {options.manifest}", options.quiet)


def _run_one(
    source: Source, target: Path | None, options: FileOptions, work: Work, tally: Tally, manifest: Manifest
) -> int:
    """One input from file to file; returns its exit code."""
    start = time.perf_counter()
    try:
        facts, code = _restore(source, target, options, work)
    except PnpError as error:
        code, problem = exit_code(error), error
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "memory" not in str(error):
            raise
        code = 1
        problem = InputError("not enough memory for an image of this size; use a smaller --tile, or restore a part")
    else:
        if facts.get("skipped"):
            tally.skipped += 1
        elif code == 0:
            tally.done += 1
        if options.json:
            emit(options.command, source.name, code == 0, **facts)
        manifest.add(source.name, code == 0, facts | {"seconds": round(time.perf_counter() - start, 3)})
        if options.verbose:
            say(f"time        {time.perf_counter() - start:.2f} s")
        return code
    message = str(problem) if source.name in str(problem) else f"{source.name}: {problem}"
    say(f"pnp: error: {message}")
    if options.json:
        emit(options.command, source.name, False, error=message)
    manifest.add(source.name, False, {"error": message})
    return code


def _restore(source: Source, target: Path | None, options: FileOptions, work: Work) -> tuple[dict[str, Any], int]:
    """Read, work, write: facts about it and its exit code."""
    if target is not None and _exists(target) and not source.problem:
        if options.on_exists == "error":
            raise InputError(f"{target}: exists already; choose another -o, or --on-exists skip or overwrite")
        if options.on_exists == "skip":
            say(f"{source.name}: skipped, {target} exists", options.quiet)
            return {"output": str(target), "skipped": True}, 0
    content = source.read_bytes()
    image = read_image(content, source.name).for_output(DEPTHS[options.bit_depth], options.strip)
    if options.file_format or target is None:
        suffix = (options.file_format or natural_suffix(image)).lower().removeprefix(".")
        file_format = FORMATS[f".{suffix}"]
    else:
        file_format = format_of(target)
    name = str(target or "standard output")
    require_format(image, file_format, name)
    for note in image.notes:
        say(f"{source.name}: {note}", options.quiet)
    outcome = work(image, source.name)
    facts: dict[str, Any] = {"input_sha256": hashlib.sha256(content).hexdigest(), "notes": list(image.notes)}
    if outcome.image is None:
        return facts | {"output": None} | outcome.fields, outcome.code
    result = outcome.image
    if outcome.unclipped and file_format in FLOAT_FORMATS and options.bit_depth == "keep":
        result = replace(result, depth="float32")
    data = encode_image(result, file_format, name, options.quality)
    if target is None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    else:
        write_bytes(target, data)
        say(f"wrote {target}", options.quiet)
    facts |= {"output": str(target) if target else None, "output_sha256": hashlib.sha256(data).hexdigest()}
    return facts | outcome.fields, outcome.code
