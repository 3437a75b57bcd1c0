"""Dependencies that are opened when they are needed, and closed when they are not any more.

FastAPI keeps what a ``yield`` dependency gives, a database session for one, until the response is through: with a
stream, for as long as its reader takes. With ``scope="function"`` it is closed before the stream's first item. Neither
is what a stream needs::

    async def get_session(engine: Annotated[Engine, Depends(get_engine)]) -> AsyncGenerator[Session, None]:
        async with Session(engine) as session:
            yield session

    Sessions = Annotated[Deferred[Session], Depends(deferred(get_session))]

    @app.get("/orders/{shop}")
    async def orders(shop: int, sessions: Sessions) -> StreamedNDJSON:
        async with sessions.open() as session:  # for the set-up alone: it is back in its pool before the first byte
            if not await session.get(Shop, shop):
                raise HTTPException(404)
        return StreamedNDJSON(rows(shop, sessions))

    async def rows(shop: int, sessions: Deferred[Session]) -> AsyncGenerator[Row, None]:
        async with sessions.open() as session:  # just while items are produced, whatever ends it
            async for row in session.stream(...):
                yield row
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from types import TracebackType
from typing import Any, Generic, TypeAlias, TypeVar, get_type_hints

from penstock.core.uninterrupted import uninterrupted

T = TypeVar("T")

Dependency: TypeAlias = Callable[
    ...,
    AsyncIterator[T]
    | Iterator[T]
    | AsyncGenerator[T, None]
    | Generator[T, None, None]
    | AbstractAsyncContextManager[T]
    | AbstractContextManager[T],
]
"""A dependency with ``yield``, async or plain; or whatever else returns a context manager."""


class Deferred(Generic[T]):
    """Opens a dependency whose own parameters FastAPI has filled in already: as often as needed, also several at once.

    Args:
        function: the dependency.
        arguments: what to call it with.
    """

    def __init__(self, function: Dependency[T], arguments: dict[str, Any]) -> None:
        self._function = function
        self._arguments = arguments

    def open(self) -> Opening[T]:
        """Return a context manager that opens the dependency on entry, and closes it on exit.

        An error goes into the dependency, as FastAPI does it, so that it can roll back. With ``async with``, a plain
        dependency is opened and closed in a thread. With ``with``, as plain generators need it, only a plain one can.
        """
        return Opening(self._entered())

    def _entered(self) -> AbstractAsyncContextManager[T] | AbstractContextManager[T]:
        function: Any = self._function
        if _is(inspect.isasyncgenfunction, function):
            function = asynccontextmanager(function)
        elif _is(inspect.isgeneratorfunction, function):
            function = contextmanager(function)
        manager = function(**self._arguments)
        if isinstance(manager, (AbstractAsyncContextManager, AbstractContextManager)):
            return manager
        raise TypeError(f"{self._function!r} neither yields nor returns a context manager: there is nothing to close.")


class Opening(Generic[T]):
    """One time that a dependency is open; see `Deferred.open`."""

    def __init__(self, manager: AbstractAsyncContextManager[T] | AbstractContextManager[T]) -> None:
        self._manager = manager

    def __enter__(self) -> T:
        return self._plain().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return self._plain().__exit__(kind, error, trace)

    def _plain(self) -> AbstractContextManager[T]:
        if not isinstance(self._manager, AbstractContextManager):
            raise TypeError("This dependency is async: open it with 'async with', in an async generator.")
        return self._manager

    async def __aenter__(self) -> T:
        manager = self._manager
        if isinstance(manager, AbstractAsyncContextManager):
            return await manager.__aenter__()
        entering = asyncio.ensure_future(asyncio.to_thread(manager.__enter__))
        try:
            return await uninterrupted(entering)
        except asyncio.CancelledError as cancelled:
            # It was opened meanwhile, and nobody will leave it.
            if not entering.cancelled() and entering.exception() is None:
                await uninterrupted(asyncio.to_thread(manager.__exit__, type(cancelled), cancelled, None))
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        manager = self._manager
        if isinstance(manager, AbstractAsyncContextManager):
            return await manager.__aexit__(kind, error, trace)
        return await uninterrupted(asyncio.to_thread(manager.__exit__, kind, error, trace))


class DeferredDependency(Generic[T]):
    """What `deferred` returns: a dependency with the parameters of another, which it does not open.

    Two of the same function are equal: so ``app.dependency_overrides[deferred(get_session)] = deferred(get_other)``.
    """

    def __init__(self, function: Dependency[T]) -> None:
        self._function = function
        signature = inspect.signature(function)
        # FastAPI looks annotations that are text up where this is called from: elsewhere than where they were written.
        hints = _hints(function)
        parameters = [
            parameter.replace(annotation=hints.get(parameter.name, parameter.annotation))
            for parameter in signature.parameters.values()
        ]
        self.__signature__ = signature.replace(parameters=parameters, return_annotation=Deferred)

    async def __call__(self, **arguments: Any) -> Deferred[T]:
        """Return what opens the dependency."""
        return Deferred(self._function, arguments)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DeferredDependency) and other._function == self._function

    def __hash__(self) -> int:
        return hash((DeferredDependency, self._function))


def deferred(function: Dependency[T]) -> DeferredDependency[T]:
    """Return a dependency that gives a `Deferred`: what opens another one, when and for as long as that is needed.

    Args:
        function: a dependency with ``yield``, async or plain, as FastAPI takes it; or a function that returns a context
            manager. Its own parameters, dependencies among them, are filled in by FastAPI at the beginning of the
            request. What those open themselves stays open until its end, if it is not deferred, too.
    """
    return DeferredDependency(function)


def _is(kind: Callable[[Any], bool], function: Any) -> bool:
    """Tell whether a function is of a kind, or an object's method that makes it callable."""
    return kind(function) or kind(getattr(function, "__call__", None))  # noqa: B004 - it is looked at, not called


def _hints(function: Any) -> dict[str, Any]:
    described = function if inspect.isroutine(function) else getattr(type(function), "__call__", function)  # noqa: B004 - as above
    try:
        return get_type_hints(described, include_extras=True)
    except (NameError, TypeError):  # a name that is only there for type checkers: FastAPI will say so, if it matters
        return {}
