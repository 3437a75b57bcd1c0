"""POST to a live stream: what is a record, who may append it, and that a repetition is written once."""

from __future__ import annotations

import asyncio
import json

import pytest

from servers import Server
from wire import Answer, Connection, request

JSON, NDJSON, TEXT = "application/json", "application/x-ndjson", "text/plain"


async def append(server: Server, name: str, body: bytes, content_type: str = JSON, **fields: str) -> Answer:
    headers = {"content-type": content_type, **{key.replace("_", "-"): value for key, value in fields.items()}}
    return await request(server.port, "POST", f"/live/{name}", body, headers)


async def shown(server: Server, name: str) -> Answer:
    return await request(server.port, "GET", f"/files/{name}")


@pytest.mark.parametrize(
    ("content_type", "body", "lines", "kind"),
    [
        (JSON, b'{"a": 1}', b'{"a":1}\n', NDJSON),
        (JSON, b' [1, 2.50,\r\n "a b"] ', b'[1,2.50,"a b"]\n', NDJSON),
        ("Application/JSON; charset=utf-8", b'"\xc3\xa9"', b'"\xc3\xa9"\n', NDJSON),
        (JSON, b"null", b"null\n", NDJSON),
        (NDJSON, b'{"a":1}\n{"b": 2}\n', b'{"a":1}\n{"b":2}\n', NDJSON),
        (NDJSON, b"1\r\n\r\n2", b"1\n2\n", NDJSON),
        ("application/jsonl", b"1\n2\n", b"1\n2\n", NDJSON),
        (TEXT, b"a line", b"a line\n", "text/plain; charset=utf-8"),
        (TEXT, b"a line\n", b"a line\n", "text/plain; charset=utf-8"),
        (TEXT, b"a line\r\n", b"a line\n", "text/plain; charset=utf-8"),
        (TEXT, b"", b"\n", "text/plain; charset=utf-8"),
        ("text/plain; charset=ISO-8859-1", b"\xe9", b"\xc3\xa9\n", "text/plain; charset=utf-8"),
        ('text/plain; format=flowed; Charset="utf-8"; x=y', b"\xc3\xa9", b"\xc3\xa9\n", "text/plain; charset=utf-8"),
    ],
)
async def test_a_record_is_a_line_of_the_file(
    server: Server, name: str, content_type: str, body: bytes, lines: bytes, kind: str
) -> None:
    created = await append(server, name, body, content_type)
    assert created.status == 201
    assert created.json() == {"name": name, "offset": len(lines), "duplicate": False}
    assert (created.headers["stream-state"], created.headers["stream-tail"]) == ("open", str(len(lines)))
    again = await append(server, name, body, content_type)
    assert (again.status, again.json()["offset"]) == (200, 2 * len(lines))
    answer = await shown(server, name)
    assert (answer.body, answer.headers["content-type"]) == (2 * lines, kind)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (JSON, b""),
        (JSON, b"{"),
        (JSON, b"1 2"),
        (JSON, b"NaN"),
        (JSON, b"\xef\xbb\xbf1"),
        (JSON, b'"\xff"'),
        (JSON, b'"a\nb"'),
        (JSON, b"[" * 1000),
        (NDJSON, b"1\n{\n3\n"),
        (TEXT, b"two\nlines"),
        (TEXT, b"a\rb"),
        (TEXT, b"a\n\n"),
        (TEXT, b"a\0b"),
        (TEXT, b"\xff"),
        ("text/plain; charset=utf-16", b"a\0"),
        ("text/plain; charset=no-such", b"a"),
    ],
)
async def test_what_is_no_record_leaves_nothing(server: Server, name: str, content_type: str, body: bytes) -> None:
    refused = await append(server, name, body, content_type)
    assert (refused.status, refused.json()["type"]) == (422, "https://penstock.dev/problems/invalid-record")
    assert (await shown(server, name)).status == 404
    await append(server, name, b"1" if content_type != TEXT else b"line", content_type.partition(";")[0])
    before = (await shown(server, name)).body
    assert (await append(server, name, body, content_type)).status == 422
    assert (await shown(server, name)).body == before


async def test_a_record_of_megabytes_is_checked_and_kept(server: Server, name: str) -> None:
    body = json.dumps(["x" * 100] * 30_000).encode()
    assert (await append(server, name, body)).status == 201
    assert json.loads((await shown(server, name)).body) == json.loads(body)
    assert (await append(server, name, body[:-1])).status == 422


async def test_a_client_that_goes_away_within_its_record_appended_nothing(server: Server, name: str) -> None:
    await append(server, name, b"1")
    async with Connection(server.port) as connection:
        await connection.begin("POST", f"/live/{name}", {"content-type": JSON, "content-length": "10"})
        await connection.write(b"2")
    async with Connection(server.port) as connection:
        await connection.begin("POST", f"/live/{name}", {"content-type": JSON, "transfer-encoding": "chunked"})
        await connection.write_chunk(b"3")
    assert (await append(server, name, b"4")).json()["offset"] == 4
    assert (await shown(server, name)).body == b"1\n4\n"


async def test_appends_at_a_time_are_all_there_and_whole(server: Server, name: str) -> None:
    async def producer(number: int) -> None:
        async with Connection(server.port) as connection:
            for index in range(10):
                record = json.dumps([number, index, "x" * 100 * index]).encode()
                answer = await connection.request("POST", f"/live/{name}", record, {"content-type": JSON})
                assert answer.status in {200, 201}

    await asyncio.gather(*(producer(number) for number in range(8)))
    records = [json.loads(line)[:2] for line in (await shown(server, name)).body.splitlines()]
    assert len(records) == 80
    for number in range(8):
        assert [index for by, index in records if by == number] == list(range(10))


@pytest.mark.parametrize("content_type", [None, JSON, NDJSON, TEXT, "application/x-www-form-urlencoded"])
async def test_an_empty_append_can_close(server: Server, name: str, content_type: str | None) -> None:
    await append(server, name, b"1")
    fields = (
        {"stream-closed": "true"} if content_type is None else {"stream-closed": "true", "content-type": content_type}
    )
    for _ in range(2):  # again is harmless
        closed = await request(server.port, "POST", f"/live/{name}", b"", fields)
        assert (closed.status, closed.json()["offset"], closed.headers["stream-state"]) == (200, 2, "closed")
    assert (await shown(server, name)).body == b"1\n"
    refused = await append(server, name, b"2")
    assert (refused.status, refused.json()["tail"]) == (409, 2)


async def test_the_last_record_can_close(server: Server, name: str) -> None:
    await append(server, name, b"1")
    closed = await append(server, name, b"2", stream_closed="True")
    assert (closed.status, closed.headers["stream-state"]) == (200, "closed")
    assert ((await shown(server, name)).body, (await shown(server, name)).headers["stream-state"]) == (
        b"1\n2\n",
        "closed",
    )


async def test_a_stream_can_be_created_and_closed_at_once(server: Server, name: str) -> None:
    closed = await append(server, name, b"1", stream_closed="true", stream_ttl="100")
    assert (closed.status, closed.headers["stream-state"]) == (201, "closed")
    assert "stream-expires-at" in closed.headers


async def test_a_repeated_append_is_written_once(server: Server, name: str) -> None:
    for sequence in ("0", "0", "1", "0", "1", "2"):
        answer = await append(
            server, name, sequence.encode(), producer_id="p", producer_epoch="0", producer_seq=sequence
        )
        assert answer.status in {200, 201}
    assert (await shown(server, name)).body == b"0\n1\n2\n"
    assert answer.json() == {"name": name, "offset": 6, "duplicate": False}
    again = await append(server, name, b"2", producer_id="p", producer_epoch="0", producer_seq="2")
    assert (again.status, again.json()) == (200, {"name": name, "offset": 6, "duplicate": True})


async def test_a_repeated_batch_that_closed_is_recognised(server: Server, name: str) -> None:
    fields = {"producer_id": "p", "producer_epoch": "3", "producer_seq": "0", "stream_closed": "true"}
    answers = [await append(server, name, b"1\n2\n", NDJSON, **fields) for _ in range(3)]
    assert [answer.status for answer in answers] == [201, 200, 200]
    assert [answer.json()["duplicate"] for answer in answers] == [False, True, True]
    assert (await shown(server, name)).body == b"1\n2\n"


async def test_a_new_epoch_fences_the_old_one_off(server: Server, name: str) -> None:
    async def by(epoch: int, sequence: int, identity: str = "p") -> Answer:
        return await append(
            server,
            name,
            json.dumps([epoch, sequence]).encode(),
            producer_id=identity,
            producer_epoch=str(epoch),
            producer_seq=str(sequence),
        )

    assert [(await by(1, 0)).status, (await by(1, 1)).status, (await by(2, 0)).status] == [201, 200, 200]
    fenced = await by(1, 2)
    assert (fenced.status, fenced.json()["current_epoch"]) == (403, 2)
    skipped = await by(2, 2)
    assert (skipped.status, skipped.json()["expected"]) == (409, 1)
    jumped = await by(3, 1)
    assert (jumped.status, jumped.json()["expected"]) == (409, 0)
    assert (await by(1, 0, "another")).status == 200
    assert (await by(2, 1)).status == 200
    assert (await shown(server, name)).body == b"[1,0]\n[1,1]\n[2,0]\n[1,0]\n[2,1]\n"


async def test_a_refused_record_does_not_use_up_its_number(server: Server, name: str) -> None:
    fields = {"producer_id": "p", "producer_epoch": "0", "producer_seq": "0"}
    assert (await append(server, name, b"{", **fields)).status == 422
    assert (await append(server, name, b"{}", **fields)).json()["duplicate"] is False


@pytest.mark.parametrize(
    "fields",
    [
        {"producer_id": "p"},
        {"producer_epoch": "0", "producer_seq": "0"},
        {"producer_id": "p", "producer_epoch": "0"},
        {"producer_id": "p", "producer_epoch": "-1", "producer_seq": "0"},
        {"producer_id": "p", "producer_epoch": "0", "producer_seq": "x"},
        {"producer_id": "p", "producer_epoch": "0", "producer_seq": "9" * 16},
        {"producer_id": "p" * 257, "producer_epoch": "0", "producer_seq": "0"},
    ],
)
async def test_half_a_producer_is_refused(server: Server, name: str, fields: dict[str, str]) -> None:
    assert (await append(server, name, b"1", **fields)).status == 400
    assert (await shown(server, name)).status == 404


async def test_nobody_appends_to_an_upload_that_is_under_way(server: Server, name: str) -> None:
    async with Connection(server.port) as uploader:
        await uploader.begin("PUT", f"/files/{name}", {"transfer-encoding": "chunked", "content-type": NDJSON})
        await uploader.write_chunk(b"1\n")
        while (await shown(server, name)).body != b"1\n":
            pass
        refused = await append(server, name, b"2")
        assert (refused.status, refused.json()["type"]) == (409, "https://penstock.dev/problems/stream-busy")
        await uploader.write_chunk(b"")
        assert (await uploader.answer()).status == 201
