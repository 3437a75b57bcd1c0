"""Waiting for what must be finished once it has begun."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


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
