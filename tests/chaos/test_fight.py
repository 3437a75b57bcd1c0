"""Two clients that fight over one upload: each byte is of one of them, at its place, and none is interleaved.

They send different bytes, so that it can be told who sent which. ``PENSTOCK_FIGHT_SECONDS=60`` lets them fight longer.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from collections import Counter
from contextlib import suppress

import pytest

from servers import Server
from uploading import DIALECTS, Dialect
from wire import Connection, request

SECONDS = float(os.environ.get("PENSTOCK_FIGHT_SECONDS", "2"))
LENGTH = 1024 * 1024
WORD = 8


def own_bytes(client: int, start: int, stop: int) -> bytes:
    """What a client has to send: words that tell who sends them, and where they belong."""
    first, last = start // WORD, -(-stop // WORD)
    words = b"".join((client << 56 | number).to_bytes(WORD, "big") for number in range(first, last))
    return words[start - first * WORD : stop - first * WORD]


class Fighter:
    """A client that comes back whenever it was evicted.

    Attributes:
        begun: at which offsets it began to send.
        told: up to which offsets it was told that all is there, by where it began.
        evictions: how often it was evicted.
    """

    def __init__(self, client: int, dialect: Dialect, url: str) -> None:
        self._client = client
        self._dialect = dialect
        self._url = url
        self._random = random.Random(client)
        self.begun: set[int] = set()
        self.told: dict[int, int] = {}
        self.evictions = 0

    async def fight(self, port: int) -> None:
        """Send until the upload is complete."""
        while True:
            offset, complete = await self._dialect.progress(port, self._url)
            if complete:
                return
            await self._send(port, offset)

    async def _send(self, port: int, offset: int) -> None:
        start = offset
        stop = min(LENGTH, start + self._random.choice((1, 100, 100_000, 300_000)))
        fields = {**self._dialect.sending, "upload-offset": str(start), "content-length": str(stop - start)}
        fields |= self._dialect.last if stop == LENGTH else {}
        async with Connection(port) as connection:
            with suppress(OSError):
                self.begun.add(start)
                await connection.begin("PATCH", self._url, fields)
                while offset < stop:
                    piece = min(stop, offset + self._random.choice((10, 70_000)))
                    await connection.write(own_bytes(self._client, offset, piece))
                    offset = piece
                    await asyncio.sleep(0)
                answer = await connection.answer()
                assert answer.status in {200, 201, 204, 409, 423}, answer
                if answer.status in {200, 201, 204}:
                    self.told[start] = stop
                else:
                    self.evictions += 1
                    await asyncio.sleep(self._random.uniform(0, 0.05))  # as clients do, before they come back


def check(content: bytes, fighters: list[Fighter]) -> None:
    """Hold what is there to what the clients were told."""
    assert len(content) == LENGTH
    runs: list[tuple[int, int]] = []  # whose bytes begin where
    whose: list[bytes] = [own_bytes(client, 0, LENGTH) for client in range(len(fighters))]
    offset = 0
    while offset < LENGTH:
        # The clients' bytes differ in the first of each word only: a whole word, or what is left of one, tells.
        word = offset - offset % WORD
        client = next(
            (n for n, data in enumerate(whose) if data[offset : offset + 1] == content[offset : offset + 1]), -1
        )
        assert client >= 0, f"the byte at {offset} is nobody's"
        if offset == word:
            runs.append((offset, client))
        assert content[offset : word + WORD][1:] == whose[client][offset : word + WORD][1:]
        offset = word + WORD
    starts = sorted(set().union(*(fighter.begun for fighter in fighters)))
    changes = [at for (at, client), (_, before) in zip(runs[1:], runs, strict=False) if client != before]
    for at in changes:  # another's bytes begin only in a word in which that one began to send
        assert any(at - WORD < start <= at + WORD for start in starts), f"at {at}, where nobody began"
    for client, fighter in enumerate(fighters):
        for start, stop in fighter.told.items():
            assert content[start:stop] == own_bytes(client, start, stop), f"{start}-{stop} was told to {client}"


async def fight(port: int, dialect: Dialect) -> Counter[str]:
    """Let two clients fight over one upload after another, and return what happened."""
    counts: Counter[str] = Counter()
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        url = await dialect.create(port, LENGTH)
        fighters = [Fighter(client, dialect, url) for client in range(2)]
        await asyncio.gather(*(fighter.fight(port) for fighter in fighters))
        content = await request(port, "GET", url.partition("?")[0])
        assert content.headers["stream-state"] == "closed"
        check(content.body, fighters)
        counts["uploads"] += 1
        counts["evictions"] += sum(fighter.evictions for fighter in fighters)
        counts["acknowledged"] += sum(len(fighter.told) for fighter in fighters)
        await request(port, "DELETE", url, headers=dialect.asking)
    return counts


@pytest.mark.timeout(120 + SECONDS * 4)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_two_clients_fight_over_one_upload(workers: Server, dialect: str) -> None:
    counts = asyncio.run(fight(workers.port, DIALECTS[dialect]))
    sys.stdout.write(f"{dict(counts)}\n")
    assert counts["evictions"]
