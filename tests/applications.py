"""Somebody's application on a real server, in the loop of the test."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class CountedPieces:
    """A middleware that counts the pieces in which bodies are sent.

    Attributes:
        count: how many, of all applications.
    """

    count = 0

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def counted(message: Message) -> None:
            CountedPieces.count += message["type"] == "http.response.body"
            await send(message)

        await self.app(scope, receive, counted)


@asynccontextmanager
async def serving(application: Any, **options: Any) -> AsyncIterator[int]:
    """Serve an application, and yield the port.

    Args:
        application: the application.
        options: of uvicorn's `Config`, in whose place they come.
    """
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(application, **{"lifespan": "on", "log_config": None, "http": "httptools", **options})
        server = uvicorn.Server(config)
        running = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:
            assert not running.done(), "the application did not start"
            await asyncio.sleep(0.005)
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await running
