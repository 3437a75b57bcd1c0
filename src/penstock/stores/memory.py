"""A store in the memory of one process: for tests, and the model that other stores are compared with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from types import TracebackType
from typing import Self

from penstock.core.ports import Change, Decide, View
from penstock.errors import OffsetOutOfRange, StreamGone
from penstock.model import Buffer, ProducerState, StreamInfo, Usage


@dataclass(slots=True, eq=False)
class _Entry:
    """One incarnation: its state, its bytes, its producers."""

    info: StreamInfo
    first: int
    data: bytearray = field(default_factory=bytearray)
    producers: dict[str, ProducerState] = field(default_factory=dict)
    deleted: bool = False


class MemoryStore:
    """Streams in memory. They go with the process, and nothing bounds them but the machine's memory."""

    def __init__(self) -> None:
        self._current: dict[str, _Entry] = {}
        self._drafts: dict[str, _Entry] = {}

    async def start(self) -> None:
        """Nothing to open."""

    async def stop(self) -> None:
        """Forget everything."""
        self._current.clear()
        self._drafts.clear()

    async def load(self, name: str, *, incarnation: str | None = None) -> StreamInfo | None:
        """See `Store.load`."""
        entry = self._entry(name, incarnation)
        return None if entry is None else entry.info

    async def open(self, name: str, *, incarnation: str | None = None) -> MemoryReader | None:
        """See `Store.open`."""
        entry = self._entry(name, incarnation)
        return None if entry is None else MemoryReader(entry)

    def _entry(self, name: str, incarnation: str | None) -> _Entry | None:
        """Return what the name shows, or the incarnation of that name that is given."""
        current = self._current.get(name)
        if incarnation is None or (current is not None and current.info.incarnation == incarnation):
            return current
        draft = self._drafts.get(incarnation)
        return draft if draft is not None and draft.info.name == name else None

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
        """See `Store.commit`. It never awaits, and so is atomic."""
        current = self._current.get(name)
        target = self._entry(name, incarnation)
        known = target.producers.get(producer) if target is not None and producer is not None else None
        change = decide(
            View(
                None if target is None else target.info,
                None if current is None else current.info,
                known,
                self._shown,
                self._forks,
            )
        )
        if not change.duplicate:
            self._apply(name, target, current, change)
        return change

    def _shown(self, name: str) -> StreamInfo | None:
        entry = self._current.get(name)
        return None if entry is None else entry.info

    def _forks(self, incarnation: str) -> int:
        origins = (entry.info.origin for entry in self._entries())
        return sum(origin is not None and origin.incarnation == incarnation for origin in origins)

    def _apply(self, name: str, target: _Entry | None, current: _Entry | None, change: Change) -> None:
        info = change.info
        if info is None:
            if target is not None:
                self._remove(target)
            return
        if target is not None and info.incarnation != target.info.incarnation:
            self._displace(target)
            target = None
        entry = _Entry(info, info.start) if target is None else target
        for buffer in change.data:
            entry.data += buffer
        if info.start > entry.first:
            entry.data = entry.data[info.start - entry.first :]
            entry.first = info.start
        entry.info = info
        if change.producer is not None:
            entry.producers[change.producer.producer.id] = change.producer
        if not info.published:
            self._drafts[info.incarnation] = entry
            return
        if current is not None and current is not entry and not current.deleted:
            self._displace(current)
        self._drafts.pop(info.incarnation, None)
        self._current[name] = entry

    def _displace(self, entry: _Entry) -> None:
        """Make room for what takes the stream's place. It stays for its forks."""
        forks = self._forks(entry.info.incarnation)
        self._remove(entry)
        if forks:
            entry.deleted = False
            entry.info = replace(entry.info, published=False, deleted=True)
            self._drafts[entry.info.incarnation] = entry

    def _remove(self, entry: _Entry) -> None:
        entry.deleted = True
        self._drafts.pop(entry.info.incarnation, None)
        if self._current.get(entry.info.name) is entry:
            del self._current[entry.info.name]

    async def list(self, prefix: str, after: str, limit: int) -> Sequence[StreamInfo]:
        """See `Store.list`."""
        names = [
            name
            for name, entry in self._current.items()
            if name.startswith(prefix) and name.encode() > after.encode() and not entry.info.deleted
        ]
        return self._infos(sorted(names, key=str.encode)[:limit])

    async def expired(self, now: float, limit: int) -> Sequence[StreamInfo]:
        """See `Store.expired`."""
        drafts = [entry.info for entry in self._drafts.values() if not entry.info.provisional]
        infos = [*(entry.info for entry in self._current.values()), *drafts]
        return [info for info in infos if info.expired(now)][:limit]

    async def overdue(self, now: float, limit: int) -> Sequence[StreamInfo]:
        """See `Store.overdue`."""
        infos = [entry.info for entry in self._current.values()]
        return [info for info in infos if info.trim_at is not None and info.trim_at <= now][:limit]

    async def orphans(self, limit: int) -> Sequence[StreamInfo]:
        """See `Store.orphans`."""
        deleted = (entry.info for entry in self._entries() if entry.info.deleted)
        return [info for info in deleted if not self._forks(info.incarnation)][:limit]

    async def find(self, owner: str | None, key: str) -> StreamInfo | None:
        """See `Store.find`."""
        infos = [entry.info for entry in self._entries() if not entry.info.deleted]
        found = [info for info in infos if (info.owner, info.key) == (owner, key)]
        return max(found, key=lambda info: info.created_at, default=None)

    async def usage(self, owner: str) -> Usage:
        """See `Store.usage`."""
        owned = [entry.info for entry in self._entries() if entry.info.owner == owner and not entry.info.deleted]
        return Usage(len(owned), sum(max(info.tail, info.length or 0) for info in owned))

    def _entries(self) -> Iterable[_Entry]:
        return chain(self._current.values(), self._drafts.values())

    def _infos(self, names: Iterable[str]) -> Sequence[StreamInfo]:
        return [self._current[name].info for name in names]

    async def tidy(self) -> None:
        """Nothing is left behind here."""


class MemoryReader:
    """See `Reader`."""

    def __init__(self, entry: _Entry) -> None:
        self._entry = entry
        self._info = entry.info

    @property
    def info(self) -> StreamInfo:
        """See `Reader.info`."""
        return self._info

    async def refresh(self) -> StreamInfo:
        """See `Reader.refresh`."""
        self._check()
        self._info = self._entry.info
        return self._info

    async def read(self, start: int, stop: int) -> Buffer:
        """See `Reader.read`."""
        if not self._info.closed:
            self._check()
        first = self._entry.first
        if start < first:
            raise OffsetOutOfRange(
                self._info.name, start, self._info.tail, "is before what is kept", start=self._entry.first
            )
        return bytes(memoryview(self._entry.data)[start - first : min(stop, start + 1024 * 1024) - first])

    def _check(self) -> None:
        if self._entry.deleted:
            raise StreamGone(self._info.name, self._info.incarnation)

    def close(self) -> None:
        """Nothing is held."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
