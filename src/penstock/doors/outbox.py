"""Complete uploads that the application is still to be told of, whoever asks for them again, and whatever goes down.

A note is written before an upload is complete, and goes when ``on_complete`` was told: so whatever happens in between,
there is a note of it. It is a stream of a reserved name, in which it says when it is due. Who tells an upload puts that
off while it does; what is due is anybody's, and belongs to the process whose commit puts it off.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, TypeAlias
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message

from penstock.core import rules
from penstock.core.ports import Change, View
from penstock.core.service import StreamService
from penstock.errors import PenstockError, StreamGone, StreamNotFound
from penstock.model import RESERVED, StreamInfo, StreamSpec, new_incarnation
from penstock.toolkit.problems import RequestError

__all__ = ["SECRET", "Outbox"]

logger = logging.getLogger("penstock")

LEASE: Final = 15.0
"""Seconds for which an upload that is being told is nobody else's; who tells it asks for more. Then it has crashed."""

FIRST_PAUSE: Final = 30.0
"""Seconds before an upload is told again; twice as many each time, up to `LONGEST_PAUSE`."""

LONGEST_PAUSE: Final = 3600.0

TOLD_FOR: Final = 3 * 86400.0
"""Seconds after its completion from which on an upload is not told again."""

SECRET: Final = frozenset({"authorization", "cookie", "proxy-authorization"})
"""Fields of requests that are not kept."""

_AT_ONCE: Final = 8
"""How many uploads one process tells at the same time."""

Tell: TypeAlias = Callable[[StreamInfo, Request], Awaitable[object]]


class Outbox:
    """The notes of one door: a `Companion` of the service, which tells what is due while the service runs.

    Args:
        service: the streams.
        door: tells this door from others, also after a restart.
        tell: tells an upload, as its last request did, within `telling`; a request is made up for it.
    """

    def __init__(self, service: StreamService, door: str, tell: Tell) -> None:
        self._service = service
        self._folder = f"{RESERVED}/outbox/{quote(door, safe='')}/"
        self._tell = tell
        self._running: asyncio.Task[None] | None = None
        self._telling = asyncio.Semaphore(_AT_ONCE)

    # -- life -----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to tell what is due: also what others left behind."""
        self._telling = asyncio.Semaphore(_AT_ONCE)
        self._running = asyncio.create_task(self._run(), name="penstock-outbox")

    async def stop(self) -> None:
        """End. What is being told is broken off, and told again by whoever comes next."""
        if self._running is not None:
            self._running.cancel()
            with suppress(asyncio.CancelledError):
                await self._running

    async def _run(self) -> None:
        while True:
            due = None
            try:
                due = await self.sweep()
            except PenstockError as error:
                logger.warning("Complete uploads could not be looked through, which is tried again: %s", error)
            except Exception:
                logger.exception("Complete uploads could not be looked through, which is tried again.")
            pause = LEASE if due is None else min(LEASE, due - self._service.now())
            await asyncio.sleep(max(0.1, pause))

    # -- telling what is due --------------------------------------------------------------------------------------

    async def sweep(self) -> float | None:
        """Tell what is due, and return when the next one will be (Unix seconds), or None if there is none."""
        after: str | None = ""
        nexts: list[float] = []
        while after is not None:
            page = await self._service.list(self._folder, after=after, reserved=True)
            now = self._service.now()
            nexts += [note.attributes["due"] for note in page.streams if note.attributes["due"] > now]
            due = [note for note in page.streams if note.attributes["due"] <= now]
            nexts += await asyncio.gather(*map(self._told, due))
            after = page.next
        return min(nexts) if nexts else None

    async def _told(self, note: StreamInfo) -> float:
        """Tell what a note is about, if that is still this process's to do, and return when to look at it again."""
        attempt: int = note.attributes["attempts"] + 1
        pause: float = min(FIRST_PAUSE * 2.0 ** min(attempt - 1, 20), LONGEST_PAUSE)
        async with self._telling:
            try:
                if await self._put_off(note.name, pause, attempts=attempt):
                    await self._try(note, attempt)
            except StreamNotFound:  # somebody told it meanwhile
                pass
            except PenstockError as error:
                logger.warning("A note of a complete upload could not be changed, which is tried again: %s", error)
        return self._service.now() + pause

    async def _try(self, note: StreamInfo, attempt: int) -> None:
        name, incarnation = note.attributes["name"], note.name.rpartition("/")[2]
        over = self._service.now() - note.attributes["since"] >= TOLD_FOR
        try:
            info = await self._service.info(name, incarnation=incarnation)
        except (StreamNotFound, StreamGone):  # it was never completed, or is deleted
            return await self._remove(note.name)
        if not info.complete and not over:  # it may be yet
            return None
        try:
            if info.complete:
                await self._tell(info, made_up(note.attributes["request"]))
        except Exception as error:  # noqa: BLE001 - whatever a hook raises: it is told again, and the error is logged
            if not _refuses(error):
                self._failed(name, attempt, error, over=over)
                if not over:
                    return None
        return await self._remove(note.name)

    def _failed(self, name: str, attempt: int, error: Exception, *, over: bool) -> None:
        why = str(error) or type(error).__name__
        if over:
            logger.error("That %r is complete could not be told in %d attempts, which are all: %s", name, attempt, why)
        else:
            logger.warning("That %r is complete could not be told, which is tried again: %s", name, why)

    # -- notes ----------------------------------------------------------------------------------------------------

    async def expect(self, name: str, incarnation: str, request: Request) -> None:
        """Note, durably, that an upload is about to be complete, and is to be told."""
        now, new = self._service.now(), new_incarnation()
        kept = {"name": name, "since": now, "due": now + LEASE, "attempts": 0, "request": kept_request(request)}
        note = self._folder + incarnation

        def decide(view: View) -> Change:
            if rules.living(view.current, now) is not None:  # an attempt to complete it failed before
                return rules.annotate(view, note, kept, now=now)
            return rules.create(view, note, StreamSpec(attributes=kept), incarnation=new, now=now)

        await self._service.commit(note, decide)

    @asynccontextmanager
    async def held(self, infos: Sequence[StreamInfo]) -> AsyncIterator[None]:
        """Keep everybody else from telling uploads during the block."""
        renewing = [asyncio.create_task(self._renew(self._folder + info.incarnation)) for info in infos]
        try:
            yield
        finally:
            for task in renewing:
                task.cancel()

    @asynccontextmanager
    async def telling(self, info: StreamInfo) -> AsyncIterator[None]:
        """Tell an upload in the block, which nobody else does meanwhile. That it is refused is an answer, too."""
        name = self._folder + info.incarnation
        async with self.held([info]):
            try:
                yield
            except Exception as error:
                if _refuses(error):
                    await self._remove(name)
                raise
            await self._remove(name)

    async def _renew(self, name: str) -> None:
        with suppress(PenstockError):  # it is gone; or it will be told twice, where the storage fails
            while True:
                await asyncio.sleep(LEASE / 3)
                await self._put_off(name, LEASE)

    async def _put_off(self, name: str, seconds: float, *, attempts: int | None = None) -> bool:
        """Let a note be due later; with ``attempts``, only if it is due now. Tell whether that changed anything."""
        now = self._service.now()

        def decide(view: View) -> Change:
            note = rules.present(view, name, now).attributes
            if note["due"] > now if attempts is not None else note["due"] >= now + seconds:
                return Change(view.target, duplicate=True)
            changes = {"due": now + seconds, **({} if attempts is None else {"attempts": attempts})}
            return rules.annotate(view, name, changes, now=now)

        return not (await self._service.commit(name, decide, durable=False)).duplicate

    async def _remove(self, name: str) -> None:
        now = self._service.now()
        with suppress(StreamNotFound, StreamGone):
            await self._service.commit(name, lambda view: rules.delete(view, name, now=now), durable=False)


def kept_request(request: Request) -> dict[str, Any]:
    """Return what is kept of a request, for JSON: neither its body nor what tells who may do what."""
    scope = request.scope
    texts = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"])
    return {
        **{part: scope.get(part) for part in ("method", "scheme", "path", "root_path", "server", "client")},
        "query": scope["query_string"].decode("latin-1"),
        "headers": [[name, value] for name, value in texts if name not in SECRET],
    }


def made_up(kept: Mapping[str, Any]) -> Request:
    """Return a request like the one of which this was kept, with no body."""
    scope = {
        "type": "http",
        "http_version": "1.1",
        **{part: kept[part] for part in ("method", "scheme", "path", "root_path")},
        "raw_path": quote(kept["path"], safe="/!$&'()*+,;=:@~").encode(),
        "query_string": kept["query"].encode("latin-1"),
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in kept["headers"]],
        **{part: None if kept[part] is None else tuple(kept[part]) for part in ("server", "client")},
    }
    return Request(scope, _nothing)


async def _nothing() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


def _refuses(error: Exception) -> bool:
    """Tell whether an error is the application's answer, not that it could not give one."""
    if isinstance(error, HTTPException):
        return error.status_code < 500
    return isinstance(error, RequestError) and error.status < 500
