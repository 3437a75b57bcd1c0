"""A live stream as NDJSON and in polls, and where a reader begins."""

from __future__ import annotations

import asyncio
import json

import pytest
from fastapi import FastAPI

from applications import serving
from conftest import tool
from live_door import NDJSON, append
from penstock import Streams, StreamSpec
from penstock.protocols.sse import Decoder
from servers import Server
from wire import Answer, Broken, Connection, request

ACCEPT = {"accept": NDJSON}


async def get(server: Server, path: str, **fields: str) -> Answer:
    headers = {key.replace("_", "-"): value for key, value in fields.items()}
    return await request(server.port, "GET", f"/live/{path}", None, headers)


async def test_ndjson_follows_until_the_stream_is_closed(server: Server, name: str) -> None:
    await append(server, name, {"a": 1})
    async with Connection(server.port) as connection:
        await connection.begin("GET", f"/live/{name}?offset=0", ACCEPT)
        assert await connection.head() == 200
        assert connection.headers["content-type"] == NDJSON
        body = connection.body()
        assert (await anext(body)) + (await anext(body)) == b'\n{"a":1}\n'
        await append(server, name, 2, close=True)
        rest = b"".join([data async for data in body])
    assert rest == b'2\n{"stream-state":"closed","stream-offset":10}\n'


async def test_envelopes_tell_offsets_to_go_on_at(server: Server, name: str) -> None:
    await append(server, name, "a", {"b": 2}, "c", close=True)
    whole = [json.loads(line) for line in (await get(server, f"{name}?offset=0&envelope", **ACCEPT)).body.split()]
    assert whole == [
        {"offset": 4, "data": "a"},
        {"offset": 12, "data": {"b": 2}},
        {"offset": 16, "data": "c"},
        {"state": "closed", "offset": 16},
    ]
    for number, envelope in enumerate(whole[:2]):
        rest = await get(server, f"{name}?offset={envelope['offset']}&envelope", **ACCEPT)
        assert [json.loads(line) for line in rest.body.split()] == whole[number + 1 :]
    assert (await get(server, name, last_event_id="16", **ACCEPT)).status == 204


async def test_a_bad_end_is_told_and_breaks_the_body_off(server: Server, name: str) -> None:
    await append(server, name, 1)
    async with Connection(server.port) as connection:
        await connection.begin("GET", f"/live/{name}?offset=0", ACCEPT)
        await connection.head()
        body = connection.body()
        while b"1\n" not in await anext(body):
            pass
        await request(server.port, "DELETE", f"/files/{name}")
        assert json.loads(await anext(body))["stream-state"] == "gone"
        with pytest.raises(Broken):
            await anext(body)


async def test_curl_and_a_text_stream(server: Server, name: str) -> None:
    for line in ("one", 'say "two"'):
        await request(server.port, "POST", f"/live/{name}", line.encode(), {"content-type": "text/plain"})
    await request(server.port, "POST", f"/live/{name}", b"", {"stream-closed": "true"})
    curl = await asyncio.create_subprocess_exec(
        *(tool("curl"), "-sSN", "-H", f"Accept: {NDJSON}", f"{server.url}/live/{name}?offset=0"),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await curl.communicate()
    assert curl.returncode == 0
    lines = [json.loads(line) for line in out.split(b"\n") if line]
    assert lines == ["one", 'say "two"', {"stream-state": "closed", "stream-offset": 14}]


async def test_empty_lines_break_the_silence(name: str) -> None:
    streams = Streams(":memory:")
    app = FastAPI(lifespan=streams.lifespan)
    app.include_router(streams.live(heartbeat=0.05))
    async with serving(app, log_level="critical") as port:
        await streams.append(name, [b"1\n"], create=StreamSpec(content_type=NDJSON))
        async with Connection(port) as connection:
            await connection.begin("GET", f"/live/{name}", ACCEPT)
            await connection.head()
            body = connection.body()
            assert [await anext(body) for _ in range(4)] == [b"\n"] * 4


@pytest.mark.parametrize(
    ("accept", "status", "content_type"),
    [
        ("*/*", 200, "text/event-stream"),
        ("application/json, text/html;q=0.9, */*;q=0.1", 200, "text/event-stream"),
        ("application/jsonl", 200, NDJSON),
        ("text/html", 200, "text/event-stream"),
    ],
)
async def test_the_format_is_what_the_reader_accepts(
    server: Server, name: str, accept: str, status: int, content_type: str
) -> None:
    await append(server, name, 1, close=True)
    answer = await get(server, f"{name}?offset=0", accept=accept)
    assert (answer.status, answer.headers["content-type"].partition(";")[0]) == (status, content_type)


@pytest.mark.parametrize(
    ("last", "records"), [(0, []), (1, [4]), (2, [3, 4]), (4, [1, 2, 3, 4]), (9, [1, 2, 3, 4]), (100, [1, 2, 3, 4])]
)
async def test_a_reader_begins_some_records_back(server: Server, name: str, last: int, records: list[int]) -> None:
    await append(server, name, *range(1, 5), close=True)
    answer = await get(server, f"{name}?last={last}", **ACCEPT)
    assert [json.loads(line) for line in answer.body.split()][:-1] == records


async def test_some_records_back_is_found_over_many_blocks(server: Server, name: str) -> None:
    await append(server, name, *({"n": number, "text": "x" * (number * 37 % 3000)} for number in range(500)))
    for last in (1, 77, 400, 500, 501):
        polled = await get(server, f"{name}?last={last}&wait=0", **ACCEPT)
        numbers = [json.loads(line)["n"] for line in polled.body.splitlines()]
        assert numbers == list(range(max(0, 500 - last), 500))
    ids = Decoder().feed((await get(server, f"{name}?last=2&wait=0")).body)
    assert [json.loads(event.data)["n"] for event in ids] == [498, 499]


async def test_the_last_records_of_what_grows_are_whole_ones(server: Server, name: str) -> None:
    async with Connection(server.port) as uploader:
        headers = {"transfer-encoding": "chunked", "content-type": "text/plain"}
        await uploader.begin("PUT", f"/files/{name}", headers)
        await uploader.write_chunk(b"one\ntwo\nthr")
        while (await request(server.port, "HEAD", f"/files/{name}")).headers.get("stream-tail") != "11":
            pass
        assert (await get(server, f"{name}?last=1&wait=0", **ACCEPT)).body == b'"two"\n'
        await uploader.write_chunk(b"")
        await uploader.answer()
    assert (await get(server, f"{name}?last=1&wait=0", **ACCEPT)).body == b'"thr"\n'


async def test_bytes_without_records_have_no_last_ones(server: Server, name: str) -> None:
    await request(server.port, "PUT", f"/files/{name}", b"abc", {"content-type": "image/png"})
    assert (await get(server, f"{name}?last=1")).status == 400


async def test_a_poll_answers_with_what_is_there_and_where_to_go_on(server: Server, name: str) -> None:
    end = await append(server, name, 1, 2)
    first = await get(server, f"{name}?offset=0&wait=30", **ACCEPT)
    assert (first.status, first.body, first.headers["stream-next-offset"]) == (200, b"1\n2\n", str(end))
    nothing = await get(server, f"{name}?offset={end}&wait=0.05", **ACCEPT)
    assert (nothing.status, nothing.body, nothing.headers["stream-next-offset"]) == (204, b"", str(end))
    waiting = asyncio.create_task(get(server, f"{name}?offset={end}&wait=30"))
    await asyncio.sleep(0.05)
    after = await append(server, name, 3)
    assert [(event.data, event.id) for event in Decoder().feed((await waiting).body)] == [("3", str(after))]
    await append(server, name, close=True)
    closed = await get(server, f"{name}?offset={after}&wait=30", **ACCEPT)
    assert (closed.status, closed.headers["stream-state"]) == (204, "closed")


async def test_long_polls_come_in_parts(server: Server, name: str) -> None:
    record = "x" * 1_000_000
    for _ in range(3):
        await append(server, name, record)
    offset, sizes = "0", []
    while (answer := await get(server, f"{name}?offset={offset}&wait=0", **ACCEPT)).status == 200:
        offset = answer.headers["stream-next-offset"]
        sizes.append(answer.body.count(b"\n"))
    assert (sum(sizes), offset) == (3, str(3 * 1_000_003))
    assert len(sizes) > 1


async def test_a_poll_of_a_stream_that_failed_tells_so_once_all_is_read(name: str) -> None:
    streams = Streams(":memory:")
    app = FastAPI(lifespan=streams.lifespan)
    app.include_router(streams.live())
    async with serving(app, log_level="critical") as port:
        await streams.append(name, [b"1\n"], create=StreamSpec(content_type=NDJSON))
        await streams.fail(name, "out of smoke")
        first = await request(port, "GET", f"/live/{name}?offset=0&wait=1", None, ACCEPT)
        assert (first.status, first.body, first.headers["stream-state"]) == (200, b"1\n", "failed")
        second = await request(port, "GET", f"/live/{name}?offset=2&wait=1", None, ACCEPT)
        assert (second.status, second.json()["reason"]) == (409, "out of smoke")


async def test_a_member_of_the_records_is_the_events_type(server: Server, name: str) -> None:
    await append(server, name, {"type": "join", "who": "a"}, {"who": "b"}, close=True)
    for query, kinds in (("&event=type", ["join", "message"]), ("", ["message", "message"])):
        events = Decoder().feed((await get(server, f"{name}?offset=0{query}")).body)
        assert [event.event for event in events] == [*kinds, "end"]
