"""Messages to standard error, data to standard output, and progress only on a terminal."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, TextIO

from ..errors import InputError

SCHEMA = 1
"""Version of the JSON objects; it changes when a field changes its meaning or goes away."""

_sink: ContextVar[list[str] | None] = ContextVar("sink", default=None)
"""Where what is said in this thread is kept, if anywhere."""

_display: ContextVar[Any] = ContextVar("display", default=None)
"""The bars of a batch while it runs on a terminal."""


def say(line: str, quiet: bool = False) -> None:
    """Print a line for people, unless `quiet`; inside `collected` it is kept instead."""
    if quiet:
        return
    sink = _sink.get()
    if sink is None:
        with contextlib.suppress(OSError):  # of a terminal that is gone
            print(harmless(line, sys.stderr), file=sys.stderr, flush=True)
    else:
        sink.append(line)


CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def harmless(line: str, stream: TextIO) -> str:
    """The line; for a terminal, which would obey them, control characters as of a file name are spelled out."""
    return CONTROL.sub(lambda found: repr(found[0])[1:-1], line) if stream.isatty() else line


@contextmanager
def collected() -> Iterator[list[str]]:
    """Collect what is said in this thread instead of printing it."""
    lines: list[str] = []
    token = _sink.set(lines)
    try:
        yield lines
    finally:
        _sink.reset(token)


def require_stdout() -> None:
    """Refuse to print data to a standard output that is closed.

    Raises
    ------
    InputError
        If it is.
    """
    if sys.stdout is None:
        raise InputError("standard output is closed; give -o a file, or redirect it to /dev/null")


@contextmanager
def to_stdout() -> Iterator[None]:
    """What is printed inside has reached standard output at the end.

    Raises
    ------
    InputError
        If it is closed, or takes no more.
    BrokenPipeError
        If whoever read it is gone.
    """
    require_stdout()
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        with contextlib.suppress(io.UnsupportedOperation), open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), sys.stdout.fileno())  # what is left is not tried again at the exit
        if isinstance(error, BrokenPipeError):
            raise
        raise InputError(f"standard output: cannot be written ({error.strerror or error})") from error


def emit(command: str, source: str, ok: bool, **fields: Any) -> None:
    """Print one JSON object as a line of standard output; non-finite numbers become null.

    Raises
    ------
    InputError
        If standard output is closed, or takes no more.
    """
    head = {"schema": SCHEMA, "command": command, "input": source, "ok": ok}
    with to_stdout():
        print(json.dumps(finite(head | fields)))


def finite(value: Any) -> Any:
    """The same for JSON: non-finite numbers become null."""
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    if isinstance(value, float) and not abs(value) < float("inf"):
        return None
    return value


class Progress(Protocol):
    """What a command tells the display: work done out of the total, and a few words."""

    def __call__(self, done: float, words: str) -> None: ...


def part_done(iteration: int, most: int, value: float, first: float, tolerance: float) -> float:
    """About which part is done of an iteration that ends when a value has fallen from its first one to a tolerance.

    Values of convergent iterations fall like a power; `most` limits the iterations.
    """
    told = 0 < tolerance < first and 0 < value < math.inf
    fallen = math.log(first / value) / math.log(first / tolerance) if told else 0.0
    return min(1.0, max(iteration / most, fallen))


@contextmanager
def file_progress(total: int, quiet: bool = False) -> Iterator[Callable[[], None]]:
    """A bar of the files of a batch, on a terminal only; call the result after each file."""
    if quiet or total < 2 or not sys.stderr.isatty():
        yield lambda: None
        return
    with _bars() as bar:
        task = bar.add_task("files", total=total, words=f"0/{total}")
        done = itertools.count(1)
        token = _display.set(bar)
        try:
            yield lambda: bar.update(task, advance=1, words=f"{next(done)}/{total}")
        finally:
            _display.reset(token)


@contextmanager
def progress(label: str, total: float, quiet: bool = False) -> Iterator[Progress]:
    """A live bar on a terminal, below that of the batch if there is one, nothing elsewhere; it vanishes at the end."""
    if quiet or not sys.stderr.isatty():
        yield lambda done, words: None
        return
    batch = _display.get()
    with contextlib.nullcontext(batch) if batch else _bars() as bar:
        task = bar.add_task(harmless(label, sys.stderr), total=total, words="")
        try:
            yield lambda done, words: bar.update(task, completed=done, words=words)
        finally:
            bar.remove_task(task)


def _bars() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[words]}"),
        TimeRemainingColumn(),
    )
    return Bars(*columns, console=Console(stderr=True), transient=True)
