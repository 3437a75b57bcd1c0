"""Driving the generators that people write: async ones in a task, plain ones in a thread; closed whatever happens."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Iterator,
)
from typing import Any, TypeAlias

from penstock.toolkit.responses.outlet import Outlet

logger = logging.getLogger("penstock")

Items: TypeAlias = AsyncIterable[Any] | Iterable[Any]
Encode: TypeAlias = Callable[[Any], bytes]

THREADS = 64
"""Plain generators that run at once. More wait for their turn, and nobody else does: the pool is theirs alone."""

TURN = 0.005
"""Seconds that an async generator may run on before others of its event loop have their turn."""

SLICE = 0.0005
"""Seconds that a plain generator may run on while others do, too. By itself, the interpreter lets each thread run for
ten times as long, and the event loop would wait for all of them, every time that it has something to do."""

PAUSE = 0.00005
"""Seconds that it pauses then: without any, it would go on at once, before another thread woke up."""

CLOSING = 1.0
"""Seconds that a generator gets to close; one that blocks longer is left to its thread, and reported."""

_iterating: set[int] = set()
"""The threads that iterate plain generators."""

_turns: dict[asyncio.AbstractEventLoop, asyncio.Semaphore] = {}


class Producing:
    """An iteration under way."""

    def __init__(self, items: Items, encode: Encode, outlet: Outlet) -> None:
        work: Coroutine[Any, Any, None]
        self._outlet = outlet
        self._encode = encode
        self.error: Exception | None = None
        if isinstance(items, AsyncIterable):
            self._in_thread, work = False, self._iterate_async(items)
        else:
            self._in_thread, work = True, self._iterate_in_thread(items)
        self._task = asyncio.create_task(self._run(work))

    async def _run(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 - for the sender to tell, after what was produced before it
            self.error = error
        finally:
            self._outlet.end()

    async def _iterate_async(self, items: AsyncIterable[Any]) -> None:
        iterator: AsyncIterator[Any] = aiter(items)
        outlet, append, encode = self._outlet, self._outlet.append, self._encode
        clock = time.monotonic
        until = clock() + TURN
        try:
            async for item in iterator:
                if append(encode(item)):
                    await outlet.room()
                    if outlet.closed:
                        return
                # A generator that never really awaits would keep everybody else of this event loop waiting.
                if clock() > until:
                    await asyncio.sleep(0)
                    until = clock() + TURN
        finally:
            # In the same task that iterated it, as cancel scopes and context variables in the generator need.
            if isinstance(iterator, AsyncGenerator):
                await iterator.aclose()

    async def _iterate_in_thread(self, items: Iterable[Any]) -> None:
        loop = asyncio.get_running_loop()
        turns = _turns.setdefault(loop, asyncio.Semaphore(THREADS))
        async with turns:
            done: asyncio.Future[None] = loop.create_future()
            context = contextvars.copy_context()
            thread = threading.Thread(
                target=context.run, args=(self._iterate, items, loop, done), name="penstock-generate", daemon=True
            )
            thread.start()
            await done

    def _iterate(self, items: Iterable[Any], loop: asyncio.AbstractEventLoop, done: asyncio.Future[None]) -> None:
        error: BaseException | None = None
        try:
            _iterate_and_close(items, self._encode, self._outlet)
        except BaseException as raised:  # noqa: BLE001 - crosses over to the event loop
            error = raised
        try:
            loop.call_soon_threadsafe(_resolve, done, error)
        except RuntimeError:  # the loop was closed meanwhile: nobody waits
            return

    async def close(self) -> None:
        """End the iteration, and wait until the generator is closed.

        An async one is cancelled where it awaits. A plain one cannot be interrupted: it is closed by its thread when it
        comes back with the next item.
        """
        self._outlet.close()
        if not self._in_thread:
            self._task.cancel()
        _, pending = await asyncio.wait({self._task}, timeout=CLOSING)
        if pending:
            logger.warning("A generator has not closed within %s s, and is left alone: %r", CLOSING, self._task)


def _iterate_and_close(items: Iterable[Any], encode: Encode, outlet: Outlet) -> None:
    iterator: Iterator[Any] = iter(items)
    append = outlet.append_from_thread
    clock = time.monotonic
    until = clock() + SLICE
    me = threading.get_ident()
    _iterating.add(me)
    try:
        for item in iterator:
            append(encode(item))
            if outlet.closed:
                return
            if len(_iterating) > 1 and clock() > until:
                time.sleep(PAUSE)
                until = clock() + SLICE
    finally:
        _iterating.discard(me)
        if isinstance(iterator, Generator):
            iterator.close()


def _resolve(done: asyncio.Future[None], error: BaseException | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)
