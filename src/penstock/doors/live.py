"""The live door: records in by POST, and out as server-sent events."""

from __future__ import annotations

import asyncio
import re
import secrets
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response

from penstock.core.ports import Reader
from penstock.core.service import StreamService
from penstock.doors.events import HEARTBEAT, framed
from penstock.doors.fields import base_of, check_coding, content_type_of, name_in, spec_of, url_in
from penstock.doors.hooks import Authorize, authorized
from penstock.doors.methods import add_other_methods
from penstock.doors.schemas import APPENDED, json_of, parameter, problems
from penstock.errors import InvalidRecord, OffsetOutOfRange
from penstock.model import Appended, Producer, StreamInfo
from penstock.protocols import sse
from penstock.protocols.framings import EventFraming, kind_of
from penstock.protocols.framings.runs import MAX_RECORD
from penstock.protocols.records import RecordError, has_records, json_record, text_record
from penstock.toolkit.problems import ProblemRoute, RequestError, bad_request
from penstock.toolkit.requests.bodies import whole
from penstock.toolkit.responses.stream_fields import state_fields
from penstock.toolkit.responses.streamed_body import StreamedBody

NDJSON = "application/x-ndjson"
TEXT = "text/plain; charset=utf-8"

_CHARSET = re.compile(r'(?:^|;)[ \t]*charset="?([^ \t;"]+)', re.IGNORECASE)
_METHODS = ("GET", "HEAD", "OPTIONS", "POST")
_ACCEPTED = f"application/json, {NDJSON}, text/plain"

MAX_APPEND = 4 * 1024 * 1024
"""The most bytes of one append: it is held in memory, because it is all or nothing."""

_LARGE = 64 * 1024
_BLOCK = 64 * 1024


def live_router(
    service: StreamService,
    *,
    prefix: str = "/live",
    authorize: Authorize | None = None,
    heartbeat: float = HEARTBEAT,
    **options: Any,
) -> APIRouter:
    """Return a router that appends records and streams them as they come; see ``docs/http.md``.

    Args:
        service: the streams.
        prefix: where the router is mounted.
        authorize: who may do what; see `penstock.doors.hooks.Authorize`.
        heartbeat: seconds of silence after which a comment is sent, so that proxies and clients see the line is alive.
        options: whatever else FastAPI's `APIRouter` takes: ``dependencies``, ``tags``, ...
    """
    router = APIRouter(prefix=prefix, route_class=ProblemRoute, **{"tags": ["live"], **options})
    route = f"penstock-live-{secrets.token_hex(4)}"  # its own, so that several can be mounted in one application

    @router.post(
        "/{name:path}",
        summary="Append records",
        openapi_extra={
            "requestBody": {
                "content": {
                    "application/json": {"schema": {}},
                    NDJSON: {"schema": {"type": "string"}},
                    "text/plain": {"schema": {"type": "string"}},
                }
            }
        },
        responses={
            200: json_of("Appended, or recognised as a repetition", APPENDED),
            201: json_of("Appended, and the stream was created", APPENDED),
            **problems(
                _400="The request is wrong",
                _403="Another producer took over",
                _409="The append does not fit",
                _413="It is too large",
                _415="The content type has no records",
                _422="It is not a record",
                _507="The storage is full",
            ),
        },
    )
    async def append(request: Request, name: str) -> Response:
        """Append one record, or several together, and create the stream if there is none."""
        name = name_in(request)
        await authorized(authorize, request, "write", name)
        appended = await _append(service, request, name)
        content = {"name": name, "offset": appended.offset, "duplicate": appended.duplicate}
        fields = state_fields(appended.info)
        if appended.created:
            fields["location"] = url_in(base_of(request, route), name)
        return JSONResponse(content, 201 if appended.created else 200, fields)

    async def read(
        request: Request,
        name: str,
        offset: Annotated[str, Query(description="Where to begin: a number of bytes, or `now`")] = "now",
    ) -> Response:
        """Follow a stream; `Last-Event-ID` resumes without gap or duplicate."""
        name = name_in(request)
        await authorized(authorize, request, "read", name)
        return await _read(service, request, name, offset, heartbeat)

    router.get(
        "/{name:path}",
        name=route,
        summary="Follow records as server-sent events",
        response_class=Response,
        responses={
            200: {"description": "Events", "content": {sse.MEDIA_TYPE: {"schema": {"type": "string"}}}},
            204: {"description": "The reader has all there is, and the stream is closed"},
            **problems(
                _400="The request is wrong",
                _404="There is no such stream",
                _410="The offset is past the tail, or within a record",
            ),
        },
        openapi_extra={
            "parameters": [parameter("Last-Event-ID", "header", "Where to go on: it wins over the parameter `offset`")]
        },
    )(read)
    router.head("/{name:path}", include_in_schema=False)(read)

    add_other_methods(router, "/{name:path}", _METHODS, {"accept-post": _ACCEPTED})
    return router


# -- appending --------------------------------------------------------------------------------------------------------


async def _append(service: StreamService, request: Request, name: str) -> Appended:
    check_coding(request)
    body = await whole(request, MAX_APPEND)
    close = _closes(request)
    producer = _producer(request)
    if close and not body:  # whatever type it is declared to be: some clients declare one of nothing
        return await service.append(name, (), close=True, producer=producer)
    declared = content_type_of(request)
    if len(body) > _LARGE:  # to check it takes long enough to keep others waiting
        content_type, data = await asyncio.to_thread(_records, declared, body)
    else:
        content_type, data = _records(declared, body)
    return await service.append(
        name,
        data,
        close=close,
        producer=producer,
        content_type=content_type,
        create=spec_of(request, content_type, None, service.now),
    )


def _records(content_type: str, body: bytes) -> tuple[str, list[bytes]]:
    """Return the stream's content type and the records, each ended by a newline.

    Raises:
        InvalidRecord: the body is not what its type says.
        RequestError: the type has no records.
    """
    media_type, _, parameters = content_type.partition(";")
    try:
        match media_type.strip().lower():
            case "application/json":
                return NDJSON, [json_record(body)]
            case "application/x-ndjson" | "application/jsonl" | "application/ndjson":
                lines = [line for line in body.split(b"\n") if line.strip()]
                return NDJSON, [json_record(line) for line in lines]
            case "text/plain":
                charset = _CHARSET.search(parameters)
                return TEXT, [text_record(body, "utf-8" if charset is None else charset[1])]
    except RecordError as error:
        raise InvalidRecord(str(error)) from error
    raise RequestError(
        "unsupported-media-type",
        415,
        f"{media_type} has no records. Send application/json, {NDJSON} or text/plain.",
        {"accept-post": _ACCEPTED},
    )


def _closes(request: Request) -> bool:
    value = request.headers.get("stream-closed", "false").lower()
    if value not in {"true", "false"}:
        raise bad_request("Stream-Closed must be true or false.")
    return value == "true"


def _producer(request: Request) -> Producer | None:
    names = ("producer-id", "producer-epoch", "producer-seq")
    values = [request.headers.get(name) for name in names]
    if not any(values):
        return None
    identity, epoch, sequence = values
    if not identity or len(identity) > 256 or not _is_number(epoch) or not _is_number(sequence):
        raise bad_request(
            "Producer-Id (up to 256 characters), Producer-Epoch and Producer-Seq (whole numbers) go together."
        )
    return Producer(identity, int(epoch or 0), int(sequence or 0))


def _is_number(value: str | None) -> bool:
    # 15 digits: what a double, and so JavaScript, counts exactly.
    return value is not None and value.isascii() and value.isdigit() and len(value) <= 15


# -- reading ----------------------------------------------------------------------------------------------------------


async def _read(service: StreamService, request: Request, name: str, offset: str, heartbeat: float) -> Response:
    last_event_id = request.headers.get("last-event-id")
    start = _offset(last_event_id or offset)
    reader = await service.open(name)
    try:
        info = reader.info
        if info.closed and last_event_id and start == info.tail:
            reader.close()
            return Response(status_code=204, headers=state_fields(info))  # tells an EventSource to stop
        if start is None:
            begin = await _now(reader)
        else:
            begin = start
            await _check_boundary(reader, start)
        body = framed(service, reader, begin, EventFraming(kind_of(info.content_type)), heartbeat)
        return StreamedBody(body, headers=_event_fields(info), release=reader.close)
    except BaseException:
        reader.close()
        raise


def _event_fields(info: StreamInfo) -> dict[str, str]:
    return {
        "content-type": sse.MEDIA_TYPE,
        "cache-control": "no-store, no-transform",
        "x-accel-buffering": "no",  # nginx
        "incremental": "?1",  # RFC 10036
        "x-content-type-options": "nosniff",
        **state_fields(info),
    }


def _offset(value: str) -> int | None:
    """Return the offset to begin at; None for the tail."""
    if value == "now":
        return None
    if not _is_number(value):
        raise bad_request("The offset (or Last-Event-ID) must be a number of bytes from the start, or 'now'.")
    return int(value)


async def _now(reader: Reader) -> int:
    """Return the tail, or where the record begins of which a part is there: who follows from now on gets it whole."""
    info = reader.info
    if info.closed or not has_records(info.content_type):
        return info.tail
    stop = info.tail
    while stop > max(0, info.tail - MAX_RECORD):
        start = max(0, stop - _BLOCK)
        newline = await _last_newline(reader, start, stop)
        if newline is not None:
            return newline + 1
        stop = start
    return stop


async def _last_newline(reader: Reader, start: int, stop: int) -> int | None:
    found = None
    while start < stop:
        data = bytes(await reader.read(start, stop))
        at = data.rfind(b"\n")
        found = found if at < 0 else start + at
        start += len(data)
    return found


async def _check_boundary(reader: Reader, offset: int) -> None:
    """Make sure that a reader begins where a record does.

    Raises:
        OffsetOutOfRange: it is past the tail, or within a record: then it was not this incarnation's.
    """
    info = reader.info
    if offset > info.tail:
        raise OffsetOutOfRange(info.name, offset, info.tail)
    if offset and has_records(info.content_type) and bytes(await reader.read(offset - 1, offset)) != b"\n":
        at_the_end = info.closed and offset == info.tail
        if not at_the_end:
            raise OffsetOutOfRange(info.name, offset, info.tail, "is within a record")
