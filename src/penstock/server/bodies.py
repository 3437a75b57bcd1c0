"""Bodies that are handed on as they were received, where uvicorn copies every byte of them twice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Self, cast

from penstock.server.protocol import InformationalProtocol

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

_HIGH_WATER: Final = 256 * 1024
"""Bytes of a body that wait for the application, from which on no more is read."""


class HandingOnProtocol(InformationalProtocol):
    """uvicorn's protocol for HTTP/1.1, whose bodies are not copied."""

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body."""
        cycle: RequestResponseCycle = self.cycle
        if cycle.response_complete or (self.parser.should_upgrade() and self._should_upgrade()):
            return
        if not cycle.body:  # the application has taken what there was
            cycle.body = cast("bytearray", Pieces())
        cycle.body += body
        if len(cycle.body) > _HIGH_WATER:
            self.flow.pause_reading()
        cycle.message_event.set()


class Pieces:
    """What uvicorn takes for the bytearray in which it gathers a body."""

    __slots__ = ("_pieces", "_size")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0

    def __iadd__(self, piece: bytes) -> Self:
        self._pieces.append(piece)
        self._size += len(piece)
        return self

    def __len__(self) -> int:
        return self._size

    def __bytes__(self) -> bytes:
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
