"""Waiting for what must be finished once it has begun."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


class UninterruptedFuture(asyncio.Future[T]):
    """A future whose waiter is not interrupted: a task that is cancelled meanwhile hears of it at the end.

    The same as `uninterrupted`, for a future of one's own: without a shield around it, and so with two turns of the
    event loop less between the result and the waiter.
    """

    def cancel(self, msg: object = None) -> bool:
        """Refuse: the task then raises the cancellation where it goes on."""
        del msg
        return False


async def uninterrupted(awaitable: Awaitable[T]) -> T:
    """Wait for ``awaitable`` to its end, and only then raise a cancellation that came meanwhile.

    For work that another thread does, or that would leave a half-done thing behind: a commit, a clean-up.
    """
    task = asyncio.ensure_future(awaitable)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            if task.cancelled():
                raise
            cancelled = error
        except BaseException:  # noqa: BLE001 - the task's own error: it is raised below, where a cancellation is too
            break
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # mark as seen: the cancellation is what the caller hears of
        raise cancelled
    return task.result()
