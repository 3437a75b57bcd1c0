"""Requests that are answered without an ASGI application: the server's side of `penstock.doors.live.quick`.

With 64 connections that append 256 bytes each, this takes a quarter of the time of the long way through the parser and
the application.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from penstock.doors.live.quick import STATE
from penstock.errors import PenstockError, StorageFailed
from penstock.model import Appended
from penstock.server.lines import HandingOverProtocol, NoEvent
from penstock.toolkit.problems import problem_response

if TYPE_CHECKING:
    import asyncio

    from starlette.types import Receive, Scope, Send
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

    from penstock.doors.live.quick import Plain, QuickAppends

_PATIENCE: Final = 1.0
"""Seconds for the rest of a plain request. One that takes longer goes the long way, which deals with slow clients."""


class QuickProtocol(HandingOverProtocol):
    """uvicorn's protocol for HTTP/1.1, which answers plain appends itself.

    What is received goes either to the parser, or to a `QuickExchange`: between two messages, if that is known to begin
    a plain append. What comes while such an exchange is under way is held until its end.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # What is logged or counted has to pass through uvicorn.
        long = self.access_log or self.limit_concurrency is not None
        self._quick: QuickAppends | None = None if long else self.app_state.get(STATE)
        self._exchange: QuickExchange | None = None
        self._held = b""
        self._patience: asyncio.TimerHandle | None = None
        self._answered = 0.0
        self._parsing = False
        self._beginning = b""

    def data_received(self, data: bytes) -> None:
        """Take what a client sends."""
        if self._quick is None:
            super().data_received(data)
        elif self._exchange is not None:
            self._held += data
            self.flow.pause_reading()
        else:
            self._take(self._quick, self._release() + data)

    def _take(self, quick: QuickAppends, data: bytes) -> None:
        known = quick.known(data) if self._at_rest() else None
        if known is None:
            self._beginning = data
            super().data_received(data)
        elif len(data) < known.stop:
            self._held = data
            self._patience = self.loop.call_later(_PATIENCE, self._go_the_long_way)
        else:
            self._held = data[known.stop :]
            exchange = self._exchange = QuickExchange(self, quick, known.plain, data[: known.stop])
            self.cycle = cast("RequestResponseCycle", exchange)
            quick.append(known.plain, data[known.start : known.stop], exchange.done)

    def _at_rest(self) -> bool:
        """Tell whether a message that comes now is the only one."""
        cycle: RequestResponseCycle | None = self.cycle
        answered = cycle is None or cycle.response_complete
        return answered and not (self._parsing or self.flow.write_paused or self.transport.is_closing())

    def _release(self) -> bytes:
        held, self._held = self._held, b""
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        return held

    def on_message_begin(self) -> None:
        """Begin a message."""
        self._parsing = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Begin a request, and remember what it looked like."""
        if self._beginning and self._quick is not None:
            self._quick.learn(self._beginning, self.url, self.headers)
            self._beginning = b""
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """End a message."""
        self._parsing = False
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of what was held."""
        self._release()
        super().connection_lost(exc)

    def exchanged(self, answer: bytes, *, keep_alive: bool) -> None:
        """End an exchange with its answer, and go on to what came meanwhile."""
        self._exchange = None
        self.server_state.total_requests += 1
        self.transport.write(answer)
        if not keep_alive:
            self.transport.close()
            return
        self._answered = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._keep_alive(self.timeout_keep_alive)
        if self._held and self._quick is not None:
            self.flow.resume_reading()
            self._take(self._quick, self._release())

    def _keep_alive(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection if it was idle for so long: its exchanges do not set the timer again each time."""
        left = self._answered + self.timeout_keep_alive - self.loop.time()
        if self._exchange is not None or self._held or left > 0:
            self._keep_alive(max(left, _PATIENCE))
        else:
            super().timeout_keep_alive_handler()

    def refused(self, request: bytes, error: BaseException) -> None:
        """Have an append answered that was not made. What is not certain to have changed nothing is not tried again."""
        self._exchange = None
        self.cycle = cast("RequestResponseCycle", None)
        application = self.app
        if not isinstance(error, PenstockError) or isinstance(error, StorageFailed):
            self.app = _Failed(error)
        try:
            super().data_received(request)
        finally:
            self.app = application
        self._go_the_long_way()

    def _go_the_long_way(self) -> None:
        held = self._release()
        if held:
            super().data_received(held)


class _Failed:
    """The application that answers an append of which it is not certain that it has changed nothing."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not isinstance(self._error, PenstockError):
            raise self._error
        await problem_response(self._error)(scope, receive, send)


class QuickExchange:
    """A plain append and its answer. For uvicorn's protocol, it is an exchange like others."""

    __slots__ = ("_plain", "_protocol", "_quick", "_request", "disconnected", "keep_alive", "response_complete")

    message_event = NoEvent()

    def __init__(self, protocol: QuickProtocol, quick: QuickAppends, plain: Plain, request: bytes) -> None:
        self._protocol = protocol
        self._quick = quick
        self._plain = plain
        self._request = request
        self.disconnected = False
        self.response_complete = False
        self.keep_alive = True

    def done(self, outcome: Appended | BaseException) -> None:
        """Answer."""
        self.response_complete = True
        if self.disconnected:
            return
        if isinstance(outcome, Appended):
            answer = self._quick.answer(self._plain, outcome)
            if not self.keep_alive:
                answer = answer.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n", 1)
            self._protocol.exchanged(answer, keep_alive=self.keep_alive)
        else:
            self._protocol.refused(self._request, outcome)
