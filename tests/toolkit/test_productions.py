"""Generators that go on when their reader leaves: joined, resumed, cancelled, bounded, and missed when they vanish."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from applications import serving
from penstock import Stopping, StreamClosed, StreamFailed, StreamGone, StreamNotFound, Streams, StreamSpec
from penstock.core import follow
from penstock.core.service import reading
from wire import Connection, events, request, until

TEXT = StreamSpec(content_type="text/plain")


class Model:
    """A generator that is told when to go on, and notes how it ends."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.closed = asyncio.Event()
        self.started = 0

    async def tokens(self, count: int = 5) -> AsyncGenerator[str, None]:
        self.started += 1
        try:
            for number in range(count):
                if number == 2:
                    await self.go.wait()
                yield f"token {number}\n"
        finally:
            await asyncio.sleep(0)  # an await in the clean-up must not be cut short
            self.closed.set()


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Streams]:
    async with Streams(folder, durability="os") as streams:
        yield streams


async def text_of(streams: Streams, name: str) -> bytes:
    return b"".join([bytes(chunk.data) async for chunk in streams.follow(name)])


@pytest.fixture(autouse=True)
def looking_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let followers look again soon, for what nobody tells them of."""
    monkeypatch.setattr(follow, "RECHECK", 0.1)
    monkeypatch.setattr(reading, "RECHECK", 0.1)


async def test_it_goes_on_when_its_reader_leaves_and_is_resumed_by_any(tmp_path: Path) -> None:
    streams = Streams(tmp_path / "data", durability="os")
    app = FastAPI(lifespan=streams.lifespan)
    app.include_router(streams.live(prefix="/live"))
    model = Model()

    @app.post("/ask")
    async def ask() -> dict[str, bool]:
        return {"joined": (await streams.produce("answer", model.tokens())).joined}

    async with serving(app) as port:
        assert (await request(port, "POST", "/ask")).json() == {"joined": False}
        async with Connection(port) as connection:
            await connection.begin("GET", "/live/answer?offset=0")
            await connection.head()
            following = events(connection)
            seen = [await anext(following), await anext(following)]
        model.go.set()  # after its reader has left
        await model.closed.wait()
        async with Connection(port) as connection:
            await connection.begin("GET", "/live/answer", {"last-event-id": seen[-1].id})
            await connection.head()
            seen += [event async for event in events(connection)]
        assert (await request(port, "POST", "/ask")).json() == {"joined": True}
    assert [json.loads(event.data) for event in seen[:-1]] == [f"token {number}\n" for number in range(5)]
    assert seen[-1].kind == "end"
    assert model.started == 1


async def test_a_second_start_joins_the_first(tmp_path: Path) -> None:
    model, other = Model(), Model()
    unused = other.tokens()
    async with opened(tmp_path) as streams, opened(tmp_path) as elsewhere:
        started = await asyncio.gather(*(streams.produce("a", model.tokens(), TEXT) for _ in range(5)))
        started.append(await elsewhere.produce("a", unused, TEXT))
        assert sorted(each.joined for each in started) == [False, *[True] * 5]
        assert len({each.info.incarnation for each in started}) == 1
        with pytest.raises(StopAsyncIteration):  # it was closed
            await anext(unused)
        model.go.set()
        for each in started:
            assert (await each.wait()).tail == 40
        assert await text_of(elsewhere, "a") == b"".join(b"token %d\n" % number for number in range(5))
    assert (model.started, other.started) == (1, 0)


@pytest.mark.parametrize("from_elsewhere", [False, True])
async def test_it_can_be_cancelled_from_any_process(tmp_path: Path, from_elsewhere: bool) -> None:
    model = Model()
    async with opened(tmp_path) as streams, opened(tmp_path) as elsewhere:
        production = await streams.produce("a", model.tokens(), TEXT)
        if from_elsewhere:
            production = await elsewhere.produce("a", Model().tokens(), TEXT)
        async for chunk in streams.follow("a"):
            if chunk.end == 16:
                break
        assert (await production.cancel("nobody wants it")).failure == "nobody wants it"
        await model.closed.wait()
        with pytest.raises(StreamFailed, match="nobody wants it"):
            await production.wait()
        reader = streams.follow("a")
        assert bytes((await anext(reader)).data).startswith(b"token 0\n")
        with pytest.raises(StreamFailed, match="nobody wants it"):
            async for _ in reader:
                pass


async def test_what_is_complete_cannot_be_cancelled(tmp_path: Path) -> None:
    model = Model()
    model.go.set()
    async with opened(tmp_path) as streams:
        production = await streams.produce("a", model.tokens(), TEXT)
        await production.wait()
        with pytest.raises(StreamClosed):
            await production.cancel()


async def test_a_deletion_ends_it(tmp_path: Path) -> None:
    model = Model()
    async with opened(tmp_path) as streams:
        production = await streams.produce("a", model.tokens(), TEXT)
        await streams.delete("a")
        await model.closed.wait()
        with pytest.raises(StreamGone):
            await production.wait()


async def endless() -> AsyncGenerator[str, None]:
    while True:
        yield "x" * 999 + "\n"


async def silent() -> AsyncGenerator[str, None]:
    yield "one\n"
    await asyncio.Event().wait()


async def failing() -> AsyncGenerator[str, None]:
    yield "one\n"
    raise ValueError("a secret")


async def timing_out() -> AsyncGenerator[str, None]:
    yield "one\n"
    raise TimeoutError


async def looking_elsewhere() -> AsyncGenerator[str, None]:
    yield "one\n"
    raise StreamNotFound("another")


async def test_what_somebody_else_writes_into_it_fails_it(tmp_path: Path) -> None:
    model = Model()
    async with opened(tmp_path) as streams:
        production = await streams.produce("a", model.tokens(), TEXT)
        async for chunk in streams.follow("a"):
            if chunk.end == 16:
                break
        await streams.append("a", [b"not a token\n"])
        model.go.set()
        with pytest.raises(StreamFailed, match="its producer failed: OffsetMismatch"):
            await production.wait()


@pytest.mark.parametrize(
    ("generate", "options", "reason"),
    [
        (endless, {"max_size": 1_000_000}, "it grew larger than 1000000 bytes"),
        (silent, {"max_time": 0.2}, "it took more than 0.2 s"),
        (failing, {}, "its producer failed: ValueError"),
        (looking_elsewhere, {}, "its producer failed: StreamNotFound"),
        (timing_out, {"max_time": 60}, "its producer failed: TimeoutError"),
        (failing, {"on_error": lambda error: f"the model is out of {error}s"}, "the model is out of a secrets"),
    ],
)
async def test_a_bound_or_a_failure_is_the_reason_that_readers_are_told(
    tmp_path: Path, generate: Callable[[], AsyncGenerator[str, None]], options: dict[str, Any], reason: str
) -> None:
    async with opened(tmp_path) as streams:
        production = await streams.produce("a", generate(), TEXT, **options)
        with pytest.raises(StreamFailed) as failed:
            await production.wait()
        assert failed.value.reason == reason
        assert failed.value.tail <= 1_000_000
        info = await streams.info("a")
        assert info.tail >= 4  # what came before is kept


async def test_a_failed_one_is_begun_anew_if_that_is_wanted(tmp_path: Path) -> None:
    async with opened(tmp_path) as streams:
        with pytest.raises(StreamFailed):
            await (await streams.produce("a", failing(), TEXT)).wait()
        again = await streams.produce("a", failing(), TEXT)
        assert again.joined
        model = Model()
        model.go.set()
        anew = await streams.produce("a", model.tokens(), TEXT, restart_failed=True)
        assert not anew.joined
        assert (await anew.wait()).complete
        assert (await streams.produce("a", failing(), TEXT, restart_failed=True)).joined  # of one that is complete


async def test_a_plain_generator_runs_in_a_thread(tmp_path: Path) -> None:
    threads: set[str] = set()

    def rows() -> Generator[dict[str, int], None, None]:
        for number in range(3):
            threads.add(threading.current_thread().name)
            yield {"n": number}

    async with opened(tmp_path) as streams:
        await (await streams.produce("a", rows())).wait()
        assert await text_of(streams, "a") == b'{"n":0}\n{"n":1}\n{"n":2}\n'
        assert (await streams.info("a")).content_type == "application/x-ndjson"
        await (await streams.produce("b", rows(), StreamSpec(content_type="text/csv"))).wait()
        assert await text_of(streams, "b") == b"n\r\n0\r\n1\r\n2\r\n"
    assert threads == {"penstock-generate"}


async def test_a_stop_gives_it_time_and_then_ends_it(tmp_path: Path) -> None:
    quick, never = Model(), Model()
    async with opened(tmp_path) as streams:
        finishing = await streams.produce("quick", quick.tokens(), TEXT, grace=30)
        await streams.produce("never", never.tokens(), TEXT, grace=0.05)
        waiting = asyncio.create_task(finishing.wait())
        await asyncio.sleep(0)
        streams.drain()
        with pytest.raises(Stopping):
            await waiting
        asyncio.get_running_loop().call_later(0.2, quick.go.set)
    assert quick.closed.is_set()
    assert never.closed.is_set()
    async with opened(tmp_path) as streams:
        assert (await streams.info("quick")).complete
        assert (await streams.info("never")).failure == "the server stopped"


PRODUCER = """
    import asyncio, sys
    from penstock import Streams, StreamSpec

    async def tokens():
        yield "one\\n"
        await asyncio.Event().wait()

    async def main():
        async with Streams(sys.argv[1], durability="os") as streams:
            await streams.produce("a", tokens(), StreamSpec(content_type="text/plain"), lease=1.0)
            async for _ in streams.follow("a"):
                print("begun", flush=True)

    asyncio.run(main())
"""


async def test_readers_hear_of_a_producer_that_vanished(tmp_path: Path) -> None:
    process = subprocess.Popen(  # noqa: ASYNC220 - it is awaited in threads
        [sys.executable, "-c", textwrap.dedent(PRODUCER), str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == "begun\n"
        async with opened(tmp_path) as streams:
            reader = streams.follow("a")
            assert bytes((await anext(reader)).data) == b"one\n"
            await asyncio.sleep(1.5)  # longer than the lease: it is renewed while its producer lives
            assert not (await streams.info("a")).closed
            process.send_signal(signal.SIGKILL)
            with pytest.raises(StreamFailed, match="its producer is gone"):
                await anext(reader)
            info = await streams.info("a")
            assert (info.state, info.tail) == ("failed", 4)
            assert [each.state for each in (await streams.list()).streams] == ["failed"]
    finally:
        process.kill()
        await asyncio.to_thread(process.wait)
        assert process.stdout is not None
        process.stdout.close()


async def test_a_producer_that_was_given_up_writes_no_more(tmp_path: Path) -> None:
    class Late:
        """A clock that the test sets."""

        time = 1_000_000.0

        def now(self) -> float:
            return self.time

    clock, model = Late(), Model()
    async with Streams(tmp_path, durability="os", clock=clock) as streams:
        production = await streams.produce("a", model.tokens(), TEXT, lease=30)
        async for chunk in streams.follow("a"):
            if chunk.end == 16:
                break
        clock.time += 31
        assert (await streams.info("a")).failure is not None
        model.go.set()
        await model.closed.wait()
        with pytest.raises(StreamFailed, match="its producer is gone"):
            await production.wait()
        assert (await streams.info("a")).tail == 16


async def test_nothing_is_left_running(tmp_path: Path) -> None:
    async with opened(tmp_path) as streams:
        before = asyncio.all_tasks()
        model = Model()
        model.go.set()
        for number in range(20):
            await (await streams.produce(f"a/{number}", model.tokens(), TEXT)).wait()

        async def left() -> str:
            return "".join(text for text in map(repr, asyncio.all_tasks() - before) if "penstock/toolkit" in text)

        await until(left, "")
