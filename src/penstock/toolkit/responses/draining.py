"""Ending what has no end when the server is told to stop.

A server waits for its connections before it shuts an application down, and a live stream never ends by itself, so
nothing would ever stop. The application is told of a stop only after that; only the signal comes before.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from types import FrameType
from typing import Any

from fastapi import FastAPI

from penstock.toolkit.problems import handles_problems
from penstock.toolkit.requests.openapi import show_bodies
from penstock.toolkit.responses.under_way import stop_live_responses, stop_responses

DEADLINE = 30.0
"""Seconds that responses which have an end of their own are given to reach it."""


class Draining:
    """A lifespan that ends responses at SIGTERM and SIGINT; see `draining`."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline

    def __call__(self, app: object = None) -> AbstractAsyncContextManager[None]:
        """Handle the signals while an application runs. Whatever else handles them still does."""
        if isinstance(app, FastAPI):
            show_bodies(app, problems=handles_problems(app))
        return _draining(self._deadline)

    def within(self, deadline: float) -> Draining:
        """Return the same with another deadline, in seconds."""
        return Draining(deadline)


draining = Draining(DEADLINE)
"""End responses at SIGTERM and SIGINT: ``FastAPI(lifespan=draining)``, or within a lifespan of one's own.

Live ones are ended at once: their readers get a proper end, and come back. Others may go on for 30 seconds, or for as
long as ``draining.within(seconds)`` says, and are broken off then.
"""


@asynccontextmanager
async def _draining(deadline: float) -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()

    def drain() -> None:
        stop_live_responses()
        loop.call_later(deadline, stop_responses)

    with on_stop_signals(drain):
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
