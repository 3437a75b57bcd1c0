"""HTTP/1.1 by uvicorn, with interim responses, which it has no way to send, and trailers, which it has no place for.

A thin subclass: what is read and written is uvicorn's own, except the bytes of an interim response. It offers the
extensions that `penstock.toolkit.responses.interim` and `penstock.toolkit.requests.trailers` describe. A client of
HTTP/1.0 is not offered the former, for it does not know of interim responses (RFC 9110 section 15.2).

uvicorn takes the fields after a body for header fields of the same request, which a trailer must never become (section
6.5.1): here they are kept apart.

For an application of one's own: ``uvicorn app:app --http penstock.server.protocol:InformationalProtocol``.
"""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from http import HTTPStatus
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from penstock.toolkit.requests.trailers import EXTENSION as TRAILERS
from penstock.toolkit.responses.interim import EXTENSION

__all__ = ["InformationalProtocol"]

_PHRASES: Final = {104: "Upload Resumption Supported", **{status.value: status.phrase for status in HTTPStatus}}

_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_MOST_TRAILERS: Final = 32
_LONGEST_TRAILER: Final = 8192
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})


class InformationalProtocol(HttpToolsProtocol):
    """uvicorn's protocol, whose requests can be given interim responses."""

    def on_message_begin(self) -> None:
        """Begin a request's head."""
        super().on_message_begin()
        self._trailers: list[tuple[bytes, bytes]] | None = None

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field: of the head, or after the body."""
        if self._trailers is None:
            super().on_header(name, value)
        elif len(self._trailers) < _MOST_TRAILERS and len(name) + len(value) <= _LONGEST_TRAILER:
            self._trailers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Begin a request."""
        super().on_headers_complete()
        self._trailers = []
        # Its task was created, and does not run before this turn of the event loop ends.
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and cycle.scope is self.scope and cycle.scope["http_version"] == "1.1":
            extensions: dict[str, Any] = {EXTENSION: {"send": _Informational(cycle)}, TRAILERS: self._trailers}
            cycle.scope["extensions"] = {**(cycle.scope.get("extensions") or {}), **extensions}


class _Informational:
    """Sends the interim responses of one request."""

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        """Send one, unless the answer has begun or the client is gone.

        Raises:
            RuntimeError: the message is not one of an interim response.
        """
        if message["type"] != EXTENSION:
            raise RuntimeError(f"An interim response has the type {EXTENSION!r}, not {message['type']!r}.")
        head = _head(message["status"], message.get("headers", ()))
        cycle = self._cycle
        if cycle.flow.write_paused and not cycle.disconnected:
            await cycle.flow.drain()
        if not cycle.response_started and not cycle.disconnected and not cycle.transport.is_closing():
            cycle.transport.write(head)


def _head(status: int, headers: Any) -> bytes:
    if not 102 <= status <= 199:
        raise RuntimeError(f"An interim response has a status from 102 to 199, not {status}.")
    lines = [f"HTTP/1.1 {status} {_PHRASES.get(status, '')}".encode()]
    for name, value in headers:
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise RuntimeError("Invalid HTTP header.")
        if name.lower() in _FRAMING:  # it has no content to be framed (RFC 9112 sections 6.1 and 6.2)
            raise RuntimeError(f"An interim response has no {name.decode()}.")
        lines.append(name + b": " + value)
    return b"\r\n".join(lines) + b"\r\n\r\n"
