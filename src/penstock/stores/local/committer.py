"""Group commit: one thread, one transaction and one fsync for all the jobs that came while the last one ran."""

from __future__ import annotations

import asyncio
import fcntl
import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from penstock.errors import StorageFailed
from penstock.stores.local.batch import Batch
from penstock.stores.local.catalog import Catalog, EngineError, translate

T = TypeVar("T")

_MOST_JOBS = 2000


@dataclass(slots=True, eq=False)
class _Job(Generic[T]):
    apply: Callable[[Batch], T]
    durable: bool
    future: Future[T] | asyncio.Future[T]
    loop: asyncio.AbstractEventLoop | None
    result: T | None = None
    error: BaseException | None = None

    def resolve(self) -> None:
        if self.future.cancelled():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)  # type: ignore[arg-type]  # a job that did not fail has a T


class Committer:
    """The thread that writes to the catalog.

    Args:
        path: the catalog's file.
        lock: a file to lock while committing. SQLite makes processes that write at once poll with growing pauses; a
            file lock lets them queue, and wakes the next one at once.
        instance: the id of this store.
    """

    def __init__(self, path: Path, lock: Path, instance: str) -> None:
        self._path = path
        self._instance = instance
        self._lock = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._jobs: queue.SimpleQueue[_Job[Any] | None] = queue.SimpleQueue()
        self._stopping = False
        self._abandoned = False
        self._gate = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="penstock-commit", daemon=True)
        self._thread.start()

    def submit(self, apply: Callable[[Batch], T], *, durable: bool) -> Future[T]:
        """Have a job done in the next transaction; for threads. A job that raises must have changed nothing."""
        future: Future[T] = Future()
        self._put(_Job(apply, durable, future, None))
        return future

    def submit_async(self, apply: Callable[[Batch], T], *, durable: bool) -> asyncio.Future[T]:
        """The same, for the event loop."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._put(_Job(apply, durable, future, loop))
        return future

    def _put(self, job: _Job[T]) -> None:
        with self._gate:
            if not self._stopping:
                self._jobs.put(job)
                return
        job.error = StorageFailed("The store is stopped.")
        job.resolve()

    def stop(self) -> None:
        """Do the jobs that were submitted, and end the thread."""
        self._end()

    def abandon(self) -> None:
        """End the thread as a crash would: what it has not begun is not done."""
        self._abandoned = True
        self._end()

    def _end(self) -> None:
        with self._gate:
            self._stopping = True
            self._jobs.put(None)
        self._thread.join()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _run(self) -> None:
        catalog = Catalog(self._path)
        try:
            running = True
            while running:
                jobs, running = self._gather()
                if self._abandoned:
                    for job in jobs:
                        job.error = StorageFailed("The store was abandoned.")
                elif jobs:
                    self._commit(catalog, jobs)
                _resolve(jobs)
        finally:
            catalog.close()

    def _gather(self) -> tuple[list[_Job[Any]], bool]:
        """Wait for a job, and take all that are there with it; False with the last ones."""
        jobs: list[_Job[Any]] = []
        job = self._jobs.get()
        while job is not None:
            jobs.append(job)
            if len(jobs) == _MOST_JOBS:
                return jobs, True
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return jobs, True
        return jobs, False

    def _commit(self, catalog: Catalog, jobs: list[_Job[Any]]) -> None:
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            catalog.begin(durable=any(job.durable for job in jobs))
            batch = Batch(catalog, self._instance)
            for job in jobs:
                self._do(job, batch)
            batch.flush()
            catalog.commit()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is handed to those who wait
            with suppress(EngineError):
                catalog.rollback()
            for job in jobs:
                job.error = job.error or _explained(error)
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _do(self, job: _Job[T], batch: Batch) -> None:
        try:
            job.result = job.apply(batch)
        except EngineError:
            raise
        except Exception as error:  # noqa: BLE001 - the job's own: a rule said no; the others go on
            job.error = error


def _explained(error: Exception) -> Exception:
    return translate(error) if isinstance(error, (EngineError, OSError)) else error


def _resolve(jobs: list[_Job[Any]]) -> None:
    """Tell everybody who waits; each event loop is woken once."""
    loops: dict[asyncio.AbstractEventLoop, list[_Job[Any]]] = {}
    for job in jobs:
        if job.loop is None:
            job.resolve()
        else:
            loops.setdefault(job.loop, []).append(job)
    for loop, waiting in loops.items():
        with suppress(RuntimeError):  # the loop was closed: nobody waits any more
            loop.call_soon_threadsafe(_resolve_here, waiting)


def _resolve_here(jobs: list[_Job[Any]]) -> None:
    for job in jobs:
        job.resolve()
