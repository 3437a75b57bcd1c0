"""How slowly a body may arrive. A sender that holds a connection without sending is refused (408)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from penstock.toolkit.problems import RequestError

__all__ = ["Pace", "timely"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What is expected of a body's sender. Only the time that the reader waits for bytes counts.

    Attributes:
        idle: seconds that may pass without a byte; None for no limit.
        min_rate: bytes a second that must arrive on average; None for no limit.
        grace: seconds that the sender may fall behind ``min_rate``: how long a pause or a slow start may be. Faster
            bytes make up for slower ones, up to this.
    """

    idle: float | None = None
    min_rate: float | None = None
    grace: float = 10.0


async def timely(chunks: AsyncGenerator[bytes, None], pace: Pace) -> AsyncGenerator[bytes, None]:
    """Yield what ``chunks`` yields, as long as it comes in time.

    Raises:
        RequestError: ``too-slow`` (408, RFC 9110 section 15.5.9). The connection is to be closed after it.
    """
    clock = asyncio.get_running_loop().time
    slack = pace.grace
    alarm = _Alarm()
    try:
        async with aclosing(chunks):
            while True:
                patience = pace.idle
                if pace.min_rate is not None:
                    patience = slack if patience is None else min(patience, slack)
                begun = clock()
                alarm.set(None if patience is None else begun + patience)
                try:
                    chunk = await anext(chunks)
                except StopAsyncIteration:
                    return
                except asyncio.CancelledError:
                    if alarm.went_off():
                        raise _too_slow(pace, clock() - begun) from None
                    raise
                alarm.unset()
                if pace.min_rate is not None:
                    slack = min(pace.grace, slack - (clock() - begun) + len(chunk) / pace.min_rate)
                    if slack <= 0:
                        raise _too_slow(pace, 0)
                yield chunk
    finally:
        alarm.close()


class _Alarm:
    """Interrupts a task that waits for too long, as `asyncio.timeout` does, whose timer for each wait costs too much.

    Here one timer serves many short waits: it looks at the time when it fires, which is seldom.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[Any] | None = None
        self._when = 0.0
        self._cancelling = 0
        self._rang = False

    def set(self, when: float | None) -> None:
        """Let the present task be interrupted at that time of the loop's clock, if it still waits then."""
        if when is None:
            return
        self._task = task = asyncio.current_task()
        assert task is not None  # noqa: S101 - it is a coroutine that calls this
        self._cancelling = task.cancelling()
        self._when = when
        if self._timer is None or self._timer.when() > when:
            self.close()
            self._timer = self._loop.call_at(when, self._look)

    def unset(self) -> None:
        """Say that the wait is over."""
        self._task = None

    def went_off(self) -> bool:
        """Tell whether it is this alarm alone that cancelled the task, and take its cancellation back."""
        task, self._task = self._task, None
        return self._rang and task is not None and task.uncancel() <= self._cancelling

    def close(self) -> None:
        """Put it away."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if self._task is None:
            return
        if self._loop.time() < self._when:
            self._timer = self._loop.call_at(self._when, self._look)
        else:
            self._rang = True
            self._task.cancel()


def _too_slow(pace: Pace, waited: float) -> RequestError:
    if pace.idle is not None and waited >= pace.idle:
        detail = f"Nothing arrived for {pace.idle:g} seconds."
    else:
        detail = f"The body arrives more slowly than {pace.min_rate:g} bytes a second, which is the least here."
    # A server must close the connection, since the rest of the body would be taken for the next request.
    return RequestError("too-slow", 408, detail, {"connection": "close"})
