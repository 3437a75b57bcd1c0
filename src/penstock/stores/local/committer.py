"""Group commit: one thread, one transaction and one fsync for all the jobs that came while the last one ran."""

from __future__ import annotations

import asyncio
import fcntl
import os
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from penstock.core.uninterrupted import UninterruptedFuture
from penstock.errors import PenstockError, StorageFailed, StorageFull
from penstock.stores.local.batch import Batch
from penstock.stores.local.catalog import Catalog, EngineError, translate
from penstock.stores.local.generations import Generations
from penstock.stores.local.reserve import Reserve

T = TypeVar("T")

_MOST_JOBS = 2000
_MOST_BYTES = 8 * 1024 * 1024
"""Of one transaction: the log of the catalog must hold it, and a disk that gets full must have room for that."""


class _Unkeepable(StorageFailed):
    """A value that the engine has no room for."""


@dataclass(slots=True, eq=False)
class Job(Generic[T]):
    """What is to be done in a transaction, and what came of it.

    Attributes:
        apply: does it. One that raises must have changed nothing; it may be called again with another batch.
        size: how many bytes it adds. Jobs that add none (a deletion, a close) go through on a full disk too.
        then: is called with the result once that is committed, in the committer's thread; it must be quick.
        name: of the stream that the job will look up: it is quicker if it is known before.
        result: what it returned,
        error: or what it failed with.
    """

    apply: Callable[[Batch], T]
    size: int = 0
    then: Callable[[T], None] | None = None
    name: str | None = None
    result: T | None = None
    error: BaseException | None = None

    def outcome(self) -> T:
        """Return the result, or raise the error."""
        if self.error is not None:
            raise self.error
        return self.result  # type: ignore[return-value]  # a job that did not fail has a T


@dataclass(slots=True, eq=False)
class _Submission:
    """Jobs that are done in one transaction, and who waits for them, in which event loop or thread."""

    jobs: Sequence[Job[Any]]
    durable: bool
    done: Future[None] | asyncio.Future[None]
    loop: asyncio.AbstractEventLoop | None

    def resolve(self) -> None:
        if not self.done.cancelled():
            self.done.set_result(None)


class Committer:
    """The thread that writes to the catalog.

    Args:
        path: the catalog's file.
        lock: a file to lock while committing. SQLite makes processes that write at once poll with growing pauses; a
            file lock lets them queue, and wakes the next one at once.
        instance: the id of this store.
        reserve: room for deletions on a full disk.
        generations: where it is noted what changes.
    """

    def __init__(self, path: Path, lock: Path, instance: str, reserve: Reserve, generations: Generations) -> None:
        self._path = path
        self._reserve = reserve
        self._instance = instance
        self._generations = generations
        self._lock = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._submissions: queue.SimpleQueue[_Submission | None] = queue.SimpleQueue()
        self._stopping = False
        self._abandoned = False
        self._gate = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="penstock-commit", daemon=True)
        self._thread.start()

    def do(self, job: Job[T], *, durable: bool) -> T:
        """Have a job done in the next transaction, and return its result or raise its error. Blocking.

        Args:
            job: the job.
            durable: whether the transaction must be on the disk at its end.
        """
        done: Future[None] = Future()
        self._put(_Submission((job,), durable, done, None))
        done.result()
        return job.outcome()

    def done(self, jobs: Sequence[Job[Any]], *, durable: bool) -> asyncio.Future[None]:
        """Have jobs done in the next transaction; for the event loop, which learns of each how it went."""
        loop = asyncio.get_running_loop()
        done = UninterruptedFuture[None](loop=loop)
        self._put(_Submission(jobs, durable, done, loop))
        return done

    def _put(self, submission: _Submission) -> None:
        with self._gate:
            if not self._stopping:
                self._submissions.put(submission)
                return
        _fail(submission.jobs, StorageFailed("The store is stopped."))
        submission.resolve()

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
            self._submissions.put(None)
        self._thread.join()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _run(self) -> None:
        catalog = Catalog(self._path)
        catalog.keep_log_below(self._reserve.size // 2)
        batch = Batch(catalog, self._instance, self._generations)
        try:
            running = True
            while running:
                submissions, running = self._gather()
                jobs = [job for submission in submissions for job in submission.jobs]
                if self._abandoned:
                    _fail(jobs, StorageFailed("The store was abandoned."))
                elif jobs:
                    self._commit(batch, jobs, durable=any(submission.durable for submission in submissions))
                _resolve(submissions)
        finally:
            catalog.close()

    def _gather(self) -> tuple[list[_Submission], bool]:
        """Wait for a submission, and take all that are there with it; False with the last ones."""
        submissions: list[_Submission] = []
        count = size = 0
        submission = self._submissions.get()
        while submission is not None:
            submissions.append(submission)
            count += len(submission.jobs)
            size += sum(job.size for job in submission.jobs)
            if count >= _MOST_JOBS or size >= _MOST_BYTES:
                return submissions, True
            try:
                submission = self._submissions.get_nowait()
            except queue.Empty:
                return submissions, True
        return submissions, False

    def _commit(self, batch: Batch, jobs: list[Job[Any]], *, durable: bool) -> None:
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            # What was given back on a full disk must be there again, before anything else may take room.
            room = self._reserve.fill() or (batch.catalog.checkpoint() and self._reserve.fill())
            error = self._transact(batch, jobs, durable=durable) if room else StorageFull()
            if room and isinstance(error, StorageFull) and batch.catalog.checkpoint():
                error = self._transact(batch, jobs, durable=durable)  # in the room that the log had
            if isinstance(error, StorageFull):
                error, jobs = self._transact_on_full_disk(batch, jobs, durable=durable)
            elif isinstance(error, _Unkeepable) and len(jobs) > 1:
                # One of the values cannot be stored: that must not be the others' loss.
                for job in jobs:
                    _fail([job], self._transact(batch, [job], durable=durable))
                return
            _fail(jobs, error)
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _transact_on_full_disk(
        self, batch: Batch, jobs: list[Job[Any]], *, durable: bool
    ) -> tuple[PenstockError | None, list[Job[Any]]]:
        """Do what fits into the room that deletions left in the catalog, or else the deletions alone."""
        lean = [job for job in jobs if not job.size]
        error: PenstockError | None = StorageFull()
        room = batch.catalog.has_free_pages()
        if not lean and not room:
            return error, jobs
        self._reserve.release()
        try:
            if room:
                error = self._transact(batch, jobs, durable=durable, grow=False)
            if isinstance(error, StorageFull) and lean:
                _fail([job for job in jobs if job.size], error)
                error, jobs = self._transact(batch, lean, durable=durable, insert=False), lean
            return error, jobs
        finally:
            batch.catalog.checkpoint()
            self._reserve.fill()

    def _transact(
        self, batch: Batch, jobs: list[Job[Any]], *, durable: bool, grow: bool = True, insert: bool = True
    ) -> PenstockError | None:
        """Do the jobs in one transaction; where that fails as a whole, nothing is changed and the error is returned."""
        for job in jobs:
            job.error = None  # of an attempt that was taken back
        try:
            batch.begin(durable=durable, grow=grow, insert=insert)
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

    def _do(self, job: Job[T], batch: Batch) -> None:
        try:
            job.result = job.apply(batch)
        except EngineError:
            raise
        except Exception as error:  # noqa: BLE001 - the job's own: a rule said no; the others go on
            job.error = error


def _fail(jobs: Sequence[Job[Any]], error: PenstockError | None) -> None:
    for job in jobs:
        job.error = job.error or error


def _resolve(submissions: list[_Submission]) -> None:
    """Tell everybody who waits; each event loop is woken once."""
    loops: dict[asyncio.AbstractEventLoop, list[_Submission]] = {}
    for submission in submissions:
        if submission.loop is None:
            submission.resolve()
        else:
            loops.setdefault(submission.loop, []).append(submission)
    for loop, waiting in loops.items():
        with suppress(RuntimeError):  # the loop was closed: nobody waits any more
            loop.call_soon_threadsafe(_resolve_here, waiting)


def _resolve_here(submissions: list[_Submission]) -> None:
    for submission in submissions:
        submission.resolve()
