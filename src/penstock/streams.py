"""`Streams`: everything put together, for an application of one's own and for the server."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.core.ports import Clock, Notifier, Store
from penstock.core.service import StreamService
from penstock.notifiers.inprocess import InProcessNotifier
from penstock.notifiers.machine import MachineNotifier
from penstock.stores.local import Durability, LocalStore
from penstock.stores.memory import MemoryStore

if TYPE_CHECKING:  # FastAPI is loaded by who mounts a router, not by who only appends and reads
    from fastapi import APIRouter

    from penstock.doors.hooks import Authorize, OnComplete, OnCreate, Owner, Quota

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

    def durable(self, *, prefix: str = "/v1/stream", authorize: Authorize | None = None, **options: Any) -> APIRouter:
        """Return a router that speaks the Durable Streams protocol; see `penstock.doors.durable.durable_router`."""
        from penstock.doors.durable import durable_router

        return durable_router(self, prefix=prefix, authorize=authorize, **options)

    def live(
        self,
        *,
        prefix: str = "/live",
        authorize: Authorize | None = None,
        heartbeat: float = 15.0,
        origins: Sequence[str] = (),
        **options: Any,
    ) -> APIRouter:
        """Return a router that appends records and streams them live; see `penstock.doors.live.live_router`."""
        from penstock.doors.live import live_router

        return live_router(self, prefix=prefix, authorize=authorize, heartbeat=heartbeat, origins=origins, **options)


def _opened(where: str | os.PathLike[str] | Store, durability: Durability) -> tuple[Store, Notifier]:
    if where == MEMORY:
        return MemoryStore(), InProcessNotifier()
    if isinstance(where, (str, os.PathLike)):
        return LocalStore(where, durability), MachineNotifier(Path(where) / "notify")
    return where, InProcessNotifier()
