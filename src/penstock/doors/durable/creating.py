"""PUT: creates a stream or a fork, or confirms that it is there as it would be created."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from penstock.core import coordination, rules
from penstock.core.coordination import FORK, Fork
from penstock.core.forks import beginning
from penstock.core.ports import Change, Reader, View
from penstock.core.service import StreamService
from penstock.doors.durable.answers import answer
from penstock.doors.durable.appending import messages
from penstock.errors import (
    ContentTypeMismatch,
    ForkOutOfRange,
    ForksRemain,
    StreamError,
    StreamExists,
    StreamGone,
)
from penstock.model import OCTETS, StreamInfo, StreamSpec, new_incarnation
from penstock.protocols import durable
from penstock.toolkit.problems import bad_request
from penstock.toolkit.requests.bodies import whole

_NEVER: Final = (None, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a request asks for.

    Attributes:
        declared: the content type, or None.
        ttl: seconds, or None.
        expires_at: Unix seconds, or None.
        close: whether the stream is to be closed at once.
        source: the name of the stream to fork, or None.
        offset: where to fork it, in bytes, or None for its tail.
        sub_offset: how many bytes or messages past that.
    """

    declared: str | None
    ttl: float | None
    expires_at: float | None
    close: bool
    source: str | None
    offset: int | None
    sub_offset: int

    def to_json(self) -> dict[str, Any]:
        """Return what is kept with a fork, for the comparison with a repetition."""
        return {
            "from": self.source,
            "offset": self.offset,
            "sub_offset": self.sub_offset,
            "expiry": [self.ttl, self.expires_at],
        }


def asked(request: Request, now: float, source_of: Callable[[str], str]) -> Asked:
    """Read the fields of a request.

    Args:
        request: the request.
        now: Unix seconds.
        source_of: returns the name of a stream by the path of its URL.

    Raises:
        MalformedError, RequestError: one is not as it must be, or two do not go together.
    """
    fields = request.headers
    ttl, expires_at = fields.get("stream-ttl"), fields.get("stream-expires-at")
    if ttl is not None and expires_at is not None:
        raise bad_request("Stream-TTL and Stream-Expires-At do not go together.")
    expiry = None if expires_at is None else durable.expiry(expires_at)
    if expiry is not None and expiry <= now:
        raise bad_request("Stream-Expires-At is in the past.")
    source = fields.get("stream-forked-from")
    offset, sub_offset = fields.get("stream-fork-offset"), fields.get("stream-fork-sub-offset")
    if source is None and (offset is not None or sub_offset is not None):
        raise bad_request("Stream-Fork-Offset and Stream-Fork-Sub-Offset belong to Stream-Forked-From.")
    return Asked(
        declared=durable.declared_type(fields.get("content-type")),
        ttl=None if ttl is None else durable.ttl(ttl),
        expires_at=expiry,
        close=durable.closes(fields.get("stream-closed")),
        source=None if source is None else source_of(source),
        offset=None if offset is None else durable.position(offset),
        sub_offset=0 if sub_offset is None else durable.sub_offset(sub_offset),
    )


async def create(
    service: StreamService, request: Request, name: str, wanted: Asked, location: str, max_size: int
) -> Response:
    """Create a stream (PROTOCOL.md section 5.1) or a fork (4.2), with the body as its first bytes.

    Raises:
        InvalidRecord: the body is not what its type says.
        StreamExists: there is another stream of that name.
        StreamNotFound, ForksRemain, ForkOutOfRange, ContentTypeMismatch: it cannot be forked.
    """
    body = await whole(request, max_size)
    fork, impossible = None, None
    if wanted.source is not None:
        try:
            fork = await _fork(service, wanted)
        except StreamError as error:  # matters only if the fork is not there already
            impossible = error
    declared = wanted.declared or (OCTETS if fork is None else durable.media_type(fork.source))
    data = await messages(declared, body)
    spec = _spec(wanted, declared, None if fork is None else fork.source)
    incarnation, now = new_incarnation(), service.now()

    def decide(view: View) -> Change:
        if impossible is not None and rules.living(view.current, now) is None:
            raise impossible
        return coordination.create(
            view,
            name,
            spec,
            incarnation=incarnation,
            now=now,
            same=lambda info: _check_same(info, wanted, declared),
            data=data,
            close=wanted.close,
            fork=fork,
        )

    change = await service.commit(name, decide, size=rules.size_of(data))
    info = change.info
    assert info is not None  # noqa: S101 - only deletions leave none
    fields = {"content-type": durable.media_type(info), "stream-next-offset": durable.offset(info.tail)}
    if info.closed:
        fields["stream-closed"] = "true"
    if not change.duplicate:
        fields["location"] = location
    return answer(200 if change.duplicate else 201, fields)


def _spec(wanted: Asked, declared: str, source: StreamInfo | None) -> StreamSpec:
    content_type, attributes = durable.stored_as(declared)
    ttl, expires_at = wanted.ttl, wanted.expires_at
    if source is not None and (ttl, expires_at) == _NEVER:  # inherited, then counted by itself (section 4.2)
        ttl, expires_at = source.ttl, source.expires_at
    return StreamSpec(content_type=content_type, attributes=attributes, ttl=ttl, expires_at=expires_at)


def _check_same(info: StreamInfo | None, wanted: Asked, declared: str) -> None:
    """Raise `StreamExists` unless a stream is what was asked for."""
    if info is None:
        return
    expiry = (info.ttl, info.expires_at)
    made: dict[str, Any] | None = info.attributes.get(FORK)
    if made is not None:
        expiry = tuple(made["expiry"])
    same_expiry = expiry == (wanted.ttl, wanted.expires_at)
    same_type = durable.same_type(wanted.declared or declared, durable.media_type(info))
    if made is not None and wanted.declared is None:
        same_type = True  # the source's, whatever became of that
    if not same_type or not same_expiry or not _same_fork(info, made, wanted):
        raise StreamExists(info.name)


def _same_fork(info: StreamInfo, made: dict[str, Any] | None, wanted: Asked) -> bool:
    if made is None or wanted.source is None:
        return made is None and wanted.source is None
    at = info.start if made["offset"] is None else made["offset"]
    return wanted.source == made["from"] and wanted.offset in {None, at} and wanted.sub_offset == made["sub_offset"]


# -- forks ------------------------------------------------------------------------------------------------------------


async def _fork(service: StreamService, wanted: Asked) -> Fork:
    """Find the source, and the offset at which it is forked."""
    assert wanted.source is not None  # noqa: S101 - the caller's case
    try:
        reader = await service.open(wanted.source)
    except StreamGone:
        raise ForksRemain(wanted.source) from None
    with reader:
        source = reader.info
        if wanted.declared is not None and not durable.same_type(wanted.declared, durable.media_type(source)):
            raise ContentTypeMismatch(source.name, wanted.declared, durable.media_type(source))
        anchor = source.tail if wanted.offset is None else wanted.offset
        if not beginning(reader) <= anchor <= source.tail:
            raise ForkOutOfRange(source.name, anchor, source.tail)
        if durable.is_json(source):
            offset = await _after_messages(reader, anchor, wanted.sub_offset)
        else:
            offset = anchor + wanted.sub_offset
        if offset > source.tail:
            raise ForkOutOfRange(source.name, offset, source.tail)
    if not source.closed:  # a fork must not begin with what a crash of the machine can still take away
        await service.make_durable(source)
    follows = wanted.offset is None and not wanted.sub_offset
    return Fork(source=source, offset=None if follows else offset, asked=wanted.to_json())


async def _after_messages(reader: Reader, start: int, count: int) -> int:
    """Return the offset after ``count`` messages from ``start`` on.

    Raises:
        ForkOutOfRange: there are not so many, or no message begins there.
    """
    name, tail = reader.info.name, reader.info.tail
    if start > beginning(reader) and bytes(await reader.read(start - 1, start)) != b"\n":
        raise ForkOutOfRange(name, start, tail)
    offset = start
    while count:
        if offset >= tail:
            raise ForkOutOfRange(name, offset + 1, tail)
        data = bytes(await reader.read(offset, tail))
        found = data.count(b"\n")
        if found < count:
            count -= found
            offset += len(data)
            continue
        at = -1
        for _ in range(count):
            at = data.index(b"\n", at + 1)
        return offset + at + 1
    return offset
