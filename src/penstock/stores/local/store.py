"""The store itself: which way a commit goes, and the chores."""

from __future__ import annotations

import asyncio
import fcntl
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar

from penstock.core.ports import Change, Decide, View
from penstock.core.uninterrupted import uninterrupted
from penstock.errors import PenstockError, StorageFailed
from penstock.model import StreamInfo
from penstock.stores.local.batch import Applied, Batch, Commit, Filed, Moved
from penstock.stores.local.blobs import Blob, Blobs
from penstock.stores.local.catalog import NOBODY, Catalog, Head, translated
from penstock.stores.local.committer import Committer
from penstock.stores.local.instances import Instance
from penstock.stores.local.reader import MOST_HELD, LocalReader
from penstock.stores.local.reserve import Reserve

T = TypeVar("T")
Durability: TypeAlias = Literal["fsync", "os"]

SMALL = 64 * 1024
"""Appends up to this many bytes ride in the catalog: one fsync for many of them. Larger ones go to the file."""

FOLD_AT = 1024 * 1024
"""A stream with this many bytes in the catalog has them moved to its file."""

_NOT_STARTED = "The store is not started: use it within its lifespan."


class LocalStore:
    """A folder of files and a SQLite catalog; see `penstock.stores.local` for the layout.

    Args:
        path: the folder. It is created where it is missing, for this user alone.
        durability: ``fsync``: what is acknowledged survives a power cut. ``os``: it survives a crash of the process.
    """

    def __init__(self, path: str | PathLike[str], durability: Durability = "fsync") -> None:
        self._path = Path(path)
        self._fsync = durability == "fsync"
        self._local = threading.local()
        self._catalogs: list[Catalog] = []
        self._unsettled: set[str] = set()
        self._touched: Counter[str] = Counter()
        self._gate = threading.Lock()  # around the two above
        self._folding: set[str] = set()
        self._started = False

    # -- life -----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """See `Store.start`."""
        await uninterrupted(asyncio.get_running_loop().run_in_executor(None, self._start))

    def _start(self) -> None:
        with translated():
            self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.blobs = Blobs(self._path / "blobs")
            self._instance = Instance(self._path / "instances")
            self._catalog_path = self._path / "catalog.sqlite3"
            with _locked(self._path / "commit.lock"):
                first = Catalog(self._catalog_path)
                try:
                    first.migrate()
                finally:
                    first.close()
        self._reserve = Reserve(self._path / "reserve")
        self._committer = Committer(self._catalog_path, self._path / "commit.lock", self._instance.id, self._reserve)
        # Reads are short; appends to files wait for the disk, and must not keep reads waiting.
        self._readers = ThreadPoolExecutor(8, "penstock-read")
        self._writers = ThreadPoolExecutor(16, "penstock-write")
        self._started = True
        _quietly(self._tidy)  # a disk that is full must not keep anyone from reading

    async def stop(self) -> None:
        """See `Store.stop`."""
        if self._started:
            await uninterrupted(asyncio.get_running_loop().run_in_executor(None, self._stop))

    def _stop(self) -> None:
        self._started = False
        self._writers.shutdown()
        orderly = _quietly(self._settle_instance, self._instance.id)
        self._committer.stop()
        self._readers.shutdown()
        for catalog in self._catalogs:
            catalog.close()
        self._instance.end(orderly=orderly)

    def abandon(self) -> None:
        """Go away as after a crash, leaving everything as it is at this moment: for tests of recovery."""
        self._started = False
        self._committer.abandon()
        self._writers.shutdown(cancel_futures=True)
        self._readers.shutdown(cancel_futures=True)
        for catalog in self._catalogs:
            catalog.close()
        self._instance.end(orderly=False)

    def catalog(self) -> Catalog:
        """Return this thread's connection to the catalog, for reading."""
        catalog: Catalog | None = getattr(self._local, "catalog", None)
        if catalog is None:
            catalog = self._local.catalog = Catalog(self._catalog_path)
            self._catalogs.append(catalog)
        return catalog

    # -- reading --------------------------------------------------------------------------------------------------

    async def load(self, name: str) -> StreamInfo | None:
        """See `Store.load`."""
        head = await self.read_in_thread(lambda: self.catalog().by_name(name))
        return None if head is None else head.info

    async def open(self, name: str) -> LocalReader | None:
        """See `Store.open`."""
        opening = asyncio.ensure_future(self.read_in_thread(self._open, name))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close_result)
            raise

    def _open(self, name: str) -> LocalReader | None:
        catalog = self.catalog()
        folded, missing = True, ""
        while True:
            with catalog.snapshot():
                head = catalog.by_name(name)
                if head is None:
                    return None
                hold = head.info.closed and head.info.tail - head.filed <= MOST_HELD
                if hold or not head.info.closed or not folded:
                    try:
                        return LocalReader.opened(self, catalog, head, hold=hold)
                    except FileNotFoundError:  # deleted since the snapshot: look again, once
                        if missing == head.info.incarnation:
                            raise StorageFailed(f"The file of the stream {name!r} is missing.") from None
                        missing = head.info.incarnation
                        continue
            # More than a reader holds in memory. Folded, it is in the file, which outlives a deletion.
            folded = _quietly(self._fold, name, head.info.incarnation)

    async def list(self, prefix: str, after: str, limit: int) -> Sequence[StreamInfo]:
        """See `Store.list`."""
        return await self.read_in_thread(lambda: self.catalog().listing(prefix, after, limit))

    async def expired(self, now: float, limit: int) -> Sequence[StreamInfo]:
        """See `Store.expired`."""
        return await self.read_in_thread(lambda: self.catalog().expired(now, limit))

    async def read_in_thread(self, function: Callable[..., T], *args: object) -> T:
        """Run a short, blocking read."""
        return await self._in_thread(self._readers, function, *args)

    async def _in_thread(self, pool: ThreadPoolExecutor, function: Callable[..., T], *args: object) -> T:
        self._check_started()
        try:
            running = asyncio.get_running_loop().run_in_executor(pool, _translating, function, *args)
        except RuntimeError:  # the pool was shut down since
            raise StorageFailed(_NOT_STARTED) from None
        return await running

    def _check_started(self) -> None:
        if not self._started:
            raise StorageFailed(_NOT_STARTED)

    # -- committing -----------------------------------------------------------------------------------------------

    async def commit(
        self,
        name: str,
        decide: Decide,
        *,
        incarnation: str | None = None,
        producer: str | None = None,
        size: int = 0,
        durable: bool = True,
    ) -> Change:
        """See `Store.commit`."""
        self._check_started()
        commit = Commit(name, decide, incarnation, producer, durable and self._fsync)
        if size <= SMALL:
            with suppress(Moved):
                applied = await uninterrupted(
                    self._committer.submit_async(
                        lambda batch: self._carry_out(batch, commit),
                        durable=commit.durable,
                        size=size,
                        then=self._follow_up,
                    )
                )
                return applied.change
        applied = await uninterrupted(self._in_thread(self._writers, self._commit_through_file, commit))
        return applied.change

    def _carry_out(self, batch: Batch, commit: Commit) -> Applied:
        applied = batch.carry_out(commit)
        info = applied.change.info
        if info is not None and info.closed and not info.provisional and self._is_settled_by(commit, info.incarnation):
            batch.catalog.settle(info.incarnation, self._instance.id)
        return applied

    def _commit_through_file(self, commit: Commit) -> Applied:
        """Put the bytes into the stream's file first, then commit: for large appends. Blocking.

        The file's lock keeps other large appends and folding away from the write to the end of the commit. Small
        appends go on meanwhile; see `Filed` for what becomes of the bytes if one moved the tail.
        """
        while True:
            view, _ = self._look(commit)
            change = commit.decide(view)
            if change.duplicate or change.info is None or not (change.data or change.info.tail):
                return self._submit(commit)
            incarnation = change.info.incarnation
            with self._unsettling(incarnation), self.blobs.locked(incarnation) as blob:
                view, head = self._look(commit)
                try:
                    return self._write_and_submit(blob, head, commit.decide(view), incarnation, commit)
                except Moved:
                    self._undo(blob, incarnation)
                except PenstockError as error:
                    if not isinstance(error, StorageFailed):  # of which it is not certain that nothing was committed
                        self._undo(blob, incarnation)
                    raise

    def _write_and_submit(
        self, blob: Blob, head: Head | None, change: Change, incarnation: str, commit: Commit
    ) -> Applied:
        if change.duplicate or change.info is None or change.info.incarnation != incarnation:
            raise Moved
        if head is None or head.info.incarnation != incarnation:  # it is to be created
            head = Head(key=0, info=StreamInfo(name=commit.name, incarnation=incarnation))
        start = head.info.tail
        loose = [data for _, data in self.catalog().chunks(head.key, head.filed, start)]
        with translated():
            blob.write(head.filed, [*loose, *change.data])
            # What moves from the catalog to the file was durable there, and must be so here.
            synced = self._fsync and (commit.durable or bool(loose))
            if synced:
                blob.sync(folders=not (head.filed and head.synced))
        filed = Filed(incarnation, start, start + sum(map(len, change.data)))
        applied = self._submit(replace(commit, filed=filed, durable=synced))
        info = applied.change.info
        if info is not None and info.incarnation == incarnation:
            with suppress(OSError):  # of what was not to be after all: a repetition, or bytes that went to the catalog
                blob.cut(applied.filed)
        return applied

    def _undo(self, blob: Blob, incarnation: str) -> None:
        """Take back what was written for an append that was refused."""
        head = self.catalog().by_incarnation(incarnation)
        if head is None:
            self._in_background(self._remove_file, incarnation)
        else:
            with suppress(OSError):
                blob.cut(head.filed)

    def _submit(self, commit: Commit) -> Applied:
        size = 0 if commit.filed is None else commit.filed.stop - commit.filed.start
        return self._committer.submit(
            lambda batch: self._carry_out(batch, commit), durable=commit.durable, size=size, then=self._follow_up
        ).result()

    def _look(self, commit: Commit) -> tuple[View, Head | None]:
        """Return the state to decide on, outside of a transaction, and the target's head."""
        catalog = self.catalog()
        with catalog.snapshot():
            current = catalog.by_name(commit.name)
            target = current
            if commit.incarnation is not None and (current is None or current.info.incarnation != commit.incarnation):
                target = catalog.by_incarnation(commit.incarnation)
                if target is not None and target.info.name != commit.name:
                    target = None
            known = None
            if target is not None and commit.producer is not None:
                known = catalog.producer(target.key, commit.producer)
        return View(_info(target), _info(current), known), target

    @contextmanager
    def _unsettling(self, incarnation: str) -> Iterator[None]:
        """Let others know that a file may have to be looked after, before it is touched."""
        with self._gate:
            self._touched[incarnation] += 1
            known = incarnation in self._unsettled
        try:
            if not known:
                self._committer.submit(
                    lambda batch: batch.catalog.unsettle(incarnation, self._instance.id),
                    durable=False,
                    size=len(incarnation),
                ).result()
                self._unsettled.add(incarnation)
            yield
        finally:
            with self._gate:
                self._touched[incarnation] -= 1
                self._touched += Counter()  # keeps what is positive

    def _is_settled_by(self, commit: Commit, incarnation: str) -> bool:
        """Tell whether a file is as the catalog says once a commit is through: unless others touch it meanwhile."""
        with self._gate:
            settled = incarnation in self._unsettled and self._touched[incarnation] <= (commit.filed is not None)
            if settled:
                self._unsettled.discard(incarnation)
            return settled

    def _follow_up(self, applied: Applied) -> None:
        """Start what a commit makes necessary, in the background. Called by the committer."""
        info = applied.change.info
        for incarnation in applied.removed:
            self._in_background(self._remove_file, incarnation)
        # A small stream that is closed stays in the catalog: rows are cheaper than a million tiny files.
        if info is not None and info.tail - applied.filed >= FOLD_AT and info.incarnation not in self._folding:
            self._folding.add(info.incarnation)
            self._in_background(self._fold, info.name, info.incarnation)

    # -- chores ---------------------------------------------------------------------------------------------------

    def _in_background(self, function: Callable[..., None], *args: object) -> None:
        with suppress(RuntimeError):  # the store is stopping: the next one to start does it
            self._writers.submit(_quietly, function, *args)

    def _remove_file(self, incarnation: str) -> None:
        self.blobs.remove(incarnation)
        known = incarnation in self._unsettled
        self._unsettled.discard(incarnation)
        instances = (NOBODY, self._instance.id) if known else (NOBODY,)
        self._committer.submit(lambda batch: _settle(batch, incarnation, instances), durable=False).result()

    def _fold(self, name: str, incarnation: str) -> None:
        """Move a stream's bytes from the catalog to its file: an append of nothing that goes through the file."""

        def unchanged(view: View) -> Change:
            if view.target is None:
                return Change(None, duplicate=True)
            return Change(view.target, offset=view.target.tail)

        try:
            self._commit_through_file(Commit(name, unchanged, incarnation, None, self._fsync))
        finally:
            self._folding.discard(incarnation)

    async def tidy(self) -> None:
        """See `Store.tidy`."""
        await uninterrupted(self._in_thread(self._writers, self._tidy))

    def _tidy(self) -> None:
        with self._instance.ended() as ended:
            for instance in (*ended, NOBODY):
                self._settle_instance(instance)

    def _settle_instance(self, instance: str) -> None:
        """Discard what an instance that ended was still writing, and set right the files that it wrote to."""

        def discard(batch: Batch) -> None:
            for head in batch.catalog.owned_by(instance):
                batch.catalog.remove(head.key)
                batch.catalog.unsettle(head.info.incarnation, instance)

        self._committer.submit(discard, durable=False).result()
        for incarnation in self.catalog().unsettled(instance):
            self._settle_file(incarnation, instance)

    def _settle_file(self, incarnation: str, instance: str) -> None:
        """Make a file be what the catalog says: gone, or cut to its length."""
        if self.catalog().by_incarnation(incarnation) is None:
            self.blobs.remove(incarnation)
        else:
            # Nobody writes while the lock is held, so the length that is read then holds.
            with suppress(FileNotFoundError), self.blobs.locked(incarnation, create=False) as blob:
                head = self.catalog().by_incarnation(incarnation)
                if head is not None:
                    blob.cut(head.filed)
        self._committer.submit(lambda batch: batch.catalog.settle(incarnation, instance), durable=False).result()


def _info(head: Head | None) -> StreamInfo | None:
    return None if head is None else head.info


def _settle(batch: Batch, incarnation: str, instances: tuple[str, ...]) -> None:
    for instance in instances:
        batch.catalog.settle(incarnation, instance)


def _translating(function: Callable[..., T], *args: object) -> T:
    with translated():
        return function(*args)


def _quietly(function: Callable[..., None], *args: object) -> bool:
    """Do a chore, and tell whether it went well. One that fails (a full disk, say) is for the next time."""
    with suppress(Exception):
        _translating(function, *args)
        return True
    return False


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _close_result(opening: asyncio.Future[LocalReader | None]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        reader = opening.result()
        if reader is not None:
            reader.close()
