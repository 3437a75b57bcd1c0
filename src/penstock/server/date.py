"""The Date of every answer, to the second (RFC 9110 section 6.6.1).

uvicorn's own is renewed once a second, and so up to a second old: a stream read right after it was written would have a
Last-Modified that lies in the answer's future, which section 8.8.2.1 forbids.
"""

from __future__ import annotations

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from penstock.protocols.dates import format_date


class Dated:
    """ASGI middleware that says when an answer was begun."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""

        async def dated(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"date", format_date(time.time()).encode())]
            await send(message)

        await self._app(scope, receive, dated)
