"""A disk that is really full: appends fail with what was acknowledged intact, the rest works, and it goes on later."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from disks import small_disk
from servers import Server
from wire import Answer, request, until

MIB = 1024 * 1024


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    with small_disk(tmp_path / "disk", "28m") as point:
        yield point


class Filler:
    """Writes until nothing fits any more, and knows what was acknowledged."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._random = random.Random(1)
        self.files: dict[str, bytes] = {}
        self.log = b""

    async def put(self, name: str, size: int) -> bool:
        body = self._random.randbytes(size)
        return self._took(await self._ask("PUT", f"/files/{name}", body), name, body)

    async def append(self, size: int) -> bool:
        record = json.dumps("x" * size).encode()
        answer = await self._ask("POST", "/live/log", record, {"content-type": "application/json"})
        if not self._is_full(answer):
            self.log += record + b"\n"
            assert answer.json()["offset"] == len(self.log)
            return True
        return False

    async def delete(self, name: str) -> None:
        assert (await self._ask("DELETE", f"/files/{name}")).status == 204
        del self.files[name]

    async def fill(self) -> None:
        """Write until nothing fits, neither a large file nor a small record."""
        while await self._fill():
            pass

    async def _fill(self) -> bool:
        before = len(self.files), len(self.log)
        for size in (3 * MIB, 300_000, 30_000, 1000):
            while any([await self.append(size), await self.put(f"{len(self.files):04}-{size}", size)]):
                pass
        return (len(self.files), len(self.log)) != before

    async def check(self) -> None:
        listing = (await self._ask("GET", "/files/")).json()["streams"]
        assert {stream["name"] for stream in listing} == {*self.files, "log"}
        for name, body in self.files.items():
            assert (await self._ask("GET", f"/files/{name}")).body == body
        assert (await self._ask("GET", "/files/log")).body == self.log

    async def _ask(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        return await request(self._server.port, method, path, body, headers)

    def _took(self, answer: Answer, name: str, body: bytes) -> bool:
        if self._is_full(answer):
            return False
        self.files[name] = body
        return True

    def _is_full(self, answer: Answer) -> bool:
        if answer.status in {200, 201}:
            return False
        assert answer.status == 507, answer.body
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["type"] == "https://penstock.dev/problems/storage-full"
        return True


@pytest.mark.parametrize("count", [1, 4])
def test_a_full_disk_loses_nothing_and_is_gone_when_something_is_deleted(
    tmp_path: Path, disk: Path, count: int
) -> None:
    async def scenario(server: Server) -> None:
        filler = Filler(server)
        await filler.put("first", 9 * MIB)
        for size in (5, 1):
            await filler.fill()
            await filler.check()
            if count == 1:
                await restarted(server, filler)
            await filler.delete("first")
            await filler.check()
            await until(partial(filler.put, "first", size * MIB), True)
            assert await filler.append(1000)
            await filler.check()
        assert not await filler.put("second", 28 * MIB)
        await filler.check()

    async def restarted(server: Server, filler: Filler) -> None:
        assert await asyncio.to_thread(server.stop) == 0
        await asyncio.to_thread(server.start)
        await filler.check()
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        await filler.check()

    with Server(disk / "data", "--workers", str(count), log=tmp_path / "log") as server:
        asyncio.run(scenario(server))


def test_deleting_makes_room_on_a_disk_that_is_full_of_small_records(tmp_path: Path, disk: Path) -> None:
    """There is nothing but the catalog, whose file does not shrink: the room is within it."""
    record = json.dumps("x" * 30_000).encode()

    async def append(server: Server, name: str) -> bool:
        answer = await request(server.port, "POST", f"/live/{name}", record, {"content-type": "application/json"})
        assert answer.status in {200, 201, 507}
        return answer.status != 507

    async def scenario(server: Server) -> None:
        names: list[str] = []
        while await append(server, name := f"log-{len(names)}"):
            names.append(name)
            for _ in range(9):
                await append(server, name)
        for number in range(100):  # which must not take the room that deletions need
            await append(server, "more")
            await request(server.port, "PUT", f"/files/more-{number}", bytes(100_000))
        for name in names[::2]:
            assert (await request(server.port, "DELETE", f"/files/{name}")).status == 204
        for _ in range(3 * len(names)):  # what moves these to a file may be in the way for a moment
            await until(partial(append, server, "after"), True)
        answer = await request(server.port, "GET", "/files/after")
        assert answer.body == (record + b"\n") * (3 * len(names))

    with Server(disk / "data", log=tmp_path / "log") as server:
        asyncio.run(scenario(server))
