"""The record of a run: what made which file from which, exactly."""

from __future__ import annotations

import json
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..files import hash_as_read, read_bytes, write_bytes
from .console import SCHEMA, finite
from .paths import FileOptions

PACKAGES = ("pnp-cli", "torch", "numpy", "scipy", "pillow", "scikit-image", "tifffile", "imagecodecs")


class Manifest:
    """Versions, the command line, and one entry per input, with the hashes of what was read and written."""

    def __init__(self, options: FileOptions, earlier: Path | None = None) -> None:
        """`earlier` is the manifest of a run that this one resumes; entries of files that are skipped are kept."""
        self.options = options
        self.files: list[dict[str, Any]] = []
        self.finished = False
        self._earlier: dict[str, dict[str, Any]] = {}
        if earlier is not None and earlier.is_file():
            try:
                entries = json.loads(read_bytes(earlier))["files"]
                self._earlier = {entry["input"]: entry for entry in entries if entry["ok"]}
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise UsageError(f"{earlier}: not a manifest of pnp; choose another --manifest") from error

    def add(self, source: str, ok: bool, facts: dict[str, Any]) -> None:
        """Note how one input ended."""
        entry = {"input": source, "ok": ok} | facts
        if facts.get("skipped"):
            entry = self._earlier.get(source, entry)
        self.files.append(entry)

    def write(self, path: Path) -> None:
        """Write it as JSON, whole or not at all.

        Raises
        ------
        InputError
            If the file cannot be written.
        """
        record = {
            "schema": SCHEMA,
            "command": self.options.command,
            "arguments": sys.argv[1:],
            "options": {name: _plain(value) for name, value in self.options.parameters.items() if name != "inputs"},
            "read": {str(path): held for path in self.options.protected if (held := hash_as_read(path))},
            "folder": str(Path.cwd()),
            "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
            "finished": self.finished,
            "machine": f"{platform.system()} {platform.machine()}",
            "files": self.files,
        }
        write_bytes(path, (json.dumps(finite(record), indent=1) + "\n").encode())


def _plain(value: Any) -> Any:
    """An option's value for JSON."""
    return value if isinstance(value, str | int | float | list | tuple | None) else str(value)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
