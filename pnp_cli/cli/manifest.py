"""The record of a run: what made which file from which, exactly."""

from __future__ import annotations

import json
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..files import write_bytes
from .console import SCHEMA, finite

PACKAGES = ("pnp-cli", "torch", "numpy", "scipy", "pillow", "scikit-image", "tifffile", "imagecodecs")


class Manifest:
    """Versions, the command line, and one entry per input, with the hashes of what was read and written."""

    def __init__(self, command: str) -> None:
        self.command = command
        self.files: list[dict[str, Any]] = []

    def add(self, source: str, ok: bool, facts: dict[str, Any]) -> None:
        """Note how one input ended."""
        self.files.append({"input": source, "ok": ok} | facts)

    def write(self, path: Path) -> None:
        """Write it as JSON, whole or not at all.

        Raises
        ------
        InputError
            If the file cannot be written.
        """
        record = {
            "schema": SCHEMA,
            "command": self.command,
            "arguments": sys.argv[1:],
            "folder": str(Path.cwd()),
            "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
            "machine": f"{platform.system()} {platform.machine()}",
            "files": self.files,
        }
        write_bytes(path, (json.dumps(finite(record), indent=1) + "\n").encode())


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
