"""Uploads: sources, digests, retries, and what the server refuses."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.client import Client, CorruptTransfer, RemoteStream, ServerError, SourceChanged, Unreachable
from penstock.client.retry import Backoff
from penstock.errors import InvalidName, PreconditionFailed, StorageFull, StreamIsOpen, StreamNotFound
from penstock.protocols.digest import format_digests
from penstock.protocols.problem import Problem, type_uri
from scripted import Asked, Reply, ScriptedServer

BIG = os.urandom(3 * 1024 * 1024 + 17)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backoff, "pause", lambda _self, _failures: 0.001)


def stored(asked: Asked, **changes: Any) -> Reply:
    """Answer a PUT as the server does that has stored the body."""
    digest = hashlib.sha256(asked.body).digest()
    name = asked.path.removeprefix("/files/")
    document = {
        "name": name,
        "url": asked.path,
        "state": "closed",
        "tail": len(asked.body),
        "length": len(asked.body),
        "content_type": asked.headers["content-type"],
        "etag": '"1-5"',
        "incarnation": "1",
        "created_at": "2026-01-02T03:04:05.678901Z",
        **changes,
    }
    return Reply(201, {"repr-digest": format_digests({"sha-256": digest})}, json.dumps(document).encode())


def problem(slug: str, status: int, **extra: Any) -> Reply:
    body = Problem(type=type_uri(slug), title="T", status=status, detail="Told in detail.", extra=extra).to_bytes()
    return Reply(status, {"content-type": "application/problem+json"}, body)


def store(asked: Asked) -> Reply:
    return stored(asked) if asked.method == "PUT" else Reply(404)


def put(server: ScriptedServer, source: Any, name: str = "a/b.csv", **options: Any) -> RemoteStream:
    async def run() -> RemoteStream:
        async with Client(server.url, retries=5) as client:
            return await client.put(source, name, **options)

    return asyncio.run(run())


def as_path(data: bytes, folder: Path) -> Path:
    path = folder / "file.bin"
    path.write_bytes(data)
    return path


def as_iterator(data: bytes, _: Path) -> Iterator[bytes]:
    yield b""
    for start in range(0, len(data), 100_000):
        yield data[start : start + 100_000]


async def as_async_iterator(data: bytes, _: Path) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 100_000):
        yield data[start : start + 100_000]


SOURCES: dict[str, Callable[[bytes, Path], Any]] = {
    "path": as_path,
    "str": lambda data, folder: str(as_path(data, folder)),
    "bytes": lambda data, _: data,
    "memoryview": lambda data, _: memoryview(bytearray(data)),
    "file": lambda data, folder: as_path(data, folder).open("rb"),
    "BytesIO": lambda data, _: io.BytesIO(data),
    "iterator": as_iterator,
    "list": lambda data, folder: list(as_iterator(data, folder)),
    "async iterator": as_async_iterator,
}


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("data", [b"", b"x", BIG], ids=["empty", "one", "big"])
def test_every_source_arrives_whole(kind: str, data: bytes, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    source = SOURCES[kind](data, tmp_path)
    with ScriptedServer(store) as server:
        stream = put(server, source, progress=lambda done, total, /: seen.append((done, total)))
    if hasattr(source, "close"):
        source.close()
    asked = server.asked[-1]
    assert asked.body == data
    assert asked.headers["want-repr-digest"] == "sha-256=1"
    assert asked.headers["content-type"] == "text/csv"
    known = kind not in {"iterator", "list", "async iterator"}
    assert asked.headers.get("content-length") == (str(len(data)) if known else None)
    assert (stream.tail, stream.etag, stream.url) == (len(data), '"1-5"', server.url + "/files/a/b.csv")
    assert seen[0][0] == 0
    assert seen[-1] == (len(data), len(data) if known else None)


def test_a_file_is_sent_from_where_it_stands() -> None:
    file = io.BytesIO(b"0123456789")
    file.seek(4)
    with ScriptedServer(store, takes=[2]) as server:
        put(server, file)
    assert server.asked[-1].body == b"456789"


def test_names_are_percent_encoded_and_checked() -> None:
    with ScriptedServer(store) as server:
        put(server, b"x", "a b/ü%2F?#.txt")
        assert server.asked[-1].path == "/files/a%20b/%C3%BC%252F%3F%23.txt"
        with pytest.raises(InvalidName):
            put(server, b"x", "../x")


def test_conditions_and_expiry_are_header_fields() -> None:
    with ScriptedServer(store) as server:
        put(server, b"x", if_none_match=True, ttl=59.5, content_type="text/x")
        put(server, b"x", if_match='"e"', verify=False)
    first, second = (asked.headers for asked in server.asked)
    assert (first["if-none-match"], first["stream-ttl"], first["content-type"]) == ("*", "60", "text/x")
    assert second["if-match"] == '"e"'
    assert "want-repr-digest" not in second


@pytest.mark.parametrize("kind", ["path", "bytes", "file", "list"])
def test_a_broken_upload_is_sent_again_from_its_start(kind: str, tmp_path: Path) -> None:
    source = SOURCES[kind](BIG, tmp_path)
    with ScriptedServer(store, takes=[0, 1_500_000]) as server:
        put(server, source)
    if hasattr(source, "close"):
        source.close()
    assert server.asked[-1].body == BIG
    assert server.methods().count("PUT") == 3


@pytest.mark.parametrize("kind", ["iterator", "async iterator"])
def test_what_cannot_be_rewound_is_not_sent_twice(kind: str, tmp_path: Path) -> None:
    with ScriptedServer(store, takes=[1_500_000]) as server, pytest.raises(Unreachable):
        put(server, SOURCES[kind](BIG, tmp_path))
    assert server.methods().count("PUT") == 1


def test_an_iterator_waits_for_a_server_that_is_not_there_yet(tmp_path: Path) -> None:
    def script(asked: Asked) -> Reply | None:
        return None if len(server.asked) < 3 else store(asked)

    with ScriptedServer(script) as server:
        put(server, as_iterator(BIG, tmp_path))
    assert server.asked[-1].body == BIG


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_later_is_an_answer_to_wait_for(status: int) -> None:
    def script(asked: Asked) -> Reply:
        return Reply(status, {"retry-after": "0"}) if len(server.asked) < 4 else stored(asked)

    with ScriptedServer(script) as server:
        put(server, b"x")
    assert len(server.asked) == 4


def test_retry_after_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr("penstock.client.retry.anyio.sleep", sleep)

    def script(asked: Asked) -> Reply:
        return Reply(503, {"retry-after": "7"}) if len(server.asked) < 2 else stored(asked)

    with ScriptedServer(script) as server:
        put(server, b"x")
    assert waited == [7.0]


def test_giving_up_raises_what_happened_last() -> None:
    with ScriptedServer(lambda _: Reply(503, {}, b"no JSON")) as server, pytest.raises(ServerError) as caught:
        put(server, b"x")
    assert caught.value.status == 503
    assert len(server.asked) == 6
    with pytest.raises(Unreachable, match="is the server running"):
        put(server, b"x")


def test_a_server_that_got_other_bytes_is_told_apart() -> None:
    def script(asked: Asked) -> Reply:
        asked.body += b"!"
        return stored(asked)

    with ScriptedServer(script) as server, pytest.raises(CorruptTransfer) as caught:
        put(server, b"x")
    assert caught.value.actual == hashlib.sha256(b"x").digest()
    assert caught.value.expected == hashlib.sha256(b"x!").digest()


@pytest.mark.parametrize(
    ("slug", "status", "kind"),
    [
        ("stream-is-open", 409, StreamIsOpen),
        ("precondition-failed", 412, PreconditionFailed),
        ("storage-full", 507, StorageFull),
        ("not-found", 404, StreamNotFound),
        ("too-large", 413, ServerError),
        ("brand-new", 418, ServerError),
    ],
)
def test_problems_become_errors_of_the_domain(slug: str, status: int, kind: type[Exception]) -> None:
    with ScriptedServer(lambda _: problem(slug, status, max_size=3)) as server, pytest.raises(kind) as caught:
        put(server, b"x")
    assert "Told in detail." in str(caught.value)
    if isinstance(caught.value, ServerError):
        assert (caught.value.slug, caught.value.extra) == (slug, {"max_size": 3})


def test_nothing_large_is_sent_to_be_refused() -> None:
    def script(asked: Asked) -> Reply:
        if asked.method == "POST":  # no tus here
            return Reply(405)
        assert asked.method == "HEAD"
        return Reply(200, {"stream-state": "open" if "open" in asked.path else "closed", "etag": '"1"'})

    with ScriptedServer(script) as server:
        with pytest.raises(StreamIsOpen):
            put(server, BIG, "open")
        with pytest.raises(PreconditionFailed):
            put(server, BIG, "closed", if_none_match=True)
        with pytest.raises(PreconditionFailed):
            put(server, iter([b"x"]), "closed", if_match='"2"')
    assert server.methods() == ["POST", "HEAD"] * 3


def test_the_lost_answer_to_a_conditional_put_is_made_up_for() -> None:
    kept: list[bytes] = []

    def script(asked: Asked) -> Reply | None:
        if asked.method == "HEAD":
            digest = {"repr-digest": format_digests({"sha-256": hashlib.sha256(kept[0]).digest()})}
            return Reply(200, digest | {"stream-state": "closed"})
        if kept:
            return problem("precondition-failed", 412)
        kept.append(asked.body)
        return None

    with ScriptedServer(script) as server:
        stream = put(server, b"mine", if_none_match=True)
        assert stream.digests["sha-256"] == hashlib.sha256(b"mine").digest()
        kept[:] = [b"another's"]
        with pytest.raises(PreconditionFailed):
            put(server, b"mine", if_none_match=True)


def test_ones_own_broken_try_is_waited_for() -> None:
    def script(asked: Asked) -> Reply | None:
        if asked.method == "HEAD":
            return Reply(200, {"stream-state": "open"})
        return problem("stream-is-open", 409) if server.methods().count("PUT") < 4 else stored(asked)

    with ScriptedServer(script, takes=[1]) as server:
        put(server, b"mine")
    assert server.asked[-1].body == b"mine"


def test_a_file_that_shrinks_is_no_whole_upload(tmp_path: Path) -> None:
    path = as_path(BIG, tmp_path)

    def shrink(done: int, _total: int | None, /) -> None:
        if not done:
            os.truncate(path, 10)

    with ScriptedServer(store) as server, pytest.raises(SourceChanged, match=str(len(BIG))):
        put(server, path, progress=shrink)


@pytest.mark.parametrize("wrong", [3, [1, 2], ["text"]])
def test_what_is_no_source_is_refused(wrong: Any) -> None:
    with ScriptedServer(store) as server, pytest.raises(TypeError):
        put(server, wrong)


def test_an_error_of_the_source_comes_through(tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield b"x" * 100_000
        raise ZeroDivisionError

    with ScriptedServer(store) as server:
        with pytest.raises(ZeroDivisionError):
            put(server, broken())
        with pytest.raises(FileNotFoundError):
            put(server, tmp_path / "none")
        with pytest.raises(IsADirectoryError):
            put(server, tmp_path)


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://x", "http://", "http://x/?q", ""])
def test_an_address_must_be_one_of_http(url: str) -> None:
    with pytest.raises(ValueError, match="not the address of a server"):
        Client(url)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.csv", "text/csv"),
        ("a.tar.gz", "application/gzip"),
        ("a", "application/octet-stream"),
        ("x/a.JPG", "image/jpeg"),
    ],
)
def test_content_types_are_guessed(name: str, kind: str) -> None:
    with ScriptedServer(store) as server:
        assert put(server, b"", name).content_type == kind
