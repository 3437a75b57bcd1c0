"""Creating, appending, replacing, closing and deleting streams."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from penstock.core import rules
from penstock.core.ports import Change, Proposal, View
from penstock.core.rules import Condition
from penstock.core.service.base import there
from penstock.core.service.reading import Reading
from penstock.core.uninterrupted import uninterrupted
from penstock.core.writer import Draft, Writer
from penstock.errors import PenstockError
from penstock.model import Appended, Buffer, Producer, StreamInfo, StreamSpec, check_name, new_incarnation

logger = logging.getLogger("penstock")


class Append(NamedTuple):
    """One of several appends: to which stream, what, and what the stream must hold (None for whatever it does)."""

    name: str
    data: Buffer
    content_type: str | None = None


class Put(NamedTuple):
    """One of several small streams that are created or replaced: its name, all of it, and what is said about it.

    ``condition`` looks at what the name shows, and raises `PreconditionFailed` if that must not be replaced.
    """

    name: str
    data: Buffer
    spec: StreamSpec
    condition: Condition | None = None


def _append(name: str, data: Buffer, content_type: str | None, now: float, view: View) -> Change:
    return rules.append(view, name, (data,), now=now, content_type=content_type)


def _proposed(put: Put, incarnation: str, now: float) -> Proposal:
    def decide(view: View) -> Change:
        return rules.put(
            view,
            check_name(put.name),  # here, so that a wrong one is its own loss only
            put.spec,
            incarnation=incarnation,
            now=now,
            data=(put.data,),
            digests={},
            condition=put.condition,
        )

    return Proposal(put.name, decide, len(put.data), incarnation)


class Writing(Reading):
    """What the service does to streams in one commit, or by one writer."""

    _leftover: dict[str, StreamInfo]
    _unswept: asyncio.Event

    async def create(
        self,
        name: str,
        spec: StreamSpec | None = None,
        *,
        data: Sequence[Buffer] = (),
        close: bool = False,
        producer: Producer | None = None,
    ) -> StreamInfo:
        """Create a stream, perhaps with its first bytes, perhaps complete at once.

        Raises:
            StreamExists: there is one of that name.
        """
        check_name(name)
        spec, incarnation, now = spec or StreamSpec(), new_incarnation(), self.now()

        def decide(view: View) -> Change:
            return rules.create(
                view, name, spec, incarnation=incarnation, now=now, data=data, close=close, producer=producer
            )

        return there(await self.commit(name, decide, size=rules.size_of(data)))

    async def append(
        self,
        name: str,
        data: Sequence[Buffer],
        *,
        offset: int | None = None,
        producer: Producer | None = None,
        close: bool = False,
        incarnation: str | None = None,
        content_type: str | None = None,
        create: StreamSpec | None = None,
    ) -> Appended:
        """Append atomically: all of ``data``, or nothing. It is durable when this returns.

        Args:
            name: the stream.
            data: the bytes, in as many buffers as they come in; none of them with ``close`` is a plain close.
            offset: where the tail must be; None appends wherever it is.
            producer: who appends: a repetition of an append that was accepted changes nothing and succeeds.
            close: close the stream in the same commit.
            incarnation: which incarnation is meant; None for whichever there is.
            content_type: what the stream must hold; None for whatever it does.
            create: create the stream like this if there is none.

        Raises:
            StreamNotFound, StreamGone, StreamClosed, StreamFailed, StreamBusy: there is nothing to append to.
            OffsetMismatch, ContentTypeMismatch, LengthMismatch: the append does not fit.
            ProducerFenced, ProducerOutOfSequence: another producer took over, or something was left out.
            StorageFull: nothing was kept.
        """
        check_name(name)
        fresh, now = new_incarnation(), self.now()

        def decide(view: View) -> Change:
            if create is not None and rules.living(view.current, now) is None and offset in {None, 0}:
                return rules.create(
                    view, name, create, incarnation=fresh, now=now, data=data, close=close, producer=producer
                )
            return rules.append(
                view,
                name,
                data,
                now=now,
                offset=offset,
                producer=producer,
                close=close,
                content_type=content_type,
                incarnation=incarnation,
            )

        change = await self.commit(
            name, decide, producer=None if producer is None else producer.id, size=rules.size_of(data)
        )
        info = there(change)
        return Appended(info, change.offset, change.duplicate, created=info.incarnation == fresh)

    async def append_each(self, appends: Sequence[Append]) -> list[Appended | BaseException]:
        """Append to several streams, or several times to one, each atomically and for itself, in this order.

        It takes a fraction of the time of as many appends.

        Returns:
            for each what `append` would have returned or raised.
        """
        now = self.now()
        proposals = [
            Proposal(name, partial(_append, name, data, content_type, now), len(data))
            for name, data, content_type in appends
        ]
        outcomes = await self.commit_each(proposals)
        return [
            outcome
            if isinstance(outcome, BaseException)
            else Appended(there(outcome), outcome.offset, outcome.duplicate)
            for outcome in outcomes
        ]

    async def put_each(self, puts: Sequence[Put]) -> list[StreamInfo | BaseException]:
        """Create or replace several streams, each for itself, in this order.

        It takes a fraction of the time of as many `put`.

        Returns:
            for each what `put` would have returned or raised.
        """
        now = self.now()
        outcomes = await self.commit_each([_proposed(put, new_incarnation(), now) for put in puts])
        return [outcome if isinstance(outcome, BaseException) else there(outcome) for outcome in outcomes]

    async def append_records(
        self,
        name: str,
        data: Buffer,
        count: int,
        skip: Callable[[int], Buffer],
        *,
        producer: Producer,
        close: bool = False,
        incarnation: str | None = None,
        content_type: str | None = None,
        create: StreamSpec | None = None,
    ) -> Appended:
        """Append records atomically that their producer numbers one by one, without those that it had sent before.

        So a producer that was cut off may cut its records into appends as it likes when it sends them again.

        Args:
            name: the stream.
            data: the records.
            count: how many there are, at least one.
            skip: returns the records without so many of the first ones; pure, called in another thread.
            producer: who appends. Its sequence is the number of the first record.
            close: close the stream in the same commit.
            incarnation: as of `append`.
            content_type: as of `append`.
            create: as of `append`.

        Raises:
            PenstockError: as of `append`.
        """
        check_name(name)
        fresh, now = new_incarnation(), self.now()

        def decide(view: View) -> Change:
            if create is not None and rules.living(view.current, now) is None:
                change = rules.create(
                    view, name, create, incarnation=fresh, now=now, data=(data,), close=close, producer=producer
                )
                return rules.numbered(change, replace(producer, sequence=producer.sequence + count - 1))
            return rules.append_records(
                view,
                name,
                data,
                count,
                skip,
                now=now,
                producer=producer,
                close=close,
                content_type=content_type,
                incarnation=incarnation,
            )

        change = await self.commit(name, decide, producer=producer.id, size=len(data))
        info = there(change)
        return Appended(info, change.offset, change.duplicate, created=info.incarnation == fresh)

    async def append_from(
        self, name: str, chunks: AsyncIterable[Buffer], *, offset: int | None = None, close: bool = False
    ) -> StreamInfo:
        """Append progressively what ``chunks`` yields: readers see it as it comes, and it is durable at the end.

        Where ``chunks`` raises, what came before is kept and made durable, then the error goes on.
        """
        info = await self.info(name)
        writer = Writer(self, info)
        if offset is not None and offset != info.tail:
            rules.append(View(info, info), name, (), now=self.now(), offset=offset)  # raises what is wrong
        try:
            async for chunk in chunks:
                await writer.write([chunk])
        except PenstockError:
            raise
        except BaseException:
            await uninterrupted(writer.flush())
            raise
        return await (writer.close() if close else writer.flush())

    async def put(
        self,
        name: str,
        data: Sequence[Buffer],
        spec: StreamSpec | None = None,
        *,
        condition: Condition | None = None,
        digests: dict[str, bytes] | None = None,
        incarnation: str | None = None,
    ) -> StreamInfo:
        """Create or replace a whole stream in one commit: for what fits into memory. See `replace`.

        An ``incarnation`` is an id of the caller's own, new for each creation.
        """
        check_name(name)
        spec, incarnation, now = spec or StreamSpec(), incarnation or new_incarnation(), self.now()

        def decide(view: View) -> Change:
            return rules.put(
                view,
                name,
                spec,
                incarnation=incarnation,
                now=now,
                data=data,
                digests=digests or {},
                condition=condition,
            )

        return there(await self.commit(name, decide, incarnation=incarnation, size=rules.size_of(data)))

    async def replace(
        self,
        name: str,
        spec: StreamSpec | None = None,
        *,
        condition: Condition | None = None,
        shown: bool = True,
    ) -> Draft:
        """Begin a stream that its name shows once it is complete; one that it shows now stays until then.

        Args:
            name: the stream.
            spec: what is to be said about it.
            condition: looks at what the name shows (None: nothing), at the beginning and at the end, and raises
                `PreconditionFailed` if that must not be replaced.
            shown: False to keep it hidden until it is complete, even if the name shows nothing.

        Returns:
            an async context manager: write to it, then publish it; left otherwise, it is discarded.

        Raises:
            StreamIsOpen: the name shows a stream that is still being written, and that is no upload.
        """
        check_name(name)
        spec, incarnation, now = spec or StreamSpec(), new_incarnation(), self.now()

        def decide(view: View) -> Change:
            return rules.begin_replacement(
                view, name, spec, incarnation=incarnation, now=now, condition=condition, shown=shown
            )

        return Draft(self, there(await self.commit(name, decide, incarnation=incarnation, durable=False)), condition)

    async def discard(self, draft: StreamInfo) -> None:
        """Remove a draft that will not be completed. Where the storage cannot do that now, it is tried again."""
        try:
            await self.commit(draft.name, rules.discard, incarnation=draft.incarnation, durable=False)
        except PenstockError as error:
            logger.warning("An unfinished upload could not be removed yet: %s", error)
            self._leftover[draft.incarnation] = draft
            self._unswept.set()
        else:
            self._leftover.pop(draft.incarnation, None)

    async def close(self, name: str, *, incarnation: str | None = None) -> StreamInfo:
        """Close a stream: nothing more can be appended. Again is harmless."""
        return (await self.append(name, (), close=True, incarnation=incarnation)).info

    async def stop_stream(self, name: str, reason: str, *, incarnation: str | None = None) -> StreamInfo:
        """Close a stream because a reader has enough: its producer's next append raises `StreamStopped`.

        Of a stream that has ended already, nothing changes.
        """
        check_name(name)
        now = self.now()

        def decide(view: View) -> Change:
            return rules.stop(view, name, reason, now=now, incarnation=incarnation)

        return there(await self.commit(name, decide, incarnation=incarnation))

    async def fail(self, name: str, reason: str, *, incarnation: str | None = None) -> StreamInfo:
        """Say that an open stream broke: its readers are told so, and never take it for complete."""
        check_name(name)
        now = self.now()

        def decide(view: View) -> Change:
            return rules.fail(view, name, reason, now=now, incarnation=incarnation)

        return there(await self.commit(name, decide, incarnation=incarnation))

    async def trim(self, name: str, start: int, *, incarnation: str | None = None) -> StreamInfo:
        """Drop a stream's bytes before offset ``start``. Offsets stay what they are; readers behind it are told.

        Raises:
            OffsetOutOfRange: it is past the tail, or before what is kept.
        """
        check_name(name)
        now = self.now()

        def decide(view: View) -> Change:
            return rules.trim(view, name, start, now=now, incarnation=incarnation)

        return there(await self.commit(name, decide, incarnation=incarnation, durable=False))

    async def delete(self, name: str, *, incarnation: str | None = None, condition: Condition | None = None) -> None:
        """Remove a stream. Readers of a closed one finish it; followers of an open one are told that it is gone.

        One that has forks keeps its bytes for them, and its name, until the last of them is gone.
        """
        check_name(name)
        now = self.now()

        def decide(view: View) -> Change:
            return rules.delete(view, name, now=now, incarnation=incarnation, condition=condition)

        await self._remove(name, decide, incarnation)

    async def annotate(self, name: str, attributes: Mapping[str, Any], *, incarnation: str | None = None) -> StreamInfo:
        """Set attributes of a stream, durably; those that are None are removed. See `StreamInfo.attributes`."""
        check_name(name)
        now = self.now()

        def decide(view: View) -> Change:
            return rules.annotate(view, name, attributes, now=now, incarnation=incarnation)

        return there(await self.commit(name, decide, incarnation=incarnation))

    async def make_durable(self, info: StreamInfo) -> None:
        """Bring to the disk what a stream has, also what was appended without waiting for that."""

        def unchanged(view: View) -> Change:
            return Change(view.target, duplicate=view.target is None)

        await self.commit(info.name, unchanged, incarnation=info.incarnation)

    async def extend_lease(self, name: str, by: str, seconds: float, *, incarnation: str) -> StreamInfo:
        """Let the producer of a stream say that it is there, and will be heard of within so many seconds.

        A stream that depends on its producer (`penstock.core.rules.lease`) fails when that time is over: whoever looks
        at it then is told so.

        Raises:
            StreamFailed, StreamClosed, StreamGone: it has ended.
        """
        check_name(name)
        now = self.now()

        def decide(view: View) -> Change:
            return rules.extend_lease(view, name, by=by, until=now + seconds, now=now, incarnation=incarnation)

        return there(await self.commit(name, decide, incarnation=incarnation, durable=False))

    async def claim(self, name: str, by: str, seconds: float, *, incarnation: str) -> bool:
        """Tell whether ``by`` is to do what is to be done once with a stream, by one process at a time.

        The first that asks is, for so many seconds; it may ask again for more. It says that it is done by
        `annotate`, with None for the attribute `penstock.core.rules.CLAIM`, and in the same commit what became of it.

        Raises:
            StreamGone: there is no such incarnation.
        """
        check_name(name)
        now = self.now()

        def decide(view: View) -> Change:
            return rules.claim(view, name, by=by, until=now + seconds, now=now, incarnation=incarnation)

        info = there(await self.commit(name, decide, incarnation=incarnation, durable=False))
        return bool(info.attributes[rules.CLAIM]["by"] == by)
