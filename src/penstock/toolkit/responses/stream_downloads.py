"""Streams as responses: as files are served, in ranges, and following them as they grow.

::

    @app.get("/reports/{name}")
    async def report(name: str) -> StreamedStream:
        return StreamedStream(streams, f"reports/{name}", filename="report.pdf")
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Literal

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from penstock.core.forks import check_offset
from penstock.core.ports import FileExtent, FileReader, Reader
from penstock.core.service import StreamService
from penstock.errors import PenstockError, StreamFailed
from penstock.model import Buffer, StreamInfo
from penstock.protocols.digest import format_digests
from penstock.protocols.disposition import content_disposition
from penstock.protocols.ranges import OPEN_ENDED_LAST, ByteRange, RangeSpec, content_range, follows
from penstock.toolkit.problems import RequestError, problem_response
from penstock.toolkit.responses import zero_copy
from penstock.toolkit.responses.representations import (
    ReadRange,
    Representation,
    check_conditions,
    not_satisfiable,
    requested_ranges,
    respond,
    wanted_digest,
    with_fields,
)
from penstock.toolkit.responses.stream_fields import etag_of, growing_etag_of, state_fields
from penstock.toolkit.responses.streamed_body import StreamedBody

_ACTIVE = ("html", "xml", "svg", "javascript", "ecmascript", "multipart/x-mixed-replace")
"""Parts of the media types with which a browser runs code of whoever uploaded it."""


@dataclass(frozen=True, slots=True)
class Manner:
    """How a stream is to be served.

    Attributes:
        follow: whether one that is open is followed to its end, instead of ending at its present tail.
        filename: the name to save it under; empty for its own; None for no Content-Disposition.
        disposition: whether a named one is to be saved (``attachment``) or shown (``inline``).
    """

    follow: bool = False
    filename: str | None = None
    disposition: Literal["attachment", "inline"] = "attachment"


class StreamedStream(Response):
    """A response that serves a stream as a file: with validators, conditions and ranges; see the HTTP interface.

    Without the stream, or with conditions or ranges that cannot be met, the answer is a problem.

    Args:
        streams: where it is.
        name: its name.
        status_code: the HTTP status of an answer with the whole.
        follow: whether a stream that is open is followed to its end, instead of ending at its present tail.
        filename: the name to save it under; empty for its own; None for no Content-Disposition.
        disposition: whether a named one is to be saved (``attachment``) or shown (``inline``).
        headers: fields for the answer; they go before those that it has otherwise.
        background: run after the response.
    """

    def __init__(
        self,
        streams: StreamService,
        name: str,
        status_code: int = 200,
        *,
        follow: bool = False,
        filename: str | None = None,
        disposition: Literal["attachment", "inline"] = "attachment",
        headers: Mapping[str, str] | None = None,
        background: BackgroundTask | None = None,
    ) -> None:
        super().__init__(None, status_code, headers, background=background)
        self._streams = streams
        self._name = name
        self._manner = Manner(follow, filename, disposition)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        response: Response
        try:
            response = await answer(self._streams, Request(scope, receive), self._name, self._manner)
        except PenstockError as error:
            response = problem_response(error)
        else:
            with_fields(response, self.raw_headers)
            if response.status_code == 200:
                response.status_code = self.status_code
        await response(scope, receive, send)
        if self.background is not None:
            await self.background()


async def answer(service: StreamService, request: Request, name: str, manner: Manner) -> Response:
    """Answer a GET or HEAD of a stream; see the HTTP interface.

    Raises:
        StreamNotFound: there is none.
        RequestError: conditions or ranges that cannot be met.
    """
    reader = await service.open(name)
    try:
        return await _answer(service, request, reader, manner)
    except RequestError as error:
        reader.close()
        error.headers.update(state_fields(reader.info))  # why a range is past the end, for one thing
        raise
    except BaseException:
        reader.close()
        raise


async def _answer(service: StreamService, request: Request, reader: Reader, manner: Manner) -> Response:
    info = reader.info
    if "range" not in request.headers:
        check_offset(reader, 0)  # of a stream whose beginning was dropped, only ranges of what is kept can be had
    representation = _representation(info, manner, await _headers(service, request, reader, manner))
    if info.complete:
        return respond(request, representation, _reading(request, reader), reader.close)
    if manner.follow or info.failure is not None or _asks_to_follow(request, info):
        return _answer_growing(service, request, reader, representation)
    return respond(request, representation, _reading(request, reader), reader.close)


def plain_fields(info: StreamInfo) -> dict[str, str]:
    """Return the fields of the answer to a GET of a complete stream which asks for nothing in particular.

    All but those that frame its content, and say which part of the stream that is.
    """
    return _representation(info, Manner(), _fields(info)).fields()


def _representation(info: StreamInfo, manner: Manner, headers: dict[str, str]) -> Representation:
    snapshot, growing = etag_of(info), growing_etag_of(info)
    return Representation(
        length=info.tail,
        complete=info.complete,
        # Whoever follows asks for the whole stream that there will be: of one incarnation, that is one thing only.
        etag=growing if manner.follow else snapshot,
        # That is what it has become, so that who followed it while it grew can resume.
        also=(snapshot, growing) if info.complete else (),
        last_modified=info.modified_at,
        content_type=info.content_type,
        headers=headers,
    )


def _fields(info: StreamInfo) -> dict[str, str]:
    headers = {**state_fields(info), "cache-control": "no-cache", "x-content-type-options": "nosniff"}
    if any(part in info.content_type.lower() for part in _ACTIVE):
        headers["content-security-policy"] = "sandbox"
    return headers


async def _headers(service: StreamService, request: Request, reader: Reader, manner: Manner) -> dict[str, str]:
    info = reader.info
    headers = _fields(info)
    if manner.filename is not None:
        filename = manner.filename or info.metadata.get("filename") or info.name.rsplit("/", 1)[-1]
        headers["content-disposition"] = content_disposition(filename, manner.disposition)
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


def _reading(request: Request, reader: Reader) -> ReadRange:
    files = reader if isinstance(reader, FileReader) and zero_copy.is_offered(request.scope) else None

    async def read(start: int, stop: int) -> AsyncGenerator[Buffer | FileExtent, None]:
        offset = start
        with zero_copy.transfer():
            while offset < stop:
                extent = await files.extent(offset, stop) if files is not None and zero_copy.is_worth_it() else None
                if extent is not None:
                    yield extent
                    offset += extent.size
                else:
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
