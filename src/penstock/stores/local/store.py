"""The store itself: the port, on the parts that do the work."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import Literal, TypeAlias

from penstock.core.ports import Change, Decide, Proposal
from penstock.core.uninterrupted import uninterrupted
from penstock.errors import StorageFailed
from penstock.model import StreamInfo, Usage
from penstock.stores.local.batch import Commit, Moved
from penstock.stores.local.engine import Engine, quietly
from penstock.stores.local.filing import Filing
from penstock.stores.local.reader import MOST_HELD, LocalReader
from penstock.stores.local.recovery import recover, settle

Durability: TypeAlias = Literal["fsync", "os"]

SMALL = 64 * 1024
"""Appends up to this many bytes ride in the catalog: one fsync for many of them. Larger ones go to the file."""


class LocalStore:
    """A folder of files and a SQLite catalog; see `penstock.stores.local` for the layout.

    Args:
        path: the folder. It is created where it is missing, for this user alone.
        durability: ``fsync``: what is acknowledged survives a power cut. ``os``: it survives a crash of the process.
    """

    def __init__(self, path: str | PathLike[str], durability: Durability = "fsync") -> None:
        self._engine = Engine(Path(path), fsync=durability == "fsync")
        self._filing = Filing(self._engine)

    async def start(self) -> None:
        """See `Store.start`."""
        await uninterrupted(asyncio.get_running_loop().run_in_executor(None, self._start))

    def _start(self) -> None:
        self._engine.start()
        quietly(recover, self._engine)  # a disk that is full must not keep anyone from reading

    async def stop(self) -> None:
        """See `Store.stop`."""
        await uninterrupted(asyncio.get_running_loop().run_in_executor(None, self._stop))

    def _stop(self) -> None:
        self._engine.stop(lambda: settle(self._engine, self._engine.instance.id))

    def abandon(self) -> None:
        """Go away as after a crash, leaving everything as it is at this moment: for tests of recovery."""
        self._engine.abandon()

    async def load(self, name: str, *, incarnation: str | None = None) -> StreamInfo | None:
        """See `Store.load`."""
        head = await self._engine.read(lambda: self._engine.catalog().head(name, incarnation))
        return None if head is None else head.info

    async def open(self, name: str, *, incarnation: str | None = None) -> LocalReader | None:
        """See `Store.open`."""
        opening = asyncio.ensure_future(self._engine.read(self._open, name, incarnation))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close_result)
            raise

    def _open(self, name: str, incarnation: str | None) -> LocalReader | None:
        catalog = self._engine.catalog()
        folded, missing = True, ""
        while True:
            with catalog.snapshot():
                head = catalog.head(name, incarnation)
                if head is None:
                    return None
                hold = head.info.closed and head.info.tail - head.filed <= MOST_HELD
                if hold or not head.info.closed or not folded:
                    try:
                        return LocalReader.opened(self._engine, catalog, head, hold=hold)
                    except FileNotFoundError:  # deleted since the snapshot: look again, once
                        if missing == head.info.incarnation:
                            raise StorageFailed(f"The file of the stream {name!r} is missing.") from None
                        missing = head.info.incarnation
                        continue
            # More than a reader holds in memory. Folded, it is in the file, which outlives a deletion.
            folded = quietly(self._filing.fold, name, head.info.incarnation)

    def generation(self, name: str) -> int | None:
        """See `GenerationStore.generation`."""
        self._engine.check_started()
        return self._engine.generations.of(name)

    async def list(self, prefix: str, after: str, limit: int) -> Sequence[StreamInfo]:
        """See `Store.list`."""
        return await self._engine.read(lambda: self._engine.catalog().listing(prefix, after, limit))

    async def expired(self, now: float, limit: int) -> Sequence[StreamInfo]:
        """See `Store.expired`."""
        return await self._engine.read(lambda: self._engine.catalog().expired(now, limit))

    async def overdue(self, now: float, limit: int) -> Sequence[StreamInfo]:
        """See `Store.overdue`."""
        return await self._engine.read(lambda: self._engine.catalog().overdue(now, limit))

    async def orphans(self, limit: int) -> Sequence[StreamInfo]:
        """See `Store.orphans`."""
        return await self._engine.read(lambda: self._engine.catalog().orphans(limit))

    async def find(self, owner: str | None, key: str) -> StreamInfo | None:
        """See `Store.find`."""
        return await self._engine.read(lambda: self._engine.catalog().labelled(owner, key))

    async def usage(self, owner: str) -> Usage:
        """See `Store.usage`."""
        return await self._engine.read(lambda: self._engine.catalog().usage(owner))

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
        self._engine.check_started()
        commit = Commit(name, decide, incarnation, producer, durable and self._engine.fsync)
        if size <= SMALL:
            (job,) = await self._filing.through_catalog([(commit, size)])
            with suppress(Moved):
                return job.outcome().change
        return await self._through_file(commit)

    async def commit_each(self, proposals: Sequence[Proposal]) -> Sequence[Change | BaseException]:
        """See `CollectingStore.commit_each`."""
        self._engine.check_started()
        commits = [
            (Commit(name, decide, incarnation, None, self._engine.fsync), size)
            for name, decide, size, incarnation in proposals
        ]
        jobs = await self._filing.through_catalog(commits)
        outcomes = [job.error or job.outcome().change for job in jobs]
        for at, outcome in enumerate(outcomes):
            if isinstance(outcome, Moved):
                (outcomes[at],) = await asyncio.gather(self._through_file(commits[at][0]), return_exceptions=True)
        return outcomes

    async def _through_file(self, commit: Commit) -> Change:
        return (await uninterrupted(self._engine.write(self._filing.through_file, commit))).change

    async def join(self, name: str, decide: Decide, parts: Sequence[StreamInfo], *, incarnation: str) -> Change:
        """See `JoiningStore.join`."""
        self._engine.check_started()
        commit = Commit(name, decide, incarnation, None, self._engine.fsync)
        return (await uninterrupted(self._engine.write(self._filing.join, commit, parts))).change

    async def tidy(self) -> None:
        """See `Store.tidy`."""
        await uninterrupted(self._engine.write(recover, self._engine))


def _close_result(opening: asyncio.Future[LocalReader | None]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        reader = opening.result()
        if reader is not None:
            reader.close()
