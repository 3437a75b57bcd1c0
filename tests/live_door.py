"""The live door as tests use it: records in, in one request; events out, as a browser reads them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

from penstock.protocols.sse import Decoder, Event
from servers import Server
from wire import Connection, request

NDJSON = "application/x-ndjson"


async def append(server: Server | int, name: str, *records: object, close: bool = False) -> int:
    """Append records to a stream of a server, or of the one at a port, and return the offset after them."""
    port = server if isinstance(server, int) else server.port
    body = "".join(f"{json.dumps(record)}\n" for record in records).encode()
    headers = {"content-type": NDJSON, "stream-closed": str(close).lower()}
    answer = await request(port, "POST", f"/live/{name}", body, headers)
    assert answer.status in {200, 201}, answer.body
    return int(answer.json()["offset"])


async def events(connection: Connection) -> AsyncIterator[Event]:
    """Yield the events of an answer whose head was read."""
    decoder = Decoder()
    async for data in connection.body():
        for event in decoder.feed(data):
            yield event
