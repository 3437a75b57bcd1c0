"""Bodies of requests to an application's own endpoints, as resumable uploads.

A body waits in a stream that no name shows. The request that begins it is worked on as far as it goes without the body:
the endpoint's dependencies are solved, so that nobody uploads who may not. The endpoint itself is called when the body
is whole: in that request, if it brought it all; or in the last append, for which the first request is made up again and
goes through the application's routes, as the last word on who may do what.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, suppress
from contextvars import ContextVar
from itertools import combinations
from typing import Any, Final, Protocol, Self
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import NoMatchFound
from starlette.types import Message, Receive, Scope, Send

from penstock.core.ports import Reader
from penstock.core.service import StreamService
from penstock.core.uploads import Upload
from penstock.doors.finishing import ANSWER, answered
from penstock.doors.hooks import Owner
from penstock.doors.once import Turn, turn
from penstock.doors.outbox import SECRET
from penstock.doors.resumable.answers import Answer, given_again
from penstock.doors.resumable.uploads import STATE, Resumable, asked, creates
from penstock.errors import PenstockError, StreamNotFound
from penstock.model import StreamInfo, StreamSpec
from penstock.protocols.resumable import REQUEST_FIELDS, Limits, UploadRequest, final_fields
from penstock.toolkit.hooks import called
from penstock.toolkit.requests.lingering import Exchange

__all__ = ["METHODS", "Bodies", "whole"]

METHODS: Final = frozenset({"PATCH", "POST", "PUT"})
"""The methods whose requests may be uploads."""

_MADE_UP: Final = "penstock.resumable"
"""What in a scope says that its request was made up."""

_OF_ROUTERS: Final = frozenset({"endpoint", "fastapi", "path_params", "route", "router"})
"""What routers write into a scope, which another request must not begin with."""

_NOT_HANDED_ON: Final = frozenset({"http.response.pathsend", "http.response.zerocopysend"})
"""Extensions by which an answer would go past us."""

_OF_ONE_MESSAGE: Final = frozenset(
    {
        *(name.lower() for name in REQUEST_FIELDS),
        *("connection", "content-digest", "content-length", "expect", "keep-alive", "te", "trailer"),
        *("transfer-encoding", "upgrade"),
    }
)
"""Fields that are about one message, and neither about the representation nor about who sends it."""

_OF_AN_APPEND: Final = frozenset({"content-encoding", "content-type", "repr-digest"})
"""Fields of an append that say nothing of the representation."""

_call: ContextVar[_Call | None] = ContextVar("penstock_call", default=None)


class _Call(Protocol):
    """A call of an endpoint that is under way."""

    async def whole(self) -> None:
        """Return when the body is whole, and the endpoint may be called."""


async def whole() -> None:
    """Return when the body of the request that is being worked on is whole, or end the work on it."""
    call = _call.get()
    if call is not None:
        await call.whole()


class _NotNow(BaseException):
    """Ends the work on a request whose endpoint is not to be called now. Not for applications to catch.

    Attributes:
        response: the answer.
    """

    def __init__(self, response: Response) -> None:
        super().__init__()
        self.response = response


class Bodies:
    """The bodies of a router's requests: a `Target` of uploads.

    Args:
        service: where they wait.
        limits: what holds for them.
        owner: tells who is calling, or None.
        expiry: seconds without progress after which an unfinished one is removed.
        keep: seconds for which one is kept, with its answer, once that was made.
        private: fields of requests that are not kept.
    """

    def __init__(
        self,
        service: StreamService,
        limits: Limits,
        *,
        owner: Owner | None,
        expiry: float,
        keep: float,
        private: frozenset[str],
    ) -> None:
        self.service = service
        self.uploads = Resumable(service, self, limits)
        self.route = f"penstock-resumable-{secrets.token_hex(4)}"
        self._owner = owner
        self._expiry = expiry
        self._keep = keep
        self._private = private | SECRET

    # -- requests to endpoints ----------------------------------------------------------------------------------------

    async def handle(
        self, run: Callable[[Scope, Receive, Send], Awaitable[None]], scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Work on a request to an endpoint; ``run`` calls that."""
        if scope["method"] not in METHODS or _MADE_UP in scope or not creates(Request(scope)):
            await run(scope, receive, send)
            return
        exchange = Exchange.begun(scope, receive)
        if exchange is not None:
            receive, send = exchange.receive, exchange.sender(send)
        request = Request(scope, receive)
        fields = asked(request)
        try:
            length = self.uploads.announced_length(request, fields)
        except PenstockError as error:
            await self.uploads.refused(request, error)(scope, receive, send)
            return
        answer = Answer(send, fields.dialect)
        if self.uploads.is_small(fields, length):
            await run(scope, receive, answer.send)
            return
        async with _FirstCall(self, request, fields, length, answer) as call:
            try:
                await run({**scope, "headers": _with_length(scope["headers"], length)}, call.receive, answer.send)
            except _NotNow as ended:
                await ended.response(scope, receive, send)

    async def begin(self, request: Request, fields: UploadRequest, length: int | None) -> StreamInfo:
        """Create the upload for a request's body."""
        scope = request.scope
        first = {
            "method": request.method,
            "path": scope["path"].removeprefix(scope.get("root_path", "")),
            "query": scope["query_string"].decode("latin-1"),
            "headers": [
                (name, value)
                for name, value in _texts(scope["headers"])
                if name not in self._private and name not in _OF_ONE_MESSAGE
            ],
        }
        key = secrets.token_urlsafe(24)  # whoever knows it may go on with the upload (section 13)
        spec = StreamSpec(
            length=length,
            owner=await self.owner_of(request),
            key=_key_of(key),
            attributes=self.uploads.attributes(request, fields, self.uploads.limits.max_size, first=first),
        )
        return await self.service.begin_upload(f"resumable/{key}", spec, ttl=self._expiry, shown=False)

    def made_up(self, request: Request, info: StreamInfo) -> Scope:
        """Return the scope of the request that began an upload, as if it had brought the whole body.

        Who sends it, and by which right, the present request says.
        """
        scope = request.scope
        first: Mapping[str, Any] = info.attributes[STATE]["first"]
        kept = [(name, value) for name, value in first["headers"]]
        known = {name for name, _ in kept} | _OF_ONE_MESSAGE | _OF_AN_APPEND
        present = [(name, value) for name, value in _texts(scope["headers"]) if name not in known]
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in (*kept, *present)]
        path = scope.get("root_path", "") + first["path"]
        extensions = scope.get("extensions") or {}
        return {
            **{name: value for name, value in scope.items() if name not in _OF_ROUTERS},
            _MADE_UP: info.incarnation,
            "extensions": {name: value for name, value in extensions.items() if name not in _NOT_HANDED_ON},
            "method": first["method"],
            "path": path,
            "raw_path": quote(path, safe="/!$&'()*+,;=:@~").encode(),
            "query_string": first["query"].encode("latin-1"),
            "headers": _with_length(headers, info.tail),
        }

    def body_of(self, info: StreamInfo) -> WaitingBody:
        """Return the body of an upload that is whole."""
        return WaitingBody(self.service, info)

    async def keep(self, ours: Turn, answer: Mapping[str, Any]) -> None:
        """Keep an endpoint's answer; the body need not be kept for longer than that."""
        await ours.end(**{ANSWER: answer})
        info = ours.info
        await self.service.shorten(info, self.service.now() - info.modified_at + self._keep)

    # -- requests to uploads ------------------------------------------------------------------------------------------

    async def answer(self, request: Request) -> Response:
        """Do with an upload what the method says: HEAD, GET, PATCH or DELETE of its URL."""
        try:
            key = _key_of(request.path_params["upload_id"])
            info = await self.service.find(await self.owner_of(request), key)
            if info is None:
                raise StreamNotFound(key)
            match request.method:
                case "PATCH":
                    return await self.uploads.append(request, info)
                case "DELETE":
                    return await self.uploads.cancel(request, info)
                case _:
                    return await self.uploads.look(request, info)
        except (PenstockError, HTTPException) as error:
            return self.uploads.refused(request, error)

    async def owner_of(self, request: Request) -> str | None:
        """Return who is calling, or None: nobody, or nobody asks."""
        return None if self._owner is None else await called(self._owner, request)

    # -- a target of uploads ------------------------------------------------------------------------------------------

    def location(self, request: Request, info: StreamInfo) -> str:
        """See `Target.location`."""
        root: str = request.scope.get("root_path", "")
        return root.rstrip("/") + _path_of(request, self.route, info.name.rpartition("/")[2])

    def answered(self, info: StreamInfo) -> bool:
        """See `Target.answered`."""
        return answered(info)

    async def complete(self, request: Request, upload: Upload, digests: Mapping[str, bytes]) -> StreamInfo:
        """See `Target.complete`: the body waits for its endpoint."""
        return await upload.complete_part()

    async def finish(self, request: Request, info: StreamInfo) -> Response:
        """See `Target.finish`: the answer is the endpoint's."""
        return _LastCall(self, request, info)


class WaitingBody:
    """A body that is whole, as ASGI messages. The client's connection has no part in it: it may be another one."""

    def __init__(self, service: StreamService, info: StreamInfo) -> None:
        self._service = service
        self._info = info
        self._reader: Reader | None = None
        self._offset = 0
        self._ended = False

    async def receive(self) -> Message:
        """Return the next message; after the last there is none, ever."""
        if self._ended:
            await asyncio.Event().wait()
        if self._reader is None:
            self._reader = await self._service.open(self._info.name, incarnation=self._info.incarnation)
        data = b""
        if self._offset < self._info.tail:
            data = bytes(await self._reader.read(self._offset, self._info.tail))
            self._offset += len(data)
        self._ended = self._offset == self._info.tail
        return {"type": "http.request", "body": data, "more_body": not self._ended}

    def close(self) -> None:
        """Release what is open. Again is harmless."""
        if self._reader is not None:
            self._reader.close()


class _FirstCall(AsyncExitStack):
    """The call of an endpoint by the request that begins an upload, and perhaps brings all of it."""

    def __init__(
        self, bodies: Bodies, request: Request, fields: UploadRequest, length: int | None, answer: Answer
    ) -> None:
        super().__init__()
        self._bodies = bodies
        self._request = request
        self._fields = fields
        self._length = length
        self._answer = answer
        self._body: WaitingBody | None = None

    async def __aenter__(self) -> Self:
        token = _call.set(self)
        self.callback(_call.reset, token)
        return self

    async def whole(self) -> None:
        """Take the body in, if that was not done.

        Raises:
            _NotNow: there is more to come by other requests, or the body is refused.
        """
        await self._arrived()
        self._answer.called = True

    async def receive(self) -> Message:
        """Return the next message of the whole body."""
        return await (await self._arrived()).receive()

    async def _arrived(self) -> WaitingBody:
        if self._body is None:
            self._body = await self._taken_in()
        return self._body

    async def _taken_in(self) -> WaitingBody:
        bodies, request, fields = self._bodies, self._request, self._fields
        try:
            begun = await bodies.begin(request, fields, self._length)
            info, response = await bodies.uploads.arrived(request, fields, begun)
            if response is not None:
                raise _NotNow(response)
            ours = await self.enter_async_context(turn(bodies.service, info))
        except (PenstockError, HTTPException) as error:
            raise _NotNow(bodies.uploads.refused(request, error)) from None
        if answered(ours.info):  # the client has come back before we came to it
            raise _NotNow(await bodies.finish(request, ours.info))
        location = {"location": bodies.location(request, info)} if fields.dialect.relocated else {}
        further = {"upload-offset": str(info.tail), **location}
        self._answer.of_whole(lambda answer: bodies.keep(ours, answer), further)
        body = bodies.body_of(info)
        self.callback(body.close)
        return body


class _LastCall(Response):
    """Calls the endpoint of an upload that is whole, or gives its answer again."""

    def __init__(self, bodies: Bodies, request: Request, info: StreamInfo) -> None:
        super().__init__()
        self._bodies = bodies
        self._request = request
        self._info = info

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""
        async with AsyncExitStack() as stack:
            try:
                ours = await stack.enter_async_context(turn(self._bodies.service, self._info))
            except PenstockError as error:
                await self._bodies.uploads.refused(self._request, error)(scope, receive, send)
                return
            response = given_again(ours.info)
            if response is None:
                await self._call_endpoint(ours, send)
            else:
                fields = final_fields(asked(self._request).dialect, complete=True, offset=self._info.tail)
                response.headers.update(fields)
                await response(scope, receive, send)

    async def _call_endpoint(self, ours: Turn, send: Send) -> None:
        bodies, request, info = self._bodies, self._request, ours.info
        answer = Answer(send, asked(request).dialect)
        answer.of_whole(lambda given: bodies.keep(ours, given), {"upload-offset": str(info.tail)})
        body = bodies.body_of(info)
        token = _call.set(_WholeAlready(answer))
        try:
            await request.app.router(bodies.made_up(request, info), body.receive, answer.send)
        finally:
            _call.reset(token)
            body.close()


class _WholeAlready:
    """The call of an endpoint whose body was whole before."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    async def whole(self) -> None:
        self._answer.called = True


def _path_of(request: Request, route: str, upload: str) -> str:
    """Return the path of an upload: the router's prefix may have parameters, but not all of the endpoint's."""
    given: Mapping[str, Any] = request.path_params
    for count in range(len(given) + 1):
        for names in combinations(given, count):
            with suppress(NoMatchFound):
                parameters = {**{name: given[name] for name in names}, "upload_id": upload}
                return str(request.app.url_path_for(route, **parameters))
    raise NoMatchFound(route, dict(given))


def _key_of(upload: str) -> str:
    return f"resumable:{upload}"


def _texts(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    return [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in headers]


def _with_length(headers: Iterable[tuple[bytes, bytes]], length: int | None) -> list[tuple[bytes, bytes]]:
    """Return the fields that an endpoint sees: they are about the whole body, which is of this length."""
    framing = (b"transfer-encoding", b"chunked") if length is None else (b"content-length", str(length).encode())
    about_one = {name.encode() for name in _OF_ONE_MESSAGE}
    return [*((name, value) for name, value in headers if name.lower() not in about_one), framing]
