"""Responses whose body is produced as it is sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress
from typing import NoReturn

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from penstock.core.ports import FileExtent
from penstock.core.uninterrupted import uninterrupted
from penstock.errors import Stopping
from penstock.model import Buffer
from penstock.toolkit.responses import zero_copy
from penstock.toolkit.responses.under_way import UnderWay


class BodyAborted(Exception):
    """Raised into the server after a body broke off, so that it ends the connection without the framing's end.

    No client can take such a body for complete: the last chunk, or some of Content-Length, is missing. The cause tells
    what happened.
    """


class StreamedBody(Response):
    """A response whose body comes from an async generator.

    The generator is closed whatever happens: at its end, when the client goes away (also while it waits), when the
    request is cancelled. What it raises breaks the body off (`BodyAborted`), and so does a server that cannot wait for
    its end any longer.

    Args:
        body: yields the bytes, in buffers of any size. Memory views are sent as they are, without a copy. Parts of
            files are for a server that sends them; see `penstock.toolkit.responses.zero_copy`.
        status: the HTTP status.
        headers: the fields; with Content-Length where it is known.
        release: called at the very end, also where the body was never begun (a HEAD request).
    """

    def __init__(
        self,
        body: AsyncGenerator[Buffer | FileExtent, None],
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        *,
        release: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(None, status, headers)
        # A length of zero that Response made up for want of a body.
        if headers is None or not any(name.lower() == "content-length" for name in headers):
            del self.headers["content-length"]
        self._body = body
        self._release = release
        self._under_way = UnderWay(live=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            with self._under_way.noted():
                if scope["method"] == "HEAD" or await self._send_while_connected(receive, send):
                    await send({"type": "http.response.body", "body": b""})
        finally:
            await uninterrupted(self._body.aclose())
            if self._release is not None:
                self._release()

    async def _send_while_connected(self, receive: Receive, send: Send) -> bool:
        """Send the body, and tell whether its end was reached; the client's leaving ends it at once."""
        sender = asyncio.create_task(self._send_body(send))
        listener = asyncio.create_task(disconnected(receive))
        stopped = asyncio.create_task(self._under_way.stopped())
        tasks = (sender, listener, stopped)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if sender.done():
                sender.result()
                return True
            if stopped.done() and not listener.done():
                await break_off(send, Stopping())
            return False
        finally:
            for task in tasks:
                task.cancel()
            for task in tasks:
                with suppress(asyncio.CancelledError, Exception):
                    await task

    async def _send_body(self, send: Send) -> None:
        try:
            async for chunk in self._body:
                if isinstance(chunk, FileExtent):
                    await send(zero_copy.message_of(chunk))
                else:
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                # A server whose client is gone takes everything at once: without a pause nobody would hear of it.
                await asyncio.sleep(0)
        except Exception as error:  # noqa: BLE001 - it is the cause of what is raised
            await break_off(send, error)


async def break_off(send: Send, cause: BaseException) -> NoReturn:
    """End a response that has begun, so that nobody takes it for complete.

    To raise is not enough: Starlette's BaseHTTPMiddleware takes that for the response's end, and has the last chunk
    sent before it raises in its turn. What it is given to send it passes on, so that what fails is the server. And
    where a GZip middleware stands between the two, which fails over a piece of a body that is none, a message of a kind
    that nobody expects here comes through to it.

    Raises:
        BodyAborted: always.
    """
    aborted = BodyAborted(f"The body broke off: {cause}")
    for message in (
        {"type": "http.response.body", "body": _Unsendable(aborted), "more_body": True},
        {"type": "http.response.trailers", "headers": [], "more_trailers": True},
    ):
        with suppress(Exception):
            await send(message)
    raise aborted from cause


class _Unsendable:
    """A piece of a body that is there, and of which nobody learns the size."""

    def __init__(self, error: BodyAborted) -> None:
        self._error = error

    def __bool__(self) -> bool:
        return True

    def __len__(self) -> int:
        raise self._error


async def disconnected(receive: Receive) -> None:
    """Wait until the client is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
