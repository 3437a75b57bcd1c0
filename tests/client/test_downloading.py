"""Downloads and reads: resumption, versions, digests, following, and what is left on the disk."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
from collections.abc import Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from penstock.client import Client, CorruptTransfer, DestinationBusy, Downloaded, Unreachable
from penstock.client.destinations import PartialFile
from penstock.client.paths import file_name_for
from penstock.client.retry import Backoff
from penstock.errors import OffsetOutOfRange, StreamFailed, StreamGone, StreamNotFound
from penstock.protocols.digest import format_digests
from penstock.protocols.problem import Problem, type_uri
from scripted import Asked, Reply, ScriptedServer

DATA = os.urandom(300_000)
OTHER = os.urandom(200_000)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backoff, "pause", lambda _self, _failures: 0.001)


class Stream:
    """A stream as a server shows it, for a script to change.

    Attributes:
        data: the bytes so far.
        state: ``open``, ``closed`` or ``failed``.
        incarnation: part of the entity tag, too.
        cuts: of the next answers, after how many bytes of the body the connection breaks.
        digest: what to tell for one.
    """

    def __init__(self, data: bytes, *, state: str = "closed", incarnation: str = "i1") -> None:
        self.data = data
        self.state = state
        self.incarnation = incarnation
        self.cuts: list[int] = []
        self.digest: bytes | None = None

    def __call__(self, asked: Asked) -> Reply:
        follow = asked.path.endswith("?follow")
        etag = f'"{self.incarnation}"' if follow else f'"{self.incarnation}-{len(self.data)}"'
        headers = {
            "stream-state": self.state,
            "stream-tail": str(len(self.data)),
            "stream-incarnation": self.incarnation,
            "etag": etag,
        }
        if self.state == "failed":
            headers["stream-failure"] = "it broke%0A"
        if self.state == "closed" and "want-repr-digest" in asked.headers:
            digest = self.digest or hashlib.sha256(self.data).digest()
            headers["repr-digest"] = format_digests({"sha-256": digest})
        start, stop = self._range(asked.headers, etag)
        if start is None:
            start, status = 0, 200
        elif start > len(self.data) or (start == len(self.data) and not (follow and self.state != "closed")):
            return refusal("range-not-satisfiable", 416, {"content-range": f"bytes */{len(self.data)}"})
        else:
            status = 206
            complete = str(len(self.data)) if self.state == "closed" else "*"
            last = 2**53 - 1 if self.state != "closed" and follow else min(stop or len(self.data), len(self.data)) - 1
            headers["content-range"] = f"bytes {start}-{last}/{complete}"
        cut = self.cuts.pop(0) if self.cuts and asked.method == "GET" else None
        if cut is None and self.state == "failed":
            cut = len(self.data) - start
        return Reply(status, headers, self.data[start:stop], cut, chunked=self.state == "failed" or follow)

    @staticmethod
    def _range(headers: Mapping[str, str], etag: str) -> tuple[int | None, int | None]:
        if "range" not in headers or headers.get("if-range", etag) != etag:
            return None, None
        first, _, last = headers["range"].removeprefix("bytes=").partition("-")
        return int(first), int(last) + 1 if last else None


def refusal(slug: str, status: int, headers: Mapping[str, str] | None = None) -> Reply:
    return Reply(status, headers or {}, Problem(type=type_uri(slug), status=status).to_bytes())


def get(server: ScriptedServer, destination: Any, **options: Any) -> Downloaded:
    async def run() -> Downloaded:
        async with Client(server.url) as client:
            return await client.get("a/b", destination, **options)

    return asyncio.run(run())


def read(server: ScriptedServer, start: int = 0, stop: int | None = None, *, follow: bool = False) -> bytes:
    async def run() -> bytes:
        data = b""
        async with (
            Client(server.url) as client,
            aclosing(client.read("a/b", start, stop, follow=follow)) as chunks,
        ):
            async for chunk in chunks:
                assert chunk.offset == start + len(data)
                data += chunk.data
        return data

    return asyncio.run(run())


def ranges(server: ScriptedServer) -> list[str | None]:
    return [asked.headers.get("range") for asked in server.asked if asked.method == "GET"]


@pytest.mark.parametrize("data", [b"", b"x", DATA], ids=["empty", "one", "many"])
def test_a_file_appears_whole_and_verified(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before")
    path.chmod(0o640)
    with ScriptedServer(Stream(data)) as server:
        result = get(server, path)
    assert path.read_bytes() == data
    assert path.stat().st_mode & 0o777 == 0o640
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    assert (result.path, result.size, result.resumed_at, result.verified) == (path, len(data), 0, True)
    assert result.digest == hashlib.sha256(data).digest()


def test_a_folder_gets_a_file_of_a_safe_name(tmp_path: Path) -> None:
    with ScriptedServer(Stream(DATA)) as server:
        assert get(server, tmp_path).path == tmp_path / "b"
    assert (tmp_path / "b").read_bytes() == DATA


def test_cut_connections_are_resumed_with_if_range(tmp_path: Path) -> None:
    stream = Stream(DATA)
    stream.cuts = [100_000, 0, 70_000]
    with ScriptedServer(stream) as server:
        result = get(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == DATA
    assert result.verified
    first, *others = server.asked
    assert "range" not in first.headers
    assert [asked.headers["range"] for asked in others] == [
        f"bytes={offset}-{len(DATA) - 1}" for offset in (100_000, 100_000, 170_000)
    ]
    assert {asked.headers["if-range"] for asked in others} == {f'"i1-{len(DATA)}"'}


def test_a_server_that_never_sends_more_is_given_up(tmp_path: Path) -> None:
    stream = Stream(DATA)
    stream.cuts = [1000, *[0] * 50]
    with ScriptedServer(stream) as server, pytest.raises(Unreachable):
        get(server, tmp_path / "file")
    assert len(server.asked) == 9
    assert not (tmp_path / "file").exists()
    assert (tmp_path / "file.part").read_bytes() == DATA[:1000]


@pytest.mark.parametrize("cut", [1000, len(DATA)])
def test_a_partial_file_is_gone_on_with(tmp_path: Path, cut: int) -> None:
    stream = Stream(DATA)
    stream.cuts = [cut, *[0] * 50]
    with ScriptedServer(stream) as server:
        path = tmp_path / "file"
        if cut == len(DATA):  # all but the renaming was done
            get(server, path)
            path.rename(tmp_path / "file.part")
            note = {"name": "a/b", "incarnation": "i1", "etag": f'"i1-{cut}"', "follow": False}
            (tmp_path / "file.part.json").write_text(json.dumps(note))
        else:
            with pytest.raises(Unreachable):
                get(server, path)
        stream.cuts = []
        server.asked.clear()
        result = get(server, path)
    assert path.read_bytes() == DATA
    assert (result.resumed_at, result.verified) == (cut, True)
    assert ranges(server) == [f"bytes={cut}-"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_no_resume_begins_again(tmp_path: Path) -> None:
    stream = Stream(DATA)
    stream.cuts = [1000, *[0] * 50]
    with ScriptedServer(stream) as server:
        with pytest.raises(Unreachable):
            get(server, tmp_path / "file")
        stream.cuts = []
        server.asked.clear()
        assert get(server, tmp_path / "file", resume=False).resumed_at == 0
    assert ranges(server) == [None]


def test_a_partial_file_of_a_replaced_stream_is_thrown_away(tmp_path: Path) -> None:
    stream = Stream(DATA)
    stream.cuts = [1000, *[0] * 50]
    with ScriptedServer(stream) as server:
        with pytest.raises(Unreachable):
            get(server, tmp_path / "file")
        stream.data, stream.incarnation, stream.cuts = OTHER, "i2", []
        result = get(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == OTHER
    assert (result.resumed_at, result.verified) == (0, True)


def test_a_spoilt_partial_file_is_found_out(tmp_path: Path) -> None:
    stream = Stream(DATA)
    stream.cuts = [1000, *[0] * 50]
    with ScriptedServer(stream) as server:
        with pytest.raises(Unreachable):
            get(server, tmp_path / "file")
        (tmp_path / "file.part").write_bytes(b"?" * 1000)
        stream.cuts = []
        result = get(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == DATA
    assert (result.resumed_at, result.verified) == (0, True)


@pytest.mark.parametrize("note", ["", "{}", "[]", '{"name": "other"}', "\0"])
def test_a_partial_file_of_unknown_origin_is_thrown_away(tmp_path: Path, note: str) -> None:
    (tmp_path / "file.part").write_bytes(b"?" * 1000)
    (tmp_path / "file.part.json").write_text(note)
    with ScriptedServer(Stream(DATA)) as server:
        assert get(server, tmp_path / "file").resumed_at == 0
    assert (tmp_path / "file").read_bytes() == DATA


class Replaced(Stream):
    """A stream that is replaced when it has been asked for once."""

    def __call__(self, asked: Asked) -> Reply:
        reply = super().__call__(asked)
        self.data, self.incarnation = OTHER, "i2"
        return reply


def test_a_stream_replaced_midway_is_downloaded_anew(tmp_path: Path) -> None:
    stream = Replaced(DATA)
    stream.cuts = [100_000]
    with ScriptedServer(stream) as server:
        assert get(server, tmp_path / "file").verified
    assert (tmp_path / "file").read_bytes() == OTHER


def test_what_went_to_a_pipe_is_never_joined_with_another_version() -> None:
    stream = Replaced(DATA)
    stream.cuts = [100_000]
    output = io.BytesIO()
    with ScriptedServer(stream) as server, pytest.raises(StreamGone):
        get(server, output)
    assert DATA.startswith(output.getvalue())
    stream = Replaced(DATA)
    stream.cuts = [0]
    output = io.BytesIO()
    with ScriptedServer(stream) as server:
        get(server, output)
    assert output.getvalue() == OTHER


def test_a_pipe_gets_a_resumed_stream_once() -> None:
    stream = Stream(DATA)
    stream.cuts = [100_000, 0, 70_000]
    output = io.BytesIO()
    with ScriptedServer(stream) as server:
        result = get(server, output)
    assert output.getvalue() == DATA
    assert (result.path, result.verified) == (None, True)


def test_wrong_bytes_are_no_file(tmp_path: Path) -> None:
    stream = Stream(DATA)
    stream.digest = hashlib.sha256(b"?").digest()
    with ScriptedServer(stream) as server:
        with pytest.raises(CorruptTransfer):
            get(server, tmp_path / "file")
        assert list(tmp_path.iterdir()) == []
        assert get(server, tmp_path / "file", verify=False).verified is False
    assert (tmp_path / "file").read_bytes() == DATA


def test_two_downloads_to_one_place_do_not_meet(tmp_path: Path) -> None:
    with (
        PartialFile(tmp_path / "file", "a/b", follow=False, resume=True),
        ScriptedServer(Stream(DATA)) as server,
        pytest.raises(DestinationBusy),
    ):
        get(server, tmp_path / "file")


def test_a_server_that_ignores_ranges_is_read_past_what_is_there() -> None:
    stream = Stream(DATA)

    def script(asked: Asked) -> Reply:
        asked.headers.pop("range", None)
        return stream(asked)

    stream.cuts = [100_000]
    with ScriptedServer(script) as server:
        assert read(server) == DATA
        assert read(server, 299_990) == DATA[299_990:]


def test_a_part_that_was_not_asked_for_is_not_taken() -> None:
    def script(asked: Asked) -> Reply:
        asked.headers["range"] = "bytes=5-"
        return Stream(DATA)(asked)

    with ScriptedServer(script) as server, pytest.raises(Exception, match="other bytes than those asked for"):
        read(server, 3)


def test_ranges_are_read(tmp_path: Path) -> None:
    with ScriptedServer(Stream(DATA)) as server:
        assert read(server, 10, 20) == DATA[10:20]
        assert read(server, 0, 5) == DATA[:5]
        assert read(server, 299_000) == DATA[299_000:]
        assert read(server, 299_000, 400_000) == DATA[299_000:]
        assert read(server, 300_000) == b""
        assert read(server, 7, 7) == b""
        with pytest.raises(OffsetOutOfRange) as caught:
            read(server, 300_001)
    assert (caught.value.offset, caught.value.tail) == (300_001, 300_000)


def test_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    with ScriptedServer(lambda _: refusal("not-found", 404)) as server:
        with pytest.raises(StreamNotFound):
            read(server)
        with pytest.raises(StreamNotFound):
            get(server, tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def test_an_open_stream_is_read_as_far_as_it_goes_now(tmp_path: Path) -> None:
    stream = Stream(DATA, state="open")

    def script(asked: Asked) -> Reply:
        reply = stream(asked)
        stream.data += b"more"
        return reply

    stream.cuts = [1000, 1000]
    with ScriptedServer(script) as server:
        result = get(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == DATA
    assert (result.stream.state, result.verified) == ("open", False)
    assert not any("if-range" in asked.headers for asked in server.asked)


class Growing(Stream):
    """A stream that grows by a part for each request of a follower, whose connection breaks; then it is closed."""

    def __init__(self, parts: list[bytes], end: str = "closed") -> None:
        super().__init__(b"", state="open")
        self.parts = parts
        self.end = end

    def __call__(self, asked: Asked) -> Reply:
        if asked.method == "GET":
            before = len(self.data)
            if self.parts:
                self.data += self.parts.pop(0)
                self.cuts = [len(self.data) - before]
            elif self.end == "gone":
                return refusal("not-found", 404)
            else:
                self.state = self.end
        return super().__call__(asked)


PARTS = [b"one", b"", b"two" * 50_000, b"", b"", b"", b"", b"", b"", b"", b"", b"three"]


def test_following_goes_on_until_the_stream_is_closed(tmp_path: Path) -> None:
    whole = b"".join(PARTS)
    with ScriptedServer(Growing(PARTS.copy())) as server:
        assert read(server, follow=True) == whole
    with ScriptedServer(Growing(PARTS.copy())) as server:
        result = get(server, tmp_path / "file", follow=True)
        assert {asked.headers.get("if-range") for asked in server.asked} == {None, '"i1"'}
    assert (tmp_path / "file").read_bytes() == whole
    assert (result.stream.state, result.verified) == ("closed", True)


def test_a_failed_stream_is_an_error_after_its_last_byte(tmp_path: Path) -> None:
    whole = b"".join(PARTS)
    output = io.BytesIO()
    with ScriptedServer(Growing(PARTS.copy(), "failed")) as server, pytest.raises(StreamFailed) as caught:
        get(server, output, follow=True)
    assert output.getvalue() == whole
    assert (caught.value.tail, caught.value.reason) == (len(whole), "it broke\n")
    with ScriptedServer(Stream(DATA, state="failed")) as server:
        assert read(server, 5, 10) == DATA[5:10]
        for follow in (False, True):
            with pytest.raises(StreamFailed):
                get(server, tmp_path / "file", follow=follow)
    assert not (tmp_path / "file").exists()


def test_a_stream_deleted_while_it_is_followed_is_gone() -> None:
    with ScriptedServer(Growing([b"one"], "gone")) as server, pytest.raises(StreamGone) as caught:
        read(server, follow=True)
    assert caught.value.incarnation == "i1"


def test_a_proxy_cannot_make_a_broken_stream_look_complete(tmp_path: Path) -> None:
    """Some end a chunked body properly when the server behind them breaks it off."""
    stream = Stream(DATA[:100_000], state="open")

    def script(asked: Asked) -> Reply:
        if len(server.asked) == 3:  # the first answer was ended early, and the stream found to be open
            stream.data, stream.state = DATA, "closed"
        return stream(asked)

    for whole in (True, False):
        stream.data, stream.state = DATA[:100_000], "open"
        with ScriptedServer(script) as server:
            if whole:
                assert get(server, tmp_path / "file", follow=True).verified
            else:
                assert read(server, follow=True) == DATA
        assert server.methods() == ["GET", "HEAD", "GET"]
        assert ranges(server) == [None, "bytes=100000-"]
    assert (tmp_path / "file").read_bytes() == DATA


def test_a_stream_that_goes_while_it_is_followed_does_not_look_complete(tmp_path: Path) -> None:
    stream = Stream(DATA, state="open")

    def script(asked: Asked) -> Reply:
        return stream(asked) if len(server.asked) == 1 else Reply(404)

    with ScriptedServer(script) as server, pytest.raises(StreamGone):
        read(server, follow=True)
    with ScriptedServer(script) as server, pytest.raises(StreamNotFound):
        get(server, tmp_path / "file", follow=True)
    assert not (tmp_path / "file").exists()


def test_a_named_pipe_is_written_to_and_stays(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    end = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with ScriptedServer(Stream(b"few")) as server:
            get(server, pipe)
        assert os.read(end, 10) == b"few"
    finally:
        os.close(end)
    assert [entry.name for entry in tmp_path.iterdir()] == ["pipe"]


def test_a_full_disk_leaves_what_can_be_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int, _data: Any) -> int:
        raise OSError(28, "No space left on device")

    with ScriptedServer(Stream(DATA)) as server:
        with monkeypatch.context() as patch:
            patch.setattr("penstock.client.destinations.os.write", full)
            with pytest.raises(OSError, match="No space"):
                get(server, tmp_path / "file")
        assert not (tmp_path / "file").exists()
        get(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == DATA


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("a/b.txt", "b.txt"),
        ("b", "b"),
        (".bashrc", "bashrc"),
        ("a/...", "stream"),
        ('a/C:\\x*?"<>|', "C__x______"),
        ("a/" + "x" * 300 + ".tar", "x" * 235 + ".tar"),
        ("a/" + "x" * 300, "x" * 239),
        ("é" * 200, "é" * 119),
    ],
)
def test_names_become_safe_file_names(name: str, file: str) -> None:
    assert file_name_for(name) == file
