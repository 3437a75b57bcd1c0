"""The plainest of appends without the framework: a POST of a record to a stream that is there.

The server makes objects of a request, FastAPI finds the route, makes others, and passes the request and the answer
through its middlewares: together that took nine tenths of the time of a small append. This knows one kind of request
and one kind of answer, for a server that asks it (`penstock.server.quick`). Whatever it does not know for certain, a
field that may mean something or an append that is refused, goes the long way, by which it is decided and answered as
ever: a refused append has changed nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from penstock.core.service import StreamService
from penstock.doors.live.appending import LARGE, RecordFormat, content_of
from penstock.model import Appended
from penstock.protocols.dates import format_date
from penstock.toolkit.responses.stream_fields import state_fields

STATE: Final = "penstock.quick"
"""Where the server finds it in the state that a lifespan gives (ASGI specification, "Lifespan State")."""

_MEANINGLESS: Final = frozenset({b"host", b"user-agent", b"accept", b"accept-encoding", b"accept-language"})
"""Fields of a request that say nothing about an append."""

_encode = json.JSONEncoder(separators=(",", ":")).encode


class QuickAppends:
    """Appends to a live door that lets anybody append.

    Args:
        service: the streams.
        prefix: where the live door is mounted.
    """

    def __init__(self, service: StreamService, prefix: str = "/live") -> None:
        self._service = service
        self._prefix = f"{prefix}/".encode()

    def content_type(self, target: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
        """Return the content type of a POST that is as plain as can be, or None for any other."""
        if not target.startswith(self._prefix) or not target.isascii() or b"%" in target or b"?" in target:
            return None
        content_type, length = None, b""
        for name, value in headers:
            if name in _MEANINGLESS:
                continue
            if name == b"content-type" and content_type is None:
                content_type = value
            elif name == b"content-length" and not length:
                length = value
            else:
                return None
        return content_type if len(length) < 6 and length.isdigit() and 0 < int(length) <= LARGE else None

    async def append(self, target: bytes, content_type: bytes, body: bytes) -> Appended:
        """Append a record to the stream of a URL, or its lines, or refuse that."""
        format_ = _format_of(content_type)
        name = target[len(self._prefix) :].decode()
        return await self._service.append(name, format_.whole(body, batch=False), content_type=format_.stream_type)

    def answer(self, target: bytes, appended: Appended) -> bytes:
        """Return the answer: what comes after the status line."""
        name = target[len(self._prefix) :].decode()
        body = _encode(content_of(name, appended))
        fields = "".join([f"{field}: {value}\r\n" for field, value in state_fields(appended.info).items()])
        return (
            f"{fields}content-length: {len(body)}\r\ncontent-type: application/json\r\n"
            f"date: {format_date(time.time())}\r\n\r\n{body}"
        ).encode()


@lru_cache(64)
def _format_of(content_type: bytes) -> RecordFormat:
    return RecordFormat.of(content_type.decode("latin-1"))
