"""Conditional requests (RFC 9110 section 13) on a file: what is sent, what is left alone, what goes with a 304."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime

import pytest

from servers import Server
from wire import Answer, Connection, request

BODY = b"what there is"
PAST, FUTURE = "Sat, 01 Jan 2000 00:00:00 GMT", format_datetime(datetime.now(UTC) + timedelta(days=1), usegmt=True)


async def prepared(server: Server, name: str) -> tuple[str, Answer]:
    path = f"/files/{name}"
    return path, await request(server.port, "PUT", path, BODY, {"content-type": "text/plain"})


def filled(fields: Mapping[str, str], etag: str) -> dict[str, str]:
    """Write the present entity tag where ``@`` is."""
    return {name: value.replace("@", etag) for name, value in fields.items()}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"if-none-match": "@"}, 304),
        ({"if-none-match": "W/@"}, 304),
        ({"if-none-match": '"other", @ , "third"'}, 304),
        ({"if-none-match": "*"}, 304),
        ({"if-none-match": '"other"'}, 200),
        ({"if-none-match": "not quoted"}, 200),
        ({"if-modified-since": FUTURE}, 304),
        ({"if-modified-since": PAST}, 200),
        ({"if-modified-since": "yesterday"}, 200),
        ({"if-none-match": '"other"', "if-modified-since": FUTURE}, 200),
        ({"if-none-match": "@", "if-modified-since": PAST}, 304),
        ({"if-match": "@"}, 200),
        ({"if-match": "*"}, 200),
        ({"if-match": "W/@"}, 412),
        ({"if-match": '"other"'}, 412),
        ({"if-match": "not quoted"}, 412),
        ({"if-unmodified-since": FUTURE}, 200),
        ({"if-unmodified-since": PAST}, 412),
        ({"if-match": "@", "if-unmodified-since": PAST}, 200),
        ({"if-match": '"other"', "if-none-match": "@"}, 412),
        ({"if-match": "@", "if-none-match": "@"}, 304),
        ({"if-none-match": "@", "range": "bytes=0-1"}, 304),
        ({"if-match": '"other"', "range": "bytes=0-1"}, 412),
    ],
)
async def test_a_read_is_conditional(
    server: Server, name: str, method: str, fields: dict[str, str], status: int
) -> None:
    path, stored = await prepared(server, name)
    answer = await request(server.port, method, path, headers=filled(fields, stored.headers["etag"]))
    assert answer.status == status
    if status == 304:
        assert answer.body == b""
    if status == 412 and method == "GET":
        assert answer.json()["type"] == "https://penstock.dev/problems/precondition-failed"


async def test_a_304_carries_the_fields_that_a_200_would(server: Server, name: str) -> None:
    path, stored = await prepared(server, name)
    whole = await request(server.port, "GET", path)
    unchanged = await request(server.port, "GET", path, headers={"if-none-match": stored.headers["etag"]})
    assert unchanged.status == 304
    # RFC 9110 section 15.4.5; and none that would describe a body.
    for field in ("cache-control", "etag", "last-modified", "stream-state", "stream-tail", "stream-incarnation"):
        assert unchanged.headers[field] == whole.headers[field]
    assert not {"content-length", "content-type", "transfer-encoding", "content-range"} & unchanged.headers.keys()


async def test_last_modified_is_when_the_stream_changed(server: Server, name: str) -> None:
    path, stored = await prepared(server, name)
    told = parsedate_to_datetime((await request(server.port, "HEAD", path)).headers["last-modified"])
    assert told == datetime.fromisoformat(stored.json()["modified_at"]).replace(microsecond=0)


@pytest.mark.parametrize("size", [3, 100_000])
@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"if-none-match": "*"}, 412),
        ({"if-none-match": "@"}, 412),
        ({"if-none-match": '"other"'}, 200),
        ({"if-none-match": "not quoted"}, 412),
        ({"if-match": "@"}, 200),
        ({"if-match": "*"}, 200),
        ({"if-match": '"other"'}, 412),
        ({"if-match": "not quoted"}, 412),
        ({"if-unmodified-since": PAST}, 412),
        ({"if-unmodified-since": FUTURE}, 200),
        ({"if-modified-since": FUTURE}, 200),
    ],
)
async def test_a_replacement_is_conditional(
    server: Server, name: str, fields: dict[str, str], status: int, size: int
) -> None:
    path, stored = await prepared(server, name)
    answer = await request(server.port, "PUT", path, b"n" * size, filled(fields, stored.headers["etag"]))
    assert answer.status == status
    assert (await request(server.port, "GET", path)).body == (b"n" * size if status == 200 else BODY)


@pytest.mark.parametrize("size", [3, 100_000])
@pytest.mark.parametrize(
    ("fields", "status"),
    [({"if-none-match": "*"}, 201), ({"if-match": "*"}, 412), ({"if-match": '"other"'}, 412)],
)
async def test_a_creation_is_conditional(
    server: Server, name: str, fields: dict[str, str], status: int, size: int
) -> None:
    assert (await request(server.port, "PUT", f"/files/{name}", b"n" * size, fields)).status == status
    assert (await request(server.port, "GET", f"/files/{name}")).status == (200 if status == 201 else 404)


@pytest.mark.parametrize(("condition", "status"), [("if-match", 412), ("if-none-match", 200)])
async def test_the_condition_holds_when_the_upload_ends_too(
    server: Server, name: str, condition: str, status: int
) -> None:
    path, stored = await prepared(server, name)
    fields = {"transfer-encoding": "chunked", condition: stored.headers["etag"] if condition == "if-match" else '"x"'}
    async with Connection(server.port) as slow:
        await slow.begin("PUT", path, fields)
        await slow.write_chunk(b"slow" * 20_000)
        assert (await request(server.port, "PUT", path, b"quick")).status == 200
        await slow.write_chunk(b"")
        assert (await slow.answer()).status == status
    assert (await request(server.port, "GET", path)).body == (b"quick" if status == 412 else b"slow" * 20_000)


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"if-match": '"other"'}, 412),
        ({"if-unmodified-since": PAST}, 412),
        ({"if-none-match": "*"}, 412),
        ({"if-match": "@"}, 204),
        ({"if-match": "*"}, 204),
        ({}, 204),
    ],
)
async def test_a_deletion_is_conditional(server: Server, name: str, fields: dict[str, str], status: int) -> None:
    path, stored = await prepared(server, name)
    answer = await request(server.port, "DELETE", path, headers=filled(fields, stored.headers["etag"]))
    assert answer.status == status
    assert (await request(server.port, "GET", path)).status == (404 if status == 204 else 200)


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
@pytest.mark.parametrize("fields", [{"if-match": '"x"'}, {"if-none-match": "*"}, {"if-modified-since": FUTURE}])
async def test_where_there_is_nothing_conditions_do_not_count(
    server: Server, name: str, method: str, fields: dict[str, str]
) -> None:
    assert (await request(server.port, method, f"/files/{name}", headers=fields)).status == 404


async def test_the_lines_of_a_list_are_one_list(server: Server, name: str) -> None:
    path, stored = await prepared(server, name)
    async with Connection(server.port) as connection:
        await connection.begin("GET", path, {"if-none-match": f'"a"\r\nif-none-match: {stored.headers["etag"]}'})
        assert (await connection.answer()).status == 304
