"""Generators that go on when their reader leaves: what they yield becomes a stream, which is read as any other.

::

    @app.post("/answers/{name}")
    async def ask(name: str, question: str) -> dict[str, str]:
        await streams.produce(f"answers/{name}", model(question), max_time=600)
        return {"events": f"/live/answers/{name}?offset=0"}
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from penstock.core import rules
from penstock.core.service import StreamService
from penstock.core.uninterrupted import uninterrupted
from penstock.errors import (
    PenstockError,
    Stopping,
    StreamClosed,
    StreamError,
    StreamExists,
    StreamFailed,
    StreamGone,
    StreamNotFound,
)
from penstock.model import StreamInfo, StreamSpec, new_incarnation
from penstock.protocols.media_types import essence
from penstock.toolkit.responses.endings import OnError, StreamEnd, told_by
from penstock.toolkit.responses.formats import CSV, NDJSON, Format, JSONArray, Raw
from penstock.toolkit.responses.outlet import Outlet
from penstock.toolkit.responses.producers import Items, Producing

logger = logging.getLogger("penstock")

SPEC = StreamSpec(content_type=NDJSON.media_type)
"""A stream of records, each a JSON text: an item may hold any text, newlines among it."""

LATENCY = 0.02
"""Seconds that an item may wait for others to be kept with it: less than anybody notices, and one fsync for many."""

_FORMATS: dict[str, Callable[[], Format]] = {
    NDJSON.media_type: NDJSON,
    "application/jsonl": NDJSON,
    "application/json": JSONArray,
    "text/csv": CSV,
}

_ENDED = (StreamClosed, StreamFailed, StreamGone, StreamNotFound)
"""What an append meets where somebody has ended the stream."""


class _Overrun(Exception):
    """A production that went past its bound."""


@dataclass(frozen=True, slots=True)
class Production:
    """A generator whose items become a stream.

    Attributes:
        info: the stream, as it was when this was asked for.
        joined: whether it was there already, so that the generator that was given was not begun.
    """

    info: StreamInfo
    joined: bool
    _service: StreamService = field(repr=False)

    async def wait(self) -> StreamInfo:
        """Wait until the stream is complete, and return it.

        Raises:
            StreamFailed: the generator failed, was cancelled, went past its bound, or its process is gone.
            StreamGone: the stream was deleted.
            Stopping: the service is shutting down.
        """
        name, incarnation = self.info.name, self.info.incarnation
        info = await self._service.when(name, lambda info: info.closed, incarnation=incarnation)
        if info.failure is not None:
            raise StreamFailed(name, info.tail, info.failure)
        return info

    async def cancel(self, reason: str = "it was cancelled") -> StreamInfo:
        """Have it end: the stream fails for that reason, and what it has so far can be read.

        Raises:
            StreamClosed: it is complete.
        """
        return await self._service.fail(self.info.name, reason, incarnation=self.info.incarnation)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How far a production may go; see `penstock.Streams.produce`."""

    max_size: int | None
    max_time: float | None
    lease: float
    grace: float


class Productions:
    """The productions that run in this process."""

    def __init__(self, service: StreamService) -> None:
        self._service = service
        self._running: set[_Run] = set()

    async def start(
        self,
        name: str,
        items: Items,
        spec: StreamSpec | None,
        bounds: Bounds,
        *,
        restart_failed: bool = False,
        on_error: OnError | None = None,
    ) -> Production:
        """Begin a production, or join the one of that name; see `penstock.Streams.produce`."""
        spec = spec or SPEC
        by = new_incarnation()
        lease = rules.lease(by, self._service.now() + bounds.lease)
        leased = replace(spec, attributes={**spec.attributes, **lease})
        while True:
            try:
                info = await self._service.create(name, leased)
                break
            except StreamExists:
                pass
            except BaseException:
                await _close(items)
                raise
            # Between the two, it may be deleted, or expire.
            with suppress(StreamError):
                info = await self._service.info(name)
                if info.failure is None or not restart_failed:
                    await _close(items)
                    return Production(info, True, self._service)
                await self._service.delete(name, incarnation=info.incarnation)
        run = _Run(self._service, info, items, by, bounds, on_error)
        self._running.add(run)
        run.task.add_done_callback(lambda _: self._running.discard(run))
        return Production(info, False, self._service)

    async def stop(self) -> None:
        """Give those that run the rest of their grace, then end them. The service must still be running."""
        while self._running:
            await asyncio.gather(*(run.stop() for run in self._running))


class _Run:
    """A production that runs in this process."""

    def __init__(
        self,
        service: StreamService,
        info: StreamInfo,
        items: Items,
        by: str,
        bounds: Bounds,
        on_error: OnError | None,
    ) -> None:
        self._service = service
        self._info = info
        self._by = by
        self._bounds = bounds
        self._on_error = on_error
        self._form = _format_of(info.content_type)
        self._head = self._form.begin()  # before any item
        self._outlet = Outlet(LATENCY)
        self._producing = Producing(items, self._form.item, self._outlet)
        self._reason = "its producer was cancelled"
        self.task = asyncio.create_task(self._run(), name=f"penstock-produce-{info.name}")

    async def stop(self) -> None:
        """Wait for its end as long as it may take when the server stops, and end it then."""
        _, pending = await asyncio.wait({self.task}, timeout=self._bounds.grace)
        if pending:
            self._reason = "the server stopped"
            self.task.cancel()
            await asyncio.wait({self.task})

    async def _run(self) -> None:
        beside = [asyncio.create_task(work) for work in (self._watch(self._info), self._renew(self._info))]
        reason: str | None = None
        limit = asyncio.timeout(self._bounds.max_time)
        try:
            async with limit:
                error = await self._produce()
            reason = None if error is None else await self._failed(error)
        except asyncio.CancelledError:
            reason = self._reason
        except _Overrun as error:
            reason = str(error)
        except _ENDED as error:  # by somebody else: the stream says so already, or is gone
            logger.info("The production of %r ended: %s", self._info.name, error)
        except Exception as error:  # noqa: BLE001 - it is logged, and told to the stream's readers
            late = limit.expired() and isinstance(error, TimeoutError)
            reason = f"it took more than {self._bounds.max_time:g} s" if late else await self._failed(error)
        finally:
            for task in beside:
                task.cancel()
            await uninterrupted(self._end(reason))

    async def _produce(self) -> Exception | None:
        """Write what the generator yields; close the stream at its end, or return what it raised."""
        outlet, form = self._outlet, self._form
        if self._head:
            await self._append(self._head)
        while (data := await outlet.take()) is not None:
            if data:
                await self._append(data)
        if self._producing.error is None:
            await self._append(form.end(StreamEnd("complete", *outlet.taken)), close=True)
        return self._producing.error

    async def _append(self, data: bytes, *, close: bool = False) -> None:
        most = self._bounds.max_size
        if most is not None and self._info.tail + len(data) > most:
            raise _Overrun(f"it grew larger than {most} bytes")
        info = self._info
        done = await self._service.append(
            info.name, [data] if data else (), offset=info.tail, close=close, incarnation=info.incarnation
        )
        self._info = done.info

    async def _watch(self, info: StreamInfo) -> None:
        """End the production when somebody else has ended its stream; also while it has nothing to append."""
        try:
            await self._service.when(info.name, lambda info: info.closed, incarnation=info.incarnation)
        except Stopping:
            return
        except PenstockError as error:
            logger.info("The production of %r ended: %s", info.name, error)
        if not self._info.closed:
            self.task.cancel()

    async def _renew(self, info: StreamInfo) -> None:
        """Say again and again that the producer is there."""
        lease = self._bounds.lease
        while True:
            await asyncio.sleep(lease / 3)
            try:
                await self._service.extend_lease(info.name, self._by, lease, incarnation=info.incarnation)
            except StreamError:
                return
            except PenstockError as error:
                logger.warning("The lease of %r could not be renewed, and will be tried again: %s", info.name, error)

    async def _failed(self, error: Exception) -> str:
        items, size = self._outlet.taken
        facts = {"stream": self._info.name, "items": items, "bytes": size}
        text = "The production of %r failed after %d items (%d bytes)"
        logger.error(text, self._info.name, items, size, exc_info=error, extra=facts)
        told = await told_by(self._on_error, error)
        return f"its producer failed: {type(error).__name__}" if told is None else str(told)

    async def _end(self, reason: str | None) -> None:
        """Close the generator, and let the stream say why it is not complete."""
        if reason is not None:
            # First of all: whoever waits for more hears of it even if the generator is slow to close.
            try:
                await self._service.fail(self._info.name, reason, incarnation=self._info.incarnation)
            except StreamError:  # it has ended already
                pass
            except PenstockError as error:
                logger.warning(
                    "That %r ended (%s) can be told only when its lease is over: %s", self._info.name, reason, error
                )
        await self._producing.close()


def _format_of(content_type: str) -> Format:
    media_type = essence(content_type)
    return _FORMATS[media_type]() if media_type in _FORMATS else Raw(content_type)


async def _close(items: Any) -> None:
    """Close what is not needed."""
    if isinstance(items, AsyncGenerator):
        await items.aclose()
    elif inspect.isgenerator(items):
        items.close()
