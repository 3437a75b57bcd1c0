"""The plainest of appends without the framework: a POST of a record to a stream that is there.

FastAPI finds the route, makes objects of the request and of the answer, and passes both through its middlewares: that
took four fifths of the time of a small append. This is an ASGI middleware around the application that knows one kind of
request and one kind of answer. Whatever it does not know for certain, a field that may mean something or an append that
is refused, goes the long way through the application, which decides and answers as ever: a refused append has changed
nothing.
"""

from __future__ import annotations

import json
import time
from functools import lru_cache
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from penstock.core.service import StreamService
from penstock.doors.live.appending import LARGE, RecordFormat, content_of
from penstock.errors import PenstockError, StorageFailed
from penstock.model import Appended
from penstock.protocols.dates import format_date
from penstock.toolkit.problems import problem_response
from penstock.toolkit.responses.stream_fields import state_fields

_MEANINGLESS: Final = frozenset(
    {b"host", b"user-agent", b"accept", b"accept-encoding", b"accept-language", b"connection", b"content-length"}
)
"""Fields of a request that say nothing about an append."""


class QuickAppends:
    """ASGI middleware for an application whose live door lets anybody append.

    Args:
        app: the application.
        service: the streams.
        prefix: where the live door is mounted.
    """

    def __init__(self, app: ASGIApp, service: StreamService, prefix: str = "/live") -> None:
        self._app = app
        self._service = service
        self._prefix = f"{prefix}/"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        content_type = self._plain(scope)
        if content_type is None:
            await self._app(scope, receive, send)
            return
        messages = [await receive()]
        while messages[-1].get("more_body"):
            messages.append(await receive())
        if messages[-1]["type"] != "http.request":  # the client left before the end of the body
            await self._app(scope, _again(messages, receive), send)
            return
        try:
            appended = await self._append(scope, content_type, messages)
        except StorageFailed as error:  # of which it is not certain that nothing has changed
            await problem_response(error)(scope, receive, send)
        except PenstockError:
            await self._app(scope, _again(messages, receive), send)
        else:
            await _answer(send, scope["path"][len(self._prefix) :], appended)

    def _plain(self, scope: Scope) -> bytes | None:
        """Return the content type of an append that is as plain as can be, or None."""
        if scope["type"] != "http" or scope["method"] != "POST" or scope["query_string"]:
            return None
        path = scope["path"]
        if not path.startswith(self._prefix) or not path.isascii() or b"%" in scope.get("raw_path", b"%"):
            return None
        content_type, length = None, b""
        for name, value in scope["headers"]:
            if name == b"content-type" and content_type is None:
                content_type = value
            elif name not in _MEANINGLESS:
                return None
            elif name == b"content-length":
                length = value
        return content_type if len(length) < 6 and length.isdigit() and 0 < int(length) <= LARGE else None

    async def _append(self, scope: Scope, content_type: bytes, messages: list[Message]) -> Appended:
        body = messages[0]["body"] if len(messages) == 1 else b"".join([m.get("body", b"") for m in messages])
        format_ = _format_of(content_type)
        return await self._service.append(
            scope["path"][len(self._prefix) :],
            format_.whole(body, batch=False),
            content_type=format_.stream_type,
        )


@lru_cache(64)
def _format_of(content_type: bytes) -> RecordFormat:
    return RecordFormat.of(content_type.decode("latin-1"))


def _again(messages: list[Message], receive: Receive) -> Receive:
    """Return what gives the messages that came already, then those that come."""
    waiting = messages[::-1]

    async def receive_again() -> Message:
        return waiting.pop() if waiting else await receive()

    return receive_again


async def _answer(send: Send, name: str, appended: Appended) -> None:
    body = json.dumps(content_of(name, appended), separators=(",", ":")).encode()
    fields = [(name.encode(), value.encode()) for name, value in state_fields(appended.info).items()]
    fields += [
        (b"content-length", b"%d" % len(body)),
        (b"content-type", b"application/json"),
        (b"date", format_date(time.time()).encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    await send({"type": "http.response.body", "body": body})
