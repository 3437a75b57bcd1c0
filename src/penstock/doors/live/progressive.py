"""Records in by one long POST: they are appended as they arrive, and acknowledged as they are safe."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from penstock.core import rules
from penstock.core.service import StreamService
from penstock.doors.fields import check_coding, content_type_of
from penstock.doors.live.appending import LARGE, MAX_APPEND, NDJSON, RecordFormat, closes, producer_of
from penstock.doors.live.creation import live_spec
from penstock.errors import InvalidRecord, PenstockError
from penstock.model import Appended, Producer, StreamSpec
from penstock.protocols.accept import preferred_type
from penstock.protocols.json_lines import BadLineError, Lines
from penstock.toolkit.problems import RequestError, problem_of, problem_response
from penstock.toolkit.requests.bodies import batches
from penstock.toolkit.responses.stream_fields import state_fields


class Session:
    """One such POST: takes the body apart, and appends what has arrived of it in batches.

    Each batch is appended atomically and is durable before the next one is. What came before an error, or before the
    client was cut off, is kept.

    Args:
        service: the streams.
        name: the stream.
        format_: of the body.
        create: what the stream is created as, if there is none.
        producer: numbers the records: its sequence is that of the body's first one. Those that the stream has already
            are left out.
        close: whether the stream is closed at the body's end.

    Attributes:
        last: what the last append came to, or None before the first.
        records: how many of the body's records are safe.
    """

    def __init__(
        self,
        service: StreamService,
        name: str,
        format_: RecordFormat,
        create: StreamSpec,
        *,
        producer: Producer | None,
        close: bool,
    ) -> None:
        self._service = service
        self._name = name
        self._format = format_
        self._create: StreamSpec | None = create
        self._producer = producer
        self._close = close
        self._changed = asyncio.Event()
        self._begun = asyncio.Event()
        self._ending = False
        self.last: Appended | None = None
        self.created = False
        self.records = 0

    async def run(self, request: Request) -> None:
        """Append all that comes, or until a reader or somebody else closes the stream.

        Raises:
            PenstockError: why it went no further.
            ClientDisconnect: the client is gone.
        """
        left = self._service.attendance.producer(self._name)
        stopped = asyncio.create_task(self._until_closed())
        work = asyncio.create_task(self._run(request))
        try:
            await asyncio.wait([work, stopped], return_when=asyncio.FIRST_COMPLETED)
            if stopped.done() and not work.done():
                stopped.result()
            await work
        finally:
            left()
            for task in (work, stopped):
                task.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await task

    async def _until_closed(self) -> None:
        """Wait until somebody else ends the stream, which the next append would notice: but that may be long to come.

        Raises:
            StreamClosed: it was.
            StreamGone: it was deleted.
        """
        await self._begun.wait()
        assert self.last is not None  # noqa: S101 - it has begun
        incarnation = self.last.info.incarnation
        info = await self._service.when(self._name, lambda info: info.closed, incarnation=incarnation)
        if not self._ending:
            raise rules.ended(info)
        await asyncio.Event().wait()

    async def _run(self, request: Request) -> None:
        rest = b""
        async with aclosing(batches(request.stream())) as gathered:
            async for chunks in gathered:
                data = b"".join((rest, *chunks))
                cut = data.rfind(b"\n") + 1
                rest = data[cut:]
                if len(rest) > MAX_APPEND:
                    raise RequestError(
                        "too-large", 413, f"A record is larger than {MAX_APPEND} bytes.", max_size=MAX_APPEND
                    )
                if cut:
                    await self._append(data[:cut])
        if rest:
            await self._append(rest)
        self._ending = True
        if self.last is None or (self._close and not self.last.info.closed):
            await self._commit(Lines(b"", 0), close=self._close)

    async def _append(self, data: bytes) -> None:
        try:
            if len(data) > LARGE:
                lines = await asyncio.to_thread(self._format.lines, data)
            else:
                lines = self._format.lines(data)
        except BadLineError as error:
            if error.before.count:
                await self._commit(error.before)
            raise InvalidRecord(f"Record {self.records + 1} of the body: {error.error}") from error
        if lines.count:
            await self._commit(lines)

    async def _commit(self, lines: Lines, *, close: bool = False) -> None:
        incarnation = None if self.last is None else self.last.info.incarnation
        if self._producer is None or not lines.count:
            appended = await self._service.append(
                self._name,
                (lines.data,) if lines.count else (),
                close=close,
                incarnation=incarnation,
                content_type=self._format.stream_type,
                create=self._create,
            )
        else:
            appended = await self._service.append_records(
                self._name,
                lines.data,
                lines.count,
                lines.after,
                producer=self._producer,
                incarnation=incarnation,
                content_type=self._format.stream_type,
                create=self._create,
            )
            self._producer = replace(self._producer, sequence=self._producer.sequence + lines.count)
        self._create = None  # a stream that is deleted meanwhile is not made again in silence
        self.last = appended
        self._begun.set()
        self.created = self.created or appended.created
        self.records += lines.count
        self._changed.set()

    async def changed(self) -> None:
        """Wait until more is safe than when this returned last."""
        await self._changed.wait()
        self._changed.clear()

    def progress(self) -> dict[str, Any]:
        """Return how far it came, for JSON."""
        if self.last is None:
            return {"records": 0}
        return {"offset": self.last.offset, "records": self.records}


class ProgressiveAnswer(Response):
    """The answer to a long POST.

    Args:
        session: does the work.
        location: of the stream.
        acknowledge: whether to tell of progress: a line of NDJSON whenever more is safe, and a last one that tells how
            it ended. Else there is one answer at the end. What is told is always the latest, so that a client that
            reads late holds nothing up.
    """

    def __init__(self, session: Session, location: str, *, acknowledge: bool) -> None:
        super().__init__()
        self._session = session
        self._location = location
        self._acknowledge = acknowledge
        self._begun = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take the body, and answer."""
        work = asyncio.create_task(self._session.run(Request(scope, receive)))
        try:
            if self._acknowledge:
                await self._tell(work, send)
            await asyncio.wait([work])
            work.result()
        except ClientDisconnect:
            return
        except PenstockError as error:
            await self._refuse(error, scope, receive, send)
        else:
            await self._finish(scope, receive, send)
        finally:
            work.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await work

    async def _tell(self, work: asyncio.Task[None], send: Send) -> None:
        """Tell of progress until the work is done."""
        while not work.done():
            changed = asyncio.create_task(self._session.changed())
            try:
                await asyncio.wait([work, changed], return_when=asyncio.FIRST_COMPLETED)
            finally:
                changed.cancel()
            if not work.done():
                await self._begin(send)
                await _send_line(send, self._session.progress())

    async def _begin(self, send: Send) -> None:
        if not self._begun:
            self._begun = True
            fields = {
                "content-type": NDJSON,
                "cache-control": "no-store, no-transform",
                "x-accel-buffering": "no",  # nginx
                **self._fields(),
            }
            headers = [(name.encode(), value.encode("latin-1")) for name, value in fields.items()]
            await send({"type": "http.response.start", "status": self._status, "headers": headers})

    @property
    def _status(self) -> int:
        return 201 if self._session.created else 200

    def _fields(self) -> dict[str, str]:
        last = self._session.last
        fields = {} if last is None else state_fields(last.info)
        return {**fields, "location": self._location} if self._session.created else fields

    async def _refuse(self, error: PenstockError, scope: Scope, receive: Receive, send: Send) -> None:
        progress = self._session.progress()
        if not self._begun:
            await problem_response(error, progress)(scope, receive, send)
            return
        await _send_line(send, {**progress, "error": problem_of(error).members()}, last=True)

    async def _finish(self, scope: Scope, receive: Receive, send: Send) -> None:
        last = self._session.last
        told = {**self._session.progress(), "state": "open" if last is None else last.info.state}
        if self._acknowledge:
            await self._begin(send)
            await _send_line(send, told, last=True)
        else:
            await JSONResponse(told, self._status, self._fields())(scope, receive, send)


def progressive(service: StreamService, request: Request, name: str, location: str) -> Response:
    """Return the answer that appends a body's records as they arrive.

    Raises:
        RequestError: the request is not as it must be.
    """
    check_coding(request)
    format_ = RecordFormat.of(content_type_of(request))
    if not format_.has_lines:
        raise RequestError("unsupported-media-type", 415, f"What is appended as it arrives are lines: {NDJSON}, say.")
    session = Session(
        service,
        name,
        format_,
        live_spec(request, format_.stream_type, service, format_.attributes),
        producer=producer_of(request),
        close=closes(request),
    )
    accepted = preferred_type(request.headers.get("accept"), ("application/json", NDJSON))
    return ProgressiveAnswer(session, location, acknowledge=accepted == NDJSON)


async def _send_line(send: Send, content: dict[str, Any], *, last: bool = False) -> None:
    body = json.dumps(content, separators=(",", ":")).encode() + b"\n"
    await send({"type": "http.response.body", "body": body, "more_body": not last})
