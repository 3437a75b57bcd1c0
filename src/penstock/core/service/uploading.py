"""Uploads: streams that are written by one request after another."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from penstock.core import rules
from penstock.core.ports import Change, JoiningStore, View
from penstock.core.rules import Condition
from penstock.core.service.base import there
from penstock.core.service.writing import Writing
from penstock.core.uploads import Upload, copy, until_evicted
from penstock.errors import StreamClosed
from penstock.model import StreamInfo, StreamSpec, check_name, new_incarnation


class Uploading(Writing):
    """What the service does with uploads."""

    async def begin_upload(
        self,
        name: str,
        spec: StreamSpec | None = None,
        *,
        ttl: float | None = None,
        condition: Condition | None = None,
        shown: bool = True,
        incarnation: str | None = None,
    ) -> StreamInfo:
        """Create an upload: a stream that is written by one request after another, with `upload`, until it is complete.

        It is shown at once if the name shows nothing. If the name shows a closed stream, or another upload, that stays
        until the new one is complete, and the new one is addressed by its incarnation.

        Args:
            name: the stream.
            spec: what is to be said about it; also who owns it, and by which key it is found.
            ttl: seconds without progress after which it expires while it is not complete.
            condition: see `replace`; it is to be given again at the end.
            shown: False for a part of another upload, which its name never shows: see `join`.
            incarnation: an id of the caller's own, new for each creation.

        Raises:
            StreamIsOpen: the name shows a stream that is still being written, and that is no upload.
        """
        check_name(name)
        spec, incarnation, now = spec or StreamSpec(), incarnation or new_incarnation(), self.now()

        def decide(view: View) -> Change:
            return rules.begin_upload(
                view, name, spec, incarnation=incarnation, now=now, ttl=ttl, condition=condition, shown=shown
            )

        return there(await self.commit(name, decide, incarnation=incarnation))

    async def resume(self, name: str, *, incarnation: str | None = None) -> StreamInfo:
        """Return the state of an upload to go on from: nobody else writes to it any more, and its bytes are durable.

        Whoever was writing is evicted: a client that lost its connection need not wait until that is noticed. Of a
        complete upload, or of any other closed stream, the state is just returned.

        Raises:
            StreamNotFound, StreamGone: there is none.
            StreamFailed: it broke.
            NotAnUpload: it is a stream that grows in another way.
        """
        info = await self.info(name, incarnation=incarnation)
        if info.complete:
            return info
        try:
            return await self._taken_over(info, None, None, None)
        except StreamClosed:  # it was completed just now
            return await self.info(name, incarnation=info.incarnation)

    @asynccontextmanager
    async def upload(
        self, name: str, *, incarnation: str | None = None, offset: int, length: int | None = None
    ) -> AsyncIterator[Upload]:
        """Write to an upload, as the only one who does: whoever did before is evicted, and so are we by the next one.

        The body of the ``async with`` is interrupted as soon as another writer takes over, in whichever process.

        Args:
            name: the stream.
            incarnation: which incarnation; None for the one that the name shows.
            offset: where the bytes to come belong: the tail.
            length: the final size in bytes, if it has not been declared before.

        Raises:
            StreamNotFound, StreamGone: there is none.
            StreamClosed: it is complete.
            StreamFailed: it broke.
            NotAnUpload: it is a stream that grows in another way.
            OffsetMismatch: the tail is elsewhere; nobody was evicted.
            LengthMismatch: another length was declared, or a shorter one than there are bytes.
            WriterEvicted: another writer took over.
        """
        info = await self.info(name, incarnation=incarnation)
        writer = new_incarnation()
        info = await self._taken_over(info, writer, offset, length)
        upload = Upload(self, info, writer)
        async with until_evicted(self, self._notifier, upload):
            yield upload

    async def _taken_over(
        self, info: StreamInfo, writer: str | None, offset: int | None, length: int | None
    ) -> StreamInfo:
        now = self.now()

        def decide(view: View) -> Change:
            return rules.take_over(
                view,
                info.name,
                now=now,
                writer=writer,
                offset=offset,
                length=length,
                incarnation=info.incarnation,
            )

        return there(await self.commit(info.name, decide, incarnation=info.incarnation, durable=writer is None))

    async def join(self, info: StreamInfo, parts: Sequence[StreamInfo]) -> StreamInfo:
        """Complete an upload that has no bytes of its own with those of other streams, one after another.

        Where the store can, the bytes are not moved through this process, and are there in one commit with the close.

        Args:
            info: the upload.
            parts: closed streams, shown by their names or not. They stay.

        Raises:
            StreamGone: the upload or one of the parts is gone.
            StreamClosed: the upload is complete.
            LengthMismatch: the upload was declared to have another length.
        """
        if not isinstance(self._store, JoiningStore):
            return await copy(self, info, parts)
        now, size = self.now(), sum(part.tail for part in parts)

        def decide(view: View) -> Change:
            return rules.publish(
                view, info.name, incarnation=info.incarnation, now=now, digests={}, condition=None, joined=size
            )

        try:
            change = await self._store.join(info.name, decide, parts, incarnation=info.incarnation)
        finally:
            self._notifier.notify(info.name)
        self._committed(info.name, change)
        return there(change)

    async def shorten(self, info: StreamInfo, ttl: float) -> None:
        """Let a part go ``ttl`` seconds after its last change, because what it was for is done.

        Raises:
            StreamGone: it is gone already.
        """
        now = self.now()

        def decide(view: View) -> Change:
            return rules.shorten(view, info.name, ttl=ttl, now=now, incarnation=info.incarnation)

        await self.commit(info.name, decide, incarnation=info.incarnation, durable=False)
