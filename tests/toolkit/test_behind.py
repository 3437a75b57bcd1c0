"""Work behind a reader: in order, never twice at once, bounded, and its errors are heard."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from penstock.model import Buffer
from penstock.toolkit.requests import behind
from penstock.toolkit.requests.behind import Behind
from penstock.toolkit.requests.limits import Pace, timely

KIB = 1024


class Work:
    """Takes bytes, as slowly as the test wants, and complains about calls at the same time."""

    def __init__(self, *, held: bool = False) -> None:
        self.taken = bytearray()
        self.calls = 0
        self.go = threading.Event()
        if not held:
            self.go.set()
        self._busy = threading.Lock()

    def __call__(self, buffers: list[Buffer]) -> None:
        assert self._busy.acquire(blocking=False), "two at once"
        try:
            assert self.go.wait(30)
            self.calls += 1
            for buffer in buffers:
                self.taken += buffer
        finally:
            self._busy.release()


async def test_all_of_it_is_done_in_order_whatever_the_pace() -> None:
    chance = random.Random(1)
    work = Work()
    worker = Behind(work, lambda: 64 * KIB)
    pieces = [chance.randbytes(chance.randrange(20 * KIB)) for _ in range(500)]
    for piece in pieces:
        await worker.put((piece,))
        if not chance.randrange(5):
            await asyncio.sleep(0)
        if not chance.randrange(50):
            await worker.flush()
    await worker.flush()
    assert bytes(work.taken) == b"".join(pieces)
    assert work.calls <= len(pieces)


async def test_what_is_under_way_is_bounded_and_goes_on_when_there_is_room() -> None:
    work = Work(held=True)
    worker = Behind(work, lambda: 10 * KIB)
    count = 0

    async def hand_over() -> None:
        nonlocal count
        for _ in range(100):
            await worker.put((bytes(KIB),))
            count += 1

    task = asyncio.create_task(hand_over())
    done, _ = await asyncio.wait({task}, timeout=0.2)
    assert not done
    assert count == 9  # the tenth waits for room
    work.go.set()
    await task
    await worker.flush()
    assert len(work.taken) == 100 * KIB


async def test_a_thread_is_handed_back_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(behind, "_TURN", 4 * KIB)
    monkeypatch.setattr(behind, "_BATCH", KIB)
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    work = Work(held=True)
    worker = Behind(work, lambda: 1000 * KIB)
    for _ in range(100):
        await worker.put((bytes(KIB),))
    other = asyncio.create_task(asyncio.to_thread(lambda: len(work.taken)))  # waits for the only thread there is
    await asyncio.sleep(0)
    work.go.set()
    assert await other < 100 * KIB
    await worker.flush()
    assert len(work.taken) == 100 * KIB


async def test_an_error_is_heard_by_who_goes_on_and_by_who_waits() -> None:
    def fail(_: list[Buffer]) -> None:
        raise OSError("no")

    worker = Behind(fail, lambda: 10 * KIB)

    async def hand_over() -> None:
        for _ in range(1000):
            await worker.put((bytes(KIB),))

    with pytest.raises(OSError, match="no"):
        await hand_over()
    with pytest.raises(OSError, match="no"):
        await worker.flush()
    with pytest.raises(OSError, match="no"):
        await worker.put((b"x",))
    await worker.stop()


async def test_to_stop_is_to_wait_for_what_was_begun_and_for_no_more() -> None:
    work = Work(held=True)
    worker = Behind(work, lambda: 1000 * KIB)
    await worker.put((b"beg",))
    assert not work._busy.locked()  # it is not worth a thread yet
    flushing = asyncio.create_task(worker.flush())
    while not work._busy.locked():  # noqa: ASYNC110 - it is a thread that locks it
        await asyncio.sleep(0.001)
    await worker.put((b"not begun",))
    stopping = asyncio.create_task(worker.stop())
    done, _ = await asyncio.wait({stopping}, timeout=0.1)
    assert not done
    work.go.set()
    await stopping
    await flushing
    assert bytes(work.taken) == b"beg"


async def test_who_cancels_a_wait_for_bytes_gets_the_cancellation_and_no_complaint_about_time() -> None:
    async def silence() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.Event().wait()

    async def read(pace: Pace) -> None:
        async for _ in timely(silence(), pace):  # type: ignore[arg-type] # it is a generator
            pass

    reading = asyncio.create_task(read(Pace(idle=30.0)))
    await asyncio.sleep(0.01)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    late = asyncio.create_task(read(Pace(idle=0.05)))
    done, _ = await asyncio.wait({late}, timeout=10)
    assert "Nothing arrived" in str(late.exception())
    assert late.cancelling() == 0
    assert done
