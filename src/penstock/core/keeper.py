"""Dropping what is not to be kept of streams: soon after appends, and from time to time what got too old."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from penstock.core import rules
from penstock.core.lines import block_of, line_from
from penstock.core.ports import Change, Reader, View
from penstock.core.retention import cut_of, keys_of, last_values
from penstock.errors import OffsetMismatch, PenstockError, StreamGone, StreamNotFound
from penstock.model import COMPACTED, StreamInfo

if TYPE_CHECKING:
    from penstock.core.service import StreamService

logger = logging.getLogger("penstock")

_SLACK: Final = 8
"""A stream may have an eighth more than it is to have, so that it is not cut at each append."""

_LEAST: Final = 64 * 1024
"""Bytes that are not worth dropping for."""

_MOST_HELD: Final = 32 * 1024 * 1024
"""Bytes of a stream that are compacted at once: they are held in memory."""

_MOST_KNOWN: Final = 10_000
_ATTEMPTS: Final = 20


class Keeper:
    """Looks after the streams of a service that shrink.

    Args:
        service: the streams.
    """

    def __init__(self, service: StreamService) -> None:
        self._service = service
        self._tasks: dict[str, asyncio.Task[None]] = {}  # by incarnation
        self._missed: dict[str, StreamInfo] = {}  # what was appended while a task ran, by incarnation
        self._stopping = False
        self._next_look: OrderedDict[str, int] = OrderedDict()  # the tail at which to count, by incarnation

    def appended(self, info: StreamInfo) -> None:
        """Note an append of this process; if something is to be dropped then, it is, in the background."""
        if self._stopping or not info.shrinks:
            return
        if info.incarnation in self._tasks:
            self._missed[info.incarnation] = info
        elif self._is_due(info):
            task = asyncio.create_task(self._look_after(info), name="penstock-keep")
            self._tasks[info.incarnation] = task
            task.add_done_callback(lambda _: self._ended(info.incarnation))

    def _ended(self, incarnation: str) -> None:
        """Look again, if something was appended while a stream was looked after."""
        del self._tasks[incarnation]
        missed = self._missed.pop(incarnation, None)
        if missed is not None:
            self.appended(missed)

    async def stop(self) -> None:
        """End what is under way."""
        self._stopping = True
        for task in list(self._tasks.values()):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def _is_due(self, info: StreamInfo) -> bool:
        size = info.tail - info.start
        if COMPACTED in info.attributes and not info.closed:
            return size > _LEAST and info.tail >= self._next_look.get(info.incarnation, 0)
        retention = info.retention
        if retention is None:
            return False
        if info.trim_at is not None and info.trim_at <= self._service.now():
            return True
        if retention.bytes is not None and size > retention.bytes + max(retention.bytes // _SLACK, _LEAST // _SLACK):
            return True
        return retention.records is not None and info.tail >= self._next_look.get(info.incarnation, 0)

    async def _look_after(self, info: StreamInfo) -> None:
        try:
            await (self.compact(info) if COMPACTED in info.attributes else self.trim(info))
        except (StreamGone, StreamNotFound):
            self._next_look.pop(info.incarnation, None)
        except PenstockError as error:
            logger.warning("The beginning of %r could not be dropped: %s", info.name, error)
        except Exception:
            logger.exception("The beginning of %r could not be dropped.", info.name)

    async def trim(self, info: StreamInfo) -> StreamInfo:
        """Drop what a stream is not to keep any more.

        Raises:
            StreamGone: it was deleted.
        """
        retention = info.retention
        if retention is None:
            return info
        with await self._service.open(info.name, incarnation=info.incarnation) as reader:
            now = self._service.now()
            cut = await cut_of(reader, retention, now)
            tail = reader.info.tail
        info = await self._service.trim(info.name, cut, incarnation=info.incarnation)
        self._note(info, tail + max((tail - info.start) // _SLACK, 1))
        return info

    async def compact(self, info: StreamInfo) -> StreamInfo:
        """Drop about the first half of a stream, after what counts of it was appended once more; and again.

        The other half stays where it is, and is not sent to readers again. So it goes on as long as most of a half is
        of no use.

        Raises:
            StreamGone: it was deleted.
        """
        for _ in range(_ATTEMPTS):
            with await self._service.open(info.name, incarnation=info.incarnation) as reader:
                info = reader.info
                cut, data = await _compacted(reader, info.attributes[COMPACTED])
            dropped = cut - info.start
            if len(data) >= dropped or info.closed:
                break
            try:
                info = await self._commit(info, data, cut)
            except OffsetMismatch:  # something came meanwhile, which may have newer values
                continue
            if info.tail - info.start <= _LEAST or len(data) > dropped // 4:
                break
        self._note(info, info.tail + max(info.tail - info.start, _LEAST))
        return info

    async def _commit(self, info: StreamInfo, data: bytes, start: int) -> StreamInfo:
        now = self._service.now()

        def decide(view: View) -> Change:
            return rules.compact(
                view, info.name, data, now=now, offset=info.tail, start=start, incarnation=info.incarnation
            )

        change = await self._service.commit(info.name, decide, incarnation=info.incarnation, size=len(data))
        return info if change.info is None else change.info

    def _note(self, info: StreamInfo, tail: int) -> None:
        self._next_look[info.incarnation] = tail
        self._next_look.move_to_end(info.incarnation)
        if len(self._next_look) > _MOST_KNOWN:
            self._next_look.popitem(last=False)


async def _compacted(reader: Reader, member: str) -> tuple[int, bytes]:
    """Return up to where a stream can be dropped, and what of that must be appended once more."""
    info = reader.info
    middle = min(info.start + (info.tail - info.start + 1) // 2, info.start + _MOST_HELD)
    cut = await line_from(reader, middle, info.tail)
    old = (await block_of(reader, info.start, cut)).split(b"\n")[:-1]
    newer: set[str] = set()
    at, rest = cut, b""
    while at < info.tail:
        block = rest + bytes(await reader.read(at, info.tail))
        at += len(block) - len(rest)
        *lines, rest = block.split(b"\n")
        newer |= await asyncio.to_thread(keys_of, lines, member)
    values = await asyncio.to_thread(last_values, old, member, newer)
    return cut, b"".join([value + b"\n" for value in values])
