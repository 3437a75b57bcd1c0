"""The routes of the live door."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, WebSocket
from fastapi.responses import JSONResponse, Response

from penstock.core.service import StreamService
from penstock.doors.fields import base_of, name_in, url_in
from penstock.doors.hooks import Authorize, Identify, authorized, identified
from penstock.doors.live.appending import ACCEPTED, NDJSON, append, content_of
from penstock.doors.live.following import HEARTBEAT
from penstock.doors.live.groups import check_selection, read_group, selected
from penstock.doors.live.progressive import progressive
from penstock.doors.live.reading import read
from penstock.doors.live.signals import presence, stop
from penstock.doors.live.sockets import serve
from penstock.doors.live.wishes import Wish, wish
from penstock.doors.methods import add_other_methods
from penstock.doors.schemas import APPENDED, json_of, parameter, problems
from penstock.doors.tails.tail import PATIENCE, SharedTails
from penstock.protocols import sse
from penstock.toolkit.problems import ProblemRoute
from penstock.toolkit.responses.stream_fields import state_fields

_METHODS = ("GET", "HEAD", "OPTIONS", "POST")
_TEXT: dict[str, Any] = {"schema": {"type": "string"}}


def live_router(
    service: StreamService,
    *,
    prefix: str = "/live",
    authorize: Authorize | None = None,
    heartbeat: float = HEARTBEAT,
    patience: float = PATIENCE,
    origins: Sequence[str] = (),
    identify: Identify | None = None,
    **options: Any,
) -> APIRouter:
    """Return a router that appends records and streams them as they come; see ``docs/http.md``.

    Args:
        service: the streams.
        prefix: where the router is mounted.
        authorize: who may do what; see `penstock.doors.hooks.Authorize`.
        heartbeat: seconds of silence after which a comment is sent, so that proxies and clients see the line is alive.
        patience: seconds after which a reader whose connection takes nothing is cut off.
        origins: other sites (``https://app.example``) whose pages may connect by WebSocket, beside the one that this is
            served from; ``*`` for all.
        identify: who a reader is, for those who ask who is there; see `penstock.doors.hooks.Identify`.
        options: whatever else FastAPI's `APIRouter` takes: ``dependencies``, ``tags``, ...
    """
    router = APIRouter(prefix=prefix, route_class=ProblemRoute, **{"tags": ["live"], **options})
    tails = SharedTails(service, heartbeat=heartbeat, patience=patience)
    route = f"penstock-live-{secrets.token_hex(4)}"  # its own, so that several can be mounted in one application

    @router.post(
        "/{name:path}",
        summary="Append records",
        openapi_extra={
            "requestBody": {"content": {"application/json": {"schema": {}}, NDJSON: _TEXT, "text/plain": _TEXT}},
            "parameters": [
                parameter("batch", "query", "Take each element of a JSON array for a record"),
                parameter("stream", "query", "Append the lines of a long body as they arrive"),
                parameter("stop", "query", "Close the stream, for the reason in the body, and tell its producer"),
            ],
        },
        responses={
            200: json_of("Appended, or recognised as a repetition", APPENDED),
            201: json_of("Appended, and the stream was created", APPENDED),
            **problems(
                _400="The request is wrong",
                _403="Another producer took over",
                _409="The append does not fit",
                _413="It is too large",
                _415="The content type has no records",
                _422="It is not a record",
                _507="The storage is full",
            ),
        },
    )
    async def post(request: Request, name: str) -> Response:
        """Append one record, or several together, and create the stream if there is none."""
        name = name_in(request)
        if "stop" in request.query_params:
            await authorized(authorize, request, "stop", name)
            return await stop(service, request, name)
        await authorized(authorize, request, "write", name)
        location = url_in(base_of(request, route), name)
        if "stream" in request.query_params:
            return progressive(service, request, name, location)
        appended = await append(service, request, name, batch="batch" in request.query_params)
        fields = state_fields(appended.info)
        if appended.created:
            fields["location"] = location
        return JSONResponse(content_of(name, appended), 201 if appended.created else 200, fields)

    async def get(request: Request, name: str, wish: Annotated[Wish, Depends(wish)]) -> Response:
        """Follow a stream, or several; `Last-Event-ID` resumes without gap or duplicate."""
        selection = selected(request)
        if selection is not None:
            await check_selection(request, selection, authorize)
            who = await identified(identify, request)
            return await read_group(
                service, request, selection, wish, authorize, who, heartbeat=heartbeat, patience=patience
            )
        name = name_in(request)
        await authorized(authorize, request, "read", name)
        if "presence" in request.query_params:
            return await presence(service, name)
        return await read(tails, request, name, wish, await identified(identify, request))

    router.get(
        "/{name:path}",
        name=route,
        summary="Follow records as server-sent events or NDJSON",
        response_class=Response,
        responses={
            200: {"description": "Records", "content": {sse.MEDIA_TYPE: _TEXT, NDJSON: _TEXT}},
            204: {"description": "The reader has all there is, and the stream is closed; or nothing came in time"},
            **problems(
                _400="The request is wrong",
                _404="There is no such stream",
                _410="The offset is past the tail, or within a record",
            ),
        },
        openapi_extra={
            "parameters": [
                parameter("Last-Event-ID", "header", "Where to go on: it wins over the parameter `offset`"),
                parameter("name", "query", "Several streams to follow, where the path names none"),
                parameter("presence", "query", "Tell who follows, instead of following"),
                parameter("envelope", "query", "Let each record of NDJSON come with its offset"),
            ]
        },
    )(get)
    router.head("/{name:path}", include_in_schema=False)(get)

    @router.websocket("/{name:path}")
    async def connect(websocket: WebSocket, wish: Annotated[Wish, Depends(wish)], mode: str = "both") -> None:
        await serve(
            websocket,
            service,
            wish,
            mode,
            authorize=authorize,
            heartbeat=heartbeat,
            patience=patience,
            origins=tuple(origins),
            identify=identify,
        )

    add_other_methods(router, "/{name:path}", _METHODS, lambda _: {"accept-post": ACCEPTED})
    return router
