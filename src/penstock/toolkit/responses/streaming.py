"""Responses that a generator produces: text, NDJSON, JSON, CSV, server-sent events, bytes.

::

    @app.get("/rows")
    async def rows() -> StreamedNDJSON:
        return StreamedNDJSON(select_rows())  # an async or a plain generator

What all of them do:

- The first item is awaited before the status is sent, so an error until then is an error's answer, not a 200.
- Items that come fast are sent together; one that comes alone is sent at once, or after ``latency``.
- A plain generator runs in one thread, from its first item to its last. A slow client holds any generator back.
- Whatever happens, the generator is closed: at its end, when the client goes, when the server stops.
- A failure after the first byte breaks the body off (`BodyAborted`), so that no client takes it for complete; formats
  that have a place for it tell it there, too.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Literal, TypeAlias
from weakref import WeakSet

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from penstock.core.uninterrupted import uninterrupted
from penstock.toolkit.responses.compression import TINY, Compression
from penstock.toolkit.responses.formats import CSV, NDJSON, Events, Format, JSONArray, Raw
from penstock.toolkit.responses.outlet import Outlet
from penstock.toolkit.responses.producers import Items, Producing
from penstock.toolkit.responses.streamed_body import break_off, disconnected

logger = logging.getLogger("penstock")

Reason: TypeAlias = Literal["complete", "failed", "disconnected", "stopping"]
"""How a stream came to its end."""

OnClose: TypeAlias = Callable[[Reason], Awaitable[None] | None]

LATENCY = 0.005
"""Seconds that an item may wait for others to be sent with it."""

HEARTBEAT = 15.0
"""Seconds of silence after which a live stream sends a heartbeat; proxies commonly give up after 60."""

PATIENCE = 1.0
"""Seconds that a live stream waits for its first item before it sends the status."""

_live: WeakSet[Streamed] = WeakSet()


class Streamed(Response):
    """A response whose body is a generator's items in some format.

    Args:
        items: an async or a plain iterable. A plain one is iterated in a thread.
        form: how items become bytes.
        status_code: the HTTP status.
        headers: fields for the answer.
        latency: seconds that an item may wait for others to be sent with it; 0 sends what is there at once.
        heartbeat: seconds of silence after which a live format sends a heartbeat.
        patience: seconds that a live format waits for the first item before it sends the status all the same, so that
            its reader knows that it is connected. Others wait as long as it takes.
        on_close: is told how the stream ended, after its generator was closed.
        compress: whether it is compressed for clients that accept that; see `Compression`.
    """

    def __init__(
        self,
        items: Items,
        form: Format,
        *,
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        latency: float = LATENCY,
        heartbeat: float = HEARTBEAT,
        patience: float = PATIENCE,
        on_close: OnClose | None = None,
        compress: bool = False,
    ) -> None:
        super().__init__(None, status_code, {"content-type": form.media_type, **_live_fields(form), **(headers or {})})
        if "content-length" not in {name.lower() for name in headers or {}}:
            del self.headers["content-length"]  # of the body that a Response would have
        self._items = items
        self._form = form
        self._head = form.begin()
        self._latency = latency
        self._heartbeat = heartbeat if form.live else None
        self._patience = patience if form.live else None
        self._on_close = on_close
        self._compression = Compression() if compress else None
        self._stop = asyncio.Event()
        self._started = False

    def stop(self) -> None:
        """End the response as when the server stops: its reader comes back."""
        self._stop.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        outlet = Outlet(self._latency)
        producing = Producing(self._items, self._form.item, outlet)
        reason: Reason = "disconnected"
        if self._compression is not None:
            send = self._compression.around(scope, send)
        if self._form.live:
            _live.add(self)
        try:
            reason = await self._respond(scope, receive, send, outlet, producing)
        except Exception:
            reason = "failed"
            raise
        finally:
            await uninterrupted(self._close(producing, reason))

    async def _respond(
        self, scope: Scope, receive: Receive, send: Send, outlet: Outlet, producing: Producing
    ) -> Reason:
        gone = asyncio.create_task(disconnected(receive))
        stopped = asyncio.create_task(self._stop.wait())
        sender = asyncio.create_task(self._send(scope, send, outlet, producing))
        try:
            await asyncio.wait({sender, gone, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if sender.done():
                sender.result()
                return "complete"
            if gone.done():
                return "disconnected"
            sender.cancel()
            with suppress(asyncio.CancelledError):
                await sender
            await self._say_farewell(send)
            return "stopping"
        finally:
            for task in (sender, gone, stopped):
                task.cancel()
            await asyncio.wait({sender, gone, stopped})

    async def _send(self, scope: Scope, send: Send, outlet: Outlet, producing: Producing) -> None:
        await outlet.begun(self._patience)
        if outlet.empty and producing.error is not None:
            raise producing.error  # nothing was sent yet: whoever answers errors does it
        if self._compression is not None and await outlet.is_all(TINY):
            self._compression.off()
        await self._start(send)
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b""})
            return
        head = self._head
        while (data := await outlet.take(self._heartbeat)) is not None:
            body = head + (data or self._form.heartbeat()) if head or not data else data
            head = b""
            await send({"type": "http.response.body", "body": body, "more_body": True})
            # A server whose client is gone takes everything at once: without a pause nobody would hear of it.
            await asyncio.sleep(0)
        error = producing.error
        if error is not None:
            logger.warning("A streamed response failed after its first bytes: %r", error)
            await send({"type": "http.response.body", "body": self._form.failure(error), "more_body": True})
            await break_off(send, error)
        await send({"type": "http.response.body", "body": head + self._form.end()})

    async def _start(self, send: Send) -> None:
        self._started = True
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})

    async def _say_farewell(self, send: Send) -> None:
        """End a live body properly: its reader knows that more may come, and comes back."""
        if not self._started:
            await self._start(send)
        await send({"type": "http.response.body", "body": self._form.heartbeat()})

    async def _close(self, producing: Producing, reason: Reason) -> None:
        _live.discard(self)
        await producing.close()
        if self._on_close is not None:
            if inspect.iscoroutinefunction(self._on_close):
                await self._on_close(reason)
            else:
                # Not in anyio's threads: those of a worker that granian stops keep its process from exiting.
                await asyncio.to_thread(self._on_close, reason)


def stop_live_responses() -> None:
    """End the live responses of this process, so that the server, which waits for its connections, can go."""
    for response in list(_live):
        response.stop()


def _live_fields(form: Format) -> dict[str, str]:
    if not form.live:
        return {"x-content-type-options": "nosniff"}
    return {
        "x-content-type-options": "nosniff",
        "cache-control": "no-store",
        "x-accel-buffering": "no",  # nginx
        "incremental": "?1",  # RFC 10036
    }


class StreamedText(Streamed):
    """Text as it is produced, in UTF-8."""

    media_type = "text/plain"

    def __init__(self, items: Items, *, media_type: str = "text/plain; charset=utf-8", **options: Any) -> None:
        super().__init__(items, Raw(media_type), **options)


class StreamedBytes(Streamed):
    """Bytes as they are produced."""

    media_type = "application/octet-stream"

    def __init__(self, items: Items, *, media_type: str = "application/octet-stream", **options: Any) -> None:
        super().__init__(items, Raw(media_type), **options)


class StreamedNDJSON(Streamed):
    """One JSON text a line; see `NDJSON`."""

    media_type = NDJSON.media_type

    def __init__(self, items: Items, *, report: bool = False, **options: Any) -> None:
        super().__init__(items, NDJSON(report=report), **options)


class StreamedJSON(Streamed):
    """One JSON array, its items as they are produced."""

    media_type = JSONArray.media_type

    def __init__(self, items: Items, **options: Any) -> None:
        super().__init__(items, JSONArray(), **options)


class StreamedCSV(Streamed):
    """Comma-separated rows; see `CSV`."""

    media_type = "text/csv"

    def __init__(self, items: Items, *, columns: Iterable[str] | None = None, **options: Any) -> None:
        super().__init__(items, CSV(columns), **options)


class StreamedEvents(Streamed):
    """Server-sent events; see `Events`. A heartbeat keeps the connection, and a stopping server ends it."""

    media_type = Events.media_type

    def __init__(self, items: Items, **options: Any) -> None:
        super().__init__(items, Events(), **options)
