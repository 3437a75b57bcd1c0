"""The routes of the Durable Streams protocol."""

from __future__ import annotations

import secrets
from typing import Any, Final
from urllib.parse import unquote

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.convertors import PathConvertor, register_url_convertor

from penstock.core.service import StreamService
from penstock.core.subscriptions import Subscriptions
from penstock.doors.durable import answers, appending, creating, reading
from penstock.doors.durable.answers import DurableRoute, answer
from penstock.doors.durable.reading import Manner
from penstock.doors.durable.subscriptions import Control, add_subscription_routes
from penstock.doors.fields import base_of, name_in, url_in
from penstock.doors.hooks import Authorize, authorized
from penstock.doors.methods import add_other_methods
from penstock.doors.schemas import parameter, problems
from penstock.doors.tails.tail import PATIENCE, SharedTails
from penstock.model import RESERVED, check_name
from penstock.toolkit.problems import bad_request

LONG_POLL: Final = 20.0
"""Seconds that a long-poll waits: less than the time-outs of common proxies."""

LIFETIME: Final = 60.0
"""Seconds after which events are ended (PROTOCOL.md section 10.2)."""

HEARTBEAT: Final = 15.0
"""Seconds of silence after which events say that the line is alive."""

MAX_APPEND: Final = 16 * 1024 * 1024
"""The most bytes of a body: it is held in memory, because an append is all or nothing."""

_METHODS: Final = ("DELETE", "GET", "HEAD", "OPTIONS", "POST", "PUT")
_PATH: Final = "/{name:penstock_stream}"
_BODY: Final = {"requestBody": {"content": {"*/*": {"schema": {"type": "string", "format": "binary"}}}}}


class _StreamPath(PathConvertor):
    """A path of whatever is no control route, so that routes of streams need not come after those."""

    regex = rf"(?!{RESERVED}(?:/|$)).*"


register_url_convertor("penstock_stream", _StreamPath())


def durable_router(
    service: StreamService,
    *,
    prefix: str = "/v1/stream",
    authorize: Authorize | None = None,
    long_poll: float = LONG_POLL,
    lifetime: float = LIFETIME,
    heartbeat: float = HEARTBEAT,
    patience: float = PATIENCE,
    max_append: int = MAX_APPEND,
    subscriptions: Subscriptions | None = None,
    local_webhooks: bool = False,
    **options: Any,
) -> APIRouter:
    """Return a router that speaks the Durable Streams protocol; see ``docs/http.md``.

    Args:
        service: the streams.
        prefix: where the router is mounted: the root of the streams' URLs.
        authorize: who may do what; see `penstock.doors.hooks.Authorize`. To fork a stream is to read it.
        long_poll: seconds that a long-poll waits for something new.
        lifetime: seconds after which events are ended, and their readers come back.
        heartbeat: seconds of silence after which events say that the line is alive.
        patience: seconds after which a reader of events whose connection takes nothing is cut off.
        max_append: the most bytes of an append.
        subscriptions: the subscriptions of the service, or None not to have any.
        local_webhooks: whether webhooks at ``http://localhost`` and ``http://127.…`` may be told: for development.
        options: whatever else FastAPI's `APIRouter` takes: ``dependencies``, ``tags``, ...
    """
    router = APIRouter(prefix=prefix, route_class=DurableRoute, **{"tags": ["durable streams"], **options})
    route = f"penstock-durable-{secrets.token_hex(4)}"  # its own, so that several can be mounted in one application
    tails = SharedTails(service, heartbeat=heartbeat, patience=patience, lifetime=lifetime, renews=True)
    # A cache that is shared must not give to everybody what only some may read.
    manner = Manner(long_poll, "public" if authorize is None else "private")

    # Routes are tried in turn: those that are asked for most are the first.
    @router.post(
        _PATH,
        status_code=204,
        summary="Append to a stream, or close it",
        openapi_extra={
            **_BODY,
            "parameters": [
                parameter("Stream-Seq", "header", "The writer's own sequence: greater than the last one"),
                parameter("Stream-Closed", "header", "`true`: close the stream with this append"),
                parameter("Producer-Id", "header", "Who appends, so that a repetition is recognised"),
                parameter("Producer-Epoch", "header", "One more each time that the producer starts"),
                parameter("Producer-Seq", "header", "One more each time that it appends, from 0 on in each epoch"),
            ],
        },
        response_class=Response,
        responses={
            200: {"description": "Appended by a producer"},
            204: {"description": "Appended, or recognised as a repetition"},
            **problems(
                _400="The request is wrong",
                _403="Another producer took over",
                _404="There is no such stream",
                _409="It is closed, holds another type, or something is missing",
                _410="It was deleted, and is kept for its forks",
                _413="The body is too large",
                _507="The storage is full",
            ),
        },
    )
    async def append(request: Request, name: str) -> Response:
        """Append the body, all of it or nothing."""
        name = name_in(request)
        await authorized(authorize, request, "write", name)
        return await appending.append(service, request, name, max_append)

    @router.get(
        _PATH,
        name=route,
        summary="Read a stream",
        response_class=Response,
        openapi_extra={
            "parameters": [
                parameter("offset", "query", "Where to begin: an offset, `-1` for the beginning, `now` for the tail"),
                parameter("live", "query", "`long-poll` or `sse`: wait for what is to come"),
                parameter("cursor", "query", "The last `Stream-Cursor`"),
            ]
        },
        responses={
            200: {
                "description": "Bytes, messages, or events",
                "content": {"*/*": {"schema": {"type": "string", "format": "binary"}}},
            },
            204: {"description": "A long-poll that nothing came for"},
            304: {"description": "As it was"},
            **problems(
                _400="The query is wrong",
                _404="There is no such stream",
                _410="It was deleted, and is kept for its forks; or the offset is not one that it has",
            ),
        },
    )
    async def read(request: Request, name: str) -> Response:
        """Read from an offset: what there is, or what is to come."""
        name = name_in(request)
        await authorized(authorize, request, "read", name)
        return await reading.read(service, tails, request, name, manner)

    @router.put(
        _PATH,
        status_code=201,
        summary="Create a stream or a fork",
        openapi_extra={
            **_BODY,
            "parameters": [
                parameter("Stream-TTL", "header", "Seconds without a read or a write after which it expires"),
                parameter("Stream-Expires-At", "header", "When it expires (RFC 3339)"),
                parameter("Stream-Closed", "header", "`true`: the body is all there will ever be"),
                parameter("Stream-Forked-From", "header", "The path of the stream that it begins with"),
                parameter("Stream-Fork-Offset", "header", "The offset at which the two diverge; without, the tail"),
                parameter("Stream-Fork-Sub-Offset", "header", "How many bytes or messages after that offset"),
            ],
        },
        response_class=Response,
        responses={
            200: {"description": "It is there, as it would be created"},
            201: {"description": "Created"},
            **problems(
                _400="The request is wrong",
                _404="There is no such source",
                _409="There is another stream of that name, or the source is another one",
                _413="The body is too large",
                _507="The storage is full",
            ),
        },
    )
    async def create(request: Request, name: str) -> Response:
        """Create a stream with the body as its first bytes, or find that it is there already."""
        name = name_in(request)
        await authorized(authorize, request, "write", name)
        base = base_of(request, route)
        wanted = creating.asked(request, service.now(), lambda path: _source(path, base))
        if wanted.source is not None:
            await authorized(authorize, request, "read", wanted.source)
        location = str(request.url.replace(path=url_in(base, name), query=""))
        return await creating.create(service, request, name, wanted, location, max_append)

    @router.head(_PATH, include_in_schema=False)
    async def head(request: Request, name: str) -> Response:
        name = name_in(request)
        await authorized(authorize, request, "read", name)
        return reading.described(await service.info(name))

    @router.delete(
        _PATH,
        status_code=204,
        summary="Delete a stream",
        response_class=Response,
        responses=problems(_404="There is no such stream", _410="It was deleted before, and is kept for its forks"),
    )
    async def delete(request: Request, name: str) -> Response:
        """Delete a stream. Its bytes stay for its forks."""
        name = name_in(request)
        await authorized(authorize, request, "delete", name)
        await service.delete(name)
        return answer(204, {})

    async def tell(request: Request) -> Response:
        return answers.options(request, ", ".join(_METHODS))

    router.add_api_route(_PATH, tell, methods=["OPTIONS"], include_in_schema=False)
    add_other_methods(router, _PATH, _METHODS)
    if subscriptions is not None:
        add_subscription_routes(router, Control(subscriptions, authorize, local=local_webhooks))
    return router


def _source(path: str, base: str) -> str:
    """Return the name of a stream by the path of its URL on this server."""
    if not path.startswith(base):
        raise bad_request(f"Stream-Forked-From must be the path of a stream on this server: {base}...")
    return check_name(unquote(path.removeprefix(base)))
