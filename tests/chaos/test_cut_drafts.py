"""Bodies of one request that are cut at any byte, and go on where the 104 response said.

``PENSTOCK_CUTS=500`` uploads more of them, of up to ``PENSTOCK_CUT_SIZE`` bytes.
"""

from __future__ import annotations

import asyncio
import os
import random
from contextlib import suppress

import pytest

from cutting import Cutting, Passed
from resuming import PARTIAL, Client
from servers import Server
from wire import Connection, request

UPLOADS = int(os.environ.get("PENSTOCK_CUTS", "12"))
LARGEST = int(os.environ.get("PENSTOCK_CUT_SIZE", "4000000"))


class Sender:
    """A client that sends all it has in each request, and asks for the offset after a cut.

    Attributes:
        location: the upload's URL, once it was told.
        told: up to which offset it was told that all is there.
        late: how often it was refused because of a request that it had made before, and that was cut, and came late.
    """

    def __init__(self, client: Client, path: str, data: bytes) -> None:
        self._client = client
        self._path = path
        self._data = data
        self.location: str | None = None
        self.told = 0
        self.late = 0

    async def run(self) -> None:
        """Come back until the upload is complete."""
        while True:
            with suppress(OSError):
                if self.location is None:
                    fields = self._client.fields(True)
                    if await self._send("PUT", self._path, 0, fields):
                        return
                    continue
                seen = await self._client.look(self.location)
                if seen.headers["upload-complete"] == "?1":
                    return
                offset = int(seen.headers["upload-offset"])
                assert offset >= self.told
                self.told = offset
                fields = self._client.fields(True, content_type=PARTIAL, upload_offset=str(offset))
                if await self._send("PATCH", self.location, offset, fields):
                    return

    async def _send(self, method: str, path: str, offset: int, fields: dict[str, str]) -> bool:
        async with Connection(self._client.port) as connection:
            size = len(self._data) - offset
            await connection.begin(method, path, {**fields, "content-length": str(size)})
            sending = memoryview(self._data)[offset:]
            with suppress(OSError):  # what was told before the cut is to be heard
                await connection.write(sending)
            while await connection.head() == 104:
                self.location = connection.headers.get("location", self.location)
                self.told = max(self.told, int(connection.headers.get("upload-offset", 0)))
            assert connection.status in {200, 201, 409}, connection.status
            async for _ in connection.body():
                pass
            self.late += connection.status == 409
            return connection.status != 409


def sent_again(requests: list[Passed]) -> int:
    """Return how many bytes of the appends went through more than once."""
    again, end = 0, 0
    for passed in requests:
        if passed.method in {"PATCH", "PUT"}:
            start = int(passed.headers.get("upload-offset", 0))
            again += max(0, end - start)
            end = max(end, start + passed.body)
    return again


@pytest.mark.timeout(120 + UPLOADS * 5)
def test_every_upload_goes_on_where_it_was_cut(server: Server, name: str) -> None:
    asyncio.run(uploads(server, name))


async def uploads(server: Server, name: str) -> None:
    seed = random.randrange(1_000_000)
    chances = random.Random(seed)
    for number in range(UPLOADS):
        data = chances.randbytes(chances.randint(1, LARGEST))
        path = f"/files/{name}-{number}"
        # The first cut after what announces the upload, whose URL is not known before.
        cuts = [600 + chances.randint(1, len(data) + 400) for _ in range(chances.randint(0, 3))]
        async with Cutting(server.port, cuts) as cutting:
            sender = Sender(Client(cutting.port), path, data)
            await sender.run()
            requests, count = cutting.requests, cutting.cuts
        stored = await request(server.port, "GET", path)
        assert (stored.body, stored.headers["stream-state"]) == (data, "closed"), f"seed {seed}, upload {number}"
        puts = [passed for passed in requests if passed.method == "PUT"]
        if len(puts) == 1:
            most = 1 + 2 * (count + sender.late)
            assert len(requests) <= most, f"seed {seed}, upload {number}: {requests}"
            # At most what was on its way at a cut is sent again.
            assert sent_again(requests) <= count * 8 * 1024 * 1024
        await request(server.port, "DELETE", path)
