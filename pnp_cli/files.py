"""Files on disk: read with one sentence for every failure, written whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from .errors import InputError, StorageError, TakenError

EXHAUSTED = (errno.ENOSPC, errno.EROFS, *([errno.EDQUOT] if hasattr(errno, "EDQUOT") else []))
"""What a file system answers that takes no more files."""


def is_file(path: str | Path) -> bool:
    """Whether there is a regular file; false for impossible names, and where one may not look."""
    return _answer(Path(path).is_file)


def is_dir(path: str | Path) -> bool:
    """Whether there is a folder; false for impossible names, and where one may not look."""
    return _answer(Path(path).is_dir)


def exists(path: str | Path) -> bool:
    """Whether there is anything where a file of that name would be written, be it a link that leads nowhere; false
    for impossible names, and where one may not look.
    """
    return os.path.lexists(place_of(path))


def place_of(path: str | Path) -> str:
    """Where a file of that name is written, all links followed, but for one that leads nowhere, which it replaces.

    Folders that are yet to be made count, so that "new/../photo.png" is "photo.png".
    """
    path = Path(path)
    own = os.path.join(os.path.realpath(path.parent), path.name)
    return os.path.realpath(own) if os.path.exists(own) else own


def obstacle(path: str | Path) -> str | None:
    """Why no file of that name can be written, as far as that is known beforehand; None if nothing is in the way."""
    place = Path(place_of(path))
    if place.is_symlink() or not os.path.lexists(place):
        folder = next(folder for folder in place.parents if os.path.lexists(folder))
        if not is_dir(folder):
            return f"{folder} is no folder"
    elif not is_file(place):
        return "is a folder" if is_dir(place) else "is no regular file"
    else:
        folder = place.parent
    return None if os.access(folder, os.W_OK | os.X_OK) else f"the folder {folder} cannot be written to"


def _answer(question: Callable[[], bool]) -> bool:
    try:
        return question()
    except OSError:
        return False


HEAD = 2**24
"""Bytes of a file that are read before it is judged by how it begins."""


@dataclass(frozen=True)
class Limit:
    """How much of a file is read, which may be endless.

    Attributes
    ----------
    size : bytes at most.
    remedy : what may be done about a larger one, in words.
    begins : tells by its first bytes whether a file is worth reading on; if not, they are all that is read.
    """

    size: int
    remedy: str
    begins: Callable[[bytes], bool] = lambda head: True


USUAL = Limit(2**30, "is it the right file?")
"""For kernels, weights, tables and records."""


def read_bytes(path: str | Path, limit: Limit = USUAL) -> bytes:
    """Content of a file.

    Raises
    ------
    InputError
        If it cannot be read, or is larger than `limit` says.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise InputError(f"{path}: is a folder, not a file")
        with open(path, "rb") as stream:
            data = read_stream(stream, str(path), limit)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    hashes = _hashes.get()
    if hashes is not None and path not in hashes:
        hashes[path] = hashlib.sha256(data).hexdigest()
    return data


def read_stream(stream: BinaryIO, name: str, limit: Limit = USUAL) -> bytes:
    """Content of an open file, or what comes out of a pipe.

    Raises
    ------
    InputError
        If it is a device, or larger than `limit` says.
    OSError
        If it cannot be read.
    """
    try:
        facts = os.fstat(stream.fileno())
    except io.UnsupportedOperation:
        facts = None  # no file, but bytes in memory
    if facts and (stat.S_ISCHR(facts.st_mode) or stat.S_ISBLK(facts.st_mode)):
        raise InputError(f"{name}: is a device, not a file")
    size = facts.st_size if facts and stat.S_ISREG(facts.st_mode) else 0
    parts = [stream.read(HEAD)]
    count = len(parts[0])
    if not limit.begins(parts[0]):
        return parts[0]
    if HEAD < size <= limit.size:  # in one piece, which takes half the memory
        stream.seek(-count, os.SEEK_CUR)
        return stream.read()
    while parts[-1] and max(count, size) <= limit.size:
        parts.append(stream.read(HEAD))
        count += len(parts[-1])
    if max(count, size) > limit.size:
        raise InputError(f"{name}: holds more than {limit.size} bytes; {limit.remedy}")
    return b"".join(parts)


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

    A file that is replaced hands on its mode, and a link that leads to one stays a link. Without `overwrite` a file
    that has come into being meanwhile stays as it is.

    Raises
    ------
    InputError
        If the file cannot be written: a `StorageError` if no other can, either, and a `TakenError` if it is there.
    """
    path = Path(path)
    place = Path(place_of(path))
    temporary = os.path.join(place.parent, f".{place.stem[:40]}.{secrets.token_hex(8)}.part")
    try:
        if place.exists() and not place.is_file():
            kind = "a folder" if place.is_dir() else "no regular file"
            raise InputError(f"{path}: cannot be written, it is {kind}; choose another name, or - for standard output")
        place.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as stream:
            if overwrite and place.exists():
                os.chmod(temporary, stat.S_IMODE(place.stat().st_mode))
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        if overwrite or not _link(temporary, place):
            os.replace(temporary, place)
    except OSError as error:
        reason, kind_of_error = error.strerror or str(error), InputError
        if error.errno in EXHAUSTED:
            kind_of_error = StorageError
        elif isinstance(error, FileExistsError):
            kind_of_error = TakenError
            if not is_dir(place.parent):
                reason, kind_of_error = f"{place.parent} is no folder", InputError
        raise kind_of_error(f"{path}: cannot be written ({reason})") from error
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
