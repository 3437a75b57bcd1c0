"""GET and HEAD of a stream as a file: all of it, ranges, or following it as it grows."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response

from penstock.core.ports import Reader
from penstock.core.service import StreamService
from penstock.doors.fields import etag_of, growing_etag_of, state_fields
from penstock.doors.uploads import wanted_digest
from penstock.errors import StreamFailed
from penstock.model import Buffer, StreamInfo
from penstock.protocols.digest import format_digests
from penstock.protocols.disposition import content_disposition
from penstock.protocols.ranges import OPEN_ENDED_LAST, ByteRange, RangeSpec, content_range, follows
from penstock.toolkit.problems import RequestError
from penstock.toolkit.representations import (
    ReadRange,
    Representation,
    check_conditions,
    not_satisfiable,
    requested_ranges,
    respond,
)
from penstock.toolkit.responses import StreamedBody

_ACTIVE = ("html", "xml", "svg", "javascript", "ecmascript", "multipart/x-mixed-replace")
"""Parts of the media types with which a browser runs code of whoever uploaded it."""


async def answer(service: StreamService, request: Request, name: str) -> Response:
    """Answer a GET or HEAD of a stream; see the HTTP interface.

    Raises:
        StreamNotFound: there is none.
        RequestError: conditions or ranges that cannot be met.
    """
    reader = await service.open(name)
    try:
        return await _answer(service, request, reader)
    except RequestError as error:
        reader.close()
        error.headers.update(state_fields(reader.info))  # why a range is past the end, for one thing
        raise
    except BaseException:
        reader.close()
        raise


async def _answer(service: StreamService, request: Request, reader: Reader) -> Response:
    info = reader.info
    asked = "follow" in request.query_params
    snapshot, growing = etag_of(info), growing_etag_of(info)
    representation = Representation(
        length=info.tail,
        complete=info.complete,
        # Whoever follows asks for the whole stream that there will be: of one incarnation, that is one thing only.
        etag=growing if asked else snapshot,
        # That is what it has become, so that who followed it while it grew can resume.
        also=(snapshot, growing) if info.complete else (),
        last_modified=info.modified_at,
        content_type=info.content_type,
        headers=await _headers(service, request, reader),
    )
    if info.complete:
        return respond(request, representation, _reading(reader), reader.close)
    if asked or info.failure is not None or _asks_to_follow(request, info):
        return _answer_growing(service, request, reader, representation)
    return respond(request, representation, _reading(reader), reader.close)


async def _headers(service: StreamService, request: Request, reader: Reader) -> dict[str, str]:
    info = reader.info
    headers = {**state_fields(info), "cache-control": "no-cache", "x-content-type-options": "nosniff"}
    if any(part in info.content_type.lower() for part in _ACTIVE):
        headers["content-security-policy"] = "sandbox"
    if "download" in request.query_params:
        filename = request.query_params["download"] or info.metadata.get("filename") or info.name.rsplit("/", 1)[-1]
        headers["content-disposition"] = content_disposition(filename)
    algorithm = wanted_digest(request)
    if algorithm is not None and info.complete:
        headers["repr-digest"] = format_digests({algorithm: await service.digest(reader, algorithm)})
    return headers


def _asks_to_follow(request: Request, info: StreamInfo) -> bool:
    """Tell whether a range of an open stream has a very large last position (RFC 8673)."""
    specs = requested_ranges(request, growing_etag_of(info), etag_of(info))
    return specs is not None and follows(specs)


def _answer_growing(
    service: StreamService, request: Request, reader: Reader, representation: Representation
) -> Response:
    """Answer with the bytes of a stream that is not complete, and with those to come; a failed one breaks off."""
    info = reader.info
    snapshot, growing = etag_of(info), growing_etag_of(info)
    representation = replace(
        representation, etag=growing, headers={**representation.headers, "cache-control": "no-store, no-transform"}
    )
    not_modified = check_conditions(request, representation)
    if not_modified is not None:
        reader.close()
        return not_modified
    specs = requested_ranges(request, growing, snapshot)
    fields = representation.fields()
    if info.failure is None:
        fields["x-accel-buffering"] = "no"
    if specs is None or len(specs) != 1:
        return StreamedBody(_following(service, reader, 0, None), 200, fields, release=reader.close)
    spec = specs[0]
    start, stop = _bounds(info, spec)
    fields["content-range"] = content_range(ByteRange(start, _told_stop(spec, stop)), None)
    if stop is not None:
        fields["content-length"] = str(stop - start)
    return StreamedBody(_following(service, reader, start, stop), 206, fields, release=reader.close)


def _bounds(info: StreamInfo, spec: RangeSpec) -> tuple[int, int | None]:
    """Return where a range of a growing stream begins, and where it stops if it does before the stream's end."""
    if spec.first is None:
        return max(0, info.tail - (spec.last or 0)), None
    if spec.first > info.tail:
        raise not_satisfiable(info.tail)
    if spec.last is None or spec.very_large or (info.failure is not None and spec.last >= info.tail):
        return spec.first, None
    return spec.first, spec.last + 1


def _told_stop(spec: RangeSpec, stop: int | None) -> int:
    """Return where Content-Range says that a range of a growing stream stops."""
    if stop is None:
        # The client's own very large position tells it that it is followed (RFC 8673 section 2.2).
        stop = 1 + (spec.last if spec.very_large and spec.last is not None else OPEN_ENDED_LAST)
    return stop


def _reading(reader: Reader) -> ReadRange:
    async def read(start: int, stop: int) -> AsyncGenerator[Buffer, None]:
        offset = start
        while offset < stop:
            data = await reader.read(offset, stop)
            yield data
            offset += len(data)

    return read


async def _following(
    service: StreamService, reader: Reader, start: int, stop: int | None
) -> AsyncGenerator[Buffer, None]:
    async with aclosing(service.follow_reader(reader, start)) as chunks:
        async for chunk in chunks:
            if chunk is None:
                continue
            if stop is not None and chunk.end >= stop:
                yield memoryview(chunk.data)[: stop - chunk.offset]
                return
            yield chunk.data
    if stop is not None:
        raise StreamFailed(reader.info.name, reader.info.tail, "it was closed before the end of the range")
