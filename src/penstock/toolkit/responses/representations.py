"""GET and HEAD of bytes that are there: conditions, ranges, and the fields that go with them (RFC 9110)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.responses import Response

from penstock.core.ports import FileExtent
from penstock.model import Buffer
from penstock.protocols.conditional import ETag, Preconditions, Verdict, evaluate, if_range_allows
from penstock.protocols.dates import format_date
from penstock.protocols.digest import DigestError, parse_want, preferred
from penstock.protocols.multipart import ByteRangesBody
from penstock.protocols.ranges import ByteRange, RangeSpec, content_range, parse_range, resolve, unsatisfied
from penstock.toolkit.problems import RequestError, bad_request
from penstock.toolkit.responses.streamed_body import StreamedBody

ReadRange = Callable[[int, int], AsyncGenerator[Buffer | FileExtent, None]]
"""Yields the bytes from one offset up to another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Representation:
    """What a URL shows at this moment.

    Attributes:
        length: how many bytes there are.
        complete: whether that is all there will ever be; otherwise the complete length is unknown (``*``).
        etag: a strong entity tag.
        also: further strong entity tags that If-Range may name, under which the same bytes are known.
        last_modified: Unix seconds, or None.
        content_type: the media type.
        headers: further fields.
    """

    length: int
    etag: ETag
    content_type: str
    also: tuple[ETag, ...] = ()
    complete: bool = True
    last_modified: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def complete_length(self) -> int | None:
        """The length for Content-Range."""
        return self.length if self.complete else None

    def validators(self) -> dict[str, str]:
        """Return the fields that go with every answer about this representation, 304 and 206 included."""
        fields = {"etag": str(self.etag), **self.headers}
        if self.last_modified is not None:
            fields["last-modified"] = format_date(self.last_modified)
        return fields

    def fields(self) -> dict[str, str]:
        """Return the fields of an answer that carries bytes."""
        return {"content-type": self.content_type, "accept-ranges": "bytes", **self.validators()}


def joined(request: Request, name: str) -> str | None:
    """Return a list field with all its lines, or None."""
    return ", ".join(request.headers.getlist(name)) or None


def precondition_fields(request: Request) -> dict[str, str]:
    """Return the fields by which a request states preconditions, by their names in small letters."""
    names = ("if-match", "if-none-match", "if-modified-since", "if-unmodified-since")
    return {name: value for name in names if (value := joined(request, name)) is not None}


def wanted_digest(request: Request) -> str | None:
    """Return the algorithm that Want-Repr-Digest asks for, or None.

    Raises:
        RequestError: ``bad-request`` (400): the field cannot be read.
    """
    value = joined(request, "want-repr-digest")
    if value is None:
        return None
    try:
        return preferred(parse_want(value))
    except DigestError as error:
        raise bad_request(f"Want-Repr-Digest: {error}") from None


def check_conditions(request: Request, representation: Representation) -> Response | None:
    """Return the 304 that the conditions ask for, or None to go on.

    Raises:
        RequestError: ``precondition-failed`` (412).
    """
    verdict = evaluate(
        Preconditions.from_headers(precondition_fields(request)),
        method=request.method,
        etag=representation.etag,
        last_modified=representation.last_modified,
    )
    if verdict is Verdict.FAILED:
        raise RequestError("precondition-failed", 412, "What is there does not meet the request's conditions.")
    if verdict is Verdict.NOT_MODIFIED:
        return Response(status_code=304, headers=representation.validators())
    return None


def requested_ranges(request: Request, *etags: ETag) -> tuple[RangeSpec, ...] | None:
    """Return the ranges that a GET asks for, or None for the whole: there are none, or they do not count.

    Args:
        request: the request.
        etags: which entity tags If-Range may name.
    """
    value = request.headers.get("range")
    # RFC 9110 section 14.2: a Range field of any other method than GET is ignored; HEAD answers as for the whole.
    if value is None or request.method != "GET":
        return None
    if not any(if_range_allows(request.headers.get("if-range"), etag) for etag in etags):
        return None
    return parse_range(value)


def respond(request: Request, representation: Representation, read: ReadRange, release: Callable[[], None]) -> Response:
    """Answer a GET or HEAD: the whole, one range, several, or what the conditions ask for.

    Args:
        request: the request.
        representation: what there is.
        read: gives the bytes of a range.
        release: called when the response is through.

    Raises:
        RequestError: ``precondition-failed`` (412), ``range-not-satisfiable`` (416).
    """
    not_modified = check_conditions(request, representation)
    if not_modified is not None:
        release()
        return not_modified
    length = representation.length
    specs = requested_ranges(request, representation.etag, *representation.also)
    if specs is None or not length:  # of nothing, no range can be told from another
        fields = {**representation.fields(), "content-length": str(length)}
        return StreamedBody(read(0, length), 200, fields, release=release)
    ranges = resolve(specs, length)
    if not ranges:
        raise not_satisfiable(length)
    if len(ranges) == 1:
        return _one_range(representation, ranges[0], read, release)
    return _several_ranges(representation, ranges, read, release)


def with_fields(response: Response, fields: Iterable[tuple[bytes, bytes]]) -> None:
    """Set fields that a handler chose, in place of those of the same names; not what frames and describes the body."""
    # The content type of several ranges is another one; the length is that of what is sent.
    own = [field for field in fields if field[0] not in {b"content-type", b"content-length"}]
    names = {name for name, _ in own}
    response.raw_headers = [*(field for field in response.raw_headers if field[0] not in names), *own]


def not_satisfiable(length: int) -> RequestError:
    """Return the error for ranges that lie past the end."""
    return RequestError(
        "range-not-satisfiable",
        416,
        f"None of the ranges lies within the {length} bytes that there are.",
        {"content-range": unsatisfied(length), "accept-ranges": "bytes"},
        tail=length,
    )


def _one_range(
    representation: Representation, part: ByteRange, read: ReadRange, release: Callable[[], None]
) -> Response:
    fields = {
        **representation.fields(),
        "content-range": content_range(part, representation.complete_length),
        "content-length": str(len(part)),
    }
    return StreamedBody(read(part.start, part.stop), 206, fields, release=release)


def _several_ranges(
    representation: Representation, ranges: tuple[ByteRange, ...], read: ReadRange, release: Callable[[], None]
) -> Response:
    body = ByteRangesBody(ranges, representation.complete_length, representation.content_type)
    fields = {
        **representation.fields(),
        "content-type": body.content_type,
        "content-length": str(body.content_length),
    }
    return StreamedBody(_parts(body, ranges, read), 206, fields, release=release)


async def _parts(
    body: ByteRangesBody, ranges: tuple[ByteRange, ...], read: ReadRange
) -> AsyncGenerator[Buffer | FileExtent, None]:
    for index, part in enumerate(ranges):
        yield body.part_head(index)
        async with aclosing(read(part.start, part.stop)) as chunks:
            async for chunk in chunks:
                yield chunk
    yield body.tail
