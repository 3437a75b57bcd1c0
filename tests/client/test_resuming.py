"""Uploads that resume: after cuts, crashes of either side, elsewhere, in parts, through limits, while they grow."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fastapi import FastAPI

from applications import serving
from cutting import Cutting
from penstock import Streams
from penstock.client import Client, CorruptTransfer, ServerError, SourceBusy, SourceChanged, SyncClient, Unreachable
from penstock.client.ledger import state_folder
from penstock.client.retry import Backoff
from penstock.errors import PreconditionFailed, StreamIsOpen, StreamNotFound
from scripted import Asked, Reply, ScriptedServer
from servers import Server
from wire import until

MiB = 1024 * 1024
DATA = random.Random(5).randbytes(6 * MiB + 17)


@pytest.fixture(autouse=True)
def _own_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Backoff, "pause", lambda _self, _failures: 0.02)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.bin"
    path.write_bytes(DATA)
    return path


def read(server: Server, name: str) -> bytes:
    with SyncClient(server.url) as client:
        return b"".join(bytes(chunk.data) for chunk in client.read(name))


def notes() -> list[str]:
    return sorted(path.name for path in state_folder().glob("*"))


async def cut_short(server: Server, source: Path, name: str, after: int, **options: int | str) -> None:
    """Let an upload end early, as if the program had given up."""
    async with Cutting(server.port, [after]) as proxy, Client(f"http://127.0.0.1:{proxy.port}", retries=0) as client:
        with pytest.raises(Unreachable):
            await client.put(source, name, **options)  # type: ignore[arg-type]  # whatever the test wants


def methods(proxy: Cutting) -> list[str]:
    return [request.method for request in proxy.requests]


@pytest.mark.parametrize("kind", ["path", "bytes", "file", "iterator", "async iterator"])
async def test_a_broken_connection_is_gone_on_from(server: Server, name: str, source: Path, kind: str) -> None:
    async def slowly() -> AsyncIterator[bytes]:
        for start in range(0, len(DATA), 700_000):
            yield DATA[start : start + 700_000]

    pieces = (DATA[start : start + 700_000] for start in range(0, len(DATA), 700_000))
    opened = source.open("rb")
    given = {"path": source, "bytes": DATA, "file": opened, "iterator": pieces, "async iterator": slowly()}[kind]
    seen: list[int] = []
    async with (
        Cutting(server.port, [1_000_000, 2_000_000, 300]) as proxy,
        Client(f"http://127.0.0.1:{proxy.port}") as client,
    ):
        stream = await client.put(given, name, progress=lambda done, _total, /: seen.append(done))  # type: ignore[arg-type]  # one of them
    opened.close()
    assert (stream.tail, stream.digests != {}) == (len(DATA), True)
    assert await asyncio.to_thread(read, server, name) == DATA
    assert proxy.cuts == 3
    proxy.check_offsets()
    assert seen[-1] == len(DATA)
    assert notes() == []


async def test_what_cannot_go_on_is_given_up(server: Server, name: str) -> None:
    async def breaks() -> AsyncIterator[bytes]:
        yield bytes(100_000)
        async with Client(server.url) as other:

            async def there() -> bool:
                with_it = [stream.name async for stream in other.list(name)]
                return with_it == [name]

            await until(there, True)
        raise ValueError("enough")

    async with Client(server.url) as client:
        with pytest.raises(ValueError, match="enough"):
            await client.put(breaks(), name)
        with pytest.raises(StreamNotFound):
            await client.info(name)


async def test_another_call_goes_on_where_the_first_one_ended(server: Server, name: str, source: Path) -> None:
    async with Cutting(server.port, [3_000_000]) as proxy:
        url = f"http://127.0.0.1:{proxy.port}"
        async with Client(url, retries=0) as client:
            with pytest.raises(Unreachable):
                await client.put(source, name)
        assert len(notes()) == 1
        before = len(proxy.requests)
        async with Client(url) as client:
            await client.put(source, name)
    again = proxy.requests[before:]
    assert [request.method for request in again] == ["HEAD", "PATCH", "HEAD"]
    assert int(again[1].headers["upload-offset"]) > 2_900_000
    assert await asyncio.to_thread(read, server, name) == DATA
    assert notes() == []


async def test_another_file_does_not_go_on_with_it(server: Server, name: str, source: Path) -> None:
    async with Cutting(server.port, [3_000_000]) as proxy:
        url = f"http://127.0.0.1:{proxy.port}"
        async with Client(server.url) as direct, Client(url, retries=0) as client:
            await direct.put(b"old", name)
            with pytest.raises(Unreachable):
                await client.put(source, name)
            changed = DATA[:-1] + b"?"
            await asyncio.to_thread(source.write_bytes, changed)
            await client.put(source, name)
    assert await asyncio.to_thread(read, server, name) == changed


async def test_what_the_server_has_forgotten_is_begun_anew(server: Server, name: str, source: Path) -> None:
    async with Cutting(server.port, [3_000_000]) as proxy:
        url = f"http://127.0.0.1:{proxy.port}"
        async with Client(url, retries=0) as client:
            with pytest.raises(Unreachable):
                await client.put(source, name)
            await client.delete(name)
            await client.put(source, name)
    assert await asyncio.to_thread(read, server, name) == DATA


PUT = [sys.executable, "-m", "penstock", "put"]


@pytest.mark.slow
def test_it_goes_on_after_crashes_of_both_sides(tmp_path: Path) -> None:
    source = tmp_path / "big.bin"
    with source.open("wb") as file:
        file.truncate(200 * MiB)
    with Server(tmp_path / "data") as server:
        environment = {**os.environ, "PENSTOCK_URL": server.url}

        def tail(than: int) -> int:
            deadline = time.monotonic() + 30
            with SyncClient(server.url) as client:
                while time.monotonic() < deadline:
                    for stream in client.list("big"):
                        if stream.tail > than:
                            return stream.tail
                    time.sleep(0.005)
            raise AssertionError("no progress")

        with subprocess.Popen([*PUT, str(source), "big"], env=environment, stderr=subprocess.DEVNULL) as process:
            first = tail(0)
            process.send_signal(signal.SIGKILL)
        with subprocess.Popen([*PUT, str(source), "big"], env=environment, stderr=subprocess.DEVNULL) as process:
            second = tail(first)
            server.kill()
            server.start()
            assert process.wait(60) == 0
        assert second > first
        with SyncClient(server.url) as client:
            stream = client.info("big")
            assert (stream.state, stream.tail) == ("closed", 200 * MiB)


async def test_the_same_upload_is_found_elsewhere_by_its_key(
    server: Server, name: str, source: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    key = f"key-{name}"
    await cut_short(server, source, name, 3_000_000, key=key)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "elsewhere"))
    copy = tmp_path / "copy"
    await asyncio.to_thread(copy.write_bytes, DATA)
    async with Cutting(server.port, []) as proxy, Client(f"http://127.0.0.1:{proxy.port}") as client:
        found = await client.find(key)
        assert found is not None
        assert (found.name, found.state, found.length) == (name, "open", len(DATA))
        assert await client.find(key + "x") is None
        await client.put(copy, name, key=key)
        (append,) = [request for request in proxy.requests if request.method == "PATCH"]
        begun = int(append.headers["upload-offset"])
        assert (begun > 0, append.body) == (True, len(DATA) - begun)
        # Its end was not heard of: asked again, it is there, and nothing is sent.
        again = await client.put(copy, name, key=key)
        assert (again.state, again.tail) == ("closed", len(DATA))
        assert sum(request.body for request in proxy.requests) == append.body
        with pytest.raises(ServerError, match="Upload-Key"):
            await client.put(DATA[1:], name, key=key)
        with pytest.raises(ServerError, match="Upload-Key"):
            await client.put(copy, f"{name}-other", key=key)
        with pytest.raises(CorruptTransfer):
            await client.put(bytes(len(DATA)), name, key=key)
    assert await asyncio.to_thread(read, server, name) == DATA


async def test_a_pipe_goes_on_by_its_key(server: Server, name: str) -> None:
    key = f"pipe-{name}"

    async def pieces(stop: int) -> AsyncIterator[bytes]:
        for start in range(0, stop, 700_000):
            yield DATA[start : min(start + 700_000, stop)]
        if stop < len(DATA):
            raise ValueError("the pipe broke")

    async with Cutting(server.port, []) as proxy, Client(f"http://127.0.0.1:{proxy.port}") as client:
        with pytest.raises(ValueError, match="the pipe broke"):
            await client.put(pieces(3_000_000), name, key=key)
        await client.put(pieces(len(DATA)), name, key=key)
    assert await asyncio.to_thread(read, server, name) == DATA
    assert sum(request.body for request in proxy.requests) < len(DATA) + 1_500_000

    async with Client(server.url) as client:
        with pytest.raises(ValueError, match="the pipe broke"):
            await client.put(pieces(3_000_000), f"{name}-short", key=f"{key}-short")
        with pytest.raises(SourceChanged):
            await client.put(iter([b"short"]), f"{name}-short", key=f"{key}-short")


async def test_bytes_that_differ_in_the_end_are_told_of_once(server: Server, name: str, source: Path) -> None:
    async with Cutting(server.port, [3_000_000]) as proxy:
        url = f"http://127.0.0.1:{proxy.port}"
        async with Client(url, retries=0) as client:
            with pytest.raises(Unreachable):
                await client.put(source, name)
            changed = _changed_unseen(source)
            with pytest.raises(CorruptTransfer):
                await client.put(source, name)
            assert notes() == []
            await client.put(source, name)
    assert await asyncio.to_thread(read, server, name) == changed


def _changed_unseen(path: Path) -> bytes:
    """Change a file where its fingerprint does not look, and return all of its bytes."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(200_000)
        file.write(b"other")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return path.read_bytes()


async def test_whoever_may_write_need_not_be_allowed_to_read(name: str, source: Path) -> None:
    streams = Streams(":memory:")
    app = FastAPI(lifespan=streams.lifespan)
    app.include_router(streams.files(authorize=lambda _request, action, _name: action == "write"))
    async with serving(app) as port, Client(f"http://127.0.0.1:{port}") as client:
        stream = await client.put(source, name)
        assert (stream.name, stream.state, stream.tail) == (name, "closed", len(DATA))
        info = await streams.info(name)
        assert (info.incarnation, info.complete) == (stream.incarnation, True)


@pytest.mark.parametrize("cuts", [[], [2_000_000, 500, 1_000_000, 2000, 1500]])
async def test_parts_are_sent_at_once_and_joined(server: Server, name: str, source: Path, cuts: list[int]) -> None:
    seen: list[tuple[int, int | None]] = []
    async with Cutting(server.port, cuts) as proxy, Client(f"http://127.0.0.1:{proxy.port}") as client:
        stream = await client.put(
            source, name, parts=4, progress=lambda done, total, /: seen.append((done, total)), content_type="text/x"
        )
    assert (stream.name, stream.tail, stream.content_type) == (name, len(DATA), "text/x")
    assert stream.digests != {}
    assert seen[-1] == (len(DATA), len(DATA))
    assert await asyncio.to_thread(read, server, name) == DATA
    joined = [request for request in proxy.requests if request.headers.get("upload-concat", "").startswith("final")]
    assert joined
    proxy.check_offsets()
    offsets = [request.headers.get("upload-offset") for request in proxy.requests if request.method == "PATCH"]
    assert offsets.count("0") >= 4
    assert proxy.cuts == len(cuts)
    assert notes() == []


async def test_parts_go_on_after_the_program_has_ended(server: Server, name: str, source: Path) -> None:
    async with Cutting(server.port, [4_000_000]) as proxy:
        url = f"http://127.0.0.1:{proxy.port}"
        async with Client(url, retries=0) as client:
            with pytest.raises(Unreachable):
                await client.put(source, name, parts=3)
        async with Client(url) as client:
            await client.put(source, name, parts=3)
    proxy.check_offsets()
    assert await asyncio.to_thread(read, server, name) == DATA


async def test_small_ones_go_in_one_request(server: Server, name: str) -> None:
    async with Cutting(server.port, []) as proxy, Client(f"http://127.0.0.1:{proxy.port}") as client:
        await client.put(DATA[: MiB - 1], name)
        assert methods(proxy) == ["PUT"]
        await client.put(DATA[: MiB - 1], name, max_body=MiB // 2)
    assert methods(proxy) == ["PUT", "POST", "PATCH", "PATCH", "HEAD"]
    assert await asyncio.to_thread(read, server, name) == DATA[: MiB - 1]


async def test_no_request_is_larger_than_it_may_be(server: Server, name: str, source: Path) -> None:
    for given in (source, iter([DATA])):
        async with Cutting(server.port, [1_500_000]) as proxy, Client(f"http://127.0.0.1:{proxy.port}") as client:
            await client.put(given, name, max_body=1_000_000)
        assert max(request.body for request in proxy.requests) == 1_000_000
        assert await asyncio.to_thread(read, server, name) == DATA


class Limited:
    """A server by tus, behind something that refuses bodies above a size, or that sets one itself."""

    def __init__(self, most: int, *, told: bool) -> None:
        self.most = most
        self.told = told
        self.data = b""

    def __call__(self, asked: Asked) -> Reply:
        fields = {"tus-resumable": "1.0.0", "upload-offset": str(len(self.data)), "stream-tail": str(len(self.data))}
        if self.told:
            fields["upload-limit"] = f"max-append-size={self.most}"
        if asked.method == "POST":
            return Reply(201, {**fields, "location": "/files/x?upload=1"})
        if asked.method == "PATCH":
            if len(asked.body) > self.most:
                return Reply(413, {"content-type": "text/html"}, b"<h1>Request Entity Too Large</h1>")
            assert int(asked.headers["upload-offset"]) == len(self.data)
            self.data += asked.body
        closed = len(self.data) == len(DATA)
        fields |= {"upload-offset": str(len(self.data)), "stream-state": "closed" if closed else "open"}
        return Reply(204 if asked.method == "PATCH" else 200, fields | {"stream-tail": str(len(self.data))})


@pytest.mark.parametrize("told", [True, False], ids=["told", "found out"])
def test_a_limit_on_the_way_is_kept_to(told: bool, source: Path) -> None:
    limited = Limited(900_000, told=told)
    with ScriptedServer(limited) as server, SyncClient(server.url) as client:
        client.put(source, "x")
    assert limited.data == DATA
    bodies = [len(asked.body) for asked in server.asked if asked.method == "PATCH"]
    if told:
        assert max(bodies) == 900_000
    else:  # each is half of what was refused
        assert bodies[:3] == [len(DATA), len(DATA) // 2, len(DATA) // 4]


def test_a_limit_that_nothing_keeps_to_is_told(source: Path) -> None:
    with (
        ScriptedServer(Limited(10, told=False)) as server,
        SyncClient(server.url) as client,
        pytest.raises(ServerError) as caught,
    ):
        client.put(source, "x")
    assert caught.value.status == 413


async def test_folders_go_up_several_files_at_once(server: Server, name: str, tmp_path: Path) -> None:
    files = {
        f"{folder}{number}": DATA[: 300_000 * number] for folder in ("", "sub/", "sub/sub/") for number in range(6)
    }
    for path, data in files.items():
        (tmp_path / "folder" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / path).write_bytes(data)
    async with Client(server.url) as client:
        streams = [stream async for stream in client.put_folder(tmp_path / "folder", name, jobs=3)]
        assert {stream.name.removeprefix(f"{name}/"): stream.tail for stream in streams} == {
            path: len(data) for path, data in files.items()
        }
        with pytest.raises(PreconditionFailed):
            await anext(client.put_folder(tmp_path / "folder", name, if_none_match=True))


async def test_conditions_hold(server: Server, name: str, source: Path) -> None:
    async with Client(server.url) as client:
        first = await client.put(source, name, if_none_match=True)
        with pytest.raises(PreconditionFailed):
            await client.put(source, name, if_none_match=True)
        with pytest.raises(PreconditionFailed):
            await client.put(source, name, if_match='"other"')
        second = await client.put(source, name, if_match=first.etag, ttl=1000)
        assert second.expires_at is not None
        await client.append(f"{name}-log", "open")
        with pytest.raises(StreamIsOpen):
            await client.put(source, f"{name}-log")


async def test_one_file_is_uploaded_by_one_at_a_time(server: Server, name: str, source: Path) -> None:
    async with Client(server.url) as one, Client(server.url) as other:
        results = await asyncio.gather(one.put(source, name), other.put(source, name), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["RemoteStream", "SourceBusy"]
    assert any(isinstance(result, SourceBusy) and str(source) in str(result) for result in results)


async def test_it_goes_on_where_nothing_can_be_noted(
    server: Server, name: str, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/proc/none")
    async with Cutting(server.port, [1_000_000]) as proxy, Client(f"http://127.0.0.1:{proxy.port}") as client:
        await client.put(source, name)
    assert await asyncio.to_thread(read, server, name) == DATA


async def test_an_upload_can_be_read_while_it_goes_on(server: Server, name: str) -> None:
    half = asyncio.Event()

    async def halves() -> AsyncIterator[bytes]:
        yield DATA[: 2 * MiB]
        await half.wait()
        yield DATA[2 * MiB :]

    async with Client(server.url) as writer, Client(server.url) as reader:
        upload = asyncio.create_task(writer.put(halves(), name))

        async def tail() -> int:
            try:
                return (await reader.info(name)).tail
            except StreamNotFound:
                return 0

        await until(tail, 2 * MiB)
        assert b"".join([bytes(chunk.data) async for chunk in reader.read(name, 100, 200)]) == DATA[100:200]
        followed = bytearray()
        async for chunk in reader.read(name, follow=True):
            followed += chunk.data
            if len(followed) == 2 * MiB:
                half.set()
        assert followed == DATA
        await upload


class Growing:
    """A file that grows while a test watches."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(b"")

    def add(self, data: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(data)


@pytest.fixture
def growing(tmp_path: Path) -> Growing:
    return Growing(tmp_path / "growing.log")


async def followed(server: Server, name: str, expected: bytes) -> None:
    async with Client(server.url) as client:

        async def found() -> bytes:
            try:
                return b"".join([bytes(chunk.data) async for chunk in client.read(name)])
            except StreamNotFound:
                return b""

        await until(found, expected)


@pytest.mark.parametrize("end", ["ended", "idle", "renamed", "removed"])
async def test_a_growing_file_is_followed_to_its_end(server: Server, name: str, growing: Growing, end: str) -> None:
    over = False
    growing.add(b"one\n")
    async with Client(server.url) as client:
        idle = 1.0 if end == "idle" else None
        upload = asyncio.create_task(client.put_growing(growing.path, name, ended=lambda: over, idle=idle))
        await followed(server, name, b"one\n")
        growing.add(b"two\n")
        await followed(server, name, b"one\ntwo\n")
        assert (await client.info(name)).state == "open"
        growing.add(b"three\n")
        if end == "ended":
            over = True
        elif end == "renamed":
            growing.path.rename(growing.path.with_suffix(".1"))
            Growing(growing.path).add(b"another one")
        elif end == "removed":
            growing.path.unlink()
        stream = await asyncio.wait_for(upload, 20)
    assert (stream.state, stream.tail, stream.digests != {}) == ("closed", 14, True)
    assert await asyncio.to_thread(read, server, name) == b"one\ntwo\nthree\n"
    assert notes() == []


async def test_a_growing_file_is_gone_on_with(server: Server, name: str, growing: Growing) -> None:
    growing.add(DATA[:MiB])
    async with (
        Cutting(server.port, [500_000, 2_000_000]) as proxy,
        Client(f"http://127.0.0.1:{proxy.port}", retries=1) as client,
    ):
        upload = asyncio.create_task(client.put_growing(growing.path, name))
        await followed(server, name, DATA[:MiB])
        upload.cancel()
        with pytest.raises(asyncio.CancelledError):
            await upload
        growing.add(DATA[MiB:])
        await client.put_growing(growing.path, name, idle=0.3)
    proxy.check_offsets()
    assert await asyncio.to_thread(read, server, name) == DATA


async def test_a_truncated_file_is_no_growing_one(server: Server, name: str, growing: Growing) -> None:
    growing.add(b"one\n")
    async with Client(server.url) as client:
        upload = asyncio.create_task(client.put_growing(growing.path, name))
        await followed(server, name, b"one\n")
        growing.path.write_bytes(b"")
        with pytest.raises(SourceChanged):
            await upload


async def test_a_file_that_shrinks_meanwhile_is_told_of(name: str, server: Server, source: Path) -> None:
    def progress(done: int, _total: int | None, /) -> None:
        if done:
            os.truncate(source, 100)

    async with Client(server.url) as client:
        with pytest.raises(SourceChanged):
            await client.put(source, name, progress=progress, max_body=MiB)
