"""The response to a reader of a shared tail: the connection handed over where the server does that, or plain ASGI."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping

from starlette.types import Receive, Scope, Send

from penstock.core.ports import Reader
from penstock.core.uninterrupted import uninterrupted
from penstock.doors.tails.followers import Follower, PulledLine
from penstock.doors.tails.patient import PatientBody
from penstock.doors.tails.tail import SharedTails
from penstock.doors.tails.telling import Telling
from penstock.toolkit.responses.handover import Line, marked, offer_in


class SharedBody(PatientBody):
    """A stream from an offset on, as a shared tail tells it, and what comes, until it ends.

    Args:
        tails: the tails of the door.
        telling: how it is written.
        reader: of the stream; it is closed when it is not needed any more, in any case.
        start: the offset, where a run of the telling begins.
        headers: the fields of the response.
        opening: what comes first; it may be nothing.
        who: the reader, as far as the application told.
        mark: what makes it different from others; see `Telling`.
    """

    def __init__(
        self,
        tails: SharedTails,
        telling: Telling,
        reader: Reader,
        start: int,
        headers: Mapping[str, str],
        *,
        opening: bytes = b"",
        who: str | None = None,
        mark: int = 0,
    ) -> None:
        super().__init__(self._pulled(), patience=tails.patience, headers=headers)
        self._tails = tails
        self._telling = telling
        self._reader: Reader | None = reader
        self._start = start
        self._opening = opening
        self._who = who
        self._mark = mark

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response, or as much of it as comes before the connection is handed over."""
        offer = None if scope["method"] == "HEAD" else offer_in(scope)
        try:
            await send(
                marked({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}, offer)
            )
            if scope["method"] != "HEAD":
                # Also where it is empty: a server may hold the head of a response until some of the body comes.
                await send({"type": "http.response.body", "body": self._opening, "more_body": True})
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
        # Looked up only now: one that its last reader has left meanwhile would be a dead one.
        tail = self._tails.of(reader.info, self._telling)
        left = self._tails.service.attendance.reader(tail.name, self._who)
        Follower(tail, self._start, line, left, self._mark).start(reader)

    async def _pulled(self) -> AsyncGenerator[bytes, None]:
        line = PulledLine()
        self._follow(line)
        async for piece in line.pieces():
            yield piece
