"""``kill -9`` in the middle of uploads that resume: the offset that is told then holds, and the client finishes.

Also a program: ``python tests/chaos/test_kill_uploads.py --rounds 100`` (``--workers 4``: all of them are killed).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for its use as a program

from servers import Server
from uploading import DIALECTS, Dialect
from wire import Connection, request

ROUNDS = int(os.environ.get("PENSTOCK_CHAOS_ROUNDS", "0"))
LARGEST = 16 * 1024 * 1024


class Uploader:
    """Uploads one file after another, whatever becomes of the server."""

    def __init__(self, dialect: Dialect, random: random.Random, counts: Counter[str], sending: asyncio.Event) -> None:
        self._dialect = dialect
        self._random = random
        self._counts = counts
        self._sending = sending
        self._url: str | None = None
        self._data = b""
        self._told = 0
        self._sent = 0

    async def run(self, port: int) -> None:
        """Go on until the server is gone."""
        with suppress(OSError):
            while True:
                if self._url is None:
                    await self._begin(port)
                await self._go_on(port)

    async def _begin(self, port: int) -> None:
        self._data = self._random.randbytes(self._random.randint(1, LARGEST))
        self._told = self._sent = 0
        self._url = await self._dialect.create(port, len(self._data))

    async def _go_on(self, port: int) -> None:
        assert self._url is not None
        offset, complete = await self._asked(port, self._url)
        if not complete:
            async with Connection(port) as connection:
                await connection.begin("PATCH", self._url, self._dialect.appending(offset, len(self._data) - offset))
                while offset < len(self._data):
                    piece = memoryview(self._data)[offset : offset + self._random.choice((1000, 65536, 1_000_000))]
                    self._sent = max(self._sent, offset + len(piece))
                    await connection.write(piece)
                    offset += len(piece)
                    self._sending.set()
                answer = await connection.answer()
                assert 200 <= answer.status < 300, answer
        self._told = len(self._data)
        await self._check(port, self._url, complete=True)
        self._counts["finished"] += 1
        self._url = None

    async def _asked(self, port: int, url: str) -> tuple[int, bool]:
        """Ask for the offset, and compare what is there with what was told before, and with what was sent."""
        offset, complete = await self._dialect.progress(port, url)
        assert self._told <= offset <= max(self._sent, self._told), (self._told, offset, self._sent)
        if self._told < offset:
            self._counts["kept more than was told"] += 1
        self._told = offset
        return offset, complete

    async def _check(self, port: int, url: str, *, complete: bool) -> None:
        answer = await request(port, "GET", url.partition("?")[0])
        assert answer.body == self._data[: self._told], f"{len(answer.body)} bytes, and not what was sent"
        assert answer.headers["stream-state"] == ("closed" if complete else "open")

    async def settle(self, port: int) -> None:
        """After a crash: the offset holds, and the bytes before it are those that were sent."""
        if self._url is not None:
            _, complete = await self._asked(port, self._url)
            await self._check(port, self._url, complete=complete)
            self._counts["resumed"] += 1


async def rounds(server: Server, count: int, seed: int, say: Callable[[str], None] = lambda _: None) -> None:
    """Kill the server again and again while clients upload, then let all of them finish."""
    counts: Counter[str] = Counter()
    moments = random.Random(seed)
    sending = asyncio.Event()
    uploaders = [
        Uploader(dialect, random.Random(f"{seed}/{dialect.name}/{number}"), counts, sending)
        for dialect in DIALECTS.values()
        for number in range(2)
    ]
    for number in range(count):
        sending.clear()
        running = [asyncio.create_task(uploader.run(server.port)) for uploader in uploaders]
        await asyncio.wait([asyncio.create_task(sending.wait()), *running], return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait(running, timeout=moments.uniform(0.0, 0.5), return_when=asyncio.FIRST_EXCEPTION)
        server.kill()
        await asyncio.gather(*running)
        await asyncio.to_thread(server.start)
        for uploader in uploaders:
            await uploader.settle(server.port)
        say(f"round {number + 1}: {dict(sorted(counts.items()))}")
    assert counts["resumed"]  # or nothing was ever under way


@pytest.mark.timeout(120 + 10 * ROUNDS)
@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_upload_goes_on_after_a_crash_where_it_was(tmp_path: Path, workers: str) -> None:
    seed = random.randrange(1_000_000)
    sys.stdout.write(f"seed {seed}\n")  # shown where it fails
    with Server(tmp_path / "data", "--workers", workers) as server:
        asyncio.run(rounds(server, ROUNDS or 4, seed))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--workers", default="1")
    arguments = parser.parse_args()
    say = print
    say(f"seed {arguments.seed}")
    with (
        tempfile.TemporaryDirectory(prefix="penstock-chaos-") as folder,
        Server(Path(folder) / "data", "--workers", arguments.workers) as server,
    ):
        asyncio.run(rounds(server, arguments.rounds, arguments.seed, lambda text: say(text, flush=True)))
    say("Every offset held.")


if __name__ == "__main__":
    main()
