"""Files' bytes that go from the system's cache to the socket, without a copy in this process: the server's side.

ASGI's extension "Zero Copy Send" by ``sendfile``, for connections without TLS. Beside mapping a file and writing from
there it takes half the processor time.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from starlette.types import Message
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


def can_send_files(transport: asyncio.Transport) -> bool:
    """Tell whether files can be sent on a connection."""
    return hasattr(os, "sendfile") and transport.get_extra_info("sslcontext") is None


async def send_file(cycle: RequestResponseCycle, transport: asyncio.Transport, message: Message) -> None:
    """Send a part of a file as a piece of a body.

    Args:
        cycle: the exchange.
        transport: its connection.
        message: ``http.response.zerocopysend``, with ``offset`` and ``count``, and more to come after it.

    Raises:
        RuntimeError: the file is shorter, or the body is.
    """
    descriptor, offset, count = message["file"].fileno(), message["offset"], message["count"]
    if cycle.chunked_encoding:  # somebody in between took the length away
        body = await asyncio.to_thread(os.pread, descriptor, count, offset)
        await cycle.send(cast("Any", {"type": "http.response.body", "body": body, "more_body": True}))
        return
    if count > cycle.expected_content_length:
        raise RuntimeError("Response content longer than Content-Length")
    cycle.expected_content_length -= count
    cycle.transport.write(b"")  # with which the head goes
    socket = _Socket(transport)
    try:
        await socket.emptied()
        while count and not (cycle.disconnected or transport.is_closing()):
            try:
                sent = os.sendfile(socket.descriptor, descriptor, offset, count)
            except BlockingIOError:
                await socket.writable()
                continue
            except ConnectionError:  # which the transport finds out, too
                return
            if not sent:
                raise RuntimeError("The file is shorter than what was to be sent of it.")
            offset, count = offset + sent, count - sent
    finally:
        socket.close()


class _Socket:
    """The socket of a transport, which is written to while the transport has nothing to write."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self.descriptor: int = transport.get_extra_info("socket").fileno()
        self._other = -1

    async def emptied(self) -> None:
        """Wait until the transport has written all it has."""
        turns = 0
        while self._transport.get_write_buffer_size() and not self._transport.is_closing():
            await (asyncio.sleep(0) if turns < 2 else self.writable())
            turns += 1

    async def writable(self) -> None:
        """Wait until there is room."""
        if self._other < 0:  # an event loop lets nobody else wait for a descriptor that it waits for itself
            self._other = os.dup(self.descriptor)
        room: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_writer(self._other, _resolve, room)
        try:
            await room
        finally:
            self._loop.remove_writer(self._other)

    def close(self) -> None:
        """Release what was needed to wait."""
        if self._other >= 0:
            with suppress(OSError):
                os.close(self._other)


def _resolve(room: asyncio.Future[None]) -> None:
    if not room.done():
        room.set_result(None)
