"""PUT and POST of whole files: what is stored, what is answered, and what is never seen."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from fastapi import FastAPI

from applications import serving
from penstock import StorageFull, Streams
from penstock.notifiers.inprocess import InProcessNotifier
from penstock.stores.memory import MemoryStore
from penstock.testing import FaultyStore
from servers import Server
from wire import Connection, request, until

OLD = b"the old one"
CHUNKED = {"transfer-encoding": "chunked"}


async def put(server: Server, name: str, body: bytes, **fields: str) -> Any:
    headers = {field.replace("_", "-"): value for field, value in fields.items()}
    return await request(server.port, "PUT", f"/files/{name}", body, headers)


async def test_a_new_file_is_described_and_read_back(server: Server, name: str) -> None:
    stored = await put(server, name, b"hello", content_type="text/x-own; charset=utf-8")
    assert stored.status == 201
    assert stored.headers["location"] == f"/files/{name}"
    assert (stored.headers["stream-state"], stored.headers["stream-tail"]) == ("closed", "5")
    told = stored.json()
    assert told["etag"] == stored.headers["etag"]
    assert told["incarnation"] == stored.headers["stream-incarnation"]
    assert (told["name"], told["state"], told["tail"], told["length"]) == (name, "closed", 5, 5)
    assert told["url"] == stored.headers["location"]

    got = await request(server.port, "GET", stored.headers["location"])
    assert (got.status, got.body) == (200, b"hello")
    assert got.headers["content-type"] == "text/x-own; charset=utf-8"
    assert got.headers["etag"] == stored.headers["etag"]
    assert got.headers["content-length"] == "5"


async def test_a_replacement_is_a_200_and_a_new_incarnation(server: Server, name: str) -> None:
    first, second = await put(server, name, b"one"), await put(server, name, b"two!")
    assert (first.status, second.status) == (201, 200)
    assert first.headers["stream-incarnation"] != second.headers["stream-incarnation"]
    assert first.headers["etag"] != second.headers["etag"]
    assert (await request(server.port, "GET", f"/files/{name}")).body == b"two!"


@pytest.mark.parametrize("size", [0, 1, 64 * 1024, 64 * 1024 + 1, 9_000_001])
@pytest.mark.parametrize("declared", [True, False], ids=["length", "chunked"])
async def test_bodies_of_any_size_come_back_byte_for_byte(server: Server, name: str, size: int, declared: bool) -> None:
    body = random.Random(size).randbytes(size)
    path = f"/files/{name}"
    async with Connection(server.port) as connection:
        if declared:
            stored = await connection.request("PUT", path, body)
        else:
            await connection.begin("PUT", path, CHUNKED)
            for start in range(0, size, 700_001):
                await connection.write_chunk(body[start : start + 700_001])
            await connection.write_chunk(b"")
            stored = await connection.answer()
        assert (stored.status, stored.json()["tail"]) == (201, size)
        got = await connection.request("GET", path)
        assert (got.status, int(got.headers["content-length"])) == (200, size)
        assert got.body == body


@pytest.mark.parametrize(
    ("suffix", "expected"),
    [
        (".csv", "text/csv"),
        (".JSON", "application/json"),
        (".ndjson", "application/x-ndjson"),
        (".tar.gz", "application/gzip"),
        (".tgz", "application/gzip"),
        (".csv.br", "application/octet-stream"),
        (".no-such-suffix", "application/octet-stream"),
        ("", "application/octet-stream"),
        ("/.csv", "application/octet-stream"),
        (".csv/README", "application/octet-stream"),
    ],
)
async def test_without_a_content_type_the_name_tells_it(server: Server, name: str, suffix: str, expected: str) -> None:
    await put(server, name + suffix, b"x")
    assert (await request(server.port, "HEAD", f"/files/{name}{suffix}")).headers["content-type"] == expected


async def test_a_posted_file_has_the_type_of_its_file_name(server: Server) -> None:
    fields = {"content-disposition": 'attachment; filename="table.csv"'}
    assert (await request(server.port, "POST", "/files/", b"x", fields)).json()["content_type"] == "text/csv"


@pytest.mark.parametrize("value", ["text", "/", "text/", "a/b/c", "text/plain\x01", "te xt/plain", "a/" + "b" * 300])
async def test_a_content_type_that_is_none_is_refused(server: Server, name: str, value: str) -> None:
    refused = await put(server, name, b"x", content_type=value)
    assert refused.status == 400
    assert (await request(server.port, "GET", f"/files/{name}")).status == 404


async def test_a_part_of_a_file_cannot_be_put(server: Server, name: str) -> None:
    await put(server, name, OLD)
    assert (await put(server, name, b"x", content_range="bytes 0-0/11")).status == 400
    assert (await request(server.port, "GET", f"/files/{name}")).body == OLD


async def test_a_coded_body_is_refused_with_what_is_accepted(server: Server, name: str) -> None:
    refused = await put(server, name, b"x", content_encoding="gzip")
    assert (refused.status, refused.headers["accept-encoding"]) == (415, "identity")


async def test_an_upload_can_be_read_while_it_arrives_and_nobody_else_can_write_it(server: Server, name: str) -> None:
    path = f"/files/{name}"
    async with Connection(server.port) as uploader:
        await uploader.begin("PUT", path, CHUNKED)
        await uploader.write_chunk(b"first")
        await _until_tail(server, name, 5)
        seen = await request(server.port, "GET", path)
        assert (seen.status, seen.body) == (200, b"first")
        assert seen.headers["stream-state"] == "open"
        for method, body in (("PUT", b"other"), ("PUT", b"x" * 100_000)):
            refused = await request(server.port, method, path, body)
            assert (refused.status, refused.json()["type"]) == (409, "https://penstock.dev/problems/stream-is-open")
        await uploader.write_chunk(b"")
        assert (await uploader.answer()).status == 201
    assert (await request(server.port, "GET", path)).headers["stream-state"] == "closed"


@pytest.mark.parametrize("declared", [True, False], ids=["length", "chunked"])
@pytest.mark.parametrize("size", [10, 3_000_000])
async def test_of_an_upload_whose_client_goes_away_nothing_is_left(
    server: Server, name: str, size: int, declared: bool
) -> None:
    async def status() -> int:
        return (await request(server.port, "HEAD", f"/files/{name}")).status

    await _cut_off(server, name, size, declared)
    await until(status, 404)
    listed = await request(server.port, "GET", f"/files/?prefix={name}")
    assert listed.json()["streams"] == []
    assert (await put(server, name, b"again")).status == 201


@pytest.mark.parametrize("declared", [True, False], ids=["length", "chunked"])
@pytest.mark.parametrize("size", [10, 3_000_000])
async def test_a_replacement_whose_client_goes_away_leaves_the_old_file(
    server: Server, name: str, size: int, declared: bool
) -> None:
    old = await put(server, name, OLD)
    await _cut_off(server, name, size, declared)
    got = await request(server.port, "GET", f"/files/{name}")
    assert (got.body, got.headers["etag"]) == (OLD, old.headers["etag"])
    # What was cut off is in nobody's way.
    assert (await put(server, name, b"new", if_match=old.headers["etag"])).status == 200
    assert (await request(server.port, "GET", f"/files/{name}")).body == b"new"


async def test_a_name_shows_the_old_file_until_the_new_one_is_complete(server: Server, name: str) -> None:
    path = f"/files/{name}"
    await put(server, name, OLD)
    async with Connection(server.port) as uploader, Connection(server.port) as reader:
        await uploader.begin("PUT", path, CHUNKED)
        await uploader.write_chunk(b"n" * 100_000)
        for _ in range(3):
            assert (await reader.request("GET", path)).body == OLD
        await uploader.write_chunk(b"")
        assert (await uploader.answer()).status == 200
        assert (await reader.request("GET", path)).body == b"n" * 100_000


@pytest.mark.parametrize("successor", ["PUT", "DELETE"])
async def test_who_reads_a_file_finishes_it_though_it_is_replaced_or_deleted(
    server: Server, name: str, successor: str
) -> None:
    path, old = f"/files/{name}", random.Random(7).randbytes(24 * 1024 * 1024)
    await put(server, name, old)
    async with Connection(server.port, receive_buffer=65536) as reader:
        await reader.begin("GET", path)
        assert await reader.head() == 200  # the rest does not fit between the two
        body = b"new" if successor == "PUT" else None
        assert (await request(server.port, successor, path, body)).status in {200, 204}
        assert b"".join([data async for data in reader.body()]) == old


async def test_of_two_replacements_at_a_time_the_last_to_be_complete_stays(server: Server, name: str) -> None:
    path = f"/files/{name}"
    await put(server, name, OLD)
    async with Connection(server.port) as one, Connection(server.port) as two:
        for connection, data in ((one, b"1" * 70_000), (two, b"2" * 70_000)):
            await connection.begin("PUT", path, CHUNKED)
            await connection.write_chunk(data)
        for connection in (two, one):
            await connection.write_chunk(b"")
            assert (await connection.answer()).status == 200
    assert (await request(server.port, "GET", path)).body == b"1" * 70_000


async def test_an_upload_whose_stream_is_deleted_is_told(server: Server, name: str) -> None:
    path = f"/files/{name}"
    async with Connection(server.port) as uploader:
        await uploader.begin("PUT", path, CHUNKED)
        await uploader.write_chunk(b"first")
        await _until_tail(server, name, 5)
        assert (await request(server.port, "DELETE", path)).status == 204
        await uploader.write_chunk(b"second")
        await uploader.write_chunk(b"")
        gone = await uploader.answer()
    assert (gone.status, gone.json()["type"]) == (410, "https://penstock.dev/problems/stream-gone")
    assert (await request(server.port, "GET", path)).status == 404


async def test_a_posted_file_gets_a_name_of_its_own(server: Server, name: str) -> None:
    answers = [await request(server.port, "POST", f"/files/?prefix={name}/", b"body") for _ in range(2)]
    assert {answer.status for answer in answers} == {201}
    assert len({answer.headers["location"] for answer in answers}) == 2
    for answer in answers:
        assert answer.headers["location"].startswith(f"/files/{name}/")
        assert (await request(server.port, "GET", answer.headers["location"])).body == b"body"
    assert (await request(server.port, "POST", "/files/?prefix=../", b"x")).status == 400


async def test_an_expiry_is_kept_and_told(server: Server, name: str) -> None:
    stored = await put(server, name, b"x", stream_expires_at="2099-01-02T03:04:05+01:00")
    assert stored.headers["stream-expires-at"] == "2099-01-02T02:04:05.000000Z"
    assert stored.json()["expires_at"] == "2099-01-02T02:04:05.000000Z"
    ttl = await put(server, name, b"x", stream_ttl="3600")
    assert ttl.headers["stream-expires-at"] == ttl.json()["expires_at"] > ttl.json()["created_at"]


@pytest.mark.parametrize(
    "fields",
    [
        {"stream_ttl": "0"},
        {"stream_ttl": "-1"},
        {"stream_ttl": "1.5"},
        {"stream_ttl": "99999999999999999999"},
        {"stream_expires_at": "soon"},
        {"stream_expires_at": "2099-01-02T03:04:05"},
        {"stream_expires_at": "2001-01-02T03:04:05Z"},
        {"stream_expires_at": "9999-12-31T23:59:59-12:00"},
    ],
)
async def test_an_expiry_that_cannot_be_is_refused(server: Server, name: str, fields: dict[str, str]) -> None:
    assert (await put(server, name, b"x", **fields)).status == 400
    assert (await request(server.port, "GET", f"/files/?prefix={name}")).json()["streams"] == []


async def test_a_refusal_does_not_wait_for_the_body(server: Server, name: str) -> None:
    await put(server, name, OLD)
    fields = {"content-length": "1000000000", "expect": "100-continue", "if-none-match": "*"}
    async with Connection(server.port) as connection:
        await connection.begin("PUT", f"/files/{name}", fields)
        assert await connection.head() == 412  # and not 100
    async with Connection(server.port) as connection:
        await connection.begin("PUT", f"/files/{name}", {**fields, "if-none-match": '"other"'})
        assert await connection.head() == 100


async def test_a_body_past_the_limit_is_refused_as_soon_as_that_is_known(name: str) -> None:
    streams = Streams(":memory:")
    app = FastAPI(lifespan=streams.lifespan)
    app.include_router(streams.files(max_size=100_000))
    async with serving(app) as port:
        assert (await request(port, "PUT", f"/files/{name}", b"x" * 100_000)).status == 201
        async with Connection(port) as connection:
            await connection.begin("PUT", f"/files/{name}", {"content-length": "100001", "expect": "100-continue"})
            declared = await connection.answer()
        async with Connection(port) as connection:
            await connection.begin("PUT", f"/files/{name}", CHUNKED)
            await connection.write_chunk(b"x" * 100_001)  # and no last chunk
            counted = await connection.answer()
        for refused in (declared, counted):
            assert refused.status == 413
            assert refused.json()["type"] == "https://penstock.dev/problems/too-large"
            assert refused.json()["max_size"] == 100_000
        assert (await streams.info(name)).tail == 100_000


@pytest.mark.parametrize("size", [10, 200_000])
async def test_a_full_disk_is_a_507_and_leaves_what_there_was(name: str, size: int) -> None:
    store = FaultyStore(MemoryStore())
    streams = Streams(store, notifier=InProcessNotifier())
    app = FastAPI(lifespan=streams.lifespan)
    app.include_router(streams.files())
    async with serving(app) as port:
        await request(port, "PUT", f"/files/{name}", OLD)
        store.refuse(StorageFull(), skip=0 if size < 100 else 1)
        refused = await request(port, "PUT", f"/files/{name}", b"x" * size)
        assert (refused.status, refused.json()["type"]) == (507, "https://penstock.dev/problems/storage-full")
        assert (await request(port, "GET", f"/files/{name}")).body == OLD
        assert (await request(port, "PUT", f"/files/{name}", b"x" * size)).status == 200


async def _cut_off(server: Server, name: str, size: int, declared: bool) -> None:
    async with Connection(server.port) as connection:
        fields = {"content-length": str(size + 1)} if declared else CHUNKED
        await connection.begin("PUT", f"/files/{name}", fields)
        if declared:
            await connection.write(b"x" * size)
        else:
            await connection.write_chunk(b"x" * size)
        await asyncio.sleep(0.02)  # for the server to take some of it


async def _until_tail(server: Server, name: str, tail: int) -> None:
    async def probe() -> str:
        return (await request(server.port, "HEAD", f"/files/{name}")).headers.get("stream-tail", "")

    await until(probe, str(tail))
