"""Bodies of one request that are cut at any byte, and go on where the 104 response said.

The long form: ``PENSTOCK_UPLOADS=500 PENSTOCK_LARGEST=64 PENSTOCK_SEED=1 pytest -s tests/chaos/test_cut_drafts.py``.
"""

from __future__ import annotations

import asyncio
import os
import random
from contextlib import suppress
from pathlib import Path

import pytest

from cutting import Cutting, Passed
from resuming import PARTIAL, Client
from servers import Server
from wire import Connection, request

MiB = 1024 * 1024
UPLOADS = int(os.environ.get("PENSTOCK_UPLOADS", "12"))
LARGEST = int(os.environ.get("PENSTOCK_LARGEST", "4"))
"""In MiB."""
SEED = int(os.environ.get("PENSTOCK_SEED", "0")) or random.randrange(1, 1_000_000)


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
        self._announced = asyncio.Event()
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
            # It hears what is told while it sends: a cut takes with it what was not read yet. A network is slower than
            # this machine, so that the URL is there long before the bytes are: here, they wait for it.
            hearing = asyncio.create_task(self._hear(connection))
            if self.location is None:
                announced = asyncio.create_task(self._announced.wait())
                await asyncio.wait([announced, hearing], return_when=asyncio.FIRST_COMPLETED)
                announced.cancel()
            with suppress(OSError):
                await connection.write(memoryview(self._data)[offset:])
            return await hearing

    async def _hear(self, connection: Connection) -> bool:
        while await connection.head() == 104:
            self.location = connection.headers.get("location", self.location)
            self._announced.set()
            self.told = max(self.told, int(connection.headers.get("upload-offset", 0)))
        assert connection.status in {200, 201, 409}, connection.status
        async for _ in connection.body():
            pass
        self.late += connection.status == 409
        return connection.status != 409


def on_its_way() -> int:
    """Return how many bytes may have gone out at a cut, and not be kept: in the system's buffers, and the server's."""
    systems = (Path(f"/proc/sys/net/ipv4/tcp_{name}mem").read_text().split()[-1] for name in "rw")
    return sum(map(int, systems)) + 4 * MiB


def sent_again(requests: list[Passed]) -> int:
    """Return how many bytes of the appends went through more than once."""
    again, end = 0, 0
    for passed in requests:
        if passed.method in {"PATCH", "PUT"}:
            start = int(passed.headers.get("upload-offset", 0))
            again += max(0, end - start)
            end = max(end, start + passed.body)
    return again


@pytest.mark.timeout(120 + UPLOADS * 10)
def test_every_upload_goes_on_where_it_was_cut(server: Server, name: str) -> None:
    asyncio.run(uploads(server, name))


async def uploads(server: Server, name: str) -> None:
    chances = random.Random(SEED)
    cuts = requests = again = 0
    for number in range(UPLOADS):
        data = chances.randbytes(chances.randint(MiB, LARGEST * MiB))
        path = f"/files/{name}-{number}"
        # The first cut after what announces the upload, whose URL is not known before.
        limits = [600 + chances.randint(1, len(data) + 400) for _ in range(chances.randint(1, 4))]
        async with Cutting(server.port, limits) as cutting:
            sender = Sender(Client(cutting.port), path, data)
            await sender.run()
        stored = await request(server.port, "GET", path)
        assert (stored.body, stored.headers["stream-state"]) == (data, "closed"), f"seed {SEED}, upload {number}"
        made = [passed for passed in cutting.requests if passed.path.startswith(path)]  # by nobody else on this machine
        assert sum(passed.method == "PUT" for passed in made) == 1
        most = 1 + 2 * (cutting.cuts + sender.late)
        assert len(made) <= most, f"seed {SEED}, upload {number}: {made}"
        assert sent_again(made) <= cutting.cuts * on_its_way(), f"seed {SEED}, upload {number}"
        cuts += cutting.cuts
        requests += len(made)
        again += sent_again(made)
        await request(server.port, "DELETE", path)
        if (number + 1) % 50 == 0 or number + 1 == UPLOADS:
            print(f"{number + 1} uploads, {cuts} cuts, {requests} requests, {again} bytes sent again")  # noqa: T201 - with -s
    assert cuts >= UPLOADS
