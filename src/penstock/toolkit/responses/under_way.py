"""The responses that are being sent, for when the server stops."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakSet


class UnderWay:
    """A response that is being sent, and that can be told to end.

    Args:
        live: whether it has no end of its own, so that a stop ends it at once; others are given time.
    """

    def __init__(self, *, live: bool) -> None:
        self.live = live
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Have it end."""
        self._stop.set()

    async def stopped(self) -> None:
        """Wait until it is to end."""
        await self._stop.wait()

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Have it told of a stop."""
        _responses.add(self)
        try:
            yield
        finally:
            _responses.discard(self)


_responses: WeakSet[UnderWay] = WeakSet()


def stop_live_responses() -> None:
    """End the live responses of this process, so that the server, which waits for its connections, can go."""
    _stop(only_live=True)


def stop_responses() -> None:
    """End all responses of this process: what is not complete is broken off."""
    _stop(only_live=False)


def _stop(*, only_live: bool) -> None:
    for response in list(_responses):
        if response.live or not only_live:
            response.stop()
