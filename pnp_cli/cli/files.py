"""Many files through one command: inputs, output names, errors per file, and the exit code."""

from __future__ import annotations

import glob
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import ConditionError, InputError, PnpError, UsageError
from ..images import (
    FLOAT_FORMATS,
    FORMATS,
    Image,
    encode_image,
    format_of,
    list_images,
    natural_suffix,
    read_image,
    write_bytes,
)
from .console import emit, say

STREAM = "-"


@dataclass(frozen=True)
class Source:
    """An input: its path (None is standard input) and the folder it was found in, if any."""

    path: Path | None
    root: Path | None = None

    @property
    def name(self) -> str:
        """What messages call it."""
        return str(self.path) if self.path else "standard input"


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
    recursive: bool = False
    on_exists: str = "error"
    fail_fast: bool = False
    json: bool = False
    quiet: bool = False

    def check(self, sources: Sequence[Source]) -> None:
        """Raise `UsageError` for combinations that make no sense."""
        if self.on_exists not in ("error", "skip", "overwrite"):
            raise UsageError(f"--on-exists must be error, skip or overwrite, not '{self.on_exists}'")
        if self.file_format is not None and f".{self.file_format.lower()}" not in FORMATS:
            known = ", ".join(s[1:] for s in FORMATS)
            raise UsageError(f"unknown --format '{self.file_format}'; use one of {known}")
        if self.output == STREAM and self.json:
            raise UsageError("--json and '-o -' both want standard output; write the image to a file")
        if self.output == STREAM and len(sources) > 1:
            raise UsageError("standard output takes one image; give -o a folder for several inputs")
        if self.output is not None and self.output != STREAM and len(sources) > 1 and Path(self.output).is_file():
            raise UsageError(f"{self.output} is a file, but there are {len(sources)} inputs; give -o a folder")


def find_sources(inputs: Sequence[str], recursive: bool = False) -> list[Source]:
    """Expand files, folders and globs, in the order given; what does not exist stays and fails later.

    Raises
    ------
    InputError
        If a folder holds no images or a glob matches nothing.
    """
    sources: list[Source] = []
    for text in inputs:
        path = Path(text)
        if text == STREAM:
            sources.append(Source(None))
        elif path.is_dir():
            found = list_images(path, recursive)
            if not found:
                hint = "" if recursive else "; -r searches below it"
                raise InputError(f"{text}: the folder holds no image files{hint}")
            sources += [Source(p, path) for p in found]
        elif not path.exists() and glob.has_magic(text):
            matches = sorted(p for p in glob.glob(text, recursive=True) if Path(p).is_file())
            if not matches:
                raise InputError(f"{text}: matches no file")
            sources += [Source(Path(p)) for p in matches]
        else:
            sources.append(Source(path))
    return sources


def target_of(source: Source, image: Image, options: FileOptions, many: bool) -> Path | None:
    """Where the result of one input goes; None is standard output."""
    if options.output == STREAM or (options.output is None and source.path is None):
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
    return output.endswith(("/", "\\")) or Path(output).is_dir()


def _default_suffix(source: Source, image: Image) -> str:
    """The suffix of the input if it keeps the pixels, else that of a lossless format."""
    own = source.path.suffix.lower() if source.path else ""
    return own if FORMATS.get(own) in FLOAT_FORMATS else natural_suffix(image)


def run_batch(inputs: Sequence[str], options: FileOptions, work: Work) -> int:
    """Read, work on and write every input; returns the exit code of the command.

    A file that fails is reported and the others go on, unless `fail_fast`.
    """
    sources = find_sources(inputs, options.recursive)
    options.check(sources)
    many = len(sources) > 1 or any(s.root for s in sources)
    codes: list[int] = []
    written: dict[Path, str] = {}
    for source in sources:
        try:
            code = _run_one(source, options, work, many, written)
        except PnpError as error:
            code = 3 if isinstance(error, ConditionError) else (2 if isinstance(error, UsageError) else 1)
            message = str(error) if source.name in str(error) else f"{source.name}: {error}"
            say(f"pnp: error: {message}")
            if options.json:
                emit(options.command, source.name, False, error=message)
        codes.append(code)
        if code and options.fail_fast:
            break
    if len(sources) > 1:
        failed = sum(code != 0 for code in codes)
        say(f"{len(codes) - failed} of {len(sources)} files done, {failed} failed", options.quiet)
    return max(codes, default=0)


def _run_one(source: Source, options: FileOptions, work: Work, many: bool, written: dict[Path, str]) -> int:
    image = read_image(source.path) if source.path else read_image(sys.stdin.buffer.read())
    target = target_of(source, image, options, many)
    if target is not None:
        file_format = FORMATS[f".{options.file_format.lower()}"] if options.file_format else format_of(target)
        if target in written:
            raise InputError(f"{source.name}: its output {target} is that of {written[target]} too; rename one")
        if source.path and target.exists() and target.resolve() == source.path.resolve():
            raise InputError(f"{source.name}: the output would replace the input; choose another -o")
        if target.exists() and options.on_exists == "error":
            raise InputError(f"{target}: exists already; choose another -o, or --on-exists skip or overwrite")
        if target.exists() and options.on_exists == "skip":
            say(f"{source.name}: skipped, {target} exists", options.quiet)
            return 0
    else:
        file_format = FORMATS[f".{(options.file_format or natural_suffix(image)[1:]).lower()}"]
    for note in image.notes:
        say(f"{source.name}: {note}", options.quiet)
    outcome = work(image, source.name)
    if outcome.image is not None:
        result = outcome.image
        if outcome.unclipped and file_format in FLOAT_FORMATS:
            result = replace(result, depth="float32")
        data = encode_image(result, file_format, str(target or "standard output"))
        if target is None:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        else:
            write_bytes(target, data)
            written[target] = source.name
            say(f"wrote {target}", options.quiet)
    if options.json:
        written_to = str(target) if target and outcome.image else None
        emit(options.command, source.name, outcome.code == 0, output=written_to, **outcome.fields)
    return outcome.code
