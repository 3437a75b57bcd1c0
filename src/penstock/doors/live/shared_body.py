"""The response to a reader of a shared tail: the connection handed over where the server does that, or plain ASGI."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping

from starlette.types import Receive, Scope, Send

from penstock.core.ports import Reader
from penstock.core.uninterrupted import uninterrupted
from penstock.doors.live.followers import Follower, PulledLine
from penstock.doors.live.tails import SharedTail
from penstock.toolkit.responses.handover import Line, marked, offer_in
from penstock.toolkit.responses.streamed_body import StreamedBody


class SharedBody(StreamedBody):
    """A stream from an offset on, in the framing of a shared tail, and what comes, until it ends.

    Args:
        tail: the tail.
        reader: of the stream; it is closed when it is not needed any more, in any case.
        start: the offset, where a record begins.
        headers: the fields of the response.
        who: the reader, as far as the application told.
    """

    def __init__(
        self, tail: SharedTail, reader: Reader, start: int, headers: Mapping[str, str], who: str | None = None
    ) -> None:
        super().__init__(self._pulled(), headers=headers)
        self._tail = tail
        self._reader: Reader | None = reader
        self._start = start
        self._who = who

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response, or as much of it as comes before the connection is handed over."""
        offer = None if scope["method"] == "HEAD" else offer_in(scope)
        try:
            await send(
                marked({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}, offer)
            )
            if scope["method"] != "HEAD":
                opening = self._tail.framing.opening()
                await send({"type": "http.response.body", "body": opening, "more_body": True})
                line = None if offer is None else offer.take()
                if line is not None:
                    self._follow(line)
                    return
                if not await self._send_while_connected(receive, send):
                    return
            await send({"type": "http.response.body", "body": b""})
        finally:
            await uninterrupted(self._body.aclose())
            if self._reader is not None:
                self._reader.close()

    def _follow(self, line: Line) -> None:
        reader, self._reader = self._reader, None
        assert reader is not None  # noqa: S101 - a response is sent once
        left = self._tail.tails.service.attendance.reader(self._tail.name, self._who)
        Follower(self._tail, self._start, line, left).start(reader)

    async def _pulled(self) -> AsyncGenerator[bytes, None]:
        line = PulledLine()
        self._follow(line)
        async for piece in line.pieces():
            yield piece
