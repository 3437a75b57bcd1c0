"""Handing a connection over: a long response without the layers of an application around every write.

ASGI passes each piece of a body through every middleware and the server's state machine, one reader at a time, and
keeps the whole stack of a request alive for as long as its response lasts. A server may offer more: the extension
``penstock.handover`` of the scope. Whoever wants it puts the offer into the message that starts the response, where it
reaches the server only if nothing in between builds messages of its own, and takes the connection once the start was
sent. From then on the application's coroutine may return, and the response goes on by way of the `Line`.

Where there is no such offer (another server, HTTP/2, a middleware that changes bodies), all works by plain ASGI.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

from starlette.types import Message, Scope

EXTENSION: Final = "penstock.handover"


class Piece:
    """Some of a body that goes to many readers: framed for HTTP/1.1's chunked coding once, however many they are."""

    __slots__ = ("_chunked", "plain")

    def __init__(self, plain: bytes) -> None:
        self.plain = plain
        self._chunked = b""

    @property
    def chunked(self) -> bytes:
        """The bytes as one chunk (RFC 9112 section 7.1)."""
        if not self._chunked and self.plain:
            self._chunked = b"%x\r\n%b\r\n" % (len(self.plain), self.plain)
        return self._chunked


class Sink(Protocol):
    """Who is told what becomes of a `Line`."""

    def resumed(self) -> None:
        """There is room again, after a `Line.write` that said that there is none."""

    def lost(self) -> None:
        """The reader is gone: nothing that is written reaches it any more."""


class Line(Protocol):
    """Where a reader's bytes go. For the event loop."""

    sink: Sink | None
    """Who is told of the line."""

    @property
    def closed(self) -> bool:
        """Whether nothing can be written any more."""

    def write(self, piece: Piece) -> bool:
        """Send a piece after what was sent before; False if there should be no more before `Sink.resumed`."""

    def finish(self, piece: Piece, *, whole: bool) -> None:
        """Send the last piece, and end the response: properly, or so that nobody takes it for complete."""

    def abort(self) -> None:
        """End the response at once, so that nobody takes it for complete."""


class Offer(Protocol):
    """What the server offers for one request, in the scope's extension."""

    def take(self) -> Line | None:
        """Take the connection over, after the start of the response was sent; None if that came changed, or not."""


def offer_in(scope: Scope) -> Offer | None:
    """Return what the server offers."""
    offer: Offer | None = (scope.get("extensions") or {}).get(EXTENSION)
    return offer


def marked(start: Message, offer: Offer | None) -> dict[str, Any]:
    """Return the message that starts the response, with the offer that is to be taken."""
    return {**start} if offer is None else {**start, EXTENSION: offer}
