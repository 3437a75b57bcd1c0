"""One long POST: records are appended as they arrive, acknowledged as they are safe, and never written twice."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from conftest import tool
from servers import Server
from wire import Broken, Connection, request, until

NDJSON = "application/x-ndjson"
CHUNKED = {"transfer-encoding": "chunked"}


async def begin(connection: Connection, name: str, content_type: str = NDJSON, **fields: str) -> None:
    headers = {name.replace("_", "-"): value for name, value in fields.items()}
    await connection.begin("POST", f"/live/{name}?stream", {"content-type": content_type, **CHUNKED, **headers})


async def lines(connection: Connection) -> AsyncIterator[dict[str, object]]:
    rest = b""
    async for data in connection.body():
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            yield json.loads(line)
    assert not rest


async def shown(server: Server, name: str) -> bytes:
    return (await request(server.port, "GET", f"/files/{name}")).body


async def test_records_are_acknowledged_while_the_body_goes_on(server: Server, name: str) -> None:
    async with Connection(server.port) as connection:
        await begin(connection, name, accept=NDJSON)
        await connection.write_chunk(b'{"a": 1}\n{"b"')
        assert await connection.head() == 201
        assert connection.headers["location"] == f"/live/{name}"
        told = lines(connection)
        assert await anext(told) == {"offset": 8, "records": 1}
        assert await shown(server, name) == b'{"a":1}\n'
        await connection.write_chunk(b":2}\n")
        assert await anext(told) == {"offset": 16, "records": 2}
        await connection.write_chunk(b"3")
        await connection.write_chunk(b"")
        assert [line async for line in told][-1] == {"offset": 18, "records": 3, "state": "open"}
    assert await shown(server, name) == b'{"a":1}\n{"b":2}\n3\n'


async def test_without_acknowledgements_there_is_one_answer(server: Server, name: str) -> None:
    body = b"one\r\ntwo\n\nlast"
    headers = {"content-type": "text/plain", "stream-closed": "true"}
    answer = await request(server.port, "POST", f"/live/{name}?stream", body, headers)
    assert (answer.status, answer.json()) == (201, {"offset": 14, "records": 4, "state": "closed"})
    assert (await shown(server, name), answer.headers["stream-state"]) == (b"one\ntwo\n\nlast\n", "closed")


async def test_a_body_of_nothing_makes_a_stream_without_records(server: Server, name: str) -> None:
    answer = await request(server.port, "POST", f"/live/{name}?stream", b"\n", {"content-type": NDJSON})
    assert (answer.status, answer.json()) == (201, {"offset": 0, "records": 0, "state": "open"})
    closed = {"content-type": NDJSON, "stream-closed": "true"}
    answer = await request(server.port, "POST", f"/live/{name}?stream", b"", closed)
    assert (answer.status, answer.json()) == (200, {"offset": 0, "records": 0, "state": "closed"})


async def test_what_is_no_record_ends_it_and_what_was_before_is_kept(server: Server, name: str) -> None:
    headers = {"content-type": NDJSON}
    answer = await request(server.port, "POST", f"/live/{name}?stream", b"1\n2\n{\n4\n", headers)
    problem = answer.json()
    assert (answer.status, problem["type"]) == (422, "https://penstock.dev/problems/invalid-record")
    assert (problem["records"], problem["offset"]) == (2, 4)
    assert problem["detail"].startswith("Record 3 of the body: ")
    assert await shown(server, name) == b"1\n2\n"
    async with Connection(server.port) as connection:
        await begin(connection, name, accept=NDJSON)
        await connection.write_chunk(b"3\n")
        await connection.head()
        told = lines(connection)
        assert await anext(told) == {"offset": 6, "records": 1}
        await connection.write_chunk(b"NaN\n")
        (last,) = [line async for line in told]
        error = last.pop("error")
        assert last == {"offset": 6, "records": 1}
        assert isinstance(error, dict)
        assert error["type"] == "https://penstock.dev/problems/invalid-record"


async def test_a_record_that_is_too_long_is_refused(server: Server, name: str) -> None:
    body = b'"' + b"x" * (5 * 1024 * 1024) + b'"\n'
    answer = await request(server.port, "POST", f"/live/{name}?stream", body, {"content-type": NDJSON})
    assert (answer.status, answer.json()["records"]) == (413, 0)


@pytest.mark.parametrize("content_type", ["application/json", "application/pdf"])
async def test_only_lines_are_appended_as_they_arrive(server: Server, name: str, content_type: str) -> None:
    answer = await request(server.port, "POST", f"/live/{name}?stream", b"{}", {"content-type": content_type})
    assert answer.status == 415


async def test_a_stream_that_is_closed_or_deleted_meanwhile_ends_it(server: Server, name: str) -> None:
    for spoil, status in (("close", 409), ("delete", 410)):
        async with Connection(server.port) as connection:
            await begin(connection, f"{name}/{spoil}", accept=NDJSON)
            await connection.write_chunk(b"1\n")
            await connection.head()
            told = lines(connection)
            await anext(told)
            if spoil == "close":
                await request(server.port, "POST", f"/live/{name}/{spoil}", b"", {"stream-closed": "true"})
            else:
                await request(server.port, "DELETE", f"/files/{name}/{spoil}")
            await connection.write_chunk(b"2\n")
            error = [line async for line in told][-1]["error"]
            assert isinstance(error, dict)
            assert error["status"] == status


async def test_what_arrived_before_a_cut_is_there(server: Server, name: str) -> None:
    async with Connection(server.port) as connection:
        await begin(connection, name)
        await connection.write_chunk(b"1\n2\n3")

        async def tail() -> str | None:
            return (await request(server.port, "HEAD", f"/files/{name}")).headers.get("stream-tail")

        expected: str | None = "4"
        await until(tail, expected)
    assert await shown(server, name) == b"1\n2\n"


async def test_a_producer_that_is_cut_again_and_again_writes_each_record_once(server: Server, name: str) -> None:
    rng = random.Random(5)
    records = [json.dumps({"number": number, "text": "x" * rng.randrange(300)}).encode() for number in range(400)]
    safe = 0
    connections = 0
    while safe < len(records):
        first = max(0, safe - rng.randrange(5))  # some that it could know to be safe: sent again all the same
        fields = {"producer-id": "p", "producer-epoch": "0", "producer-seq": str(first)}
        async with Connection(server.port) as connection:
            await begin(connection, name, accept=NDJSON, **fields)
            body = b"".join(record + b"\n" for record in records[first:])
            stop = rng.randrange(200, 20_000)
            await connection.write_chunk(body[:stop])
            if stop >= len(body):
                await connection.write_chunk(b"")
            if rng.random() < 0.3 and safe < 300:
                continue  # hangs up, and never hears how much was safe
            with suppress(Broken):
                if await connection.head() < 300:
                    async for line in lines(connection):
                        assert "error" not in line
                        safe = max(safe, first + int(str(line["records"])))
                        if stop < len(body):
                            break
        connections += 1
    assert connections > 5
    stored = [json.loads(line)["number"] for line in (await shown(server, name)).splitlines()]
    assert stored == list(range(400))


async def test_a_producer_that_was_replaced_is_fenced(server: Server, name: str) -> None:
    fields = {"producer-id": "p", "producer-epoch": "1", "producer-seq": "0", "content-type": NDJSON}
    first = await request(server.port, "POST", f"/live/{name}?stream", b"1\n2\n", fields)
    again = await request(server.port, "POST", f"/live/{name}?stream", b"1\n2\n3\n", fields)
    assert (first.json()["records"], again.json()["records"]) == (2, 3)
    assert await shown(server, name) == b"1\n2\n3\n"
    old = await request(server.port, "POST", f"/live/{name}?stream", b"4\n", {**fields, "producer-epoch": "0"})
    gap = await request(server.port, "POST", f"/live/{name}?stream", b"9\n", {**fields, "producer-seq": "9"})
    assert (old.status, old.json()["current_epoch"]) == (403, 1)
    assert (gap.status, gap.json()["expected"]) == (409, 3)


async def test_a_repeated_end_closes_a_stream_whose_records_were_there_already(server: Server, name: str) -> None:
    fields = {"producer-id": "p", "producer-epoch": "0", "producer-seq": "0", "content-type": NDJSON}
    await request(server.port, "POST", f"/live/{name}?stream", b"1\n", fields)
    for _ in range(2):
        closing = {**fields, "stream-closed": "true"}
        answer = await request(server.port, "POST", f"/live/{name}?stream", b"1\n", closing)
        assert answer.json() == {"offset": 2, "records": 1, "state": "closed"}


async def test_large_bodies_come_whole_and_in_order(server: Server, name: str) -> None:
    records = b"".join(b'{"number":%d,"text":"%b"}\n' % (number, b"y" * 200) for number in range(60_000))
    answer = await request(server.port, "POST", f"/live/{name}?stream", records, {"content-type": NDJSON})
    assert (answer.status, answer.json()["records"]) == (201, 60_000)
    assert await shown(server, name) == records


async def test_curl_appends_a_pipe_line_by_line(server: Server, name: str) -> None:
    command = (
        tool("curl"),
        "-sSN",
        "-T",
        ".",
        "-X",
        "POST",
        "-H",
        f"Content-Type: {NDJSON}",
        "-H",
        f"Accept: {NDJSON}",
    )
    curl = await asyncio.create_subprocess_exec(
        *command,
        f"{server.url}/live/{name}?stream",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert curl.stdin is not None
    assert curl.stdout is not None
    for number in range(1, 4):
        curl.stdin.write(b"%d\n" % number)
        assert json.loads(await curl.stdout.readline()) == {"offset": 2 * number, "records": number}
    curl.stdin.close()
    assert json.loads(await curl.stdout.read()) == {"offset": 6, "records": 3, "state": "open"}
    assert await curl.wait() == 0


# -- a JSON array as a batch ------------------------------------------------------------------------------------------


async def test_an_array_can_be_a_batch_or_one_record(server: Server, name: str) -> None:
    headers = {"content-type": "application/json"}
    await request(server.port, "POST", f"/live/{name}?batch", b'[1, {"a": [2]}, "x y"]', headers)
    await request(server.port, "POST", f"/live/{name}", b"[1, 2]", headers)
    assert await shown(server, name) == b'1\n{"a":[2]}\n"x y"\n[1,2]\n'
    refused = await request(server.port, "POST", f"/live/{name}?batch", b"[1, 2", headers)
    assert refused.status == 422
    assert await shown(server, name) == b'1\n{"a":[2]}\n"x y"\n[1,2]\n'
