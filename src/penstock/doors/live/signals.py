"""What readers and producers know of each other: who is there, and that a reader has enough."""

from __future__ import annotations

from typing import Any, Final

from fastapi import Request
from fastapi.responses import JSONResponse, Response

from penstock.core.service import StreamService
from penstock.model import StreamInfo
from penstock.protocols.framings import Ending
from penstock.protocols.timestamps import timestamp
from penstock.toolkit.problems import bad_request
from penstock.toolkit.requests.bodies import whole
from penstock.toolkit.responses.stream_fields import state_fields

_MOST_REASON: Final = 500


async def stop(service: StreamService, request: Request, name: str) -> Response:
    """Close a stream because a reader has enough: the body is the reason, in text.

    Raises:
        RequestError: it is no text, or too long.
        StreamNotFound: there is no such stream.
    """
    body = await whole(request, 4 * _MOST_REASON)
    try:
        reason = body.decode().strip()
    except UnicodeDecodeError:
        reason = "\0"
    if len(reason) > _MOST_REASON or not (reason.isprintable()):
        raise bad_request(f"The reason is one line of text, of up to {_MOST_REASON} characters of UTF-8.")
    info = await service.stop_stream(name, reason or "a reader has enough")
    content = {"name": name, "offset": info.tail, "state": info.state, "reason": info.stopped}
    return JSONResponse(content, headers=state_fields(info))


async def presence(service: StreamService, name: str) -> Response:
    """Tell who is there of a stream, on all processes of the machine.

    Raises:
        StreamNotFound: there is no such stream.
    """
    info = await service.info(name)
    found = await service.presence(name)
    content: dict[str, Any] = {
        "name": name,
        "state": info.state,
        "readers": found.readers,
        "names": list(found.names),
        "producers": found.producers,
        "modified_at": timestamp(info.modified_at),
        "quiet_after": info.quiet_after,
        "vanished": vanished(info, found.producers, service.now()),
    }
    return JSONResponse(content, headers={"cache-control": "no-store", **state_fields(info)})


def vanished(info: StreamInfo, producers: int, now: float) -> bool:
    """Tell whether a producer is gone: it has been quiet for too long, and no long append is under way."""
    if info.quiet_after is None or info.closed or producers:
        return False
    return now > info.modified_at + info.quiet_after


def closing_of(info: StreamInfo) -> Ending:
    """Return what the readers of a stream are told that was closed, by its producer or by a reader."""
    return Ending("closed", info.tail, info.stopped)
