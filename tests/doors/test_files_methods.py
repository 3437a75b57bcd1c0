"""Which methods there are, that HEAD is GET without a body, and that every refusal is a problem."""

from __future__ import annotations

import pytest

from servers import Server
from wire import Answer, Connection, request

COLLECTION, FILE, LIVE = (
    "GET, HEAD, OPTIONS, POST",
    "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT",
    "GET, HEAD, OPTIONS, POST",
)
URLS = [("/files/", COLLECTION), ("/files/x", FILE), ("/files/a/b", FILE), ("/live/x", LIVE)]


def check_problem(answer: Answer, status: int, slug: str) -> None:
    assert (answer.status, answer.headers["content-type"]) == (status, "application/problem+json")
    assert answer.headers["cache-control"] == "no-store"
    problem = answer.json()
    assert problem["type"] == f"https://penstock.dev/problems/{slug}"
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]


@pytest.mark.parametrize(("path", "allow"), URLS)
async def test_options_tells_the_methods(server: Server, path: str, allow: str) -> None:
    answer = await request(server.port, "OPTIONS", path)
    assert (answer.status, answer.headers["allow"], answer.body) == (204, allow, b"")


@pytest.mark.parametrize(("path", "allow"), URLS)
async def test_every_other_method_is_a_405_that_tells_them_too(server: Server, path: str, allow: str) -> None:
    methods = {"GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND", "MKCOL", "MKACTIVITY", "PURGE"}
    for method in sorted(methods - set(allow.split(", "))):
        answer = await request(server.port, method, path, b"x")
        check_problem(answer, 405, "method-not-allowed")
        assert answer.headers["allow"] == allow


async def test_head_has_the_fields_of_get(server: Server, name: str) -> None:
    fields = {"content-disposition": 'attachment; filename="f"', "stream-ttl": "1000"}
    await request(server.port, "PUT", f"/files/{name}", b"x" * 1000, fields)
    await request(server.port, "POST", f"/live/{name}-open", b"{}", {"content-type": "application/json"})
    targets = [f"/files/{name}", f"/files/{name}?download", f"/files/{name}-open", f"/files/?prefix={name}"]
    targets += [f"/live/{name}-open", f"/files/{name}-none", "/files/../x", f"/live/{name}-none", "/files/?limit=0"]
    for target in targets:
        async with Connection(server.port) as connection:
            await connection.begin("GET", target)
            await connection.head()
            status, wanted = connection.status, dict(connection.headers)
        head = await request(server.port, "HEAD", target)
        assert (head.status, head.body) == (status, b"")
        wanted.pop("transfer-encoding", None)
        assert head.headers == {**wanted, "date": head.headers["date"]}, target


async def test_head_of_a_connection_leaves_it_usable(server: Server, name: str) -> None:
    async with Connection(server.port) as connection:
        for _ in range(3):
            await connection.request("PUT", f"/files/{name}", b"x" * 1000)
            assert (await connection.request("HEAD", f"/files/{name}")).headers["content-length"] == "1000"
            assert (await connection.request("GET", f"/files/{name}-none")).status == 404
            assert (await connection.request("GET", f"/files/{name}", headers={"range": "bytes=2000-"})).status == 416
            assert len((await connection.request("GET", f"/files/{name}")).body) == 1000


JSON = {"content-type": "application/json"}
PRODUCER = {**JSON, "producer-id": "p", "producer-epoch": "5", "producer-seq": "0"}


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status", "slug"),
    [
        ("GET", "/files/@none", None, {}, 404, "not-found"),
        ("DELETE", "/files/@none", None, {}, 404, "not-found"),
        ("GET", "/live/@none", None, {}, 404, "not-found"),
        ("GET", "/nowhere", None, {}, 404, "not-found"),
        ("PUT", "/files/a//b", b"x", {}, 400, "invalid-name"),
        ("PUT", "/files/a%2fb", b"x", {}, 400, "bad-request"),
        ("PUT", "/files/@file", b"x", {"content-type": "text"}, 400, "bad-request"),
        ("PUT", "/files/@file", b"x", {"content-encoding": "br"}, 415, "unsupported-media-type"),
        ("PUT", "/files/@file", b"x", {"content-range": "bytes 0-0/1"}, 400, "bad-request"),
        ("PUT", "/files/@file", b"x", {"repr-digest": "sha-256"}, 400, "bad-request"),
        ("PUT", "/files/@file", b"x", {"repr-digest": f"sha-256=:{'A' * 43}=:"}, 400, "digest-mismatch"),
        ("PUT", "/files/@file", b"x", {"if-none-match": "*"}, 412, "precondition-failed"),
        ("PUT", "/files/@open", b"x", {}, 409, "stream-is-open"),
        ("GET", "/files/@file", None, {"if-match": '"x"'}, 412, "precondition-failed"),
        ("GET", "/files/@file", None, {"range": "bytes=99-"}, 416, "range-not-satisfiable"),
        ("GET", "/files/@open?follow", None, {"range": "bytes=99-"}, 416, "range-not-satisfiable"),
        ("DELETE", "/files/@file", None, {"if-match": '"x"'}, 412, "precondition-failed"),
        ("GET", "/files/?limit=x", None, {}, 400, "bad-request"),
        ("POST", "/files/?prefix=/", b"x", {}, 400, "invalid-name"),
        ("POST", "/live/@open", b"{", JSON, 422, "invalid-record"),
        ("POST", "/live/@open", b"x", {"content-type": "image/png"}, 415, "unsupported-media-type"),
        ("POST", "/live/@open", b"x", {}, 415, "unsupported-media-type"),
        ("POST", "/live/@open", b"{}", {**JSON, "content-encoding": "gzip"}, 415, "unsupported-media-type"),
        ("POST", "/live/@open", b"x", {"content-type": "text/plain"}, 409, "content-type-mismatch"),
        ("POST", "/live/@open", b"{}", {**JSON, "stream-closed": "maybe"}, 400, "bad-request"),
        ("POST", "/live/@open", b"{}", {**JSON, "producer-id": "p"}, 400, "bad-request"),
        ("POST", "/live/@open", b"{}", {**PRODUCER, "producer-epoch": "4"}, 403, "producer-fenced"),
        ("POST", "/live/@open", b"{}", {**PRODUCER, "producer-seq": "2"}, 409, "producer-out-of-sequence"),
        ("POST", "/live/@open", b"0" * (4 * 1024 * 1024 + 1), JSON, 413, "too-large"),
        ("POST", "/live/@file", b"{}", JSON, 409, "stream-closed"),
        ("POST", "/live/@none", b"", {"stream-closed": "true"}, 404, "not-found"),
        ("GET", "/live/@open?offset=x", None, {}, 400, "bad-request"),
        ("GET", "/live/@open?offset=1", None, {}, 410, "offset-out-of-range"),
        ("GET", "/live/@open?offset=99", None, {}, 410, "offset-out-of-range"),
    ],
)
async def test_every_refusal_is_a_problem(
    server: Server,
    name: str,
    method: str,
    path: str,
    body: bytes | None,
    headers: dict[str, str],
    status: int,
    slug: str,
) -> None:
    await request(server.port, "PUT", f"/files/{name}file", b"x")
    await request(server.port, "POST", f"/live/{name}open", b"{}", PRODUCER)
    check_problem(await request(server.port, method, path.replace("@", name), body, headers), status, slug)


@pytest.mark.parametrize("method", ["PATCH", "POST"])
async def test_a_stream_takes_only_uploads_that_resume_by_these(server: Server, name: str, method: str) -> None:
    answer = await request(server.port, method, f"/files/{name}", b"x")
    check_problem(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == "DELETE, GET, HEAD, OPTIONS, PUT"
