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

from penstock.core.uninterrupted import UninterruptedFuture
from penstock.errors import PenstockError, StorageFailed, StorageFull
from penstock.stores.local.batch import Batch
from penstock.stores.local.catalog import Catalog, EngineError, translate
from penstock.stores.local.reserve import Reserve

T = TypeVar("T")

_MOST_JOBS = 2000
_MOST_BYTES = 8 * 1024 * 1024
"""Of one transaction: the log of the catalog must hold it, and a disk that gets full must have room for that."""


class _Unkeepable(StorageFailed):
    """A value that the engine has no room for."""


@dataclass(slots=True, eq=False)
class _Job(Generic[T]):
    apply: Callable[[Batch], T]
    durable: bool
    future: Future[T] | asyncio.Future[T]
    loop: asyncio.AbstractEventLoop | None
    size: int
    then: Callable[[T], None] | None
    name: str | None = None
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
        reserve: room for deletions on a full disk.
    """

    def __init__(self, path: Path, lock: Path, instance: str, reserve: Reserve) -> None:
        self._path = path
        self._reserve = reserve
        self._instance = instance
        self._lock = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._jobs: queue.SimpleQueue[_Job[Any] | None] = queue.SimpleQueue()
        self._stopping = False
        self._abandoned = False
        self._gate = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="penstock-commit", daemon=True)
        self._thread.start()

    def submit(
        self,
        apply: Callable[[Batch], T],
        *,
        durable: bool,
        size: int = 0,
        then: Callable[[T], None] | None = None,
    ) -> Future[T]:
        """Have a job done in the next transaction; for threads.

        Args:
            apply: the job. One that raises must have changed nothing; it may be called again with another batch.
            durable: whether the transaction must be on the disk at its end.
            size: how many bytes it adds. Jobs that add none (a deletion, a close) go through on a full disk too.
            then: is called with the result once that is committed, in the committer's thread; it must be quick.
        """
        future: Future[T] = Future()
        self._put(_Job(apply, durable, future, None, size, then))
        return future

    def submit_async(
        self,
        apply: Callable[[Batch], T],
        *,
        durable: bool,
        size: int = 0,
        then: Callable[[T], None] | None = None,
        name: str | None = None,
    ) -> asyncio.Future[T]:
        """The same, for the event loop; it is quicker if it is told the stream's name that the job will look up."""
        loop = asyncio.get_running_loop()
        future = UninterruptedFuture[T](loop=loop)
        self._put(_Job(apply, durable, future, loop, size, then, name))
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
        catalog.keep_log_below(self._reserve.size // 2)
        batch = Batch(catalog, self._instance)
        try:
            running = True
            while running:
                jobs, running = self._gather()
                if self._abandoned:
                    for job in jobs:
                        job.error = StorageFailed("The store was abandoned.")
                elif jobs:
                    self._commit(batch, jobs)
                _resolve(jobs)
        finally:
            catalog.close()

    def _gather(self) -> tuple[list[_Job[Any]], bool]:
        """Wait for a job, and take all that are there with it; False with the last ones."""
        jobs: list[_Job[Any]] = []
        size = 0
        job = self._jobs.get()
        while job is not None:
            jobs.append(job)
            size += job.size
            if len(jobs) == _MOST_JOBS or size >= _MOST_BYTES:
                return jobs, True
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return jobs, True
        return jobs, False

    def _commit(self, batch: Batch, jobs: list[_Job[Any]]) -> None:
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            # What was given back on a full disk must be there again, before anything else may take room.
            room = self._reserve.fill() or (batch.catalog.checkpoint() and self._reserve.fill())
            error = self._transact(batch, jobs) if room else StorageFull()
            if room and isinstance(error, StorageFull) and batch.catalog.checkpoint():
                error = self._transact(batch, jobs)  # in the room that the log had
            if isinstance(error, StorageFull):
                error, jobs = self._transact_on_full_disk(batch, jobs)
            elif isinstance(error, _Unkeepable) and len(jobs) > 1:
                # One of the values cannot be stored: that must not be the others' loss.
                for job in jobs:
                    self._fail([job], self._transact(batch, [job]))
                return
            self._fail(jobs, error)
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _transact_on_full_disk(
        self, batch: Batch, jobs: list[_Job[Any]]
    ) -> tuple[PenstockError | None, list[_Job[Any]]]:
        """Do what fits into the room that deletions left in the catalog, or else the deletions alone."""
        lean = [job for job in jobs if not job.size]
        error: PenstockError | None = StorageFull()
        room = batch.catalog.has_free_pages()
        if not lean and not room:
            return error, jobs
        self._reserve.release()
        try:
            if room:
                error = self._transact(batch, jobs, grow=False)
            if isinstance(error, StorageFull) and lean:
                self._fail([job for job in jobs if job.size], error)
                error, jobs = self._transact(batch, lean, insert=False), lean
            return error, jobs
        finally:
            batch.catalog.checkpoint()
            self._reserve.fill()

    def _transact(
        self, batch: Batch, jobs: list[_Job[Any]], *, grow: bool = True, insert: bool = True
    ) -> PenstockError | None:
        """Do the jobs in one transaction; where that fails as a whole, nothing is changed and the error is returned."""
        for job in jobs:
            job.error = None  # of an attempt that was taken back
        try:
            batch.begin(durable=any(job.durable for job in jobs), grow=grow, insert=insert)
            batch.look_up(job.name for job in jobs if job.name is not None)
            for job in jobs:
                self._do(job, batch)
            batch.commit()
        except (EngineError, OSError) as error:
            batch.rollback()
            return translate(error)
        except Exception as error:  # noqa: BLE001 - an integer of 65 bits, a text with half a character...
            batch.rollback()
            return _Unkeepable(f"A value cannot be stored: {error}")
        for job in jobs:
            if job.then is not None and job.error is None:
                job.then(job.result)
        return None

    def _fail(self, jobs: list[_Job[Any]], error: PenstockError | None) -> None:
        for job in jobs:
            job.error = job.error or error

    def _do(self, job: _Job[T], batch: Batch) -> None:
        try:
            job.result = job.apply(batch)
        except EngineError:
            raise
        except Exception as error:  # noqa: BLE001 - the job's own: a rule said no; the others go on
            job.error = error


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
