"""Many files through one command: errors per file, the summary, the manifest and the exit code."""

from __future__ import annotations

import hashlib
import sys
import time
import traceback
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from ..errors import ConditionError, PnpError, StorageError, TakenError, UsageError
from ..files import exists, is_dir, write_bytes
from ..images import (
    FLOAT_FORMATS,
    FORMATS,
    Image,
    encode_image,
    format_of,
    lost_in,
    natural_suffix,
    read_image,
    require_format,
)
from .console import emit, file_progress, say, to_stdout
from .manifest import Manifest
from .paths import DEPTHS, FileOptions, Job, find_jobs, find_sources


@dataclass(frozen=True)
class Outcome:
    """What the work on one image gives: the image (None in a dry run) and facts for JSON."""

    image: Image | None
    fields: dict[str, Any]
    failure: str = ""
    """Why the image is not to be written, if a condition of convergence failed."""
    unclipped: bool = False
    """Whether formats that hold floats get the pixels as they are."""


@dataclass(frozen=True)
class Pending:
    """Work on an image that waits for something that is computed faster for several images at a time.

    Attributes
    ----------
    kind : images of one kind can go together; they have the same `most` and `compute`.
    most : how many of them.
    argument : what the computation needs of this image.
    compute : from the arguments of several images to their results.
    finish : from the result for this image to what the work gives.
    """

    kind: Hashable
    most: int
    argument: Any
    compute: Callable[[Sequence[Any]], Sequence[Any]]
    finish: Callable[[Any], Outcome]


Work = Callable[[Image, str], Outcome | Pending]

T = TypeVar("T")


def exit_code(error: PnpError) -> int:
    """Exit code of an error."""
    if isinstance(error, ConditionError):
        return 3
    return 2 if isinstance(error, UsageError) else 1


def exit_code_of_all(codes: Iterable[int]) -> int:
    """Exit code of a command by those of its files: the smallest besides 0, so that no other hides a failed file."""
    return min((code for code in codes if code), default=0)


FALSE_CERTIFICATE = "a check of the theory failed, so a certificate is false or there is a bug; please report it"


def run_batch(options: FileOptions, work: Work) -> int:
    """Read, work on and write every input; returns the exit code of the command.

    A file that fails is reported and the others go on, unless `fail_fast` or no file can be written any more. What
    was finished before an interruption is kept, and the manifest says so. With `scheduler` the work is done on a
    Dask cluster.
    """
    sources = find_sources(options.inputs, options.recursive)
    options.check(sources)
    jobs = find_jobs(sources, options)
    with _manifest(options, len(jobs)) as manifest, file_progress(len(jobs), options.quiet) as advance:
        book = _Book(len(jobs), options, manifest, advance)
        try:
            if options.scheduler is not None:
                _run_cluster(jobs, options, work, book)
            else:
                _Here(options, work, book).run(jobs)
        finally:
            if len(jobs) > 1:
                say(str(book), options.quiet)
    return exit_code_of_all(book.codes)


@contextmanager
def _manifest(options: FileOptions, total: int) -> Iterator[Manifest]:
    resumes = options.on_exists == "skip" and not options.dry_run
    manifest = Manifest(options, options.manifest if resumes else None)
    interrupted = False
    try:
        yield manifest
        manifest.finished = len(manifest.files) == total
    except KeyboardInterrupt:
        interrupted = True
        manifest.settle()
        raise
    finally:
        if options.manifest and not options.dry_run and (manifest.files or manifest.finished or interrupted):
            manifest.write(options.manifest)
            say(f"wrote {options.manifest}", options.quiet)


@dataclass(frozen=True)
class Finished:
    """How one file ended.

    Attributes
    ----------
    facts : for JSON and the manifest.
    code : exit code.
    data : the bytes of the output, if there is one to be written.
    error : what went wrong, in one sentence; `traceback` if it is a bug.
    last : whether no other file of the batch can end better.
    """

    facts: dict[str, Any] = field(default_factory=dict)
    code: int = 0
    data: bytes | None = None
    error: str | None = None
    traceback: str | None = None
    last: bool = False


@dataclass
class _Book:
    """How the files of a batch ended: enters them in everything that counts or reports them."""

    total: int
    options: FileOptions
    manifest: Manifest
    advance: Callable[[], None]
    done: int = 0
    skipped: int = 0
    codes: list[int] = field(default_factory=list)

    def enter(self, job: Job, end: Finished) -> bool:
        """Note how a file ended; true if the batch is to stop."""
        (source, target), facts, ok = job, end.facts, end.code == 0
        self.codes.append(end.code)
        if end.error is not None:
            message = end.error if source.name in end.error else f"{source.name}: {end.error}"
            say(f"pnp: error: {message}")
            for line in (end.traceback or "").splitlines():
                say(line, not self.options.verbose)
            facts = facts | {"error": message}
        elif facts.get("skipped"):
            self.skipped += 1
        elif ok:
            self.done += 1
        if self.options.json:
            emit(self.options.command, source.name, ok, **facts)
        self.manifest.add(source, target, ok, facts)
        if self.options.verbose and "seconds" in facts:
            say(f"time        {facts['seconds']:.2f} s")
        self.advance()
        return end.last or (self.options.fail_fast and not ok)

    def __str__(self) -> str:
        failed = sum(code != 0 for code in self.codes)
        left = self.total - len(self.codes)
        parts = [f"{self.done} of {self.total} files done"]
        parts += [f"{self.skipped} skipped"] if self.skipped else []
        parts += [f"{failed} failed"]
        parts += [f"{left} not done"] if left else []
        return ", ".join(parts)


def reason_of(error: Exception) -> str:
    """One sentence about an error that nobody has foreseen."""
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "memory" in str(error)):
        return "not enough memory; take a smaller image, or lower --tile or --grid where there is one"
    detail = (str(error).splitlines() or [""])[0]
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'standard input or output'}: cannot be used ({error.strerror})"
    return f"an unexpected error, please report it ({type(error).__name__}: {detail})"


def attempt(do: Callable[..., T], *arguments: Any) -> T | Finished:
    """Call a part of the work on one file; what it raises becomes the end of that file."""
    start = time.perf_counter()
    try:
        result = do(*arguments)
    except PnpError as error:
        return Finished(code=exit_code(error), error=str(error), last=isinstance(error, StorageError))
    except BrokenPipeError:
        raise  # whoever read the output is gone
    except Exception as error:  # the other files need not suffer
        return Finished(code=1, error=reason_of(error), traceback=traceback.format_exc())
    if not isinstance(result, Finished):
        return result
    return replace(result, facts={"seconds": round(time.perf_counter() - start, 3)} | result.facts)


def _read(job: Job, options: FileOptions) -> bytes | Finished:
    """The bytes of an input, or its end if its output exists and it is to be skipped then."""
    source, target = job
    if target is not None and options.on_exists == "skip" and exists(target) and not is_dir(target):
        return _skip(source.name, target, options)
    return source.read_bytes(options.max_pixels)


def _skip(name: str, target: Path, options: FileOptions) -> Finished:
    say(f"{name}: skipped, {target} exists", options.quiet)
    return Finished({"output": str(target), "skipped": True})


Steps = Generator[Pending, Any, "Finished"]
"""Work on one file, which waits for a result at most once, and gives how it ended."""


def restore_bytes(content: bytes, name: str, target: Path | None, options: FileOptions, work: Work) -> Finished:
    """From the bytes of an input file to those of its output, touching no file."""
    steps = _restoring(content, name, target, options, work)
    begun = _next(steps, None)
    if isinstance(begun, Finished):
        return begun
    (result,) = begun.compute([begun.argument])
    return _end(steps, result)


def _next(steps: Steps, result: Any) -> Pending | Finished:
    """Go on with the work on a file, with the result that it waits for, or to begin with None."""
    try:
        return steps.send(result)
    except StopIteration as end:
        return end.value


def _end(steps: Steps, result: Any) -> Finished:
    end = _next(steps, result)
    assert isinstance(end, Finished)
    return end


def _restoring(content: bytes, name: str, target: Path | None, options: FileOptions, work: Work) -> Steps:
    """`restore_bytes` as a generator, which yields what it waits for, and returns how the file ended."""
    image = read_image(content, name, options.max_pixels).for_output(DEPTHS[options.bit_depth], options.strip)
    if options.file_format or target is None:
        suffix = (options.file_format or natural_suffix(image)).lower().removeprefix(".")
        file_format = FORMATS[f".{suffix}"]
    else:
        file_format = format_of(target)
    goal = str(target or "standard output")
    require_format(image, file_format, goal)
    notes = (*image.notes, *lost_in(image, file_format))
    for note in notes:
        say(f"{name}: {note}", options.quiet)
    outcome = work(image, name)
    del image  # its memory is needed for the output
    if isinstance(outcome, Pending):
        outcome = outcome.finish((yield outcome))
    facts: dict[str, Any] = {"input_sha256": hashlib.sha256(content).hexdigest(), "notes": list(notes)}
    if outcome.failure:
        facts["output"] = None
        reason = f"{outcome.failure}; nothing was written"
        return Finished(facts | outcome.fields, exit_code(ConditionError()), error=reason)
    if outcome.image is None:
        taken = target is not None and exists(target) and options.on_exists == "error"
        say(f"{name}: would write {goal}{', which exists already' if taken else ''}", options.quiet)
        facts |= {"output": None, "target": str(target) if target else None}
        return Finished(facts | outcome.fields)
    result = outcome.image
    if outcome.unclipped and file_format in FLOAT_FORMATS and options.bit_depth == "keep":
        result = replace(result, depth="float32")
    data = encode_image(result, file_format, goal, options.quality)
    facts |= {"output": str(target) if target else None, "output_sha256": hashlib.sha256(data).hexdigest()}
    return Finished(facts | outcome.fields, data=data)


def _deliver(end: Finished, job: Job, options: FileOptions, manifest: Manifest) -> Finished:
    """Write the bytes of an output, if there is one; where another process was faster, it counts as any that exists."""
    source, target = job
    if end.data is None:
        return end
    if target is None:
        with to_stdout():
            sys.stdout.buffer.write(end.data)
    else:
        manifest.expect(source, target, end.facts)
        try:
            write_bytes(target, end.data, overwrite=options.on_exists == "overwrite")
        except TakenError:
            if options.on_exists != "skip":
                raise
            return _skip(source.name, target, options)
        say(f"wrote {target}", options.quiet)
    return end


@dataclass(frozen=True)
class _Waiting:
    """A file whose image waits for others of its kind; `seconds` is what the work on it took so far."""

    job: Job
    steps: Steps
    pending: Pending
    seconds: float


def _compute(waiting: Sequence[_Waiting]) -> list[Any]:
    """What files of one kind wait for."""
    return list(waiting[0].pending.compute([file.pending.argument for file in waiting]))


def _alone(file: _Waiting) -> Any:
    """The same for one file, or how it ended: where several fail together, only those are to fail that must."""
    result = attempt(_compute, [file])
    return result if isinstance(result, Finished) else result[0]


class _Here:
    """Files restored in this process, in their order: one at a time, or several where they wait for each other."""

    def __init__(self, options: FileOptions, work: Work, book: _Book) -> None:
        self.options, self.work, self.book = options, work, book
        self.waiting: list[_Waiting] = []

    def run(self, jobs: Iterable[Job]) -> None:
        """Until all are done, or none can be any more."""
        if not any(self._take(job) for job in jobs):
            self._finish()

    def _take(self, job: Job) -> bool:
        """Begin with a file, and finish what need not wait; true if the batch is to stop."""
        start = time.perf_counter()
        begun = attempt(self._begin, job)
        seconds = time.perf_counter() - start
        if isinstance(begun, Finished):
            return self._finish() or self._enter(job, begun, seconds)
        steps, pending = begun
        if self.waiting and self.waiting[0].pending.kind != pending.kind and self._finish():
            return True
        self.waiting.append(_Waiting(job, steps, pending, seconds))
        return len(self.waiting) >= pending.most and self._finish()

    def _begin(self, job: Job) -> tuple[Steps, Pending] | Finished:
        source, target = job
        read = _read(job, self.options)
        if isinstance(read, Finished):
            return read
        steps = _restoring(read, source.name, target, self.options, self.work)
        begun = _next(steps, None)
        return begun if isinstance(begun, Finished) else (steps, begun)

    def _finish(self) -> bool:
        """Compute what files wait for, and finish them; true if the batch is to stop."""
        waiting, self.waiting = self.waiting, []
        if not waiting:
            return False
        start = time.perf_counter()
        results = attempt(_compute, waiting)
        if isinstance(results, Finished):
            results = [results] if len(waiting) == 1 else [_alone(file) for file in waiting]
        share = (time.perf_counter() - start) / len(waiting)
        for file, result in zip(waiting, results, strict=True):
            start = time.perf_counter()
            end = result if isinstance(result, Finished) else attempt(_end, file.steps, result)
            if self._enter(file.job, end, file.seconds + share + time.perf_counter() - start):
                return True
        return False

    def _enter(self, job: Job, end: Finished, seconds: float) -> bool:
        """Write an output, if there is one, and note how the file ended; true if the batch is to stop."""
        start = time.perf_counter()
        if end.data is not None:
            end = attempt(_deliver, end, job, self.options, self.book.manifest)
        if "seconds" in end.facts:
            seconds += time.perf_counter() - start
            end = replace(end, facts=end.facts | {"seconds": round(seconds, 3)})
        return self.book.enter(job, end)


def _run_cluster(jobs: Sequence[Job], options: FileOptions, work: Work, book: _Book) -> None:
    """The same on the workers of a Dask cluster: files are read and written here, restored there."""
    from .cluster import Cluster

    assert options.scheduler is not None
    with Cluster(options.scheduler, work, options) as cluster:

        def readable() -> Iterator[tuple[Job, bytes]]:
            for job in jobs:
                read = attempt(_read, job, options)
                if isinstance(read, bytes):
                    yield job, read
                elif book.enter(job, read):
                    return

        for job, end, messages in cluster.run(readable()):
            for line in messages:
                say(line)
            if book.enter(job, end if end.error else attempt(_deliver, end, job, options, book.manifest)):
                return
