"""Async methods for sync code, without a second copy of anything.

A class that wraps an async one takes over its methods in one line each::

    class SyncClient(Blocking[Client]):
        put = blocking(Client.put)

The async object lives on an event loop in a thread of its own, and a call waits there for its end. Type checkers see
the method's own parameters and result, and people its docstring.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager, ExitStack
from functools import wraps
from types import TracebackType
from typing import Any, Concatenate, Final, Generic, ParamSpec, Self, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal

A = TypeVar("A", bound=AbstractAsyncContextManager[Any])
B = TypeVar("B")
C = TypeVar("C")
P = ParamSpec("P")
R = TypeVar("R")

_END: Final = object()

_ENDING: Final = 5.0
"""Seconds that a cancelled call may take to end."""


class Blocking(Generic[A]):
    """An async context manager for use in a plain ``with``.

    Args:
        wrapped: the async object.
        portal: the event loop to run it on; a new one in a new thread if not given.
    """

    def __init__(self, wrapped: A, portal: BlockingPortal | None = None) -> None:
        self._wrapped = wrapped
        self._given = portal
        self._portal: BlockingPortal | None = None
        self._exits = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as exits:
            portal = self._given or exits.enter_context(start_blocking_portal())
            exits.enter_context(portal.wrap_async_context_manager(self._wrapped))
            self._portal = portal
            self._exits = exits.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._portal = None
        self._exits.__exit__(kind, error, traceback)

    @property
    def _loop(self) -> BlockingPortal:
        if self._portal is None:
            raise RuntimeError(f"use {type(self).__name__} in a with block")
        return self._portal

    def _wait_for(self, call: Callable[[], Awaitable[R]]) -> R:
        ended = threading.Event()

        async def work() -> R:
            try:
                return await call()
            finally:
                ended.set()

        future = self._loop.start_task_soon(work)
        try:
            return future.result()
        except BaseException:
            # Ctrl-C ends the waiting, and must end what was waited for as well, before anything else is begun.
            future.cancel()
            ended.wait(_ENDING)
            raise


def blocking(
    method: Callable[Concatenate[A, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[Blocking[A], P], R]:
    """Return a method that waits for the end of an async one."""

    @wraps(method)
    def call(self: Blocking[A], /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._wait_for(lambda: method(self._wrapped, *args, **kwargs))

    return call


def iterating(
    method: Callable[Concatenate[A, P], AsyncGenerator[R, None]],
) -> Callable[Concatenate[Blocking[A], P], Generator[R, None, None]]:
    """Return a generator method that yields what an async one yields. Closing it closes the async one."""

    @wraps(method)
    def call(self: Blocking[A], /, *args: P.args, **kwargs: P.kwargs) -> Generator[R, None, None]:
        items = method(self._wrapped, *args, **kwargs)

        async def next_item() -> Any:
            return await anext(items, _END)

        try:
            while (item := self._wait_for(next_item)) is not _END:
                yield item
        finally:
            if self._portal is not None:
                self._wait_for(items.aclose)

    return call


def nested(
    method: Callable[Concatenate[A, P], B], wrapper: Callable[[B, BlockingPortal], C]
) -> Callable[Concatenate[Blocking[A], P], C]:
    """Return a method that gives, for use in a ``with`` of its own, what a method gives for an ``async with``."""

    @wraps(method)
    def call(self: Blocking[A], /, *args: P.args, **kwargs: P.kwargs) -> C:
        return wrapper(method(self._wrapped, *args, **kwargs), self._loop)

    return call
