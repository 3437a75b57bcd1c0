"""Dependencies that are opened when they are needed: what is open when, and what becomes of errors."""

# Without the future import: FastAPI cannot see what these functions' annotations name.

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Header, HTTPException
from starlette.responses import Response

from applications import serving
from penstock.toolkit.deferred import Deferred, deferred
from penstock.toolkit.responses.streaming import StreamedText
from wire import Broken, Connection, request


class Log:
    """What happens to the resources, in order."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.changed = asyncio.Event()
        self.loop = asyncio.get_running_loop()

    def add(self, event: str) -> None:
        self.events.append(event)
        self.loop.call_soon_threadsafe(self.changed.set)

    async def until(self, event: str) -> None:
        while event not in self.events:
            self.changed.clear()
            await self.changed.wait()


log: Log


def get_user(x_user: Annotated[str, Header()] = "nobody") -> str:
    return x_user


async def get_async(user: Annotated[str, Depends(get_user)]) -> AsyncGenerator[str, None]:
    log.add("open")
    try:
        yield user
    except BaseException as error:
        log.add(type(error).__name__)
        raise
    finally:
        await asyncio.sleep(0)  # an await in the clean-up must not be cut short
        log.add("closed")


def get_plain(user: Annotated[str, Depends(get_user)]) -> Generator[str, None, None]:
    log.add("open")
    try:
        yield user
    except BaseException as error:
        log.add(type(error).__name__)
        raise
    finally:
        log.add("closed")


@asynccontextmanager
async def get_manager(user: Annotated[str, Depends(get_user)]) -> AsyncGenerator[str, None]:
    async with asynccontextmanager(get_async)(user) as opened:
        yield opened


class Getter:
    """A dependency that is an object."""

    async def __call__(self, user: Annotated[str, Depends(get_user)]) -> AsyncGenerator[str, None]:
        async with asynccontextmanager(get_async)(user) as opened:
            yield opened


KINDS: list[Any] = [get_async, get_plain, get_manager, Getter()]


def application(get: Callable[..., Any], items: Callable[[Deferred[str]], Any], *, setup: bool = False) -> FastAPI:
    app = FastAPI()

    @app.get("/it")
    async def handler(sessions: Annotated[Deferred[str], Depends(deferred(get))], refuse: bool = False) -> Response:
        log.add("handler")
        if setup:
            async with sessions.open():
                if refuse:
                    raise HTTPException(404)
        return StreamedText(items(sessions))

    return app


async def during(sessions: Deferred[str]) -> AsyncGenerator[str, None]:
    async with sessions.open() as session:
        yield session
        log.add("produced")


@pytest.mark.parametrize("get", KINDS)
async def test_it_is_held_just_while_items_are_produced(get: Any) -> None:
    global log
    log = Log()
    async with serving(application(get, during)) as port:
        assert (await request(port, "GET", "/it", headers={"x-user": "me"})).body == b"me"
        await log.until("closed")
    assert log.events == ["handler", "open", "produced", "closed"]


@pytest.mark.parametrize("get", KINDS)
async def test_what_the_set_up_needs_is_closed_before_the_first_byte(get: Any) -> None:
    global log
    log = Log()

    async def after(sessions: Deferred[str]) -> AsyncGenerator[str, None]:
        log.add("first")
        yield "a"

    async with serving(application(get, after, setup=True)) as port:
        assert (await request(port, "GET", "/it")).body == b"a"
        assert log.events == ["handler", "open", "closed", "first"]
        log.events.clear()
        assert (await request(port, "GET", "/it?refuse=true")).status == 404
        await log.until("closed")
        assert log.events == ["handler", "open", "HTTPException", "closed"]


@pytest.mark.parametrize("get", KINDS)
async def test_it_is_closed_when_the_reader_goes_while_it_waits(get: Any) -> None:
    global log
    log = Log()

    async def waiting(sessions: Deferred[str]) -> AsyncGenerator[str, None]:
        async with sessions.open() as session:
            yield session
            await asyncio.Event().wait()

    async with serving(application(get, waiting)) as port:
        async with Connection(port) as connection:
            await connection.begin("GET", "/it")
            await connection.head()
            await anext(connection.body())
        await log.until("closed")
    assert log.events == ["handler", "open", "CancelledError", "closed"]


@pytest.mark.parametrize("get", KINDS)
async def test_it_is_told_of_an_error_while_items_are_produced(get: Any) -> None:
    global log
    log = Log()

    async def failing(sessions: Deferred[str]) -> AsyncGenerator[str, None]:
        async with sessions.open() as session:
            yield session
            raise ValueError

    async with serving(application(get, failing)) as port:
        with pytest.raises(Broken):
            await request(port, "GET", "/it")
    assert log.events == ["handler", "open", "ValueError", "closed"]


async def test_a_plain_generator_opens_a_plain_dependency_in_its_own_thread() -> None:
    global log
    log = Log()
    threads: list[str] = []

    def rows(sessions: Deferred[str]) -> Generator[str, None, None]:
        with sessions.open() as session:
            threads.append(threading.current_thread().name)
            yield session

    async with serving(application(get_plain, rows)) as port:
        assert (await request(port, "GET", "/it")).body == b"nobody"
    assert threads == ["penstock-generate"]
    assert log.events == ["handler", "open", "closed"]
    with pytest.raises(TypeError, match="async with"), Deferred(get_async, {"user": ""}).open():
        pass


async def test_it_can_be_opened_again_and_several_times_at_once() -> None:
    global log
    log = Log()
    sessions: Deferred[str] = Deferred(get_async, {"user": "me"})
    async with sessions.open() as first, sessions.open() as second:
        assert (first, second) == ("me", "me")
        assert log.events == ["open", "open"]
    async with sessions.open():
        pass
    assert log.events.count("closed") == 3


async def test_an_entry_that_is_cancelled_is_left_again() -> None:
    global log
    log = Log()
    entered = threading.Event()
    go_on = threading.Event()

    def slow() -> Generator[None, None, None]:
        log.add("open")
        entered.set()
        go_on.wait(10)
        try:
            yield
        finally:
            log.add("closed")

    async def use() -> None:
        async with Deferred(slow, {}).open():
            pytest.fail("it was cancelled")

    task = asyncio.create_task(use())
    await asyncio.to_thread(entered.wait, 10)
    task.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert log.events == ["open", "closed"]


async def test_it_can_be_overridden() -> None:
    global log
    log = Log()

    async def other() -> AsyncGenerator[str, None]:
        yield "other"

    app = application(get_async, during)
    app.dependency_overrides[deferred(get_async)] = deferred(other)
    async with serving(app) as port:
        assert (await request(port, "GET", "/it")).body == b"other"


async def test_what_cannot_be_closed_is_refused() -> None:
    with pytest.raises(TypeError, match="nothing to close"):
        Deferred(lambda: 3, {}).open()  # type: ignore[arg-type, return-value]  # that is the point


def test_the_document_shows_the_parameters_of_what_it_opens() -> None:
    paths = application(get_async, during).openapi()["paths"]
    assert {parameter["name"] for parameter in paths["/it"]["get"]["parameters"]} == {"x-user", "refuse"}
