"""`Streams`: everything put together, for an application of one's own and for the server."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.core.ports import Clock, Notifier, Store
from penstock.core.service import StreamService
from penstock.core.subscriptions import Subscriptions
from penstock.notifiers.inprocess import InProcessNotifier
from penstock.notifiers.machine import MachineNotifier
from penstock.stores.local import Durability, LocalStore
from penstock.stores.memory import MemoryStore

if TYPE_CHECKING:  # FastAPI is loaded by who mounts a router, not by who only appends and reads
    from fastapi import APIRouter

    from penstock.doors.hooks import Authorize, Identify, OnComplete, OnCreate, Owner, Quota
    from penstock.doors.resumable import ResumableRouter
    from penstock.model import StreamSpec
    from penstock.toolkit.productions import Production, Productions
    from penstock.toolkit.responses.endings import OnError
    from penstock.toolkit.responses.producers import Items

MEMORY = ":memory:"


class Streams(StreamService):
    """Streams in a folder, and the routers that serve them.

    ::

        streams = Streams("./data")
        app = FastAPI(lifespan=streams.lifespan)
        app.include_router(streams.files(prefix="/files"))
        app.include_router(streams.live(prefix="/live"))

    Its methods (`create`, `append`, `read`, `follow`, ...) are for handlers of one's own. Several processes of a
    machine may share the folder.

    Args:
        where: the folder, created where it is missing; ``":memory:"`` keeps everything in this process's memory; or a
            `Store` of another kind, to be given with its ``notifier``.
        durability: ``fsync``: what is acknowledged survives a power cut. ``os``: it survives a crash of the process,
            and is acknowledged sooner.
        notifier: who wakes the followers; by default what fits the folder.
        clock: the time.
        sweep_every: seconds between two looks for what has expired.
    """

    def __init__(
        self,
        where: str | os.PathLike[str] | Store = "./data",
        *,
        durability: Durability = "fsync",
        notifier: Notifier | None = None,
        clock: Clock | None = None,
        sweep_every: float = 60.0,
    ) -> None:
        store, own = _opened(where, durability)
        super().__init__(store, notifier or own, clock=clock, sweep_every=sweep_every)
        self._subscriptions: Subscriptions | None = None
        self._productions: Productions | None = None

    async def produce(
        self,
        name: str,
        items: Items,
        spec: StreamSpec | None = None,
        *,
        max_size: int | None = None,
        max_time: float | None = None,
        lease: float = 15.0,
        grace: float = 5.0,
        restart_failed: bool = False,
        on_error: OnError | None = None,
    ) -> Production:
        """Let a generator write a stream, whoever reads it or goes: in the background of this process.

        The stream is closed at the generator's end, and fails with the reason when that fails, goes past a bound, is
        cancelled (`Production.cancel`, or `fail` by name, from any process), or when this process is gone. Items that
        come fast are kept together; what was kept is durable, and never taken back.

        If there is a stream of that name, it is joined: the generator is closed, and nothing else happens.

        Args:
            name: the stream.
            items: an async generator, or a plain one, which runs in a thread. What it uses must outlive the request.
            spec: what is to be said about the stream. By its content type the items are written: NDJSON, the default,
                with each item as a record; JSON, CSV; and of any other type, text or bytes as they are.
            max_size: the most bytes.
            max_time: the most seconds.
            lease: seconds without a sign of life after which this process counts as gone.
            grace: seconds that the generator may go on when the server stops.
            restart_failed: whether a stream of that name that failed is deleted, and begun anew.
            on_error: is given what the generator raised. What it returns, if not None, is the reason that readers are
                told; otherwise they are told the type of the error alone.
        """
        from penstock.toolkit.productions import Bounds, Productions

        if self._productions is None:
            self._productions = Productions(self)
        bounds = Bounds(max_size=max_size, max_time=max_time, lease=lease, grace=grace)
        return await self._productions.start(
            name, items, spec, bounds, restart_failed=restart_failed, on_error=on_error
        )

    async def stop(self) -> None:
        """End the followers and, within their grace, the productions; finish what is being committed."""
        self.drain()
        if self._productions is not None:
            await self._productions.stop()
        await super().stop()

    @asynccontextmanager
    async def lifespan(self, _app: object = None) -> AsyncIterator[None]:
        """Open the streams while an application runs: ``FastAPI(lifespan=streams.lifespan)``.

        At SIGTERM and SIGINT the followers and all other live responses are ended at once, so that the server, which
        waits for its connections, can go; their readers come back at their offsets.
        """
        from penstock.toolkit.responses.draining import draining, on_stop_signals

        async with self, draining():
            with on_stop_signals(self.drain):
                yield

    def files(
        self,
        *,
        prefix: str = "/files",
        authorize: Authorize | None = None,
        owner: Owner | None = None,
        on_create: OnCreate | None = None,
        on_complete: OnComplete | None = None,
        max_size: int | None = None,
        quota: Quota | None = None,
        upload_expiry: float | None = 7 * 86400.0,
        cors: Sequence[str] = (),
        **options: Any,
    ) -> APIRouter:
        """Return a router that serves streams as files; see `penstock.doors.files.files_router`."""
        from penstock.doors.files import files_router

        return files_router(
            self,
            prefix=prefix,
            authorize=authorize,
            owner=owner,
            on_create=on_create,
            on_complete=on_complete,
            max_size=max_size,
            quota=quota,
            upload_expiry=upload_expiry,
            cors=cors,
            **options,
        )

    def resumable(self, **options: Any) -> ResumableRouter:
        """Return a router for endpoints of one's own whose bodies may come as uploads that resume.

        See `penstock.doors.resumable.ResumableRouter`, also for the options.
        """
        from penstock.doors.resumable import ResumableRouter

        return ResumableRouter(self, **options)

    def durable(
        self,
        *,
        prefix: str = "/v1/stream",
        authorize: Authorize | None = None,
        subscriptions: bool = True,
        **options: Any,
    ) -> APIRouter:
        """Return a router that speaks the Durable Streams protocol; see `penstock.doors.durable.durable_router`.

        With ``subscriptions``, its workers are woken while the streams are open; they are shared by all such routers.
        """
        from penstock.doors.durable import durable_router

        if subscriptions and self._subscriptions is None:
            self._subscriptions = Subscriptions(self, self._notifier)
            self.on_change = self._subscriptions.changed
            self.companions.append(self._subscriptions)
        engine = self._subscriptions if subscriptions else None
        return durable_router(self, prefix=prefix, authorize=authorize, subscriptions=engine, **options)

    def live(
        self,
        *,
        prefix: str = "/live",
        authorize: Authorize | None = None,
        heartbeat: float = 15.0,
        origins: Sequence[str] = (),
        identify: Identify | None = None,
        **options: Any,
    ) -> APIRouter:
        """Return a router that appends records and streams them live; see `penstock.doors.live.live_router`."""
        from penstock.doors.live import live_router

        return live_router(
            self, prefix=prefix, authorize=authorize, heartbeat=heartbeat, origins=origins, identify=identify, **options
        )


def _opened(where: str | os.PathLike[str] | Store, durability: Durability) -> tuple[Store, Notifier]:
    if where == MEMORY:
        return MemoryStore(), InProcessNotifier()
    if isinstance(where, (str, os.PathLike)):
        return LocalStore(where, durability), MachineNotifier(Path(where) / "notify")
    return where, InProcessNotifier()
