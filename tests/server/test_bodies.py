"""Bodies reach the application whole, at the pace at which it takes them."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from applications import serving
from wire import Connection

DATA = os.urandom(5_000_000)


class Slow:
    """An application that takes a body at its leisure, and notes the pieces."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while (message := await receive())["type"] != "lifespan.shutdown":
                await send({"type": f"{message['type']}.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        more = True
        while more:
            message = await receive()
            self.pieces.append(message["body"])
            more = message["more_body"]
            await asyncio.sleep(0.002)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})


async def test_a_body_comes_whole_and_in_bounded_pieces() -> None:
    application = Slow()
    async with (
        serving(application, http="penstock.server.bodies:HandingOnProtocol") as port,
        Connection(port) as connection,
    ):
        for _ in range(2):
            application.pieces.clear()
            assert (await connection.request("PUT", "/", DATA)).status == 200
            assert all(type(piece) is bytes for piece in application.pieces)
            assert b"".join(application.pieces) == DATA
            # What waits, and one more that was read at once.
            assert max(map(len, application.pieces)) <= 2 * 256 * 1024
        await connection.begin("PUT", "/", {"transfer-encoding": "chunked"})
        application.pieces.clear()
        for start in range(0, 500_000, 1000):
            await connection.write_chunk(DATA[start : start + 1000])
        await connection.write_chunk(b"")
        assert (await connection.answer()).status == 200
        assert b"".join(application.pieces) == DATA[:500_000]
