"""Messages to standard error, data to standard output, and progress only on a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol


def say(line: str, quiet: bool = False) -> None:
    """Print a line for people, unless `quiet`."""
    if not quiet:
        print(line, file=sys.stderr, flush=True)


SCHEMA = 1
"""Version of the JSON objects; it changes when a field changes its meaning or goes away."""


def emit(command: str, source: str, ok: bool, **fields: Any) -> None:
    """Print one JSON object as a line of standard output; non-finite numbers become null."""
    head = {"schema": SCHEMA, "command": command, "input": source, "ok": ok}
    print(json.dumps(_finite(head | fields)), flush=True)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    if isinstance(value, float) and not abs(value) < float("inf"):
        return None
    return value


class Progress(Protocol):
    """What a command tells the display: work done out of the total, and a few words."""

    def __call__(self, done: float, words: str) -> None: ...


@contextmanager
def progress(label: str, total: float, quiet: bool = False) -> Iterator[Progress]:
    """A live bar on a terminal, nothing elsewhere; it vanishes when it ends."""
    if quiet or not sys.stderr.isatty():
        yield lambda done, words: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[words]}"), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total, words="")
        yield lambda done, words: bar.update(task, completed=done, words=words)
