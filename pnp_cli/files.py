"""Files on disk: read with one sentence for every failure, written whole or not at all."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from .errors import InputError


def is_file(path: str | Path) -> bool:
    """Whether there is a regular file; false for impossible names, and where one may not look."""
    return _answer(Path(path).is_file)


def is_dir(path: str | Path) -> bool:
    """Whether there is a folder; false for impossible names, and where one may not look."""
    return _answer(Path(path).is_dir)


def exists(path: str | Path) -> bool:
    """Whether there is anything of that name, be it a link that leads nowhere; false for impossible names, and where
    one may not look.
    """
    return os.path.lexists(path)


def _answer(question: Callable[[], bool]) -> bool:
    try:
        return question()
    except OSError:
        return False


def read_bytes(path: str | Path) -> bytes:
    """Content of a file.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise InputError(f"{path}: is a folder, not a file")
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    hashes = _hashes.get()
    if hashes is not None and path not in hashes:
        hashes[path] = hashlib.sha256(data).hexdigest()
    return data


_hashes: ContextVar[dict[Path, str] | None] = ContextVar("hashes", default=None)


@contextmanager
def noting_hashes() -> Iterator[None]:
    """Note what every file held when it was first read, for `hash_as_read`."""
    token = _hashes.set({})
    try:
        yield
    finally:
        _hashes.reset(token)


def hash_as_read(path: Path) -> str | None:
    """SHA-256 of what a file held when it was first read, if it was, inside `noting_hashes` and in this thread."""
    return (_hashes.get() or {}).get(path)


def hash_of(path: str | Path) -> str | None:
    """SHA-256 of a file of any size, without holding it in memory; None if it cannot be read."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as stream:
            while block := stream.read(2**20):
                digest.update(block)
    except OSError:
        return None
    return digest.hexdigest()


def write_bytes(path: str | Path, data: bytes, overwrite: bool = True) -> None:
    """Write a file atomically: a temporary file in the same folder, then a rename; folders are made.

    Without `overwrite` a file that has come into being meanwhile stays as it is.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    path = Path(path)
    temporary = os.path.join(path.parent, f".{path.stem[:40]}.{secrets.token_hex(8)}.part")
    try:
        if path.exists() and not path.is_file():
            kind = "a folder" if path.is_dir() else "no regular file"
            raise InputError(f"{path}: cannot be written, it is {kind}; choose another name, or - for standard output")
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        if overwrite or not _link(temporary, path):
            os.replace(temporary, path)
    except OSError as error:
        reason = error.strerror or str(error)
        if isinstance(error, FileExistsError) and not is_dir(path.parent):
            reason = f"{path.parent} is no folder"
        raise InputError(f"{path}: cannot be written ({reason})") from error
    finally:
        # The first call of this block, and of a string: an interruption after the last call of `try` comes behind it.
        try:  # noqa: SIM105
            os.unlink(temporary)
        except OSError:
            pass  # renamed, or never made


def _link(temporary: str, path: Path) -> bool:
    """Give a file a second name, which fails if that exists; false where the file system has no such links."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:
        if path.exists():
            raise FileExistsError(17, "File exists", str(path)) from None
        return False
    return True
