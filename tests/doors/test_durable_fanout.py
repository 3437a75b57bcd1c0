"""Many readers of one stream's events by the Durable Streams protocol: they share its tail, as those of `/live/` do."""

from __future__ import annotations

import asyncio
import json
import random
from base64 import b64decode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI

from applications import serving
from penstock import Streams
from penstock.protocols.durable import offset
from servers import Server
from wire import Broken, Connection, Event, events, request

HANDED_OVER = "penstock.server.lines:HandingOverProtocol"
TYPES = {"json": "application/json", "text": "text/plain", "bytes": "application/octet-stream"}


def encoded(kind: str, number: int) -> bytes:
    """Return what is appended as the number: text is cut within characters."""
    if kind == "json":
        return b'{"n":%d}' % number
    return "\u00fc\U0001f600".encode()[number % 6 : number % 6 + 1] if kind == "text" else bytes([number % 256])


async def create(port: int, name: str, kind: str) -> None:
    answer = await request(port, "PUT", f"/v1/stream/{name}", b"", {"content-type": TYPES[kind]})
    assert answer.status == 201


async def append(port: int, name: str, kind: str, data: bytes, *, close: bool = False) -> None:
    headers = {"content-type": TYPES[kind], "stream-closed": str(close).lower()}
    answer = await request(port, "POST", f"/v1/stream/{name}", data, headers)
    assert answer.status == 204, answer.body


@asynccontextmanager
async def following(
    port: int, name: str, at: str = "-1", cursor: str | None = None, **options: Any
) -> AsyncIterator[tuple[Connection, AsyncIterator[Event]]]:
    async with Connection(port, **options) as connection:
        query = f"offset={at}&live=sse" + (f"&cursor={cursor}" if cursor is not None else "")
        await connection.begin("GET", f"/v1/stream/{name}?{query}")
        assert await connection.head() == 200
        yield connection, events(connection)


class Reader:
    """Reads to the end of a stream, hanging up after some events again and again, and coming back where it was."""

    def __init__(self, port: int, name: str, kind: str, rest: Callable[[], int]) -> None:
        self.seen = b""
        self.cuts = 0
        self.cursors: list[int] = []
        self._port = port
        self._name = name
        self._kind = kind
        self._rest = rest
        self._at = "-1"

    async def run(self) -> None:
        while not await self._follow():
            self.cuts += 1

    async def _follow(self) -> bool:
        left = self._rest()
        data: str | None = None
        cursor = str(self.cursors[-1]) if self.cursors else None
        given = self.cursors[-1] if self.cursors else -1
        async with following(self._port, self._name, self._at, cursor) as (_, found):
            async for event in found:
                if event.kind == "data":
                    assert data is None, "an event of data comes without its control event"
                    data = event.data
                    continue
                assert event.kind == "control"
                told = json.loads(event.data)
                self._take(data)
                data, self._at = None, told["streamNextOffset"]
                if self._kind != "json":
                    assert self._at == offset(len(self.seen))
                if told.get("streamClosed"):
                    assert told["upToDate"]
                    assert "streamCursor" not in told
                    assert [event async for event in found] == []
                    return True
                assert int(told["streamCursor"]) > given or len(self.cursors) == 0
                self.cursors.append(int(told["streamCursor"]))
                given = self.cursors[-1] - 1  # within a connection it may stay
                left -= 1
                if left <= 0:
                    return False
        return False

    def _take(self, data: str | None) -> None:
        if data is None:
            return
        if self._kind == "json":
            self.seen += b"".join(
                json.dumps(value, separators=(",", ":")).encode() + b"\n" for value in json.loads(data)
            )
        else:
            self.seen += data.encode() if self._kind == "text" else b64decode(data, validate=True)


@pytest.mark.parametrize("kind", list(TYPES))
async def test_readers_who_come_and_go_all_get_the_same(port: int, name: str, kind: str) -> None:
    """Some come back at offsets within what is shared, some behind it, with cursors of their own, and miss nothing."""
    rng = random.Random(7)
    await create(port, name, kind)
    readers = [Reader(port, name, kind, lambda: rng.choice([1, 3, 17, 1000])) for _ in range(30)]
    running = [asyncio.create_task(reader.run()) for reader in readers]
    for number in range(180):
        await append(port, name, kind, encoded(kind, number))
    await append(port, name, kind, b"", close=True)
    await asyncio.gather(*running)
    separator = b"\n" if kind == "json" else b""
    whole = b"".join(encoded(kind, number) + separator for number in range(180))
    for reader in readers:
        assert reader.seen == whole
    assert sum(reader.cuts for reader in readers) > 30


async def test_the_last_data_and_the_end_are_told_together(port: int, name: str) -> None:
    await create(port, name, "json")
    async with following(port, name) as (connection, found):
        assert json.loads((await anext(found)).data)["upToDate"]
        await append(port, name, "json", b"[1,2]", close=True)
        data, control = [event async for event in found]
        assert (data.kind, json.loads(data.data)) == ("data", [1, 2])
        assert json.loads(control.data) == {"streamNextOffset": offset(4), "upToDate": True, "streamClosed": True}
        # And the connection takes further requests.
        assert (await connection.request("GET", f"/v1/stream/{name}")).json() == [1, 2]
    async with following(port, name, offset(4)) as (connection, found):
        assert connection.headers["stream-closed"] == "true"
        assert [json.loads(event.data)["streamClosed"] async for event in found] == [True]


async def test_readers_with_a_cursor_ahead_of_time_keep_theirs_and_share_the_data(port: int, name: str) -> None:
    await create(port, name, "json")
    ahead = 10**9
    async with following(port, name, "now") as (_, plain), following(port, name, "now", str(ahead)) as (_, other):
        first, theirs = json.loads((await anext(plain)).data), json.loads((await anext(other)).data)
        assert int(first["streamCursor"]) < ahead < int(theirs["streamCursor"])
        await append(port, name, "json", b"[1]")
        for found, cursor in ((plain, None), (other, theirs["streamCursor"])):
            assert (await anext(found)).data == "[1]"
            told = json.loads((await anext(found)).data)
            assert (told["streamNextOffset"], told["upToDate"]) == (offset(2), True)
            assert told["streamCursor"] == cursor or (cursor is None and int(told["streamCursor"]) < ahead)


async def test_a_reader_who_takes_nothing_holds_up_nobody_and_misses_nothing(port: int, name: str) -> None:
    await create(port, name, "bytes")
    pieces = [bytes([number]) * 400_000 for number in range(50)]  # 20 MB: more than the ring and all buffers
    async with (
        following(port, name, receive_buffer=4096) as (_, slow),
        following(port, name) as (_, quick),
    ):
        for piece in pieces:
            await append(port, name, "bytes", piece)
        await append(port, name, "bytes", b"", close=True)
        for found in (quick, slow):
            got = [event async for event in found]
            assert b"".join(b64decode(event.data) for event in got if event.kind == "data") == b"".join(pieces)
            assert json.loads(got[-1].data)["streamClosed"]


async def test_nobody_reads_from_within_a_message(server: Server, name: str) -> None:
    await create(server.port, name, "json")
    await append(server.port, name, "json", b"[123]")
    answer = await request(server.port, "GET", f"/v1/stream/{name}?offset={offset(1)}&live=sse")
    assert answer.status == 410


async def test_a_reader_who_begins_within_a_character_spoils_it_for_nobody_else(port: int, name: str) -> None:
    await create(port, name, "text")
    await append(port, name, "text", "a\u00fc".encode()[:2])
    async with following(port, name, offset(2)) as (_, within), following(port, name) as (_, whole):
        assert json.loads((await anext(within)).data)["upToDate"]
        assert (await anext(whole)).data == "a"
        await append(port, name, "text", "\u00fc!".encode()[1:], close=True)
        assert [event.data async for event in within if event.kind == "data"] == ["\ufffd!"]
        assert [event.data async for event in whole if event.kind == "data"] == ["\u00fc!"]


async def test_all_readers_just_end_when_the_stream_is_deleted(port: int, name: str) -> None:
    await create(port, name, "json")
    async with following(port, name) as (_, one), following(port, name) as (_, other):
        for found in (one, other):
            await anext(found)
        await request(port, "DELETE", f"/v1/stream/{name}")
        for found in (one, other):
            assert [event async for event in found] == []


async def test_readers_are_there(port: int, name: str) -> None:
    await create(port, name, "json")
    async with following(port, name) as (_, one), following(port, name) as (_, other):
        for found in (one, other):
            await anext(found)
        assert (await request(port, "GET", f"/live/{name}?presence")).json()["readers"] == 2


@asynccontextmanager
async def application(**options: Any) -> AsyncIterator[int]:
    streams = Streams(":memory:")
    app = FastAPI(lifespan=streams.lifespan)
    app.include_router(streams.durable(**options))
    async with serving(app, http=HANDED_OVER) as port:
        yield port


@pytest.mark.parametrize("handed", [True, False])
async def test_a_reader_is_sent_back_after_its_time_whatever_others_do(handed: bool) -> None:
    streams = Streams(":memory:")
    app = FastAPI(lifespan=streams.lifespan)
    app.include_router(streams.durable(lifetime=0.5, heartbeat=0.05))
    async with serving(app, **({"http": HANDED_OVER} if handed else {})) as port:
        await create(port, "s", "json")
        over = asyncio.Event()

        async def go_on() -> None:
            number = 0
            while not over.is_set():
                await append(port, "s", "json", b"%d" % number)
                number += 1

        appending = asyncio.create_task(go_on())
        seen: list[int] = []
        at = "-1"
        for _ in range(3):
            async with following(port, "s", at) as (connection, found):
                async for event in found:  # which ends properly, between a control event and what comes next
                    if event.kind == "data":
                        seen += json.loads(event.data)
                    else:
                        at = json.loads(event.data)["streamNextOffset"]
                assert event.kind == "control"
                assert (await connection.request("HEAD", "/v1/stream/s")).status == 200
        over.set()
        await appending
        assert seen == list(range(len(seen)))
        assert len(seen) > 3


async def outrun(port: int) -> None:
    """Append more than a reader's line has room for, and let some time pass, which is what is tested."""
    for _ in range(20):
        await append(port, "s", "bytes", bytes(1_000_000))
    await asyncio.sleep(0.5)


async def test_a_slow_reader_is_sent_back_once_it_takes_something() -> None:
    async with application(lifetime=0.3) as port:
        await create(port, "s", "bytes")
        async with following(port, "s", receive_buffer=4096) as (_, slow):
            await anext(slow)
            await outrun(port)
            got = [event async for event in slow]  # and it ends properly, short of the end
        at = json.loads(got[-1].data)["streamNextOffset"]
        read = sum(len(b64decode(event.data)) for event in got if event.kind == "data")
        assert at == offset(read)
        assert 0 < read < 20_000_000


async def test_a_reader_who_takes_nothing_for_too_long_is_cut_off() -> None:
    async with application(patience=0.2) as port:
        await create(port, "s", "bytes")
        async with following(port, "s", receive_buffer=4096) as (_, slow):
            await anext(slow)
            await outrun(port)
            with pytest.raises((Broken, ConnectionError)):
                async for _ in slow:
                    pass


async def test_who_follows_keeps_a_stream_with_a_time_to_live() -> None:
    async with application() as port:
        for name in ("followed", "forgotten"):
            headers = {"content-type": "text/plain", "stream-ttl": "1"}
            assert (await request(port, "PUT", f"/v1/stream/{name}", b"", headers)).status == 201
        async with following(port, "followed") as (_, found):
            for _ in range(4):  # a sign of life for each half of its time
                await anext(found)
            statuses = [
                (await request(port, "HEAD", f"/v1/stream/{name}")).status for name in ("followed", "forgotten")
            ]
        assert statuses == [200, 404]
