"""Many files through one command: inputs, output names, errors per file, and the exit code."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import ConditionError, InputError, PnpError, UsageError
from ..files import write_bytes
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
from .console import emit, say

STREAM = "-"

DEPTHS: dict[str, Depth | None] = {"keep": None, "8": "uint8", "16": "uint16"}
"""Choices of --bit-depth."""


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

    def read(self) -> Image:
        """Read the image.

        Raises
        ------
        InputError
            If there is none.
        """
        if self.problem:
            raise InputError(f"{self.name}: {self.problem}")
        return read_image(self.path) if self.path else read_image(sys.stdin.buffer.read())


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
    output: str | None
    suffix: str
    """Goes into the default name: NAME.SUFFIX.EXT."""
    file_format: str | None = None
    bit_depth: str = "keep"
    quality: int = 95
    strip: bool = False
    recursive: bool = False
    on_exists: str = "error"
    fail_fast: bool = False
    json: bool = False
    quiet: bool = False
    protected: tuple[Path, ...] = ()
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
        streams = [source for source in sources if self.writes_to_stdout(source)]
        if streams and self.json:
            raise UsageError("--json and the image both want standard output; give -o a file")
        if streams and len(sources) > 1:
            raise UsageError("standard output takes one image; give -o a folder for several inputs")
        if self.output is not None and self.output != STREAM and len(sources) > 1 and Path(self.output).is_file():
            raise UsageError(f"{self.output} is a file, but there are {len(sources)} inputs; give -o a folder")

    def writes_to_stdout(self, source: Source) -> bool:
        """Whether the result of an input goes to standard output."""
        return self.output == STREAM or (self.output is None and source.path is None)


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


def target_of(source: Source, image: Image, options: FileOptions, many: bool) -> Path | None:
    """Where the result of one input goes; None is standard output."""
    if options.writes_to_stdout(source):
        return None
    if options.output is not None and not many and not _is_folder(options.output):
        return Path(options.output)
    suffix = f".{options.file_format.lower()}" if options.file_format else _default_suffix(source, image)
    stem = source.path.stem if source.path else "stdin"
    if options.output is None:
        assert source.path is not None
        return source.path.with_name(f"{stem}.{options.suffix}{suffix}")
    folder = Path(options.output)
    if source.root is not None and source.path is not None:
        folder = folder / source.path.parent.relative_to(source.root)
    return folder / f"{stem}{suffix}"


def _is_folder(output: str) -> bool:
    return output.endswith(("/", "\\")) or _is_dir(Path(output))


def _default_suffix(source: Source, image: Image) -> str:
    """The suffix of the input if it keeps the pixels, else that of a lossless format."""
    own = source.path.suffix.lower() if source.path else ""
    return own if FORMATS.get(own) in FLOAT_FORMATS else natural_suffix(image)


def exit_code(error: PnpError) -> int:
    """Exit code of an error."""
    if isinstance(error, ConditionError):
        return 3
    return 2 if isinstance(error, UsageError) else 1


def run_batch(inputs: Sequence[str], options: FileOptions, work: Work) -> int:
    """Read, work on and write every input; returns the exit code of the command.

    A file that fails is reported and the others go on, unless `fail_fast`.
    """
    sources = find_sources(inputs, options.recursive)
    options.check(sources)
    kept = {path.resolve() for path in (*(s.path for s in sources), *options.protected) if path and _exists(path)}
    batch = _Batch(options, many=len(sources) > 1 or any(s.root for s in sources), kept=kept)
    codes: list[int] = []
    for source in sources:
        try:
            code = batch.run(source, work)
        except PnpError as error:
            code = exit_code(error)
            _report(source, error, options)
        except (MemoryError, RuntimeError) as error:
            if not isinstance(error, MemoryError) and "memory" not in str(error):
                raise
            code = 1
            _report(source, InputError("not enough memory for an image of this size; restore a part of it"), options)
        codes.append(code)
        if code and options.fail_fast:
            break
    if len(sources) > 1:
        failed = sum(code != 0 for code in codes)
        say(f"{len(codes) - failed} of {len(sources)} files done, {failed} failed", options.quiet)
    return max(codes, default=0)


def _report(source: Source, error: PnpError, options: FileOptions) -> None:
    message = str(error) if source.name in str(error) else f"{source.name}: {error}"
    say(f"pnp: error: {message}")
    if options.json:
        emit(options.command, source.name, False, error=message)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False


class _Batch:
    """What the files of one command share: options, files to keep, and outputs written so far."""

    def __init__(self, options: FileOptions, many: bool, kept: set[Path]) -> None:
        self.options, self.many, self.kept = options, many, kept
        self.written: dict[Path, str] = {}

    def run(self, source: Source, work: Work) -> int:
        """One input from file to file; returns its exit code."""
        options = self.options
        image = source.read().for_output(DEPTHS[options.bit_depth], options.strip)
        target = target_of(source, image, options, self.many)
        if target is not None and not self._claim(source, target):
            say(f"{source.name}: skipped, {target} exists", options.quiet)
            if options.json:
                emit(options.command, source.name, True, output=str(target), skipped=True)
            return 0
        suffix = options.file_format or natural_suffix(image)
        if options.file_format or target is None:
            file_format = FORMATS[f".{suffix.lower().removeprefix('.')}"]
        else:
            file_format = format_of(target)
        name = str(target or "standard output")
        require_format(image, file_format, name)
        for note in image.notes:
            say(f"{source.name}: {note}", options.quiet)
        outcome = work(image, source.name)
        if outcome.image is not None:
            result = outcome.image
            if outcome.unclipped and file_format in FLOAT_FORMATS and options.bit_depth == "keep":
                result = replace(result, depth="float32")
            data = encode_image(result, file_format, name, options.quality)
            if target is None:
                sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()
            else:
                write_bytes(target, data)
                self.written[target] = source.name
                say(f"wrote {target}", options.quiet)
        if options.json:
            output = str(target) if target and outcome.image else None
            emit(options.command, source.name, outcome.code == 0, output=output, **outcome.fields)
        return outcome.code

    def _claim(self, source: Source, target: Path) -> bool:
        """Whether to go on and write `target`; False if it is to be skipped."""
        if target in self.written:
            raise InputError(f"{source.name}: its output {target} is that of {self.written[target]} too; rename one")
        if not _exists(target):
            return True
        if target.resolve() in self.kept:
            raise InputError(f"{source.name}: the output {target} would replace an input; choose another -o")
        if self.options.on_exists == "error":
            raise InputError(f"{target}: exists already; choose another -o, or --on-exists skip or overwrite")
        return self.options.on_exists == "overwrite"
