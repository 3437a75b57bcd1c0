"""The two ways of a commit: small ones ride in the catalog, large ones put their bytes into the stream's file first."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from penstock.core.ports import Change, View
from penstock.errors import PenstockError, StorageFailed, StreamGone
from penstock.model import StreamInfo
from penstock.stores.local.batch import Applied, Batch, Commit, Filed, Moved
from penstock.stores.local.blobs import Blob
from penstock.stores.local.catalog import Head, translated
from penstock.stores.local.committer import Job
from penstock.stores.local.engine import Engine
from penstock.stores.local.unsettled import Unsettled

FOLD_AT = 1024 * 1024
"""A stream with this many bytes in the catalog has them moved to its file."""

HOLE = 256 * 1024
"""Bytes that must have been dropped from a file, for their room to be given back."""


class Filing:
    """Carries commits out."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._unsettled = Unsettled(engine)
        self._folding: set[str] = set()
        self._holes: dict[str, int] = {}

    async def through_catalog(self, commits: Sequence[tuple[Commit, int]]) -> Sequence[Job[Applied]]:
        """Commit with the bytes in the catalog: how many there are is told with each commit.

        The outcome of one may be `Moved`: the stream's file must be brought to the disk first. Commit through the file.
        """
        jobs = [
            Job(partial(self._carry_out, commit=commit), size, self._follow_up, commit.name) for commit, size in commits
        ]
        await self._engine.committer.done(jobs, durable=any(commit.durable for commit, _ in commits))
        return jobs

    def through_file(self, commit: Commit) -> Applied:
        """Put the bytes into the stream's file first, then commit. Blocking.

        The file's lock keeps other large appends and folding away from the write to the end of the commit. Small
        appends go on meanwhile; see `Filed` for what becomes of the bytes if one moved the tail.
        """
        while True:
            view, _ = self._look(commit)
            change = commit.decide(view)
            if change.duplicate or change.info is None or not (change.data or change.info.tail):
                return self._submit(commit)
            incarnation = change.info.incarnation
            with self._unsettled.touching(incarnation), self._engine.blobs.locked(incarnation) as blob:
                view, head = self._look(commit)
                try:
                    return self._write_and_submit(blob, head, commit.decide(view), incarnation, commit)
                except Moved:
                    self._undo(blob, incarnation)
                except PenstockError as error:
                    if not isinstance(error, StorageFailed):  # of which it is not certain that nothing was committed
                        self._undo(blob, incarnation)
                    raise

    def join(self, commit: Commit, parts: Sequence[StreamInfo]) -> Applied:
        """Append the bytes of closed streams to one that is there, and commit. Blocking.

        The system copies from file to file, or shares the blocks where the file system can.

        Raises:
            StreamGone: one of the parts is gone.
        """
        incarnation, size = commit.incarnation or "", sum(part.tail for part in parts)
        with self._unsettled.touching(incarnation), self._engine.blobs.locked(incarnation) as blob:
            view, _ = self._look(commit)
            try:
                commit.decide(view)  # before the work is done; it is asked again at its end
                offset = 0
                for part in parts:
                    self._copy(blob, offset, part)
                    offset += part.tail
                if self._engine.fsync:
                    blob.sync(folders=True)
                return self._submit(commit._replace(filed=Filed(incarnation, 0, size, synced=True)))
            except PenstockError as error:
                if not isinstance(error, StorageFailed):  # of which it is not certain that nothing was committed
                    self._undo(blob, incarnation)
                raise

    def _copy(self, blob: Blob, offset: int, part: StreamInfo) -> None:
        catalog = self._engine.catalog()
        with catalog.snapshot():
            head = catalog.head(part.name, part.incarnation)
            if head is None or not head.info.closed:
                raise StreamGone(part.name, part.incarnation)
            loose = [data for _, data in catalog.chunks(head.key, head.filed, head.info.tail)]
            source = self._engine.blobs.open(part.incarnation) if head.filed else -1
        with translated():
            try:
                if head.filed:
                    blob.copy(offset, source, head.filed)
            finally:
                if source >= 0:
                    os.close(source)
            blob.write(offset + head.filed, loose)

    def fold(self, name: str, incarnation: str) -> None:
        """Move a stream's bytes from the catalog to its file: an append of nothing that goes through the file."""

        def unchanged(view: View) -> Change:
            if view.target is None:
                return Change(None, duplicate=True)
            return Change(view.target, offset=view.target.tail)

        try:
            self.through_file(Commit(name, unchanged, incarnation, None, self._engine.fsync))
        finally:
            self._folding.discard(incarnation)

    def _make_hole(self, incarnation: str, stop: int) -> None:
        """Give back the room in the file of what was dropped from the beginning of a stream. Blocking."""
        with suppress(FileNotFoundError), self._engine.blobs.locked(incarnation, create=False) as blob:
            blob.punch(stop)

    def _look(self, commit: Commit) -> tuple[View, Head | None]:
        """Return the state to decide on, outside of a transaction, and the target's head."""
        catalog = self._engine.catalog()
        with catalog.snapshot():
            current = catalog.by_name(commit.name)
            target = current
            if commit.incarnation is not None and (current is None or current.info.incarnation != commit.incarnation):
                target = catalog.head(commit.name, commit.incarnation)
            known = None
            if target is not None and commit.producer is not None:
                known = catalog.producer(target.key, commit.producer)
        view = View(_info(target), _info(current), known, lambda name: _info(catalog.by_name(name)), catalog.forks)
        return view, target

    def _write_and_submit(
        self, blob: Blob, head: Head | None, change: Change, incarnation: str, commit: Commit
    ) -> Applied:
        if change.duplicate or change.info is None or change.info.incarnation != incarnation:
            raise Moved
        if head is None or head.info.incarnation != incarnation:  # it is to be created
            head = Head.before(change.info)
        start = head.info.tail
        loose = [data for _, data in self._engine.catalog().chunks(head.key, head.filed, start)]
        with translated():
            blob.write(head.filed, [*loose, *change.data])
            # What moves from the catalog to the file was durable there, and must be so here.
            synced = self._engine.fsync and (commit.durable or bool(loose))
            if synced:
                blob.sync(folders=head.synced <= head.info.start)
        filed = Filed(incarnation, start, start + sum(map(len, change.data)), synced or not self._engine.fsync)
        applied = self._submit(commit._replace(filed=filed, durable=synced))
        info = applied.change.info
        if info is not None and info.incarnation == incarnation:
            with suppress(OSError):  # of what was not to be after all: a repetition, or bytes that went to the catalog
                blob.cut(applied.filed)
        return applied

    def _undo(self, blob: Blob, incarnation: str) -> None:
        """Take back what was written for an append that was refused."""
        head = self._engine.catalog().by_incarnation(incarnation)
        if head is None:
            self._engine.in_background(self._unsettled.remove, incarnation)
        else:
            with suppress(OSError):
                blob.cut(head.filed)

    def _submit(self, commit: Commit) -> Applied:
        size = 0 if commit.filed is None else commit.filed.stop - commit.filed.start
        job = Job(partial(self._carry_out, commit=commit), size, self._follow_up)
        return self._engine.committer.do(job, durable=commit.durable)

    def _carry_out(self, batch: Batch, commit: Commit) -> Applied:
        applied = batch.carry_out(commit)
        info = applied.change.info
        if info is not None and info.closed and not info.provisional:
            self._unsettled.settle_with(batch, commit, info.incarnation)
        return applied

    def _follow_up(self, applied: Applied) -> None:
        """Start what a commit makes necessary, in the background. Called by the committer."""
        self._engine.recollections.note(applied)
        info = applied.change.info
        for incarnation in applied.removed:
            self._holes.pop(incarnation, None)
            self._engine.in_background(self._unsettled.remove, incarnation)
        if (
            info is not None
            and info.shrinks
            and applied.filed
            and info.start >= self._holes.get(info.incarnation, 0) + HOLE
        ):
            self._holes[info.incarnation] = info.start
            self._engine.in_background(self._make_hole, info.incarnation, info.start)
        # A small stream that is closed stays in the catalog: rows are cheaper than a million tiny files.
        if info is not None and info.tail - applied.filed >= FOLD_AT and info.incarnation not in self._folding:
            self._folding.add(info.incarnation)
            self._engine.in_background(self.fold, info.name, info.incarnation)


def _info(head: Head | None) -> StreamInfo | None:
    return None if head is None else head.info
