"""Readers and a producer whose connections are cut at random: every reader gets exactly what was produced.

``PENSTOCK_CUTS`` is how often the readers are cut, together: 1,000 in the long form.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import AsyncIterator
from contextlib import suppress

from websockets.asyncio.client import connect

from servers import Server
from wire import Broken, Connection, request

CUTS = int(os.environ.get("PENSTOCK_CUTS", "60"))
NDJSON = "application/x-ndjson"


class Producer:
    """Appends numbers by long POSTs that are cut, sending again what was not acknowledged, and some that was."""

    def __init__(self, port: int, name: str, rng: random.Random) -> None:
        self.count = 0  # of records that are safe
        self._port = port
        self._path = f"/live/{name}?stream"
        self._rng = rng

    async def run(self, enough: asyncio.Event) -> None:
        while not enough.is_set():
            with suppress(OSError):
                await self._post(close=False)
        while True:
            with suppress(OSError):
                await self._post(close=True)
                return

    async def _post(self, *, close: bool) -> None:
        rng = self._rng
        first = max(0, self.count - rng.randrange(3))
        headers = {
            "content-type": NDJSON,
            "accept": NDJSON,
            "transfer-encoding": "chunked",
            "producer-id": "p",
            "producer-epoch": "0",
            "producer-seq": str(first),
            "stream-closed": str(close).lower(),
        }
        async with Connection(self._port) as connection:
            await connection.begin("POST", self._path, headers)
            last = first
            acknowledging: asyncio.Task[None] | None = None
            for _ in range(rng.randrange(1, 6)):
                lines = [b"%d\n" % number for number in range(last, last + rng.randrange(1, 20))]
                last += len(lines)
                await connection.write_chunk(b"".join(lines))
                acknowledging = acknowledging or asyncio.create_task(self._acknowledged(connection, first))
                await asyncio.sleep(rng.random() * 0.01)
            assert acknowledging is not None
            if not close and rng.random() < 0.7:
                await connection.write_chunk(b"1234")  # half a record, and then nothing
                connection.close()
            else:
                await connection.write_chunk(b"")
            await acknowledging

    async def _acknowledged(self, connection: Connection, first: int) -> None:
        rest = b""
        assert await connection.head() < 300
        async for data in connection.body():
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                told = json.loads(line)
                assert "error" not in told, told
                self.count = max(self.count, first + told["records"])
        assert "state" in told


class Reader:
    """Reads to the end of the stream, cut again and again."""

    def __init__(self, port: int, name: str, rng: random.Random, cuts: Cuts) -> None:
        self.seen: list[int] = []
        self.port = port
        self.path = f"/live/{name}"
        self.offset = "0"
        self.ended = False
        self._rng = rng
        self._cuts = cuts

    async def run(self) -> None:
        while not self.ended:
            left = self._rng.randrange(1, 40)
            with suppress(Broken, OSError):
                async for number, offset in self.records():
                    self.seen.append(number)
                    self.offset = offset
                    left -= 1
                    if not left and not self._cuts.enough.is_set():
                        self._cuts.add()
                        break

    def records(self) -> AsyncIterator[tuple[int, str]]:
        raise NotImplementedError


class Cuts:
    """Counts, and says when it is enough."""

    def __init__(self, wanted: int) -> None:
        self.enough = asyncio.Event()
        self.made = 0
        self._wanted = wanted

    def add(self) -> None:
        self.made += 1
        if self.made >= self._wanted:
            self.enough.set()


class EventReader(Reader):
    async def records(self) -> AsyncIterator[tuple[int, str]]:
        async with Connection(self.port) as connection:
            await connection.begin("GET", f"{self.path}?offset=0", {"last-event-id": self.offset})
            if await connection.head() == 204:
                self.ended = True
                return
            rest = b""
            async for data in connection.body():
                *blocks, rest = (rest + data).split(b"\n\n")
                for block in blocks:
                    fields = dict(line.split(b": ", 1) for line in block.split(b"\n") if b": " in line)
                    if b"event" in fields:
                        assert fields[b"event"] == b"end", fields
                        self.ended = True
                    elif b"data" in fields:
                        yield int(fields[b"data"]), fields[b"id"].decode()


class LineReader(Reader):
    async def records(self) -> AsyncIterator[tuple[int, str]]:
        async with Connection(self.port) as connection:
            await connection.begin("GET", f"{self.path}?offset={self.offset}&envelope", {"accept": NDJSON})
            assert await connection.head() == 200
            rest = b""
            async for data in connection.body():
                *lines, rest = (rest + data).split(b"\n")
                for told in (json.loads(line) for line in lines if line):
                    if "data" in told:
                        yield told["data"], str(told["offset"])
                    else:
                        assert told["state"] == "closed", told
                        self.ended = True


class SocketReader(Reader):
    async def run(self) -> None:
        while not self.ended:
            left = self._rng.randrange(1, 10)
            socket = await connect(f"ws://127.0.0.1:{self.port}{self.path}?offset={self.offset}&mode=read")
            try:
                while left or self._cuts.enough.is_set():
                    message = json.loads(await socket.recv())
                    if "end" in message:
                        assert message["end"]["state"] == "closed", message
                        self.ended = True
                        break
                    self.seen += message["records"]  # of a message all, or nothing
                    self.offset = str(message["offset"])
                    left = max(0, left - 1)
                else:
                    self._cuts.add()
            finally:
                socket.transport.abort()


async def test_readers_that_are_cut_get_exactly_what_a_producer_that_is_cut_sends(server: Server, name: str) -> None:
    rng = random.Random(CUTS)
    cuts = Cuts(CUTS)
    producer = Producer(server.port, name, rng)
    producing = asyncio.create_task(producer.run(cuts.enough))
    while not producer.count:
        await asyncio.sleep(0.01)
        assert not producing.done(), producing.result()
    kinds: list[type[Reader]] = [EventReader, LineReader, SocketReader]
    readers = [kind(server.port, name, random.Random(number), cuts) for number, kind in enumerate(kinds * 2)]
    await asyncio.gather(*(reader.run() for reader in readers))
    await producing
    assert cuts.made >= CUTS
    assert producer.count > CUTS
    stored = (await request(server.port, "GET", f"/files/{name}")).body
    produced = [int(line) for line in stored.splitlines()]
    assert produced == list(range(len(produced)))  # each once, in order
    assert len(produced) >= producer.count  # what came of a connection that was cut may not have been acknowledged
    for reader in readers:
        assert reader.seen == produced, type(reader).__name__
