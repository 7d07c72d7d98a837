"""Which files a command reads and writes: inputs found, outputs named, conflicts refused before any work."""

from __future__ import annotations

import glob
import os
import string
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import typer

from ..errors import InputError, UsageError, WeightsError
from ..files import exists, is_dir, is_file, obstacle, place_of, read_bytes, read_stream
from ..images import FLOAT_FORMATS, FORMATS, MAX_PIXELS, Depth, Image, file_limit, list_images, read_image
from ..shipped import locate
from .console import require_stdout

STREAM = "-"

DEPTHS: dict[str, Depth | None] = {"keep": None, "8": "uint8", "16": "uint16"}
"""Choices of --bit-depth."""

ON_EXISTS = ("error", "skip", "overwrite")
"""Choices of --on-exists."""

TEMPLATE_FIELDS = ("name", "stem", "ext", "parent")


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

    def require(self) -> None:
        """Raise an `InputError` if it is known that there is nothing to read."""
        if self.problem:
            raise InputError(f"{self.name}: {self.problem}")

    def read_bytes(self, max_pixels: int) -> bytes:
        """The content of the file, if it may be an image of at most so many pixels.

        Raises
        ------
        InputError
            If there is none.
        """
        self.require()
        limit = file_limit(max_pixels)
        if self.path:
            return read_bytes(self.path, limit)
        if sys.stdin is None:
            raise InputError("standard input is closed; give a file")
        try:
            return read_stream(sys.stdin.buffer, self.name, limit)
        except OSError as error:
            raise InputError(f"{self.name}: cannot be read ({error.strerror or error})") from error

    def read(self, max_pixels: int) -> Image:
        """Read the image, if it has at most so many pixels.

        Raises
        ------
        InputError
            If there is none.
        """
        return read_image(self.read_bytes(max_pixels), self.name, max_pixels)


@dataclass(frozen=True)
class FileOptions:
    """The shared file options of a command."""

    command: str
    suffix: str
    """Goes into the default name: NAME.SUFFIX.EXT."""
    inputs: tuple[str, ...] = ()
    output: str | None = None
    file_format: str | None = None
    bit_depth: str = "keep"
    quality: int = 95
    strip: bool = False
    max_pixels: int = MAX_PIXELS
    recursive: bool = False
    on_exists: str = "error"
    fail_fast: bool = False
    dry_run: bool = False
    json: bool = False
    manifest: Path | None = None
    picture: Path | None = None
    scheduler: str | None = None
    quiet: bool = False
    verbose: bool = False
    config: Path | None = None
    device: str = "auto"
    protected: tuple[Path, ...] = ()
    """Files besides the inputs that are read, or may be, and that an output must not replace."""
    parameters: dict[str, Any] = field(default_factory=dict)
    """Every option of the command, those of a configuration file and defaults included."""

    @classmethod
    def of(cls, context: typer.Context, suffix: str) -> FileOptions:
        """The file options among the parameters of a running command, which bear the names of the fields.

        Raises
        ------
        UsageError
            If one of them is no choice, or there are no such weights or no such reference as the command is to read.
        """
        names = {entry.name for entry in fields(cls)}
        given = {name: value for name, value in context.params.items() if name in names}
        for name in ("manifest", "picture", "config"):
            if given.get(name) is not None:
                given[name] = Path(given[name])  # the context holds it as it was typed
        given["inputs"] = tuple(given["inputs"])
        files = cls(context.info_name or "", suffix, parameters=dict(context.params), **given)
        files._require_choices()
        if context.params.get("weights"):
            require_weights(context.params["weights"], "--weights")
        if context.params.get("reference"):
            require_file(context.params["reference"], "--reference")
        return files.protecting(files.config)

    def protecting(self, *paths: Path | None) -> FileOptions:
        """The same with more files, where they are given, that are read and that no output must replace."""
        return replace(self, protected=(*self.protected, *(path for path in paths if path is not None)))

    def _require_choices(self) -> None:
        require_on_exists(self.on_exists)
        if self.bit_depth not in DEPTHS:
            raise UsageError(f"--bit-depth must be keep, 8 or 16, not '{self.bit_depth}'")
        if self.file_format is not None and f".{self.file_format.lower()}" not in FORMATS:
            known = ", ".join(s[1:] for s in FORMATS)
            raise UsageError(f"unknown --format '{self.file_format}'; use one of {known}")
        if self.quiet and self.verbose:
            raise UsageError("--quiet and --verbose contradict each other; leave one of them out")

    def check(self, sources: Sequence[Source]) -> None:
        """Raise `UsageError` for combinations that make no sense."""
        if self.json:
            require_stdout()
        streams = [source for source in sources if self.writes_to_stdout(source)]
        if streams and self.json:
            raise UsageError("--json and the image both want standard output; give -o a file")
        if streams and len(sources) > 1:
            raise UsageError("standard output takes one image; give -o a folder for several inputs")
        if streams and not self.dry_run and sys.stdout is not None and sys.stdout.isatty():
            raise UsageError("standard output is a terminal, which shows no images; redirect it or give -o a file")
        if self.output is not None and self.output != STREAM and len(sources) > 1 and is_file(self.output):
            raise UsageError(f"{self.output} is a file, but there are {len(sources)} inputs; give -o a folder")
        if len(sources) > 1 and self._names_one_file():
            raise UsageError(
                f"{self.output} names one file, but there are {len(sources)} inputs; for a folder, end it with '/'"
            )
        if self.output == "":
            raise UsageError("-o has an empty name; give it a file or a folder")

    def _names_one_file(self) -> bool:
        """Whether -o is neither a folder nor a template, and ends like an image."""
        output = self.output or ""
        return "{" not in output and not _is_folder(output) and Path(output).suffix.lower() in FORMATS

    def writes_to_stdout(self, source: Source) -> bool:
        """Whether the result of an input goes to standard output."""
        return self.output == STREAM or (self.output is None and source.path is None)


def require_on_exists(word: str) -> None:
    """Raise `UsageError` if it is no choice of --on-exists."""
    if word not in ON_EXISTS:
        raise UsageError(f"--on-exists must be error, skip or overwrite, not '{word}'")


def require_file(path: str | Path, option: str) -> None:
    """Raise `UsageError` if an option names a file that is not there, or a folder."""
    if is_dir(path):
        raise UsageError(f"{option} {path}: is a folder, but the option takes one file")
    if not os.path.exists(path):
        raise UsageError(f"{option} {path}: no such file")


def require_weights(name: str, option: str) -> None:
    """Raise `UsageError` if an option names weights that there are not."""
    try:
        locate(name)
    except WeightsError as error:
        raise UsageError(f"{option} {error}") from error


def require_one_stream(inputs: Sequence[str]) -> None:
    """Raise `UsageError` if standard input is to be read twice."""
    if list(inputs).count(STREAM) > 1:
        raise UsageError("standard input: is given twice; leave it out once")


def find_sources(inputs: Sequence[str], recursive: bool = False) -> list[Source]:
    """Expand files, folders and globs, in the order given; what holds no image stays and fails when it is read."""
    require_one_stream(inputs)
    sources: list[Source] = []
    for text in inputs:
        path = Path(text)
        if text == STREAM:
            sources.append(Source(None))
        elif not text:
            sources.append(Source(path, problem="an input has an empty name"))
        elif is_dir(path):
            closed: list[Path] = []
            found = list_images(path, recursive, closed)
            hint = "" if recursive else "; -r searches below it"
            sources += [Source(p, path) for p in found]
            sources += [Source(p, problem="the folder cannot be read; ask for the right to") for p in closed]
            if not found and not closed:
                sources.append(Source(path, problem=f"the folder holds no image files{hint}"))
        elif glob.has_magic(text) and not os.path.exists(text):
            matches = sorted(p for p in glob.glob(text, recursive=True) if is_file(p))
            sources += [Source(Path(p)) for p in matches] or [Source(path, problem="matches no file")]
        else:
            sources.append(Source(path))
    return sources


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
    name, stem = (source.path.name, source.path.stem) if source.path else ("stdin", "stdin")
    if options.output is None:
        assert source.path is not None
        return source.path.with_name(f"{stem}.{options.suffix}{suffix}")
    if "{" in options.output:
        parent = str(source.path.parent) if source.path else "."
        filled = _fill(options.output, name=name, stem=stem, ext=suffix[1:], parent=parent)
        return Path(filled) / f"{stem}{suffix}" if filled.endswith(("/", "\\")) else Path(filled)
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
    if any(spec or conversion for _, _, spec, conversion in string.Formatter().parse(template)):
        raise UsageError(f"the output name '{template}' has a field with a format; write it plainly, as in {{stem}}")
    for name in names:
        if name not in TEMPLATE_FIELDS:
            known = ", ".join(f"{{{known}}}" for known in TEMPLATE_FIELDS)
            raise UsageError(f"the output name '{template}' has the unknown field {{{name}}}; there are {known}")
    return template.format(**fields)


def _is_folder(output: str) -> bool:
    return output.endswith(("/", "\\")) or is_dir(output)


def _default_suffix(source: Source) -> str:
    """The suffix of the input if its format may hold floats, else that of a lossless format."""
    own = source.path.suffix.lower() if source.path else ""
    return own if FORMATS.get(own) in FLOAT_FORMATS else ".png"


Job = tuple[Source, Path | None]
"""An input and its output; None is standard output, or that there is nothing to read."""


def find_jobs(sources: Sequence[Source], options: FileOptions) -> list[Job]:
    """Every input with its output, checked against each other before any work.

    What an earlier run of the same command wrote into the folders that it reads is left out.

    Raises
    ------
    UsageError
        If two outputs are one file, an output would replace an input, exists and is to be kept, cannot be written, or
        has the name of another format.
    """
    many = len(sources) > 1 or any(s.root for s in sources)
    jobs = [(source, None if source.problem else target_of(source, options, many)) for source in sources]
    jobs = _without_outputs(jobs, options)
    if not jobs:
        raise UsageError("the folders hold nothing but what this command has written there; give it other images")
    kept = real_places((*(source.path for source, _ in jobs), *options.protected))
    beside = {"manifest": options.manifest, "picture": options.picture}
    claimed = claim(beside, kept, options.on_exists != "error" or options.dry_run)
    taken, open_folders = [], set()
    for source, target in jobs:
        if target is None:
            continue
        place = place_of(target)
        if place in claimed:
            if claimed[place] == source.name:
                raise UsageError(f"{source.name}: is given twice; leave it out once")
            raise UsageError(
                f"{source.name} and {claimed[place]} would both be written to {target}; give -o a template such as "
                "'{parent}/out/{name}.{ext}', or rename one"
            )
        claimed[place] = source.name
        own = source.path is not None and place == os.path.realpath(source.path)
        if own or (place in kept and options.on_exists != "skip"):
            raise UsageError(f"{source.name}: the output {target} would replace an input; choose another -o")
        if os.path.lexists(place):
            if options.on_exists == "skip" and not os.path.exists(place):
                raise UsageError(f"{target}: is a link that leads nowhere; remove it, or give --on-exists overwrite")
            taken.append(target)
        if options.on_exists != "skip" or not is_file(place):
            folder = os.path.dirname(place)
            if os.path.lexists(place) or folder not in open_folders:
                _require_room(target, "-o")
                open_folders.add(folder)
        _require_one_format(target, options.file_format)
    if taken and options.on_exists == "error" and not options.dry_run:
        which = f"{taken[0]} and {len(taken) - 1} more exist" if len(taken) > 1 else f"{taken[0]}: exists"
        raise UsageError(f"{which} already; choose another -o, or --on-exists skip or overwrite")
    return jobs


def real_places(paths: Iterable[Path | None]) -> set[str]:
    """Where those of the files are that exist, all links followed."""
    return {os.path.realpath(path) for path in paths if path is not None and exists(path)}


def claim(named: Mapping[str, Path | None], kept: Collection[str], may_exist: bool) -> dict[str, str]:
    """Check the files that options name and that are written once; returns their places, and what each is called.

    Raises
    ------
    UsageError
        If two of them are one file, or one is a folder, is at a place to be kept, or exists and may not.
    """
    claimed: dict[str, str] = {}
    for option, path in named.items():
        if path is None:
            continue
        place = place_of(path)
        if is_dir(path) or str(path) == STREAM:
            what = "standard output" if str(path) == STREAM else "a folder"
            raise UsageError(f"--{option}: {path} is {what}; give it the name of a file")
        if place in claimed:
            raise UsageError(f"{claimed[place]} and the {option} would both be written to {path}; rename one")
        if place in kept:
            raise UsageError(f"{path}: the {option} would replace an input; choose another --{option}")
        if exists(path) and not may_exist:
            raise UsageError(f"{path}: exists already; choose another --{option}, or --on-exists skip or overwrite")
        _require_room(path, f"--{option}")
        claimed[place] = f"the {option}"
    return claimed


def _require_room(path: Path, option: str) -> None:
    """Refuse a name that no file can have where it is to be written."""
    reason = obstacle(path)
    if reason:
        raise UsageError(f"{path}: cannot be written, {reason}; choose another {option}")


def _require_one_format(target: Path, asked: str | None) -> None:
    """Refuse a name that says another format than --format, or none and there is no --format."""
    named = FORMATS.get(target.suffix.lower())
    if asked is None and named is None:
        folder = "" if target.suffix else "; for a folder, end it with a slash"
        known = " ".join(FORMATS)
        raise UsageError(
            f"{target}: the suffix '{target.suffix}' names no format; use one of {known}, or give --format{folder}"
        )
    if asked is not None and named is not None and named != FORMATS[f".{asked.lower()}"]:
        raise UsageError(
            f"{target}: ends in {target.suffix}, but --format is {asked}; end it in .{asked.lower()}, or give --format "
            f"{target.suffix[1:].lower()}"
        )


def _place(path: Path) -> str:
    """Where a file is: links in its folder's name followed, but not the file."""
    return os.path.join(os.path.realpath(path.parent), path.name)


def _without_outputs(jobs: Sequence[Job], options: FileOptions) -> list[Job]:
    """The jobs whose input was found in a folder and is neither another's output nor in an output folder inside."""
    places = {source: _place(source.path) for source, _ in jobs if source.root and source.path and not source.problem}
    targets = {_place(target): source for source, target in jobs if source in places and target}
    makers = {place: source for place, source in targets.items() if place != places[source]}
    output = Path(os.path.realpath(options.output)) if options.output and _is_folder(options.output) else None

    def written(source: Source) -> bool:
        if source not in places or source.root is None:
            return False
        place, root = Path(places[source]), Path(os.path.realpath(source.root))
        if output is not None and root in output.parents and output in place.parents:
            return True
        return makers.get(str(place), source) is not source

    return [(source, target) for source, target in jobs if not written(source)]
