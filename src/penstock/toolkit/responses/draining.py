"""Ending what has no end when the server is told to stop.

A server waits for its connections before it shuts an application down, and a live stream never ends by itself, so
nothing would ever stop. The application is told of a stop only after that; only the signal comes before.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import FrameType
from typing import Any

from penstock.toolkit.responses.streaming import stop_live_responses


@asynccontextmanager
async def draining(_app: object = None) -> AsyncIterator[None]:
    """End live responses at SIGTERM and SIGINT: ``FastAPI(lifespan=draining)``, or within a lifespan of one's own.

    Their readers get a proper end, and come back. Whatever else handles the signals still does.
    """
    with on_stop_signals(stop_live_responses):
        yield


@contextmanager
def on_stop_signals(function: Callable[[], None]) -> Iterator[None]:
    """Call a function in the event loop at SIGTERM and SIGINT, before whoever handles them otherwise."""
    if threading.current_thread() is not threading.main_thread():  # only there can signals be handled
        yield
        return
    loop = asyncio.get_running_loop()
    previous: dict[int, Any] = {}

    def handle(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(function)
        before = previous[number]
        if callable(before):
            before(number, frame)
        elif before == signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    for caught in (signal.SIGTERM, signal.SIGINT):
        previous[caught] = signal.signal(caught, handle)
    try:
        yield
    finally:
        for number, before in previous.items():
            if signal.getsignal(number) is handle:
                signal.signal(number, before)
