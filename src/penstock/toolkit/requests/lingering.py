"""Answers that come before the whole body has: they must reach a client that is still sending.

A server that closes a connection with unread bytes in it resets it, and the client may lose the answer with it. One
that goes on reading may do so forever. So: answer, say ``Connection: close``, read on for a moment and throw away what
comes, then close (RFC 9112 section 9.6).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Final, Self

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Exchange", "Lingering", "LingeringResponse"]

MOST: Final = 64 * 1024 * 1024
"""Bytes that are read and thrown away: more than is under way on any network."""

SECONDS: Final = 2.0
"""How long a client may take to notice the answer."""

_MARK: Final = "penstock.lingering"


class Lingering:
    """ASGI middleware that closes the connection properly after an answer that did not wait for the body's end.

    Args:
        app: the application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        exchange = Exchange.begun(scope, receive) if scope["type"] == "http" else None
        if exchange is None:
            await self._app(scope, receive, send)
        else:
            await self._app(scope, exchange.receive, exchange.sender(send))


class Exchange:
    """One request with a body, and its answer."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        # From HTTP/2 on, a stream is ended by itself, and there is no such field (RFC 9113 section 8.2.2).
        self._concerned = scope["http_version"] in {"1.0", "1.1"}
        # A client that was not told to go on waits for that, or for the answer, and sends nothing.
        self._asked = b"100-continue" not in (value.lower() for name, value in scope["headers"] if name == b"expect")
        self._receive = receive
        self._ended = False

    @classmethod
    def begun(cls, scope: Scope, receive: Receive) -> Self | None:
        """Begin with a request; None for one without a body, or that somebody further out deals with."""
        if _MARK in scope or not _has_body(scope["headers"]):
            return None
        scope[_MARK] = True
        return cls(scope, receive)

    async def receive(self) -> Message:
        """Receive a message, and notice the body's end."""
        self._asked = True
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self._ended = True
        return message

    def sender(self, send: Send) -> Send:
        """Return what the answer is to be sent with."""

        async def lingering(message: Message) -> None:
            if self._ended or not self._concerned:
                await send(message)
            elif message["type"] == "http.response.start":
                fields = [field for field in message.get("headers", ()) if field[0].lower() != b"connection"]
                await send({**message, "headers": [*fields, (b"connection", b"close")]})
            elif message["type"] == "http.response.body" and not message.get("more_body", False) and self._asked:
                await send({**message, "more_body": True})
                await self._throw_away()
                await send({"type": "http.response.body", "body": b""})
            else:
                await send(message)

        return lingering

    async def _throw_away(self) -> None:
        size = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(SECONDS):
                while not self._ended and size < MOST:
                    size += len((await self.receive()).get("body", b""))


class LingeringResponse(Response):
    """A response whose connection is closed properly."""

    def __init__(self, response: Response, exchange: Exchange) -> None:
        super().__init__()
        self.status_code = response.status_code
        self._response = response
        self._exchange = exchange

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        await self._response(scope, self._exchange.receive, self._exchange.sender(send))


def _has_body(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Tell whether a request has a body: its head says so (RFC 9112 section 6)."""
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0 ")) for name, value in headers
    )
