"""What an application adds to a door: who may do what, and what happens when a stream is complete."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Literal, TypeAlias

from starlette.requests import Request

from penstock.model import StreamInfo
from penstock.toolkit.problems import RequestError

Action: TypeAlias = Literal["read", "write", "delete", "list"]

Authorize: TypeAlias = Callable[[Request, Action, str], Awaitable[bool | None] | bool | None]
"""Is asked before anything is done, or read of the body.

It is given the request, the action, and the stream's name (for ``list``, the prefix). It refuses with False (403) or by
raising FastAPI's HTTPException. It may be a plain function, which runs in a thread, or an async one.
"""

OnComplete: TypeAlias = Callable[[StreamInfo, Request], Awaitable[None] | None]
"""Is told of a stream that was completed through the door, once it is durable and before the client hears of it."""


async def authorized(authorize: Authorize | None, request: Request, action: Action, name: str) -> None:
    """Ask whether a request may go on.

    Raises:
        RequestError: ``forbidden`` (403).
    """
    if authorize is None:
        return
    if await _called(authorize, request, action, name) is False:
        raise RequestError("forbidden", 403, f"You may not {action} {name!r}.")


async def completed(on_complete: OnComplete | None, info: StreamInfo, request: Request) -> None:
    """Tell that a stream is complete."""
    if on_complete is not None:
        await _called(on_complete, info, request)


async def _called(function: Callable[..., Any], *args: object) -> Any:
    """Call a plain function in a thread, so that it may block, and an async one here."""
    called = function if inspect.isroutine(function) else type(function).__call__
    if inspect.iscoroutinefunction(called):
        return await function(*args)
    result = await asyncio.to_thread(function, *args)
    return await result if inspect.isawaitable(result) else result
