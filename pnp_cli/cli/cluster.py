"""The files of a batch on the workers of an existing Dask cluster (dask.distributed).

The command's work, with its network and kernel, is sent to every worker once; the bytes of the files go to the
workers and back, so the machines need not share a file system. Files of a worker that is lost go to another one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..errors import InputError, UsageError
from .console import collected

if TYPE_CHECKING:
    from .batch import Finished, Work
    from .paths import FileOptions, Job

ATTEMPTS = 3
"""How often a file is tried, if its worker is lost each time."""

PATIENCE = 15.0
"""Seconds for which a file is sent again before the cluster counts as gone."""

SCHEMES = ("tcp", "tls", "ucx", "ucxx", "ws", "wss")
"""How a scheduler may be spoken to over a network."""

PER_THREAD = 2
"""Files in flight for every thread of the cluster, so that workers need not wait for the next one."""


def restore_remotely(
    work: Work, content: bytes, name: str, target: Path | None, options: FileOptions
) -> tuple[Finished, list[str]]:
    """Runs on a worker: how one file ended, and what was said about it."""
    from .batch import attempt, restore_bytes

    with collected() as said:
        end = attempt(restore_bytes, content, name, target, options, work)
    return end, said


class Cluster:
    """A connection to a scheduler, and the work on its workers.

    Raises
    ------
    UsageError
        If that is no address, dask.distributed is not installed, nothing answers, or there is no worker.
    InputError
        If a file that goes along with the work cannot be read.
    """

    def __init__(self, address: str, work: Work, options: FileOptions) -> None:
        _require_address(address)
        try:
            from cloudpickle import dumps
            from distributed import Client
        except ImportError as error:
            raise UsageError("--scheduler needs dask.distributed; install pnp with pip install '.[cluster]'") from error
        dumps(work)  # reads what it has not read yet and the workers may not have; what fails there, fails here
        try:
            self.client = Client(address, timeout=10, set_as_default=False)
        except (OSError, ValueError, TypeError, TimeoutError) as error:
            raise UsageError(f"--scheduler {address}: no Dask scheduler answers there") from error
        threads = sum(self.client.nthreads().values())
        if not threads:
            self.client.close()
            raise UsageError(f"--scheduler {address}: the cluster has no workers; start some with 'dask worker'")
        self.work, self.options, self.window = work, options, PER_THREAD * threads
        self._shared: Any = None

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *error: object) -> None:
        self.client.close()

    def run(self, jobs: Iterator[tuple[Job, bytes]]) -> Iterator[tuple[Job, Finished, list[str]]]:
        """Results in the order they come; only a window of the inputs is in memory at a time."""
        from distributed import as_completed

        from .batch import Finished

        flying: dict[Any, tuple[Job, bytes, int]] = {}
        queue = as_completed(with_results=False, loop=self.client.loop)

        def launch(job: Job, content: bytes, attempt: int) -> None:
            future = self._submit(job, content)
            flying[future] = (job, content, attempt)
            queue.add(future)

        def refill() -> None:
            while len(flying) < self.window:
                following = next(jobs, None)
                if following is None:
                    return
                launch(*following, 1)

        refill()
        while flying:
            future = next(queue)
            job, content, attempt = flying.pop(future)
            result = _fetch(future)
            if result is not None:
                yield job, *result
            elif attempt < ATTEMPTS:
                launch(job, content, attempt + 1)
            else:
                reason = f"its worker was lost {ATTEMPTS} times; try a smaller --tile or fewer threads"
                yield job, Finished(code=1, error=reason), []
            refill()

    def _submit(self, job: Job, content: bytes) -> Any:
        """Send one file; again for a while, since a scheduler does not notice at once that a worker is dead."""
        source, target = job
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                if self._shared is None or self._shared.status != "finished":
                    self._shared = self.client.scatter(self.work, broadcast=True, hash=False)
                data = self.client.scatter(content, hash=False)
                return self.client.submit(
                    restore_remotely, self._shared, data, source.name, target, self.options, pure=False
                )
            except (OSError, TimeoutError) as error:
                if time.monotonic() > deadline:
                    name = type(error).__name__
                    raise InputError(f"the cluster is gone ({name}); start it again and resume") from error
                self._shared = None
                time.sleep(0.5)


def _require_address(address: str) -> None:
    """Refuse at once what no scheduler can have for an address; the client would look for it for long."""
    scheme, colons, place = address.rpartition("://")
    try:
        port = urlsplit(f"//{place}").port
    except ValueError:
        port = None
    if port is None or (colons and scheme not in SCHEMES):
        raise UsageError(f"--scheduler {address}: is not an address such as tcp://host:8786")


def _fetch(future: Any) -> tuple[Finished, list[str]] | None:
    """How one file ended, and what was said about it; None if its worker, or the result on it, was lost."""
    from distributed import CancelledError, KilledWorker
    from distributed.comm import CommClosedError

    from .batch import Finished

    if future.status in ("cancelled", "lost"):
        return None
    try:
        end, said = future.result()
    except (CancelledError, KilledWorker, CommClosedError):  # also when the worker goes between its work and this call
        return None
    except Exception as error:
        if isinstance(error, OSError) and future.status != "error":  # on the way here, not in the work
            return None
        return Finished(code=1, error=f"the worker cannot do it ({type(error).__name__}: {error})"), []
    return end, said
