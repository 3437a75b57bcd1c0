"""An independent linter of HTTP messages, the one in REDbot, reads real answers and has nothing against them."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping

import pytest
from httplint import HttpRequestLinter, HttpResponseLinter, Note, levels

from resuming import PARTIAL, Client
from servers import Server
from wire import Connection, request

ALLOWED: Mapping[str, str] = {
    "STATUS_BAD_REQUEST": "the request is bad: that is what is to be told",
    "REQUEST_HDR_IN_RESPONSE": "a 415 tells with Accept-Encoding what would be accepted (RFC 9110 section 12.5.3)",
    "PARTIAL_WITHOUT_RANGE": "several ranges have theirs in the parts, and none up here (RFC 9110 section 15.3.7.2)",
    "STORE_PUBLIC_UNNECESSARY": "the Durable Streams protocol has it said, for caches that do not know better (10.1)",
    "FRESHNESS_NO_CACHE_NO_VALIDATOR": "what has no end has no validator; no-cache is what that protocol has there",
    "LOCATION_UNDEFINED": "who replaces a file is told its URL, like who creates it",
}
"""Notes that are let pass, and why."""

LARGEST = 2**53 - 1
JSON, TEXT = {"content-type": "application/json"}, {"content-type": "text/plain"}


async def complaints(
    port: int, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
) -> tuple[int, list[str]]:
    """Make a request, and return its status and what the linter says against the answer."""
    fields = {**headers, **({} if body is None else {"content-length": str(len(body))})}
    asked = HttpRequestLinter(start_time=time.time())
    asked.process_request_topline(method.encode(), f"http://127.0.0.1:{port}{path}".encode(), b"1.1")
    asked.process_headers(_raw({"host": "127.0.0.1", **fields}))
    asked.finish_content(True)
    async with Connection(port) as connection:
        await connection.begin(method, path, fields)
        await connection.write(body or b"")
        status = await connection.head()
        answer = HttpResponseLinter(start_time=time.time())
        answer.request = asked
        answer.is_head_response = method == "HEAD"
        answer.process_response_topline(b"1.1", str(status).encode(), b"")
        answer.process_headers(_raw(connection.headers))
        endless = "length" in path
        async for data in connection.body():
            answer.feed_content(data)
            if endless:
                break
        answer.finish_content(not endless)
    found = {type(note).__name__: note.summary for note in _all(answer.notes) if _counts(note)}
    if "multipart/byteranges" not in connection.headers.get("content-type", ""):
        assert "PARTIAL_WITHOUT_RANGE" not in found
    return status, [f"{kind}: {summary}" for kind, summary in found.items() if kind not in ALLOWED]


def _raw(fields: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in fields.items()]


def _all(notes: Iterable[Note]) -> Iterator[Note]:
    for note in notes:
        yield note
        yield from _all(note.subnotes)


def _counts(note: Note) -> bool:
    return note.level in {levels.BAD, levels.WARN}


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status"),
    [
        ("GET", "/files/@", None, {}, 200),
        ("HEAD", "/files/@", None, {}, 200),
        ("GET", "/files/@?download", None, {}, 200),
        ("GET", "/files/@?download=na%C3%AFve.txt", None, {}, 200),
        ("GET", "/files/@", None, {"want-repr-digest": "sha-256=1"}, 200),
        ("GET", "/files/@", None, {"range": "bytes=0-99"}, 206),
        ("GET", "/files/@", None, {"range": "bytes=-5"}, 206),
        ("GET", "/files/@", None, {"range": "bytes=0-9,5000-5009"}, 206),
        ("GET", "/files/@", None, {"if-none-match": "*"}, 304),
        ("HEAD", "/files/@", None, {"if-none-match": "*"}, 304),
        ("GET", "/files/@", None, {"if-match": '"x"'}, 412),
        ("GET", "/files/@", None, {"range": "bytes=99999-"}, 416),
        ("GET", "/files/@?follow", None, {}, 200),
        ("GET", "/files/@none", None, {}, 404),
        ("HEAD", "/files/@none", None, {}, 404),
        ("GET", "/files/@/../x", None, {}, 400),
        ("GET", "/files/?prefix=@", None, {}, 200),
        ("GET", "/files/?limit=x", None, {}, 400),
        ("OPTIONS", "/files/@", None, {}, 204),
        ("PATCH", "/files/@", b"x", {}, 405),
        ("PUT", "/files/@new", b"x", TEXT, 201),
        ("PUT", "/files/@new", b"x", {**TEXT, "want-repr-digest": "sha-512=1", "stream-ttl": "100"}, 201),
        ("PUT", "/files/@@", b"x", TEXT, 200),
        ("PUT", "/files/@-open", b"x", TEXT, 409),
        ("PUT", "/files/@new", b"x", {"content-encoding": "gzip"}, 415),
        ("POST", "/files/", b"x", TEXT, 201),
        ("DELETE", "/files/@@", None, {}, 204),
        ("GET", "/files/@-open", None, {}, 200),
        ("GET", "/files/@-open", None, {"range": "bytes=0-1"}, 206),
        ("GET", "/files/@-open?follow&of-any-length", None, {}, 200),
        ("GET", "/files/@-open?of-any-length", None, {"range": f"bytes=1-{LARGEST}"}, 206),
        ("POST", "/live/@new", b"{}", JSON, 201),
        ("POST", "/live/@-open", b"{}", JSON, 200),
        ("POST", "/live/@-open", b"{", JSON, 422),
        ("POST", "/live/@-open", b"x", {"content-type": "image/png"}, 415),
        ("OPTIONS", "/live/@-open", None, {}, 204),
        ("GET", "/live/@-open?offset=0&of-any-length", None, {}, 200),
        ("HEAD", "/live/@-open", None, {}, 200),
        ("GET", "/live/@?offset=0", None, {}, 200),
        ("GET", "/live/@", None, {"last-event-id": "10000"}, 204),
        ("GET", "/live/@-open?offset=1", None, {}, 410),
        ("PUT", "/v1/stream/@new", b"x", TEXT, 201),
        ("PUT", "/v1/stream/@-open", None, JSON, 200),
        ("PUT", "/v1/stream/@-open", None, TEXT, 409),
        ("POST", "/v1/stream/@-open", b"{}", JSON, 204),
        ("POST", "/v1/stream/@-open", b"[]", JSON, 400),
        ("GET", "/v1/stream/@", None, {}, 200),
        ("GET", "/v1/stream/@-open", None, {}, 200),
        ("GET", "/v1/stream/@-open?offset=now", None, {}, 200),
        ("GET", "/v1/stream/@-open", None, {"if-none-match": "*"}, 304),
        ("GET", "/v1/stream/@-open?offset=-1&live=long-poll", None, {}, 200),
        ("GET", "/v1/stream/@?offset=now&live=long-poll", None, {}, 204),
        ("GET", "/v1/stream/@-open?offset=-1&live=sse&of-any-length", None, {}, 200),
        ("GET", "/v1/stream/@-open?offset=x", None, {}, 400),
        ("GET", "/v1/stream/@none", None, {}, 404),
        ("HEAD", "/v1/stream/@-open", None, {}, 200),
        ("OPTIONS", "/v1/stream/@-open", None, {}, 204),
        ("DELETE", "/v1/stream/@@", None, {}, 204),
        ("GET", "/v1/stream/__ds/jwks.json", None, {}, 200),
        ("GET", "/v1/stream/__ds/subscriptions/none", None, {}, 404),
    ],
)
async def test_nothing_is_wrong_with_the_answer(
    shared: str,
    server: Server,
    name: str,
    method: str,
    path: str,
    body: bytes | None,
    headers: dict[str, str],
    status: int,
) -> None:
    if "@@" in path:
        await request(server.port, "PUT", f"/files/{name}", b"x", TEXT)
    target = path.replace("@@", name).replace("@new", name).replace("@", shared)
    assert await complaints(server.port, method, target, body, headers) == (status, [])


@pytest.fixture(scope="module")
def shared(server: Server) -> str:
    """A file, and an open stream of that name with ``-open`` after it."""
    return asyncio.run(_shared(server, f"lint-{secrets.token_hex(4)}"))


async def _shared(server: Server, name: str) -> str:
    await request(server.port, "PUT", f"/files/{name}", b"x" * 10_000, TEXT)
    await request(server.port, "POST", f"/live/{name}-open", b"{}", JSON)
    return name


async def test_nothing_is_wrong_with_the_answers_to_a_resumable_upload(server: Server, name: str) -> None:
    client = Client(server.port, None)
    location = (await client.create(f"/files/{name}", b"abc", complete=False)).headers["location"]
    append = client.fields(True, content_type=PARTIAL)
    requests: list[tuple[str, str, bytes | None, dict[str, str], int]] = [
        ("PUT", f"/files/{name}-one", b"abc", client.fields(True, **TEXT), 201),
        ("PUT", f"/files/{name}-two", b"abc", client.fields(False, **TEXT), 201),
        ("PUT", f"/files/{name}-two", b"abc", client.fields(True, upload_length="9"), 400),
        ("HEAD", location, None, {}, 204),
        ("GET", location, None, {}, 204),
        ("PATCH", location, b"x", {**append, "upload-offset": "9"}, 409),
        ("PATCH", location, b"x", {**append, "upload-offset": "3", "content-type": "image/png"}, 415),
        ("PATCH", location, b"d", {**append, "upload-offset": "3", "upload-complete": "?0"}, 204),
        ("PATCH", location, b"ef", {**append, "upload-offset": "4"}, 201),
        ("PATCH", location, b"", {**append, "upload-offset": "6"}, 201),
        ("DELETE", location, None, {}, 204),
        ("HEAD", location, None, {}, 404),
        ("OPTIONS", f"/files/{name}", None, {}, 204),
    ]
    for method, path, body, headers, status in requests:
        assert (await complaints(server.port, method, path, body, headers)) == (status, []), (method, path, headers)
