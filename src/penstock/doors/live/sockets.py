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

Where several streams are followed (``/live/rooms/*``, ``?name=a&name=b``), each message has the ``name`` of one and an
``id`` that resumes all, and so has an append the name of the stream that it is for.

A client appends with ``{"append": [...], "id": 7}``: the records of one message are appended together, or not at all.
With ``"producer": "p", "epoch": 0, "seq": 0`` a repetition is written once; ``"close": true`` closes the stream.

Close codes: 1000 after the end of a closed stream, 1003 for a message that is not text, 1007 for one that is not as
above, 1012 when the server stops (come back at the offset), 1013 when the client took nothing for too long (the same),
4409 after a stream that failed, 4410 after one that is gone.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from typing import Any, Final
from urllib.parse import urlsplit

from fastapi import HTTPException, Request, WebSocket
from starlette.websockets import WebSocketDisconnect, WebSocketState

from penstock.core.group import Group, Selection
from penstock.core.ports import Reader
from penstock.core.service import StreamService
from penstock.doors.fields import name_in
from penstock.doors.hooks import Authorize, Identify, authorized, identified
from penstock.doors.live.appending import MAX_APPEND, NDJSON
from penstock.doors.live.following import framed
from penstock.doors.live.groups import check_selection, framed_group, open_group, selected
from penstock.doors.live.positions import beginning
from penstock.doors.live.wishes import Wish
from penstock.errors import InvalidRecord, PenstockError, StreamNotFound
from penstock.model import Buffer, Producer, StreamInfo, StreamSpec, check_name
from penstock.protocols.framings import Ending, MessageFraming, kind_of
from penstock.protocols.framings.groups import GroupFraming
from penstock.protocols.framings.messages import SUBPROTOCOL
from penstock.protocols.records import RecordError, json_members, json_records, text_record
from penstock.toolkit.problems import RequestError, bad_request, problem_of, problem_response

MODES: Final = ("read", "append", "both")

_END_CODES: Final = {"closed": 1000, "failed": 4409, "gone": 4410, "open": 1011}
_STOPPING: Final = 1012
_TRY_AGAIN_LATER: Final = 1013
_NOT_TEXT: Final = 1003
_NOT_UNDERSTOOD: Final = 1007


class NotUnderstood(RecordError):
    """A message that is not of the subprotocol."""


class Stalled(Exception):
    """The client took nothing for too long."""


async def serve(
    websocket: WebSocket,
    service: StreamService,
    wish: Wish,
    mode: str,
    *,
    authorize: Authorize | None,
    heartbeat: float,
    patience: float,
    origins: tuple[str, ...],
    identify: Identify | None,
) -> None:
    """Handle a connection from its request to its end."""
    # The hooks and helpers of the door take requests, and this one was a request.
    request = Request({**websocket.scope, "type": "http", "method": "GET"})
    connection = _Connection(websocket, service, request, wish, authorize, mode, patience)
    try:
        check_origin(request, origins)
        messages = await connection.open(heartbeat)
        who = await identified(identify, request)
    except (PenstockError, HTTPException) as error:
        connection.close()
        await websocket.send_denial_response(problem_response(error))
        return
    except BaseException:
        connection.close()
        raise
    try:
        offered = SUBPROTOCOL in websocket.scope.get("subprotocols", ())
        await websocket.accept(SUBPROTOCOL if offered else None)
        left = connection.attend(who)
        try:
            stalled = await connection.run(messages)
        finally:
            left()
    finally:
        connection.close()
    if stalled:
        await connection.give_up()


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


class _Connection:
    """A connection, of one stream or of several."""

    def __init__(
        self,
        websocket: WebSocket,
        service: StreamService,
        request: Request,
        wish: Wish,
        authorize: Authorize | None,
        mode: str,
        patience: float,
    ) -> None:
        self._websocket = websocket
        self._service = service
        self._request = request
        self._wish = wish
        self._authorize = authorize
        self._mode = mode
        self._patience = patience
        self._selection: Selection | None = None
        self._writable: set[str] = set()
        self._ending: Ending | None = None
        self._opened: Reader | Group | None = None

    async def open(self, heartbeat: float) -> AsyncGenerator[Buffer, None] | None:
        """Ask whether it may be, open what is read, and return what will be sent; None if nothing is read.

        Raises:
            PenstockError: it is refused.
        """
        if self._mode not in MODES:
            raise bad_request(f"The mode is one of {', '.join(MODES)}.")
        self._selection = selected(self._request)
        if self._selection is not None:
            return await self._open_group(self._selection, heartbeat)
        name = name_in(self._request)
        if self._mode != "append":
            await authorized(self._authorize, self._request, "read", name)
        if self._mode == "append" or "create" in self._request.query_params:
            await self._check_writable(name)
        if "create" in self._request.query_params:
            await self._service.append(name, (), create=StreamSpec(content_type=NDJSON, timed=True))
        if self._mode == "append":
            return None
        self._opened = reader = await self._service.open(name)
        start = await beginning(self._service, reader, self._wish, None)
        framing = MessageFraming(kind_of(reader.info.content_type), start)
        return framed(self._service, reader, start, framing, heartbeat, ended=self._note)

    async def _open_group(self, selection: Selection, heartbeat: float) -> AsyncGenerator[Buffer, None] | None:
        await check_selection(self._request, selection, self._authorize)
        if self._mode == "append":
            return None
        self._opened = group = await open_group(
            self._service, self._request, selection, self._wish, None, self._authorize
        )
        return framed_group(group, GroupFraming("messages"), self._wish, heartbeat, ended=self._note)

    def attend(self, who: str | None) -> Callable[[], None]:
        """Note who is there, and return what notes that it went."""
        attendance = self._service.attendance
        if isinstance(self._opened, Group):
            return attendance.group(self._opened, who)
        if self._opened is not None:
            return attendance.reader(self._opened.info.name, who)
        return (lambda: None) if self._selection is not None else attendance.producer(name_in(self._request))

    def close(self) -> None:
        """Release what is read."""
        if self._opened is not None:
            self._opened.close()

    async def run(self, messages: AsyncGenerator[Buffer, None] | None) -> bool:
        """Send and receive until either side ends it, and tell whether that is because the client takes nothing."""
        stalled = False
        tasks = [asyncio.create_task(self._receive())]
        if messages is not None:
            tasks.append(asyncio.create_task(self._send(messages)))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            for task in tasks:
                try:
                    await task
                except Stalled:
                    stalled = True
                except (asyncio.CancelledError, WebSocketDisconnect):
                    pass
        return stalled

    async def give_up(self) -> None:
        """Close the socket of a client that takes nothing: it is told why, if it takes something in a while."""
        with suppress(TimeoutError, WebSocketDisconnect):
            async with asyncio.timeout(self._patience):
                await self._websocket.close(_TRY_AGAIN_LATER, "nothing was taken for too long: come back at the offset")

    async def _send_text(self, text: str) -> None:
        """Send a message.

        Raises:
            Stalled: the connection takes nothing.
        """
        try:
            async with asyncio.timeout(self._patience):
                await self._websocket.send_text(text)
        except TimeoutError:
            raise Stalled from None

    async def _send(self, messages: AsyncGenerator[Buffer, None]) -> None:
        """Send what there is to read, and close at its end."""
        async with aclosing(messages):
            async for message in messages:
                if message:
                    await self._send_text(bytes(message).decode())
        ending = self._ending
        if ending is None:
            await self._websocket.close(_STOPPING, "the server is stopping")
        else:
            await self._websocket.close(_END_CODES[ending.state], _reason(ending.reason or ending.state))

    def _note(self, ending: Ending) -> None:
        self._ending = ending

    async def _receive(self) -> None:
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
                await self._take(text.encode())
            except NotUnderstood as error:
                await self._websocket.close(_NOT_UNDERSTOOD, _reason(str(error)))
                return

    async def _take(self, text: bytes) -> None:
        members = _members(text)
        number = json.loads(members.get("id", b"null"))
        try:
            if self._mode == "read":
                raise RequestError("forbidden", 403, "This connection only reads: connect with mode=both to append.")
            name = self._name_for(members)
            await self._check_writable(name)
            answer = await self._append(name, members)
        except RecordError as error:
            answer = {"error": problem_of(InvalidRecord(str(error))).members()}
        except (PenstockError, HTTPException) as error:
            answer = {"error": problem_of(error).members()}
        await self._tell({"ack": number, **answer})

    def _name_for(self, members: dict[str, bytes]) -> str:
        """Return the stream that a message is for: of several, it says which."""
        if self._selection is None:
            return name_in(self._request)
        name = json.loads(members.get("name", b"null"))
        if not isinstance(name, str):
            raise RecordError("where several streams are followed, an append has the name of one")
        check_name(name)
        prefix = self._selection.prefix
        if name not in self._selection.names and (prefix is None or not name.startswith(prefix)):
            raise RequestError("forbidden", 403, f"{name!r} is none of the streams of this connection.")
        return name

    async def _check_writable(self, name: str) -> None:
        if name not in self._writable:
            await authorized(self._authorize, self._request, "write", name)
            self._writable.add(name)

    async def _append(self, name: str, members: dict[str, bytes]) -> dict[str, Any]:
        if len(members["append"]) > MAX_APPEND:
            raise RequestError("too-large", 413, f"An append has at most {MAX_APPEND} bytes.", max_size=MAX_APPEND)
        known = await self._info(name)
        kind = "json" if known is None else kind_of(known.content_type)
        records = json_records(members["append"])
        if kind == "text":
            records = [_line(record) for record in records]
        appended = await self._service.append(
            name,
            records,
            close=json.loads(members.get("close", b"false")) is True,
            producer=_producer(members),
            content_type=NDJSON if known is None or kind == "bytes" else known.content_type,
            create=StreamSpec(content_type=NDJSON, timed=True),
        )
        return {"offset": appended.offset, "duplicate": appended.duplicate}

    async def _info(self, name: str) -> StreamInfo | None:
        with suppress(StreamNotFound):
            return await self._service.info(name)
        return None

    async def _tell(self, content: dict[str, Any]) -> None:
        if self._websocket.application_state is WebSocketState.DISCONNECTED:  # closed by the other task
            raise WebSocketDisconnect
        await self._send_text(json.dumps(content, separators=(",", ":")))


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
