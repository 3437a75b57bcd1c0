"""The live door over WebSocket (RFC 6455): records out, and records in, on one connection.

The subprotocol is ``penstock.v1``: each message is one JSON object, in text.

==========================================================  ==========================================================
from the server                                             what it says
==========================================================  ==========================================================
``{"offset": 12, "records": [...]}``                        records, and the offset after the last one; the first
                                                            message has none, and tells where the reader begins
``{"offset": 12, "bytes": "..."}``                          bytes of a stream without records, in base64
``{"ack": 7, "offset": 12, "duplicate": false}``            the append 7 is safe; the offset after it
``{"ack": 7, "error": {...}}``                              it was refused, as the problem tells
``{"end": {"state": "closed", "offset": 12}}``              nothing more comes; the socket is closed then
==========================================================  ==========================================================

A client appends with ``{"append": [...], "id": 7}``: the records of one message are appended together, or not at all.
With ``"producer": "p", "epoch": 0, "seq": 0`` a repetition is written once; ``"close": true`` closes the stream.

Close codes: 1000 after the end of a closed stream, 1003 for a message that is not text, 1007 for one that is not as
above, 1012 when the server stops (come back at the offset), 4409 after a stream that failed, 4410 after one that is
gone.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing, suppress
from typing import Any, Final
from urllib.parse import urlsplit

from fastapi import Request, WebSocket
from starlette.websockets import WebSocketDisconnect, WebSocketState

from penstock.core.ports import Reader
from penstock.core.service import StreamService
from penstock.doors.fields import name_in
from penstock.doors.hooks import Authorize, authorized
from penstock.doors.live.appending import MAX_APPEND, NDJSON
from penstock.doors.live.following import framed
from penstock.doors.live.positions import beginning
from penstock.doors.live.wishes import Wish
from penstock.errors import InvalidRecord, PenstockError, StreamNotFound
from penstock.model import Producer, StreamInfo, StreamSpec
from penstock.protocols.framings import Ending, MessageFraming, kind_of
from penstock.protocols.framings.messages import SUBPROTOCOL
from penstock.protocols.records import RecordError, json_members, json_records, text_record
from penstock.toolkit.problems import RequestError, bad_request, problem_of, problem_response

MODES: Final = ("read", "append", "both")

_END_CODES: Final = {"closed": 1000, "failed": 4409, "gone": 4410, "open": 1011}
_STOPPING: Final = 1012
_NOT_TEXT: Final = 1003
_NOT_UNDERSTOOD: Final = 1007


class NotUnderstood(RecordError):
    """A message that is not of the subprotocol."""


async def serve(
    websocket: WebSocket,
    service: StreamService,
    wish: Wish,
    mode: str,
    *,
    authorize: Authorize | None,
    heartbeat: float,
    origins: tuple[str, ...],
) -> None:
    """Handle a connection from its request to its end."""
    # The hooks and helpers of the door take requests, and this one was a request.
    request = Request({**websocket.scope, "type": "http", "method": "GET"})
    reader = None
    try:
        check_origin(request, origins)
        name = name_in(request)
        if mode not in MODES:
            raise bad_request(f"The mode is one of {', '.join(MODES)}.")
        reads = mode != "append"
        if reads:
            await authorized(authorize, request, "read", name)
        if not reads or "create" in request.query_params:
            await authorized(authorize, request, "write", name)
        if "create" in request.query_params:
            await _create(service, name)
        if reads:
            reader = await service.open(name)
        start = 0 if reader is None else await beginning(service, reader, wish, None)
    except PenstockError as error:
        if reader is not None:
            reader.close()
        await websocket.send_denial_response(problem_response(error))
        return
    offered = SUBPROTOCOL in websocket.scope.get("subprotocols", ())
    await websocket.accept(SUBPROTOCOL if offered else None)
    connection = _Connection(websocket, service, name, request, authorize if mode == "both" else None)
    try:
        await connection.run(reader, start, heartbeat, appends=mode != "read")
    finally:
        if reader is not None:
            reader.close()


def check_origin(request: Request, origins: tuple[str, ...]) -> None:
    """Refuse another site's page: browsers send cookies along, and do not ask before they connect.

    Args:
        request: the request to connect.
        origins: other sites that may; ``*`` for all.

    Raises:
        RequestError: ``forbidden`` (403).
    """
    origin = request.headers.get("origin")
    if origin is None or "*" in origins or origin in origins:
        return
    if urlsplit(origin).netloc.lower() != request.headers.get("host", "").lower():
        raise RequestError("forbidden", 403, f"Pages of {origin} may not connect here.")


async def _create(service: StreamService, name: str) -> None:
    await service.append(name, (), create=StreamSpec(content_type=NDJSON))


class _Connection:
    """A connection that was accepted."""

    def __init__(
        self, websocket: WebSocket, service: StreamService, name: str, request: Request, authorize: Authorize | None
    ) -> None:
        self._websocket = websocket
        self._service = service
        self._name = name
        self._request = request
        self._authorize = authorize
        self._may_write = authorize is None
        self._ending: Ending | None = None

    async def run(self, reader: Reader | None, start: int, heartbeat: float, *, appends: bool) -> None:
        """Send and receive until either side ends it."""
        tasks = [asyncio.create_task(self._receive(appends=appends))]
        if reader is not None:
            tasks.append(asyncio.create_task(self._send(reader, start, heartbeat)))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            for task in tasks:
                with suppress(asyncio.CancelledError, WebSocketDisconnect):
                    await task

    async def _send(self, reader: Reader, start: int, heartbeat: float) -> None:
        """Send what there is to read, and close at its end."""
        framing = MessageFraming(kind_of(reader.info.content_type))
        await self._tell({"offset": start, "records": []})
        messages = framed(self._service, reader, start, framing, heartbeat, ended=self._note)
        async with aclosing(messages):
            async for message in messages:
                if message:
                    await self._websocket.send_text(bytes(message).decode())
        ending = self._ending
        if ending is None:
            await self._websocket.close(_STOPPING, "the server is stopping")
        else:
            await self._websocket.close(_END_CODES[ending.state], _reason(ending.reason or ending.state))

    def _note(self, ending: Ending) -> None:
        self._ending = ending

    async def _receive(self, *, appends: bool) -> None:
        """Take what comes, one message after another, until the client goes or sends what is none."""
        while True:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            text = message.get("text")
            if text is None:
                await self._websocket.close(_NOT_TEXT, "messages are text")
                return
            try:
                await self._take(text.encode(), appends=appends)
            except NotUnderstood as error:
                await self._websocket.close(_NOT_UNDERSTOOD, _reason(str(error)))
                return

    async def _take(self, text: bytes, *, appends: bool) -> None:
        members = _members(text)
        number = json.loads(members.get("id", b"null"))
        try:
            if not appends:
                raise RequestError("forbidden", 403, "This connection only reads: connect with mode=both to append.")
            if not self._may_write:
                await authorized(self._authorize, self._request, "write", self._name)
                self._may_write = True
            answer = await self._append(members)
        except RecordError as error:
            answer = {"error": problem_of(InvalidRecord(str(error))).members()}
        except PenstockError as error:
            answer = {"error": problem_of(error).members()}
        await self._tell({"ack": number, **answer})

    async def _append(self, members: dict[str, bytes]) -> dict[str, Any]:
        if len(members["append"]) > MAX_APPEND:
            raise RequestError("too-large", 413, f"An append has at most {MAX_APPEND} bytes.", max_size=MAX_APPEND)
        known = await self._info()
        kind = "json" if known is None else kind_of(known.content_type)
        records = json_records(members["append"])
        if kind == "text":
            records = [_line(record) for record in records]
        appended = await self._service.append(
            self._name,
            records,
            close=json.loads(members.get("close", b"false")) is True,
            producer=_producer(members),
            content_type=NDJSON if known is None or kind == "bytes" else known.content_type,
            create=StreamSpec(content_type=NDJSON),
        )
        return {"offset": appended.offset, "duplicate": appended.duplicate}

    async def _info(self) -> StreamInfo | None:
        with suppress(StreamNotFound):
            return await self._service.info(self._name)
        return None

    async def _tell(self, content: dict[str, Any]) -> None:
        if self._websocket.application_state is WebSocketState.DISCONNECTED:  # closed by the other task
            raise WebSocketDisconnect
        await self._websocket.send_text(json.dumps(content, separators=(",", ":")))


def _members(text: bytes) -> dict[str, bytes]:
    try:
        members = json_members(text)
    except RecordError as error:
        raise NotUnderstood(str(error)) from error
    if not members.get("append", b"").startswith(b"["):
        raise NotUnderstood("a message has a list of records to append")
    return members


def _line(record: bytes) -> bytes:
    text = json.loads(record)
    if not isinstance(text, str):
        raise RecordError("records of a stream of text are texts")
    return text_record(text.encode(errors="surrogatepass") + b"\n")


def _producer(members: dict[str, bytes]) -> Producer | None:
    if "producer" not in members:
        return None
    identity, epoch, sequence = (json.loads(members.get(name, b"0")) for name in ("producer", "epoch", "seq"))
    if not isinstance(identity, str) or not 0 < len(identity) <= 256 or not _counts(epoch) or not _counts(sequence):
        raise RecordError("producer (a text of up to 256 characters), epoch and seq (whole numbers) go together")
    return Producer(identity, epoch, sequence)


def _counts(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**15


def _reason(text: str) -> str:
    """Return a text that fits into a close frame: 123 bytes of UTF-8 (RFC 6455 section 5.5)."""
    return text.encode()[:123].decode(errors="ignore")
