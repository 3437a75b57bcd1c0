"""Streams that keep only a part: by bytes, records, age or key; who asks for what is gone is told."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from websockets.asyncio.client import connect

from applications import serving
from penstock import Streams
from penstock.protocols.sse import Decoder
from servers import Server
from wire import Answer, Connection, request, until

NDJSON = "application/x-ndjson"
ACCEPT = {"accept": NDJSON}


async def post(port: int, name: str, *records: object, **fields: str) -> int:
    body = "".join(f"{json.dumps(record)}\n" for record in records).encode()
    headers = {"content-type": NDJSON, **{key.replace("_", "-"): value for key, value in fields.items()}}
    answer = await request(port, "POST", f"/live/{name}", body, headers)
    assert answer.status in {200, 201}, answer.body
    return int(answer.json()["offset"])


async def get(port: int, path: str, headers: Mapping[str, str] = ACCEPT) -> Answer:
    return await request(port, "GET", f"/live/{path}", None, headers)


async def polled(port: int, name: str, query: str = "offset=first") -> list[Any]:
    answer = await get(port, f"{name}?{query}&wait=0")
    assert answer.status in {200, 204}, answer.body
    return [json.loads(line) for line in answer.body.splitlines()]


@asynccontextmanager
async def application(clock: Clock, **options: Any) -> AsyncIterator[tuple[Streams, int]]:
    streams = Streams(":memory:", clock=clock, **options)
    app = FastAPI(lifespan=streams.lifespan)
    app.include_router(streams.live())
    app.include_router(streams.files())
    async with serving(app, log_level="critical", ws="websockets-sansio") as port:
        yield streams, port


class Clock:
    def __init__(self) -> None:
        self.time = 1_700_000_000.0

    def now(self) -> float:
        return self.time


async def test_the_last_records_are_kept_and_who_asks_for_others_is_told(server: Server, name: str) -> None:
    end = await post(server.port, name, *range(10, 20), stream_retention="records=4")

    async def kept() -> list[Any]:
        return await polled(server.port, name)

    await until(kept, [16, 17, 18, 19])
    gone = await get(server.port, f"{name}?offset=3")
    problem = gone.json()
    assert (gone.status, problem["type"].rpartition("/")[2]) == (410, "offset-out-of-range")
    assert (problem["offset"], problem["start"], problem["tail"]) == (3, 18, end)
    assert (await get(server.port, name, {"last-event-id": "3"})).status == 410
    assert (await get(server.port, f"{name}?offset={problem['start']}&wait=0")).body == b"16\n17\n18\n19\n"
    assert await polled(server.port, name, "last=2") == [18, 19]
    assert await polled(server.port, name, "last=100") == [16, 17, 18, 19]
    whole = await request(server.port, "GET", f"/files/{name}")
    assert (whole.status, whole.json()["start"]) == (410, 18)
    part = await request(server.port, "GET", f"/files/{name}", None, {"range": "bytes=18-"})
    assert (part.status, part.body) == (206, b"16\n17\n18\n19\n")
    for number in range(20, 40):
        await post(server.port, name, number)
    await until(kept, [36, 37, 38, 39])


async def test_the_last_bytes_are_kept_in_whole_records_and_their_room_is_given_back(tmp_path: Path) -> None:
    with Server(tmp_path / "data") as server:
        text = "x" * 1000
        await post(server.port, "log", stream_retention="bytes=300000")
        for number in range(60):
            await post(server.port, "log", *({"n": number, "text": text} for _ in range(100)))

        async def size() -> bool:
            answer = await get(server.port, "log?offset=first&wait=0")
            tail = int(answer.headers["stream-tail"])
            first = int((await get(server.port, "log?offset=0")).json()["start"])
            return tail - first < 450_000

        await until(size, True)
        records = await polled(server.port, "log")
        assert records[0]["n"] > 50

        async def blocks() -> bool:
            files = [path for path in (tmp_path / "data" / "blobs").rglob("*") if path.is_file()]
            return sum(path.stat().st_blocks * 512 for path in files) < 2_500_000

        await until(blocks, True)


async def test_old_records_go_also_where_nothing_comes_any_more(name: str) -> None:
    clock = Clock()
    async with application(clock) as (streams, port):
        await post(port, name, "a", stream_retention="age=60")
        clock.time += 40
        await post(port, name, "b")
        clock.time += 15
        assert await polled(port, name) == ["a", "b"]
        clock.time += 10
        await streams.sweep()
        assert await polled(port, name) == ["b"]
        clock.time += 60
        await streams.sweep()
        assert await polled(port, name) == []
        await post(port, name, "c")
        assert await polled(port, name) == ["c"]


@pytest.mark.parametrize("accept", [NDJSON, "text/event-stream"])
async def test_a_reader_who_is_overtaken_is_told(name: str, accept: str) -> None:
    clock = Clock()
    async with application(clock) as (streams, port):
        big = "x" * 400_000
        await post(port, name, stream_retention="age=60")
        for _ in range(8):
            await post(port, name, *[big] * 10)
        start = 79 * 400_003
        async with Connection(port, receive_buffer=4096) as connection:
            await connection.begin("GET", f"/live/{name}?offset=0", {"accept": accept})
            assert await connection.head() == 200
            body = connection.body()
            got = bytearray(await anext(body))
            await streams.trim(name, start)
            with suppress(ConnectionError):
                async for part in body:
                    got += part
        if accept == NDJSON:
            last = json.loads(got.splitlines()[-1])
            assert (last["stream-state"], last["stream-start"]) == ("open", start)
        else:
            *records, error = Decoder().feed(bytes(got))
            last = json.loads(error.data)
            assert (error.event, last["state"], last["start"]) == ("error", "open", start)
            assert [event.data for event in records] == [f'"{big}"'] * len(records)
            assert (await get(port, name, {"last-event-id": records[-1].id})).status == 410


async def test_a_socket_whose_reader_is_overtaken_is_told(name: str) -> None:
    clock = Clock()
    async with application(clock) as (streams, port):
        big = "x" * 900_000
        await post(port, name, big, stream_retention="age=60")
        for _ in range(12):
            await post(port, name, big)
        start = 12 * 900_003
        async with connect(
            f"ws://127.0.0.1:{port}/live/{name}?offset=0", max_queue=1, max_size=None, compression=None
        ) as socket:
            await socket.recv()
            await asyncio.sleep(0.1)
            await streams.trim(name, start)
            seen = []
            while "end" not in (message := json.loads(await socket.recv())):
                seen.append(message["offset"])
        assert (message["end"]["state"], message["end"]["start"]) == ("open", start)
        assert seen[-1] < start


async def test_since_begins_at_a_time(name: str) -> None:
    clock = Clock()
    async with application(clock) as (_, port):
        for number in range(10):
            await post(port, name, number)
            clock.time += 10
        begun = 1_700_000_000
        assert await polled(port, name, f"since={begun + 50}") == [5, 6, 7, 8, 9]
        assert await polled(port, name, "since=2023-11-14T22:14:20Z") == [6, 7, 8, 9]  # begun + 60
        assert await polled(port, name, "since=-20") == [8, 9]
        assert await polled(port, name, f"since={begun + 95}") == []
        assert await polled(port, name, "since=0") == list(range(10))
        for wrong in ("yesterday", "2023-11-14T22:14:20"):
            assert (await get(port, f"{name}?since={wrong}")).status == 400


async def test_a_stream_without_times_says_so(server: Server, name: str) -> None:
    await request(server.port, "PUT", f"/files/{name}", b"1\n", {"content-type": NDJSON})
    assert (await get(server.port, f"{name}?since=-60")).status == 400


async def test_each_key_keeps_its_last_value_and_offsets_stay_valid(server: Server, name: str) -> None:
    text = "x" * 500
    ids: list[int] = [await post(server.port, name, stream_compact="id")]
    for first in range(0, 3000, 25):
        records = [{"id": f"sensor {number % 7}", "value": number, "text": text} for number in range(first, first + 25)]
        if first == 0:
            records.append({"id": "rare", "value": "kept", "text": text})
            records.append({"id": "gone", "value": "not for long", "text": text})
        if first == 50:
            records.append({"id": "gone"})
        ids.append(await post(server.port, name, *records))
    whole = 3000 * 500

    async def start() -> bool:
        # It is looked at again when it has grown by some part of itself.
        await post(server.port, name, {"id": "rare", "value": "kept", "text": text * 40})
        answer = await get(server.port, f"{name}?offset=first&wait=0")
        return len(answer.body) < whole // 3

    await until(start, True)

    async def state(query: str) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for record in await polled(server.port, name, query):
            values[record["id"]] = record.get("value")
        return values

    expected = {f"sensor {key}": max(n for n in range(3000) if n % 7 == key) for key in range(7)}
    for offset in (0, *ids[:3], ids[len(ids) // 2]):
        found = await state(f"offset={offset}")
        assert found == {**expected, "rare": "kept"}, offset


async def test_a_reader_at_the_tail_sees_every_change_while_it_is_compacted(server: Server, name: str) -> None:
    await post(server.port, name, stream_compact="id")
    async with Connection(server.port) as connection:
        await connection.begin("GET", f"/live/{name}?offset=0")
        await connection.head()
        decoder = Decoder()
        seen: dict[int, int] = {}
        body = connection.body()
        count = 300

        async def produce() -> None:
            for number in range(count):
                await post(server.port, name, {"id": number % 3, "value": number, "text": "y" * 1600})

        producing = asyncio.create_task(produce())
        values: set[int] = set()
        deadline = time.monotonic() + 50
        while len(values) < count:
            assert time.monotonic() < deadline
            for event in decoder.feed(await anext(body)):
                record = json.loads(event.data)
                values.add(record["value"])
                seen[record["id"]] = record["value"]
        await producing
    assert values == set(range(count))


@pytest.mark.parametrize(
    "fields",
    [
        {"stream-retention": "age=0"},
        {"stream-retention": "age"},
        {"stream-retention": "weight=3"},
        {"stream-retention": "age=1.5"},
        {"stream-retention": "("},
        {"stream-compact": ""},
        {"stream-event-field": "x" * 201},
    ],
)
async def test_what_makes_no_sense_is_refused(server: Server, name: str, fields: dict[str, str]) -> None:
    answer = await request(server.port, "POST", f"/live/{name}", b"1", {"content-type": "application/json", **fields})
    assert (answer.status, answer.json()["type"].rpartition("/")[2]) == (400, "bad-request")


async def test_the_stream_says_which_member_is_the_events_type(server: Server, name: str) -> None:
    await post(server.port, name, {"kind": "join"}, stream_event_field="kind", stream_closed="true")
    events = Decoder().feed((await get(server.port, f"{name}?offset=0", {})).body)
    assert [event.event for event in events] == ["join", "end"]
    events = Decoder().feed((await get(server.port, f"{name}?offset=0&event=", {})).body)
    assert [event.event for event in events] == ["message", "end"]
