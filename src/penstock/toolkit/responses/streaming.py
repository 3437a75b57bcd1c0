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
- A failure after the first byte is logged, told to ``on_error``, and breaks the body off (`BodyAborted`), so that no
  client takes it for complete; formats that have a place for it tell it there, too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, ClassVar, Literal, TypeAlias, TypedDict, Unpack

from starlette.background import BackgroundTask
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from penstock.core.uninterrupted import uninterrupted
from penstock.errors import Stopping
from penstock.model import OCTETS
from penstock.toolkit.hooks import called
from penstock.toolkit.responses.compression import TINY, Compression
from penstock.toolkit.responses.docs import Responses, Shape, documented
from penstock.toolkit.responses.endings import End, OnClose, OnError, Reason, StreamEnd, told_by
from penstock.toolkit.responses.endpoints import unwrapped
from penstock.toolkit.responses.file_objects import FileObject, is_file_object, pieces_of
from penstock.toolkit.responses.formats import CSV, NDJSON, RETRY, Events, Format, JSONArray, Raw
from penstock.toolkit.responses.outlet import Outlet
from penstock.toolkit.responses.producers import Items, Producing
from penstock.toolkit.responses.streamed_body import break_off, disconnected
from penstock.toolkit.responses.under_way import UnderWay

logger = logging.getLogger("penstock")

Content: TypeAlias = Items | FileObject
"""An async or a plain iterable; or an open file, which is sent from where it stands, in large pieces, and closed."""

LATENCY = 0.005
"""Seconds that an item may wait for others to be sent with it."""

HEARTBEAT = 15.0
"""Seconds of silence after which a live stream sends a heartbeat; proxies commonly give up after 60."""

PATIENCE = 1.0
"""Seconds that a live stream waits for its first item before it sends the status."""


class Options(TypedDict, total=False):
    """What all streamed responses take; see `Streamed`."""

    headers: Mapping[str, str] | None
    background: BackgroundTask | None
    latency: float
    heartbeat: float
    patience: float
    on_close: OnClose | None
    on_error: OnError | None
    compress: bool


class Streamed(Response):
    """A response whose body is a generator's items in some format.

    As ``response_class`` of a route, it also takes the items of a handler with ``yield``.

    Args:
        content: an async or a plain iterable. A plain one is iterated in a thread.
        form: how items become bytes.
        status_code: the HTTP status.
        headers: fields for the answer.
        background: run after the response, unless that failed.
        latency: seconds that an item may wait for others to be sent with it; 0 sends what is there at once.
        heartbeat: seconds of silence after which a live format sends a heartbeat.
        patience: seconds that a live format waits for the first item before it sends the status all the same, so that
            its reader knows that it is connected. Others wait as long as it takes.
        on_close: is told how the stream ended, after its generator was closed.
        on_error: is given what the generator raised after its first item, when an answer can no longer tell it. What it
            returns, if not None, is told to the reader where the format has a place for that.
        compress: whether it is compressed for clients that accept that; see `Compression`.
    """

    shape: ClassVar[Shape] = "bytes"
    """What the OpenAPI document can say of the items."""

    def __init__(
        self,
        content: Items,
        form: Format,
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        background: BackgroundTask | None = None,
        *,
        latency: float = LATENCY,
        heartbeat: float = HEARTBEAT,
        patience: float = PATIENCE,
        on_close: OnClose | None = None,
        on_error: OnError | None = None,
        compress: bool = False,
    ) -> None:
        fields = {"content-type": form.media_type, **_live_fields(form), **(headers or {})}
        super().__init__(None, status_code, fields, background=background)
        if "content-length" not in {name.lower() for name in headers or {}}:
            del self.headers["content-length"]  # of the body that a Response would have
        self._items: Items = unwrapped(content)
        self._form = form
        self._head = form.begin()
        self._latency = latency
        self._heartbeat = heartbeat if form.live else None
        self._patience = patience if form.live else None
        self._on_close = on_close
        self._on_error = on_error
        self._compression = Compression() if compress else None
        self._under_way = UnderWay(live=form.live)
        self._started = False

    @classmethod
    def docs(cls, item: Any = None, *, description: str = "The items, as they come", status: int = 200) -> Responses:
        """Return what the OpenAPI document should say of this response: for the route's ``responses``.

        ::

            @app.get("/rows", response_class=StreamedNDJSON, responses=StreamedNDJSON.docs(Row))

        Args:
            item: the type of an item: a model, a dataclass, whatever pydantic knows. One that ends with a record of
                its own has a union: ``Row | Summary``.
            description: in words.
            status: the HTTP status.
        """
        return documented(cls.media_type or OCTETS, cls.shape, item, description, status)

    def stop(self) -> None:
        """End the response as when the server stops: its reader comes back."""
        self._under_way.stop()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        outlet = Outlet(self._latency)
        producing = Producing(self._items, self._form.item, outlet)
        reason: Reason = "disconnected"
        if self._compression is not None:
            send = self._compression.around(scope, send)
        try:
            with self._under_way.noted():
                reason = await self._respond(scope, receive, send, outlet, producing)
        except Exception as error:
            reason = "stopping" if isinstance(error.__cause__, Stopping) else "failed"
            raise
        finally:
            await uninterrupted(self._close(producing, reason))
        if self.background is not None:
            await self.background()

    async def _respond(
        self, scope: Scope, receive: Receive, send: Send, outlet: Outlet, producing: Producing
    ) -> Reason:
        gone = asyncio.create_task(disconnected(receive))
        stopped = asyncio.create_task(self._under_way.stopped())
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
            await self._say_farewell(send, outlet)
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
        if producing.error is not None:
            await self._fail(scope, send, outlet, producing.error)
        await send({"type": "http.response.body", "body": head + self._form.end(_ended("complete", outlet))})

    async def _start(self, send: Send) -> None:
        self._started = True
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})

    async def _fail(self, scope: Scope, send: Send, outlet: Outlet, error: Exception) -> None:
        """Tell of a failure whoever can be told, and break the body off."""
        items, size = outlet.taken
        method, path = scope["method"], scope["path"]
        facts = {"method": method, "path": path, "items": items, "bytes": size}
        # The traceback is logged by the server, to which the error goes on.
        text = "%s %s: the streamed response failed after %d items (%d bytes): %r"
        logger.error(text, method, path, items, size, error, extra=facts)
        told = await told_by(self._on_error, error)
        await send({"type": "http.response.body", "body": self._form.failure(error, told), "more_body": True})
        await break_off(send, error)

    async def _say_farewell(self, send: Send, outlet: Outlet) -> None:
        """End a body that is stopped: properly where its reader can see that there may be more."""
        farewell = self._form.farewell(_ended("stopping", outlet))
        if farewell is None:
            await break_off(send, Stopping())
        if not self._started:
            await self._start(send)
        await send({"type": "http.response.body", "body": farewell})

    async def _close(self, producing: Producing, reason: Reason) -> None:
        await producing.close()
        if self._on_close is not None:
            await called(self._on_close, reason)


def _ended(reason: Literal["complete", "stopping"], outlet: Outlet) -> StreamEnd:
    return StreamEnd(reason, *outlet.taken)


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
    """Text as it is produced, in UTF-8: from an iterable, or from an open file."""

    media_type = "text/plain"

    def __init__(
        self,
        content: Content,
        status_code: int = 200,
        *,
        media_type: str = "text/plain; charset=utf-8",
        **options: Unpack[Options],
    ) -> None:
        super().__init__(_produced(content), Raw(media_type), status_code, **options)


class StreamedBytes(Streamed):
    """Bytes as they are produced: from an iterable, or from an open file."""

    media_type = OCTETS

    def __init__(
        self,
        content: Content,
        status_code: int = 200,
        *,
        media_type: str = OCTETS,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(_produced(content), Raw(media_type), status_code, **options)


class StreamedNDJSON(Streamed):
    """One JSON text a line; see `NDJSON` for ``report``, ``end`` and ``live``."""

    media_type = NDJSON.media_type
    shape = "items"

    def __init__(
        self,
        content: Items,
        status_code: int = 200,
        *,
        report: bool = False,
        end: End | None = None,
        live: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(content, NDJSON(report=report, end=end, live=live), status_code, **options)


class StreamedJSON(Streamed):
    """One JSON array, its items as they are produced."""

    media_type = JSONArray.media_type
    shape = "array"

    def __init__(self, content: Items, status_code: int = 200, **options: Unpack[Options]) -> None:
        super().__init__(content, JSONArray(), status_code, **options)


class StreamedCSV(Streamed):
    """Comma-separated rows; see `CSV`."""

    media_type = "text/csv"

    def __init__(
        self,
        content: Items,
        status_code: int = 200,
        *,
        columns: Iterable[str] | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(content, CSV(columns), status_code, **options)


class StreamedEvents(Streamed):
    """Server-sent events; see `Events` for ``end`` and ``retry``.

    A heartbeat keeps the connection, and a stopping server ends it. A handler that can resume takes the reader's last
    event id as a parameter, ``last_event_id: Annotated[str | None, Header()] = None``.
    """

    media_type = Events.media_type
    shape = "events"

    def __init__(
        self,
        content: Items,
        status_code: int = 200,
        *,
        end: End = False,
        retry: int = RETRY,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(content, Events(end=end, retry=retry), status_code, **options)


def _produced(content: Any) -> Items:
    return pieces_of(content) if is_file_object(content) else content
