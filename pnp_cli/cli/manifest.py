"""The record of a run: what made which file from which, exactly."""

from __future__ import annotations

import json
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..files import hash_as_read, hash_of, is_file, read_bytes, write_bytes
from .console import SCHEMA, finite, say
from .paths import FileOptions, Source

PACKAGES = ("pnp-cli", "torch", "numpy", "scipy", "pillow", "scikit-image", "tifffile", "imagecodecs")

RUN = ("options", "read", "folder", "versions", "machine")
"""What holds for all the files of a run."""

MERGED = {"options", "versions"}
"""Those of `RUN` of which an entry tells only the keys that were different, null for what there was not."""

Entry = dict[str, Any]

Key = tuple[str, str | None]
"""Where an input and its output are; without an output where none was written, or to standard output."""


class Manifest:
    """Versions, the command line, and one entry per input, with the hashes of what was read and written."""

    def __init__(self, options: FileOptions, earlier: Path | None = None) -> None:
        """`earlier` is the manifest of a run that this one resumes: its entries are kept, but for files done anew.

        What was different in the run that an entry is from is told by its "run".
        """
        self.options = options
        self.files: list[Entry] = []
        self.finished = False
        self._folder = os.getcwd()
        self._earlier: dict[Key, Entry] = {}
        self._written: set[str | None] = set()
        self._expected: tuple[Source, Path, dict[str, Any]] | None = None
        if earlier is not None and is_file(earlier):
            self._earlier = _read_entries(earlier, options.command)

    def add(self, source: Source, target: Path | None, ok: bool, facts: dict[str, Any]) -> None:
        """Note how one input ended; of a skipped one the earlier entry, if the output is still what that one made."""
        entry = {"input": source.name, "ok": ok} | facts
        place, output = key = _key(self._folder, source.name, target)
        self._earlier.pop((place, None), None)  # a failure, made good or repeated
        earlier = self._earlier.pop(key, {})
        made = earlier.get("output_sha256")
        if facts.get("skipped") and made and target:
            if made == hash_of(target):
                entry = earlier
            else:
                say(f"{target}: is not what the manifest has on record, which is dropped", self.options.quiet)
        if target and "output_sha256" in facts:
            self._written.add(output)
        self.files.append(entry)

    def expect(self, source: Source, target: Path, facts: dict[str, Any]) -> None:
        """Note what is about to be written, in case an interruption comes between that and `add`."""
        self._expected = source, target, facts

    def settle(self) -> None:
        """After an interruption: note what had been written already."""
        if self._expected is None:
            return
        source, target, facts = self._expected
        noted = any(entry["input"] == source.name and entry.get("output") == str(target) for entry in self.files[-1:])
        if not noted and hash_of(target) == facts["output_sha256"]:
            self.add(source, target, True, facts)

    def write(self, path: Path) -> None:
        """Write it as JSON, whole or not at all.

        Raises
        ------
        InputError
            If the file cannot be written.
        """
        run = {
            "options": {name: _plain(value) for name, value in self.options.parameters.items() if name != "inputs"},
            "read": {str(path): held for path in self.options.protected if (held := hash_as_read(path))},
            "folder": self._folder,
            "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
            "machine": f"{platform.system()} {platform.machine()}",
        }
        earlier = [entry for (_, output), entry in self._earlier.items() if output not in self._written]
        now = json.loads(json.dumps(finite(run)))
        head = {"schema": SCHEMA, "command": self.options.command, "arguments": sys.argv[1:]}
        files = [_as_seen_from(now, entry) for entry in (*earlier, *self.files)]
        record = head | run | {"finished": self.finished, "files": files}
        write_bytes(path, (json.dumps(finite(record), indent=1) + "\n").encode())


def _read_entries(path: Path, command: str) -> dict[Key, Entry]:
    """The entries of an earlier manifest, each with all of its "run".

    Raises
    ------
    UsageError
        If it is no manifest, or that of another command.
    """
    entries: dict[Key, Entry] = {}
    try:
        record = json.loads(read_bytes(path))
        if record["command"] != command:
            raise UsageError(f"{path}: is a manifest of pnp {record['command']}; choose another --manifest")
        for entry in record["files"]:
            run = {name: record[name] for name in RUN}
            for name, value in entry.get("run", {}).items():
                run[name] = run[name] | value if name in MERGED else value
            entries[_key(run["folder"], entry["input"], entry.get("output"))] = entry | {"run": run}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(f"{path}: not a manifest of pnp; choose another --manifest") from error
    return entries


def _as_seen_from(now: dict[str, Any], entry: Entry) -> Entry:
    """An entry with as much of its "run" as was different then."""
    then: dict[str, Any] = entry.get("run", {})
    run = {name: value for name, value in then.items() if value != now[name]}
    for name in MERGED & run.keys():
        every = {**then[name], **{key: None for key in now[name] if key not in then[name]}}
        run[name] = {key: value for key, value in every.items() if value != now[name].get(key)}
    return {name: value for name, value in entry.items() if name != "run"} | ({"run": run} if run else {})


def _key(folder: str, source: str, output: str | Path | None) -> Key:
    place = os.path.abspath(os.path.join(folder, source))
    return place, None if output is None else os.path.abspath(os.path.join(folder, output))


def _plain(value: Any) -> Any:
    """An option's value for JSON."""
    return value if isinstance(value, str | int | float | list | tuple | None) else str(value)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
