"""Calling what an application gives to be told or asked: hooks, plain or async."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any


async def called(function: Callable[..., Any], *args: object) -> Any:
    """Call a hook: a plain function in a thread, so that it may block, and an async one here."""
    own = function if inspect.isroutine(function) else type(function).__call__
    if inspect.iscoroutinefunction(own):
        return await function(*args)
    # Not in anyio's threads: those of a worker that granian stops keep its process from exiting.
    result = await asyncio.to_thread(function, *args)
    return await result if inspect.isawaitable(result) else result
