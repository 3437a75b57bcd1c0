"""Several worker processes on one folder: a stream is the same on each of them."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import processes
from penstock.core.follow import RECHECK
from servers import Server
from wire import Connection, Follower, request, until

pytestmark = [
    pytest.mark.skipif(not processes.AVAILABLE, reason="looks into /proc for which process has which connection"),
    pytest.mark.xdist_group("workers"),
]

_MOST_FOLLOWERS = 300


def record(number: int) -> bytes:
    return json.dumps({"n": number, "x": "x" * (number % 97)}, separators=(",", ":")).encode()


async def append(port: int, path: str, number: int) -> None:
    """Append as a producer does who does not give up."""
    headers = {
        "content-type": "application/json",
        "producer-id": "p",
        "producer-epoch": "0",
        "producer-seq": str(number),
    }
    deadline = time.monotonic() + 30
    while True:
        try:
            answer = await request(port, "POST", path, record(number), headers)
        except OSError:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
            continue
        assert answer.status in {200, 201}, answer.body
        return


def homes(server: Server, followers: list[Follower]) -> dict[int, int]:
    """Tell which worker each follower is connected to, by its index."""
    ports = {
        index: follower.connection.local_port
        for index, follower in enumerate(followers)
        if follower.connection is not None
    }
    return processes.owner_of(ports, processes.workers(server.pid))


@asynccontextmanager
async def following(server: Server, path: str) -> AsyncIterator[tuple[list[Follower], list[asyncio.Task[None]]]]:
    """Open so many followers of a stream that every worker has some."""
    followers: list[Follower] = []
    tasks: list[asyncio.Task[None]] = []
    try:
        while set(homes(server, followers).values()) != set(processes.workers(server.pid)):
            assert len(followers) < _MOST_FOLLOWERS, "the connections do not reach all workers"
            new = [Follower(server.port, path) for _ in range(8)]
            followers += new
            tasks += [asyncio.create_task(follower.run()) for follower in new]
            await asyncio.gather(*(follower.reach(1) for follower in new))
        yield followers, tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def check(follower: Follower, count: int) -> None:
    """Make sure that a follower saw every record once, in order, under the offset after it."""
    offset = 0
    for number, event in enumerate(follower.events):
        offset += len(record(number)) + 1
        assert (event.kind, event.data.encode(), event.id) == ("message", record(number), str(offset))
    assert len(follower.events) == count


def test_a_thousand_appends_reach_the_readers_of_every_worker(workers: Server) -> None:
    count, path = 1000, "/live/chaos/thousand"

    async def scenario() -> None:
        chance = random.Random(1)
        await append(workers.port, path, 0)
        restless = [Follower(workers.port, path, lambda: chance.randint(1, 60)) for _ in range(8)]
        cut = [asyncio.create_task(follower.run()) for follower in restless]
        async with following(workers, path) as (followers, tasks), Connection(workers.port) as appender:
            at = homes(workers, followers)
            home = processes.owner_of({0: appender.local_port}, processes.workers(workers.pid)).get(0)
            sent = [0.0]
            for number in range(1, count):
                sent.append(time.perf_counter())
                answer = await appender.request("POST", path, record(number), {"content-type": "application/json"})
                assert answer.status == 200
            await request(workers.port, "POST", path, b"", {"stream-closed": "true"})
            await asyncio.gather(*tasks, *cut)
            for follower in [*followers, *restless]:
                check(follower, count)
            assert all(follower.cuts == 0 for follower in followers)
            assert all(follower.cuts > 10 for follower in restless)
            elsewhere = [
                came - went
                for index, follower in enumerate(followers)
                if at[index] != home
                for came, went in zip(follower.times[1:], sent[1:], strict=True)
            ]
            sys.stdout.write(
                f"{len(followers)} readers; from an append to a reader of another worker:"
                f" median {statistics.median(elsewhere) * 1000:.1f} ms\n"
            )

    asyncio.run(scenario())


def test_a_record_reaches_other_workers_at_once_and_not_at_the_next_look(workers: Server) -> None:
    """Each record waits for all readers to have the one before: looking again on a timer would take the sum of it."""
    count, path = 40, "/live/chaos/paced"

    async def scenario() -> None:
        await append(workers.port, path, 0)
        async with following(workers, path) as (followers, _):
            begun = time.perf_counter()
            for number in range(1, count):
                await append(workers.port, path, number)
                await asyncio.gather(*(follower.reach(number + 1) for follower in followers))
            took = time.perf_counter() - begun
            for follower in followers:
                check(follower, count)
            assert took < count * RECHECK / 10

    asyncio.run(scenario())


def test_a_worker_that_is_killed_is_replaced_and_its_readers_go_on(tmp_path: Path) -> None:
    path = "/live/log"

    async def scenario(server: Server) -> None:
        async with Connection(server.port) as upload:
            await upload.begin("PUT", "/files/half", {"content-length": "10000000"})
            await upload.write(bytes(300_000))
            await until(lambda: status(server, "/files/half"), 200)
            before = set(processes.workers(server.pid))
            victim = processes.owner_of({0: upload.local_port}, list(before))[0]
            await append(server.port, path, 0)
            async with following(server, path) as (followers, tasks):
                orphans = [index for index, home in homes(server, followers).items() if home == victim]
                os.kill(victim, signal.SIGKILL)
                for number in range(1, 100):
                    await append(server.port, path, number)
                with pytest.raises(OSError):  # noqa: PT011 - however the system says that nobody is there
                    await upload.head()
                await until(lambda: status(server, "/files/half"), 404)
                await until(lambda: number_of(set(processes.workers(server.pid)) - before), 1)
                for number in range(100, 200):
                    await append(server.port, path, number)
                await request(server.port, "POST", path, b"", {"stream-closed": "true"})
                await asyncio.gather(*tasks)
                for index, follower in enumerate(followers):
                    check(follower, 200)
                    assert (follower.cuts > 0) == (index in orphans)
        assert not list((server.data / "blobs").glob("*/*"))

    async def status(server: Server, path: str) -> int:
        return (await request(server.port, "HEAD", path)).status

    async def number_of(pids: set[int]) -> int:
        return len(pids)

    with Server(tmp_path / "data", "--workers", "4") as server:
        asyncio.run(scenario(server))


def test_workers_do_not_outlive_a_parent_that_was_killed(tmp_path: Path) -> None:
    server = Server(tmp_path / "data", "--workers", "2")
    with server:
        orphans = processes.workers(server.pid)
        os.kill(server.pid, signal.SIGKILL)
        server.kill()
        deadline = time.monotonic() + 30
        while any(processes.runs(pid) for pid in orphans):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        server.start()  # the port is free
