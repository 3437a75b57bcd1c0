"""Final uploads, which are made of parts (the protocol's Concatenation and Concatenation Unfinished)."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from starlette.requests import Request

from penstock.core.service import StreamService
from penstock.doors.hooks import MAX_SIZE, check_size
from penstock.errors import StreamClosed, StreamGone, WriterEvicted
from penstock.model import StreamInfo

_PARTS: Final = "parts"
"""Of a final upload: the names and incarnations of its parts."""

_NAMED: Final = "named"
"""Of a final upload: that the server chose its name, so that the name is all that its URL needs."""

_FINALS: Final = "finals"
"""Of a part: the names and incarnations of the final uploads that wait for it."""

_MADE: Final = "made"
"""Of a final upload's first part: what was made of it, by fingerprints of the requests that did."""

_JOINED_TTL: Final = 3600.0
"""Seconds for which parts stay after they were joined: a client may ask again, or join them anew."""


def is_final(info: StreamInfo) -> bool:
    """Tell whether an upload is made of parts."""
    return _PARTS in info.attributes


def finals_of(part: StreamInfo) -> Sequence[tuple[str, str]]:
    """Return the names and incarnations of the final uploads that wait for a part."""
    return [(name, incarnation) for name, incarnation in part.attributes.get(_FINALS, ())]


def length_of(parts: Sequence[StreamInfo]) -> int | None:
    """Return the length of what parts will make, or None if one of them does not know its own yet."""
    total = 0
    for part in parts:
        length = part.tail if part.closed else part.length
        if length is None:
            return None
        total += length
    return total


def named_by_server(info: StreamInfo) -> bool:
    """Tell whether the server chose the name of a final upload."""
    return bool(info.attributes.get(_NAMED))


def attributes_of(parts: Sequence[StreamInfo], *, named: bool) -> dict[str, Any]:
    """Return what a final upload keeps of its parts, and, with ``named``, that the server chose its name."""
    return {_PARTS: [[part.name, part.incarnation] for part in parts], **({_NAMED: True} if named else {})}


def fingerprint(request: Request, name: str) -> str:
    """Return a text that is the same for the same concatenation: a client that did not hear the answer asks again."""
    fields = (request.headers.get(field, "") for field in ("upload-concat", "upload-metadata"))
    return hashlib.sha256("\n".join((name, *fields)).encode("latin-1", "replace")).hexdigest()


async def made_before(service: StreamService, first: StreamInfo, made_by: str) -> StreamInfo | None:
    """Return the final upload that the same request has made of a part, if it is still there."""
    entry = first.attributes.get(_MADE, {}).get(made_by)
    if entry is None:
        return None
    try:
        return await service.info(entry[0], incarnation=entry[1])
    except StreamGone:
        return None


async def note(service: StreamService, final: StreamInfo, parts: Sequence[StreamInfo], made_by: str) -> None:
    """Keep with the parts what is made of them: the first tells who asks again, each tells when the last is there."""
    own = [final.name, final.incarnation]
    for part in {part.incarnation: part for part in parts}.values():
        changes: dict[str, Any] = {}
        if part is parts[0]:
            changes[_MADE] = {**part.attributes.get(_MADE, {}), made_by: own}
        if not part.closed:
            changes[_FINALS] = [*part.attributes.get(_FINALS, ()), own]
        if changes:
            await service.annotate(part.name, changes, incarnation=part.incarnation)


async def joined(service: StreamService, final: StreamInfo, expect: Callable[[], Awaitable[None]]) -> StreamInfo:
    """Return a final upload: complete, if all of its parts are.

    Args:
        service: the streams.
        final: the upload.
        expect: is called before it is complete.

    Raises:
        StreamGone: one of the parts is gone, so that it never can be.
        RequestError: it would be larger than it may be.
    """
    if final.closed:
        return final
    parts = [await service.info(name, incarnation=incarnation) for name, incarnation in final.attributes[_PARTS]]
    if not all(part.closed for part in parts):
        return final
    check_size(length_of(parts), final.attributes.get(MAX_SIZE))
    await expect()
    try:
        final = await service.join(final, parts)
    except (StreamClosed, WriterEvicted):  # somebody else did so meanwhile
        return await service.info(final.name, incarnation=final.incarnation)
    for part in parts:
        await service.shorten(part, _JOINED_TTL)
    return final
