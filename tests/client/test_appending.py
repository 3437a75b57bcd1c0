"""Appends: producers, batches, and that nothing is written twice or left out."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from penstock.client import Client, Unreachable
from penstock.client.retry import Backoff
from penstock.errors import ContentTypeMismatch, InvalidRecord, ProducerOutOfSequence, StreamClosed
from penstock.protocols.problem import Problem, type_uri
from scripted import Asked, Reply, ScriptedServer


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backoff, "pause", lambda _self, _failures: 0.001)


class Log:
    """The live door of one stream, with a server's rules for producers.

    Attributes:
        data: what was appended.
        forgetful: whether it has forgotten its producers after each append.
        losses: of the next appends, whether their answer is lost; ``before`` the append, or ``after`` it.
    """

    def __init__(self) -> None:
        self.data = b""
        self.closed = False
        self.content_type: str | None = None
        self.losses: list[str] = []
        self.producers: dict[str, int] = {}
        self.forgetful = False

    def __call__(self, asked: Asked) -> Reply | None:
        loss = self.losses.pop(0) if self.losses else ""
        if loss == "before":
            return None
        reply = self._append(asked)
        if self.forgetful:
            self.producers.clear()
        return None if loss == "after" else reply

    def _append(self, asked: Asked) -> Reply:
        producer, sequence = asked.headers["producer-id"], int(asked.headers["producer-seq"])
        last = self.producers.get(producer, -1)
        if sequence <= last:
            return self._done(duplicate=True)
        if sequence > last + 1:
            return problem("producer-out-of-sequence", expected=last + 1)
        if self.closed:
            return problem("stream-closed", tail=len(self.data))
        self.content_type = self.content_type or asked.headers.get("content-type")
        if asked.body and asked.headers["content-type"] != self.content_type:
            return problem("content-type-mismatch", content_type=self.content_type)
        self.producers[producer] = sequence
        self.data += asked.body
        self.closed = asked.headers.get("stream-closed") == "true"
        return self._done(duplicate=False)

    def _done(self, *, duplicate: bool) -> Reply:
        body = json.dumps({"name": "log", "offset": len(self.data), "duplicate": duplicate}).encode()
        state = "closed" if self.closed else "open"
        return Reply(200, {"stream-state": state, "stream-tail": str(len(self.data)), "stream-incarnation": "i"}, body)


def problem(slug: str, status: int = 409, **extra: Any) -> Reply:
    return Reply(status, {}, Problem(type=type_uri(slug), status=status, extra=extra).to_bytes())


def with_client(log: Callable[[Asked], Reply | None], work: Callable[[Client], Awaitable[None]]) -> list[Asked]:
    async def run(url: str) -> None:
        async with Client(url, retries=5) as client:
            await work(client)

    with ScriptedServer(log) as server:
        asyncio.run(run(server.url))
    return server.asked


def test_records_become_lines() -> None:
    log, text = Log(), Log()

    async def work(client: Client) -> None:
        appended = await client.append("log", {"a": [1, "ü"]})
        assert (appended.offset, appended.duplicate, appended.info.state) == (15, False, "open")
        await client.append("log", '{"b":\n  2}', kind="json")
        await client.append("log", None)
        await client.append("log", 3, close=True)
        with pytest.raises(StreamClosed) as caught:
            await client.append("log", 4)
        assert caught.value.tail == len(log.data)

    async def work_text(client: Client) -> None:
        await client.append("log", "one\n")
        await client.append("log", b"two")
        await client.append("log", "")
        with pytest.raises(ContentTypeMismatch) as caught:
            await client.append("log", {})
        assert caught.value.content_type == "text/plain; charset=utf-8"
        assert (await client.close_stream("log")).info.state == "closed"

    with_client(log, work)
    assert log.data == '{"a":[1,"ü"]}\n{"b":2}\nnull\n3\n'.encode()
    with_client(text, work_text)
    assert text.data == b"one\ntwo\n\n"


@pytest.mark.parametrize(
    ("record", "kind"),
    [
        ("two\nlines", "auto"),
        (b"\xff", "auto"),
        ("{", "json"),
        ("", "json"),
        (math.nan, "auto"),
        ({}, "text"),
        ({1, 2}, "auto"),
    ],
)
def test_what_is_no_record_is_not_sent(record: Any, kind: Any) -> None:
    async def work(client: Client) -> None:
        with pytest.raises(InvalidRecord):
            await client.append("log", record, kind=kind)

    assert with_client(Log(), work) == []


def test_a_lost_answer_does_not_append_twice() -> None:
    log = Log()
    log.losses = ["after", "after", "before", "", "after"]

    async def work(client: Client) -> None:
        assert (await client.append("log", "one")).duplicate
        assert (await client.append("log", "two")).duplicate

    asked = with_client(log, work)
    assert log.data == b"one\ntwo\n"
    assert [one.headers["producer-seq"] for one in asked] == ["0", "0", "0", "0", "1", "1"]
    assert {one.headers["producer-epoch"] for one in asked} == {"0"}
    assert len(log.producers) == 1


def test_concurrent_appends_of_one_client_keep_their_turns() -> None:
    log = Log()

    async def work(client: Client) -> None:
        await asyncio.gather(*(client.append("log", str(number)) for number in range(20)))

    with_client(log, work)
    assert sorted(map(int, log.data.split())) == list(range(20))


def test_after_an_append_of_unknown_fate_the_next_one_is_no_repetition() -> None:
    log = Log()
    log.losses = ["after"] * 6

    async def work(client: Client) -> None:
        with pytest.raises(Unreachable):
            await client.append("log", "perhaps")
        assert not (await client.append("log", "next")).duplicate

    with_client(log, work)
    assert log.data == b"perhaps\nnext\n"


def test_a_cancelled_append_does_not_swallow_the_next() -> None:
    log = Log()

    async def work(client: Client) -> None:
        await client.append("log", "one")
        task = asyncio.create_task(client.append("log", "cancelled"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not (await client.append("log", "two")).duplicate

    with_client(log, work)
    assert log.data.endswith(b"two\n")


def test_a_recreated_stream_is_appended_to() -> None:
    log = Log()

    async def work(client: Client) -> None:
        await client.append("log", "one")
        log.producers.clear()
        log.data = b""
        await client.append("log", "two")
        # But not where an earlier try may have reached the stream that was there before.
        log.losses = ["after"]
        log.forgetful = True
        with pytest.raises(ProducerOutOfSequence):
            await client.append("log", "three")

    with_client(log, work)
    assert log.data == b"two\nthree\n"


def test_an_appender_sends_what_waits_together() -> None:
    log = Log()

    async def work(client: Client) -> None:
        async with client.appender("log", close=True) as appender:
            for number in range(5000):
                await appender.append({"n": number})
            await appender.flush()
            assert (appender.count, appender.offset) == (5000, len(log.data))
            await appender.append({"n": 5000})

    asked = with_client(log, work)
    assert [json.loads(line)["n"] for line in log.data.splitlines()] == list(range(5001))
    assert log.closed
    assert len(asked) < 10
    assert max(len(one.body) for one in asked) <= 1024 * 1024


def test_an_appender_of_text_sends_line_by_line_and_live() -> None:
    log = Log()

    async def work(client: Client) -> None:
        async with client.appender("log") as appender:
            for line in ("one", "two", ""):
                await appender.append(line)
                await asyncio.sleep(0.1)
                assert log.data.endswith(line.encode() + b"\n")
        assert not log.closed

    with_client(log, work)
    assert log.data == b"one\ntwo\n\n"


def test_an_appender_survives_lost_answers() -> None:
    log = Log()
    log.losses = ["after", "before", "", "after", "after", "", "before"] * 10

    async def work(client: Client) -> None:
        async with client.appender("log") as appender:
            for number in range(60):
                await appender.append(f"{number}")

    with_client(log, work)
    assert log.data.split() == [b"%d" % number for number in range(60)]


def test_an_appender_holds_only_so_much() -> None:
    log = Log()
    line = "x" * 100_000

    async def work(client: Client) -> None:
        async with client.appender("log", kind="json") as appender:
            for _ in range(100):
                await appender.append(json.dumps(line))
                assert appender._size < 5 * 1024 * 1024

    with_client(log, work)
    assert len(log.data) == 100 * 100_003


def test_an_appender_tells_its_error_and_sends_nothing_more() -> None:
    log = Log()
    log.closed = True

    async def work(client: Client) -> None:
        appender = await client.appender("log", close=True).__aenter__()
        await appender.append("one")
        with pytest.raises(StreamClosed):
            await appender.flush()
        with pytest.raises(StreamClosed):
            await appender.append("two")
        with pytest.raises(StreamClosed):
            await appender.__aexit__(None, None, None)

    assert len(with_client(log, work)) == 1


def test_a_block_that_breaks_off_leaves_the_stream_open() -> None:
    log = Log()

    async def work(client: Client) -> None:
        appender = await client.appender("log", close=True).__aenter__()
        await appender.append("one")
        await appender.__aexit__(ZeroDivisionError, ZeroDivisionError(), None)

    with_client(log, work)
    assert (log.data, log.closed) == (b"one\n", False)


def test_a_bad_record_does_not_end_an_appender() -> None:
    log = Log()

    async def work(client: Client) -> None:
        async with client.appender("log") as appender:
            await appender.append("one")
            with pytest.raises(InvalidRecord):
                await appender.append({"not": "text"})
            await appender.append("two")

    with_client(log, work)
    assert log.data == b"one\ntwo\n"
