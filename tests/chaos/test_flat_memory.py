"""What the server holds in memory does not grow with the size of what flows through it.

Also a program, for sizes that take their time: ``python tests/chaos/test_flat_memory.py --size 4096`` (MiB).
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for its use as a program

import processes
from servers import Server
from uploading import TUS
from wire import Connection, request

MIB = 1024 * 1024
MOST = 150 * MIB
"""The most anonymous memory of the server."""

APART = 32 * MIB
"""By how much its peak may differ between sizes."""

_POOL = random.Random(1).randbytes(2 * MIB)


def block(number: int) -> memoryview:
    """Return a MiB of the body, which is different from the others."""
    start = number * 4099 % MIB
    return memoryview(_POOL)[start : start + MIB]


def pieces(start: int, stop: int) -> Iterator[memoryview]:
    """Yield the bytes of the body from one offset to another."""
    while start < stop:
        number, skip = divmod(start, MIB)
        piece = block(number)[skip : skip + stop - start]
        yield piece
        start += len(piece)


class Peaks:
    """The server's peaks of anonymous memory, each while something was done."""

    def __init__(self, server: Server, size: int) -> None:
        self.server = server
        self.size = size
        self.found: dict[str, int] = {}
        self.speeds: dict[str, float] = {}

    @asynccontextmanager
    async def during(self, what: str) -> AsyncIterator[None]:
        peak = 0
        ended = False

        async def watch() -> None:
            nonlocal peak
            while not ended:
                peak = max(peak, processes.anonymous(self.server.pid))
                await asyncio.sleep(0.01)

        watching = asyncio.create_task(watch())
        begun = time.perf_counter()
        try:
            yield
        finally:
            ended = True
            await watching
        self.found[what] = peak
        self.speeds[what] = self.size / (time.perf_counter() - begun)

    async def upload(self) -> None:
        async with self.during("PUT"), Connection(self.server.port) as connection:
            await connection.begin("PUT", "/files/large", {"content-length": str(self.size)})
            for piece in pieces(0, self.size):
                await connection.write(piece)
            assert await connection.head() in {200, 201}

    async def resumable_uploads(self, count: int) -> None:
        """Upload by tus, in one request each, so many at once: together they have the size."""
        size = self.size // count
        async with self.during(f"tus, {count} at once"):
            urls = await asyncio.gather(*(self._resumable_upload(size) for _ in range(count)))
        for url in urls:
            assert (await request(self.server.port, "DELETE", url, headers=TUS.asking)).status == 204

    async def _resumable_upload(self, size: int) -> str:
        url = await TUS.create(self.server.port, size)
        async with Connection(self.server.port) as connection:
            await connection.begin("PATCH", url, TUS.appending(0, size))
            for piece in pieces(0, size):
                await connection.write(piece)
            assert await connection.head() == 204
        return url

    async def download(self) -> None:
        async with self.during("GET"):
            assert await self._receive(0, self.size) == self.size

    async def interrupted_download(self) -> None:
        async with self.during("GET, cut and resumed"):
            assert await self._receive(await self._receive(0, self.size, cut=self.size // 3), self.size) == self.size

    async def parallel_download(self, connections: int) -> None:
        async with self.during(f"GET, {connections} ranges at once"):
            bounds = [self.size * number // connections for number in range(connections + 1)]
            await asyncio.gather(*map(self._receive, bounds, bounds[1:]))

    async def _receive(self, start: int, stop: int, cut: int = 0) -> int:
        """Receive a range, compare it, and return where it ended; ``cut`` hangs up there."""
        async with Connection(self.server.port) as connection:
            await connection.begin("GET", "/files/large", {"range": f"bytes={start}-{stop - 1}"})
            assert await connection.head() == 206
            async for data in connection.body():
                assert b"".join(pieces(start, start + len(data))) == data
                start += len(data)
                if cut and start >= cut:
                    return start
        assert start == stop
        return stop

    async def clean_up(self) -> None:
        assert (await request(self.server.port, "DELETE", "/files/large")).status == 204


async def peaks_of(server: Server, size: int, *, all_ways: bool = False) -> Peaks:
    peaks = Peaks(server, size)
    await peaks.upload()
    await peaks.download()
    await peaks.resumable_uploads(1)
    if all_ways:
        await peaks.interrupted_download()
        await peaks.parallel_download(16)
    await peaks.clean_up()
    return peaks


def check(small: Peaks, large: Peaks) -> None:
    for what, peak in large.found.items():
        before = small.found[what]
        assert peak < MOST, f"{what}: {peak / MIB:.0f} MiB"
        assert abs(peak - before) < APART, f"{what}: {before / MIB:.0f} MiB, then {peak / MIB:.0f} MiB"


@pytest.mark.skipif(not processes.AVAILABLE, reason="looks into /proc")
def test_memory_does_not_grow_with_the_size(tmp_path: Path) -> None:
    async def scenario(server: Server) -> None:
        check(await peaks_of(server, 100 * MIB), await peaks_of(server, 600 * MIB))

    with Server(tmp_path / "data") as server:
        asyncio.run(scenario(server))


@pytest.mark.skipif(not processes.AVAILABLE, reason="looks into /proc")
def test_a_hundred_uploads_at_once(tmp_path: Path) -> None:
    with Server(tmp_path / "data") as server:
        peaks = Peaks(server, 200 * MIB)
        asyncio.run(peaks.resumable_uploads(100))
    (peak,) = peaks.found.values()
    assert peak < MOST + 100 * MIB, f"{peak / MIB:.0f} MiB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=4096, help="MiB")
    folder = Path(tempfile.mkdtemp(prefix="penstock-memory-"))
    arguments = parser.parse_args()
    say = print

    async def scenario(server: Server) -> None:
        say(f"idle: {processes.anonymous(server.pid) / MIB:.0f} MiB")
        found = []
        for size in (100, arguments.size):
            peaks = await peaks_of(server, size * MIB, all_ways=True)
            for what, peak in peaks.found.items():
                say(f"{size} MiB, {what}: peak {peak / MIB:.0f} MiB, {peaks.speeds[what] / MIB:.0f} MiB/s", flush=True)
            found.append(peaks)
        check(*found)
        many = Peaks(server, arguments.size * MIB)
        await many.resumable_uploads(100)
        for what, peak in many.found.items():
            say(f"{arguments.size} MiB, {what}: peak {peak / MIB:.0f} MiB, {many.speeds[what] / MIB:.0f} MiB/s")

    try:
        with Server(folder / "data") as server:
            asyncio.run(scenario(server))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
