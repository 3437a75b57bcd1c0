"""The live door: records in by POST, and out as server-sent events."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response

from penstock.core.ports import Reader
from penstock.core.service import StreamService
from penstock.doors.events import HEARTBEAT, events
from penstock.doors.fields import content_type_of, name_in, spec_of, state_fields
from penstock.doors.hooks import Authorize, authorized
from penstock.errors import InvalidRecord, OffsetOutOfRange
from penstock.model import Producer, StreamInfo
from penstock.protocols import sse
from penstock.protocols.records import RecordError, has_records, json_record, text_record
from penstock.toolkit.bodies import whole
from penstock.toolkit.problems import ProblemRoute, RequestError, bad_request
from penstock.toolkit.responses import StreamedBody

NDJSON = "application/x-ndjson"
TEXT = "text/plain; charset=utf-8"

MAX_APPEND = 4 * 1024 * 1024
"""The most bytes of one append: it is held in memory, because it is all or nothing."""


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

    @router.post(
        "/{name:path}",
        summary="Append records",
        openapi_extra={
            "requestBody": {
                "content": {
                    "application/json": {"schema": {}},
                    NDJSON: {},
                    "text/plain": {"schema": {"type": "string"}},
                }
            }
        },
        responses={201: {"description": "The stream was created"}},
    )
    async def append(request: Request, name: str) -> Response:
        """Append one record, or several together, and create the stream if there is none."""
        name = name_in(request)
        await authorized(authorize, request, "write", name)
        return await _append(service, request, name)

    @router.get(
        "/{name:path}",
        summary="Follow records as server-sent events",
        response_class=Response,
        responses={
            200: {"description": "Events", "content": {sse.MEDIA_TYPE: {"schema": {"type": "string"}}}},
            204: {"description": "The reader has all there is, and the stream is closed"},
        },
    )
    async def read(
        request: Request,
        name: str,
        offset: Annotated[str, Query(description="Where to begin: a number of bytes, or `now`")] = "now",
    ) -> Response:
        """Follow a stream; `Last-Event-ID` resumes without gap or duplicate."""
        name = name_in(request)
        await authorized(authorize, request, "read", name)
        return await _read(service, request, name, offset, heartbeat)

    return router


# -- appending --------------------------------------------------------------------------------------------------------


async def _append(service: StreamService, request: Request, name: str) -> Response:
    body = await whole(request, MAX_APPEND)
    close = _closes(request)
    producer = _producer(request)
    if close and not body and "content-type" not in request.headers:
        appended = await service.append(name, (), close=True, producer=producer)
    else:
        content_type, data = _records(content_type_of(request), body)
        appended = await service.append(
            name,
            data,
            close=close,
            producer=producer,
            content_type=content_type,
            create=spec_of(request, content_type, None, service.now),
        )
    content = {"name": name, "offset": appended.offset, "duplicate": appended.duplicate}
    return JSONResponse(content, 201 if appended.created else 200, state_fields(appended.info))


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
                _, _, charset = parameters.partition("charset=")
                return TEXT, [text_record(body, charset.strip(' "') or "utf-8")]
    except RecordError as error:
        raise InvalidRecord(str(error)) from error
    raise RequestError(
        "unsupported-media-type",
        415,
        f"{media_type} has no records. Send application/json, {NDJSON} or text/plain.",
        {"accept-post": f"application/json, {NDJSON}, text/plain"},
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
        begin = info.tail if start is None else start
        if start is not None:
            await _check_boundary(reader, start)
        body = events(service, reader, begin, heartbeat)
        return StreamedBody(body, headers=_event_fields(info), release=reader.close)
    except BaseException:
        reader.close()
        raise


def _event_fields(info: StreamInfo) -> dict[str, str]:
    return {
        "content-type": sse.MEDIA_TYPE,
        "cache-control": "no-store",
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
