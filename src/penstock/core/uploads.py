"""Writing an upload: one request after another, each the only one for as long as it lasts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from penstock.core import rules
from penstock.core.follow import RECHECK
from penstock.core.ports import Change, Notifier, View
from penstock.core.rules import Condition
from penstock.core.uninterrupted import uninterrupted
from penstock.core.writer import Writer
from penstock.errors import StreamGone, WriterEvicted
from penstock.model import StreamInfo

if TYPE_CHECKING:
    from penstock.core.service.uploading import Uploading

_NOTHING: Mapping[str, bytes] = {}


class Upload(Writer):
    """Progressive appends by the one who took an upload over last; see `StreamService.upload`.

    What `write` was given stays, whatever becomes of the request; it is acknowledged by `flush` and `complete`. Each of
    the three raises `WriterEvicted` if another writer took over, and `StreamGone` if the upload was deleted.

    Attributes:
        completing: whether `complete` was called: from then on it is not interrupted by who takes over.
    """

    def __init__(self, service: Uploading, info: StreamInfo, writer: str) -> None:
        super().__init__(service, info, writer)
        self.completing = False

    async def complete(
        self, digests: Mapping[str, bytes] = _NOTHING, *, condition: Condition | None = None
    ) -> StreamInfo:
        """Close the upload, make it durable, and let its name show it, in one commit.

        Args:
            digests: digests of the whole that are known, by their RFC 9530 names.
            condition: looks at what the name shows now, and raises if that must not be replaced.

        Raises:
            LengthMismatch: it is shorter than declared.
            PreconditionFailed: what the name shows does not meet the condition any more.
        """
        self.completing = True
        return await self._publish(digests, condition)

    async def complete_part(self) -> StreamInfo:
        """Close the upload, and make it durable, where it is a part of another: its name goes on not to show it.

        Raises:
            LengthMismatch: it is shorter than declared.
        """
        self.completing = True
        info, now = self._info, self._service.now()

        def decide(view: View) -> Change:
            return rules.complete_part(view, info.name, incarnation=info.incarnation, now=now, writer=self._writer)

        return await self._commit(decide)


async def copy(service: Uploading, info: StreamInfo, parts: Sequence[StreamInfo]) -> StreamInfo:
    """Complete an upload by reading its parts and appending what they hold, from where that was left off before."""
    async with service.upload(info.name, incarnation=info.incarnation, offset=info.tail) as upload:
        start = 0
        for part in parts:
            offset = max(info.tail - start, 0)
            start += part.tail
            with await service.open(part.name, incarnation=part.incarnation) as reader:
                while offset < part.tail:
                    data = await reader.read(offset, part.tail)
                    await upload.write([data])
                    offset += len(data)
        return await upload.complete()


@asynccontextmanager
async def until_evicted(service: Uploading, notifier: Notifier, upload: Upload) -> AsyncIterator[None]:
    """Interrupt the block when somebody else takes the upload over, or deletes it.

    Raises:
        WriterEvicted: it was taken over.
        StreamGone: it was deleted.
    """
    found: list[Exception] = []
    watching: asyncio.Task[None] | None = None
    try:
        # A time-out that comes when it is told to is the one way to interrupt a block that does not confuse this
        # with a cancellation from outside.
        async with asyncio.timeout(None) as scope:

            async def watch() -> None:
                error = await _eviction(service, notifier, upload)
                if not upload.completing:
                    found.append(error)
                    scope.reschedule(0)

            watching = asyncio.create_task(watch())
            try:
                yield
            finally:
                watching.cancel()
                await uninterrupted(asyncio.wait([watching]))
    except TimeoutError:
        if not found:
            raise
        raise found[0] from None


async def _eviction(service: Uploading, notifier: Notifier, upload: Upload) -> Exception:
    """Wait until the upload is somebody else's, and return the error that says so."""
    info = upload.info
    watch = notifier.watch(info.name)
    try:
        while True:
            watch.clear()
            try:
                now = await service.info(info.name, incarnation=info.incarnation)
            except StreamGone as error:
                return error
            if now.writer != upload.info.writer:
                return WriterEvicted(info.name)
            await watch.wait(RECHECK)
    finally:
        watch.close()
