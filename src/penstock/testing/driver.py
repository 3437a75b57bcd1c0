"""Rule-made changes on any store, without the service between: what the suite and the state machine speak in."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from penstock.core import coordination, rules
from penstock.core.ports import Change, Decide, Reader, Store, View
from penstock.errors import StreamExists, StreamNotFound
from penstock.model import Buffer, Producer, StreamInfo, StreamSpec, new_incarnation

NOON = 1_700_000_000.0
"""The time at which a driver's changes happen, unless it is told another."""

PLAIN = StreamSpec()
_NO_DIGESTS: Mapping[str, bytes] = MappingProxyType({})
# A prime length, so that bytes taken from a wrong offset differ, whatever power of two the offset is wrong by.
_PERIOD = 262_147
_FLOW = hashlib.shake_256(b"penstock").digest(_PERIOD)


def flow(name: str, start: int, size: int) -> bytes:
    """Return the ``size`` bytes that belong at offset ``start`` of ``name``, if it is filled with nothing else.

    A test that fills its streams so can check any range of them without keeping what it wrote.
    """
    begin = (zlib.crc32(name.encode()) + start) % _PERIOD
    return (_FLOW * ((begin + size) // _PERIOD + 1))[begin : begin + size]


async def read_range(reader: Reader, start: int, stop: int) -> bytes:
    """Read all bytes from ``start`` to ``stop``, and hold every answer to what `Reader.read` promises."""
    parts: list[bytes] = []
    while start < stop:
        part = await reader.read(start, stop)
        if not 1 <= len(part) <= stop - start:
            raise AssertionError(f"asked for the bytes {start}-{stop}, and got {len(part)}")
        parts.append(bytes(part))
        start += len(part)
    return b"".join(parts)


class Driver:
    """Makes changes on a store, as `penstock.core.rules` say. ``now`` is the time of all of them."""

    def __init__(self, store: Store, now: float = NOON) -> None:
        self.store = store
        self.now = now

    async def create(
        self,
        name: str,
        *data: Buffer,
        spec: StreamSpec = PLAIN,
        close: bool = False,
        producer: Producer | None = None,
        incarnation: str | None = None,
    ) -> Change:
        """Make a stream, perhaps with its first bytes."""
        new = incarnation or new_incarnation()
        now = self.now
        return await self._commit(
            name,
            lambda view: rules.create(
                view, name, spec, incarnation=new, now=now, data=data, close=close, producer=producer
            ),
            producer=None if producer is None else producer.id,
            size=rules.size_of(data),
        )

    async def append(
        self,
        name: str,
        *data: Buffer,
        offset: int | None = None,
        producer: Producer | None = None,
        close: bool = False,
        content_type: str | None = None,
        incarnation: str | None = None,
        writer: str | None = None,
        durable: bool = True,
    ) -> Change:
        """Append to what the name shows, or to the incarnation that is given, published or not."""
        now = self.now
        return await self._commit(
            name,
            lambda view: rules.append(
                view,
                name,
                data,
                now=now,
                offset=offset,
                producer=producer,
                close=close,
                content_type=content_type,
                incarnation=incarnation,
                writer=writer,
            ),
            incarnation=incarnation,
            producer=None if producer is None else producer.id,
            size=rules.size_of(data),
            durable=durable,
        )

    async def begin(self, name: str, *, spec: StreamSpec = PLAIN, incarnation: str | None = None) -> str:
        """Begin a replacement, and return its incarnation."""
        new = incarnation or new_incarnation()
        now = self.now
        await self._commit(
            name,
            lambda view: rules.begin_replacement(view, name, spec, incarnation=new, now=now, condition=None),
            incarnation=new,
        )
        return new

    async def begin_upload(
        self, name: str, *, spec: StreamSpec = PLAIN, ttl: float | None = None, incarnation: str | None = None
    ) -> str:
        """Begin an upload, and return its incarnation."""
        new = incarnation or new_incarnation()
        now = self.now
        await self._commit(
            name,
            lambda view: rules.begin_upload(view, name, spec, incarnation=new, now=now, ttl=ttl, condition=None),
            incarnation=new,
        )
        return new

    async def take_over(self, name: str, incarnation: str, writer: str | None, *, offset: int | None = None) -> Change:
        """Take an upload over."""
        now = self.now
        return await self._commit(
            name,
            lambda view: rules.take_over(view, name, now=now, writer=writer, offset=offset, incarnation=incarnation),
            incarnation=incarnation,
        )

    async def annotate(self, name: str, attributes: Mapping[str, object], *, incarnation: str | None = None) -> Change:
        """Set attributes."""
        now = self.now
        return await self._commit(
            name,
            lambda view: rules.annotate(view, name, attributes, now=now, incarnation=incarnation),
            incarnation=incarnation,
        )

    async def publish(
        self,
        name: str,
        incarnation: str,
        *,
        digests: Mapping[str, bytes] = _NO_DIGESTS,
        writer: str | None = None,
    ) -> Change:
        """Complete a replacement or an upload."""
        now = self.now
        return await self._commit(
            name,
            lambda view: rules.publish(
                view, name, incarnation=incarnation, now=now, digests=digests, condition=None, writer=writer
            ),
            incarnation=incarnation,
        )

    async def put(
        self,
        name: str,
        *data: Buffer,
        spec: StreamSpec = PLAIN,
        digests: Mapping[str, bytes] = _NO_DIGESTS,
        incarnation: str | None = None,
    ) -> Change:
        """Make or replace a whole stream in one step."""
        new = incarnation or new_incarnation()
        now = self.now
        return await self._commit(
            name,
            lambda view: rules.put(
                view, name, spec, incarnation=new, now=now, data=data, digests=digests, condition=None
            ),
            incarnation=new,
            size=rules.size_of(data),
        )

    async def fail(self, name: str, reason: str, *, incarnation: str | None = None) -> Change:
        """Say that a stream broke."""
        now = self.now
        return await self._commit(
            name,
            lambda view: rules.fail(view, name, reason, now=now, incarnation=incarnation),
            incarnation=incarnation,
        )

    async def fork(
        self,
        name: str,
        source: str,
        offset: int | None = None,
        *data: Buffer,
        incarnation: str | None = None,
        close: bool = False,
    ) -> Change:
        """Make a stream that begins with another one's bytes, up to ``offset``."""
        new = incarnation or new_incarnation()
        now = self.now
        known = await self.store.load(source)
        if known is None:
            raise StreamNotFound(source)
        fork = coordination.Fork(source=known, offset=offset, asked={})

        def same(_: StreamInfo | None) -> None:
            raise StreamExists(name)

        return await self._commit(
            name,
            lambda view: coordination.create(
                view, name, PLAIN, incarnation=new, now=now, same=same, data=data, close=close, fork=fork
            ),
            size=rules.size_of(data),
        )

    async def reap(self, name: str, *, incarnation: str | None = None) -> Change:
        """Remove a deleted stream if it has no forks any more."""
        return await self._commit(name, rules.reap, incarnation=incarnation, durable=False)

    async def drop_beginning(self, name: str, start: int) -> Change:
        """Drop a stream's bytes before ``start``."""

        def decide(view: View) -> Change:
            info = rules.present(view, name, self.now)
            if not info.start < start <= info.tail:
                return Change(info, duplicate=True)
            return Change(replace(info, start=start, origin=None), offset=info.tail)

        return await self._commit(name, decide)

    async def renew(self, name: str) -> Change:
        """Put off a stream's expiry because it was read."""
        now = self.now
        return await self._commit(name, lambda view: rules.renew(view, now=now), durable=False)

    async def delete(self, name: str, *, incarnation: str | None = None) -> Change:
        """Remove a stream."""
        now = self.now
        return await self._commit(
            name, lambda view: rules.delete(view, name, now=now, incarnation=incarnation), incarnation=incarnation
        )

    async def expire(self, name: str) -> Change:
        """Remove a stream if its time has come."""
        now = self.now
        return await self._commit(name, lambda view: rules.expire(view, now=now))

    async def discard(self, name: str, incarnation: str) -> Change:
        """Remove a replacement that will not be completed."""
        return await self._commit(name, rules.discard, incarnation=incarnation)

    async def add_digest(self, name: str, algorithm: str, digest: bytes) -> Change:
        """Keep a digest of a complete stream."""
        return await self._commit(name, lambda view: rules.add_digest(view, algorithm, digest))

    async def info(self, name: str) -> StreamInfo:
        """Return the state of a stream that must be there."""
        info = await self.store.load(name)
        if info is None:
            raise StreamNotFound(name)
        return info

    async def reader(self, name: str, *, incarnation: str | None = None) -> Reader:
        """Open a stream that must be there for reading."""
        reader = await self.store.open(name, incarnation=incarnation)
        if reader is None:
            raise StreamNotFound(name)
        return reader

    async def content(self, name: str, *, incarnation: str | None = None) -> bytes:
        """Return all bytes of a stream that must be there."""
        with await self.reader(name, incarnation=incarnation) as reader:
            return await read_range(reader, reader.info.start, reader.info.tail)

    async def names(self, prefix: str = "", limit: int = 100) -> list[str]:
        """Return the names that begin with ``prefix``, listed in pages of ``limit``."""
        names: list[str] = []
        after = ""
        while page := await self.store.list(prefix, after, limit):
            if len(page) > limit:
                raise AssertionError(f"a page of at most {limit} streams has {len(page)}")
            names.extend(info.name for info in page)
            after = names[-1]
        return names

    async def all(self) -> dict[str, tuple[StreamInfo, bytes]]:
        """Return the state and the bytes of every published stream."""
        return {name: (await self.info(name), await self.content(name)) for name in await self.names()}

    async def view(self, name: str, *, incarnation: str | None = None, producer: str | None = None) -> View:
        """Return what a decision would be made on."""
        views: list[View] = []

        def decide(view: View) -> Change:
            views.append(view)
            return Change(view.target, duplicate=True)

        await self._commit(name, decide, incarnation=incarnation, producer=producer)
        return views[-1]

    async def _commit(
        self,
        name: str,
        decide: Decide,
        *,
        incarnation: str | None = None,
        producer: str | None = None,
        size: int = 0,
        durable: bool = True,
    ) -> Change:
        return await self.store.commit(
            name, decide, incarnation=incarnation, producer=producer, size=size, durable=durable
        )
