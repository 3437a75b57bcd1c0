"""A generator's body that is given up when its reader takes nothing, as a shared tail gives up such a reader."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress

from starlette.types import Message, Receive, Scope, Send

from penstock.core.uninterrupted import uninterrupted
from penstock.doors.tails.telling import Unfinished
from penstock.model import Buffer
from penstock.toolkit.responses.handover import Line, Piece, marked, offer_in
from penstock.toolkit.responses.streamed_body import StreamedBody

logger = logging.getLogger("penstock")


class PatientBody(StreamedBody):
    """A body that is cut off when its reader's connection takes nothing for too long.

    The connection is taken over where the server does that, so that it can be ended at once, whatever it still holds.

    Args:
        body: yields the bytes. The first of them are there at once.
        patience: seconds.
        headers: the fields.
        release: as of `StreamedBody`.
    """

    def __init__(
        self,
        body: AsyncGenerator[Buffer, None],
        *,
        patience: float,
        headers: Mapping[str, str],
        release: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(body, headers=headers, release=release)
        self._patience = patience

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        offer = None if scope["method"] == "HEAD" else offer_in(scope)
        if offer is None:
            await super().__call__(scope, receive, send)
            return
        try:
            await send(
                marked({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}, offer)
            )
            opening = bytes(await anext(self._body, b""))
            await send({"type": "http.response.body", "body": opening, "more_body": True})
            line = offer.take()
            if line is not None:
                await self._write(line)
            elif await self._send_while_connected(receive, send):
                await send({"type": "http.response.body", "body": b""})
        finally:
            await uninterrupted(self._body.aclose())
            if self._release is not None:
                self._release()

    async def _send_body(self, send: Send) -> None:
        async def patiently(message: Message) -> None:
            async with asyncio.timeout(self._patience):
                await send(message)

        await super()._send_body(patiently)

    async def _write(self, line: Line) -> None:
        """Write the body to a line, until its end or the reader's leaving."""
        room = _Room()
        line.sink = room
        room.writing = asyncio.create_task(self._write_pieces(line, room), name="penstock-body")
        try:
            await asyncio.wait([room.writing])
        finally:
            room.writing.cancel()
            with suppress(asyncio.CancelledError):
                await room.writing

    async def _write_pieces(self, line: Line, room: _Room) -> None:
        try:
            async for chunk in self._body:
                if chunk and not line.write(Piece(bytes(chunk))) and not await room.waited(self._patience):
                    line.abort()
                    return
        except Unfinished:
            line.finish(Piece(b""), whole=False)
        except Exception as error:  # noqa: BLE001 - whatever it is: nobody may take what came so far for all
            logger.warning("A reader was cut off: %s", error)
            line.abort()
        else:
            line.finish(Piece(b""), whole=True)


class _Room:
    """See `Sink`: whether the line takes more."""

    def __init__(self) -> None:
        self.writing: asyncio.Task[None] | None = None
        self._resumed = asyncio.Event()

    def resumed(self) -> None:
        """See `Sink.resumed`."""
        self._resumed.set()

    def lost(self) -> None:
        """See `Sink.lost`."""
        if self.writing is not None:
            self.writing.cancel()

    async def waited(self, patience: float) -> bool:
        """Wait until there is room, and tell whether it came in time."""
        self._resumed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                return await self._resumed.wait()
        return False
