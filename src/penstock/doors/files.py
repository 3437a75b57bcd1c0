"""The files door: streams as files, over plain HTTP."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response

from penstock.core.service import PAGE, StreamService
from penstock.doors import downloads, forms, uploads
from penstock.doors.cors import route_class
from penstock.doors.fields import base_of, described, name_in, relative_to, resolved, upload_url_in, url_in
from penstock.doors.finishing import Finishing, completed_by
from penstock.doors.hooks import Authorize, Hooks, OnComplete, OnCreate, Owner, Quota
from penstock.doors.methods import add_other_methods
from penstock.doors.resumable import ResumableFiles, asked, creates, is_upload
from penstock.doors.schemas import PAGE_OF_STREAMS, STREAM, bytes_of, json_of, parameter, problems
from penstock.doors.tus import TusDoor, is_tus, method_of, option_fields, shows_its_upload
from penstock.model import StreamInfo, check_name
from penstock.protocols.resumable import Limits
from penstock.toolkit.problems import RequestError, problem_response
from penstock.toolkit.responses.stream_fields import state_fields

WEEK = 7 * 86400.0

_METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
_COLLECTION_METHODS = ("GET", "HEAD", "OPTIONS", "POST")
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_BODY = {"requestBody": {"required": True, "content": {"*/*": _BINARY}}}
_BODY_OR_FORM = {
    "requestBody": {
        "required": True,
        "content": {"*/*": _BINARY, forms.MEDIA_TYPE: {"schema": {"type": "object", "additionalProperties": True}}},
    }
}
_REFUSALS = {
    "_400": "The request is wrong",
    "_409": "The stream is being written",
    "_412": "The conditions are not met",
    "_413": "It is too large",
    "_507": "The storage is full",
}


def files_router(
    service: StreamService,
    *,
    prefix: str = "/files",
    authorize: Authorize | None = None,
    owner: Owner | None = None,
    on_create: OnCreate | None = None,
    on_complete: OnComplete | None = None,
    max_size: int | None = None,
    quota: Quota | None = None,
    upload_expiry: float | None = WEEK,
    max_append_size: int | None = None,
    min_append_size: int | None = None,
    min_resumable_size: int | None = None,
    cors: Sequence[str] = (),
    **options: Any,
) -> APIRouter:
    """Return a router that serves streams as files; see ``docs/http.md``.

    Args:
        service: the streams.
        prefix: where the router is mounted. By it, one that has ``on_complete`` knows its uploads after a restart.
        authorize: who may do what; see `penstock.doors.hooks.Authorize`.
        owner: tells who is calling; see `penstock.doors.hooks.Owner`.
        on_create: is asked before every upload; see `penstock.doors.hooks.OnCreate`.
        on_complete: is told of every completed upload; see `penstock.doors.hooks.OnComplete`.
        max_size: the most bytes of an upload; None for no limit.
        quota: the most bytes of an owner; see `penstock.doors.hooks.Quota`.
        upload_expiry: seconds without progress after which an upload that is not complete is removed; None for never.
        max_append_size: the most bytes of one request of a resumable upload (of the IETF's protocol), because something
            before the server takes no more; None for no limit.
        min_append_size: the fewest bytes of one such request that is not the last.
        min_resumable_size: the fewest bytes that are worth a resumable upload; a smaller body is taken in as ever.
        cors: the origins whose scripts may use the router, such as ``https://app.example``, or ``*`` for any.
        options: whatever else FastAPI's `APIRouter` takes: ``dependencies``, ``tags``, ...
    """
    router = APIRouter(prefix=prefix, route_class=route_class(cors), **{"tags": ["files"], **options})
    hooks = Hooks(
        service=service,
        authorize=authorize,
        owner=owner,
        on_create=on_create,
        on_complete=on_complete,
        max_size=max_size,
        quota=quota,
    )
    # Names of this router's own, so that several can be mounted in one application.
    route = f"penstock-files-{secrets.token_hex(4)}"

    def located(request: Request, info: StreamInfo, plain: bool) -> str:
        base = base_of(request, route)
        return url_in(base, info.name) if plain else upload_url_in(base, info)

    def stored(info: StreamInfo, request: Request, status: int, answer: Response | None) -> Response:
        return _stored(info, url_in(base_of(request, route), info.name), status, answer)

    finishing = Finishing(service, hooks, prefix)
    limits = Limits(
        max_size=max_size,
        min_size=min_resumable_size,
        max_append_size=max_append_size,
        min_append_size=min_append_size,
        max_age=None if upload_expiry is None else int(upload_expiry),
    )
    resumable = ResumableFiles(
        service,
        hooks,
        finishing,
        limits,
        expiry=upload_expiry,
        url=lambda request, name: url_in(base_of(request, route), name),
        stored=stored,
    )
    tus = TusDoor(
        service,
        hooks,
        finishing,
        expiry=upload_expiry,
        locate=lambda request, info, plain: relative_to(
            request, base_of(request, route), located(request, info, plain)
        ),
        resolve=lambda request, url: resolved(base_of(request, route), url),
    )

    async def taken(request: Request, name: str) -> Response:
        if creates(request):
            return await resumable.create(request, name)
        await hooks.authorized(request, "write", name)
        new = await hooks.begun(uploads.announced(request, name), request)
        info, created = await uploads.receive(service, request, new, finishing.expect)
        answer = await finishing.tell([info], request)
        return stored(info, request, 201 if created else 200, answer)

    async def form(request: Request, prefix: str) -> Response:
        await hooks.authorized(request, "write", prefix)
        base = base_of(request, route)
        try:
            stored = await forms.receive(service, request, prefix, hooks, finishing.expect)
        except forms.PartlyStored as partly:
            return problem_response(partly.error, partly.facts(lambda name: url_in(base, name)))
        told = await finishing.tell([file.info for file in stored], request)
        return told or forms.answer(request, stored, lambda name: url_in(base, name))

    async def found(request: Request, key: str) -> Response:
        info = await service.find(await hooks.owner_of(request), key)
        await hooks.authorized(request, "write", "" if info is None else info.name)
        if info is None:
            raise RequestError("not-found", 404, "You have no upload of this key.")
        url = located(request, info, False)
        fields = {"location": url, "cache-control": "no-store", **state_fields(info)}
        return JSONResponse(described(info, url), headers=fields)

    async def listing(
        request: Request,
        prefix: Annotated[str, Query(description="What the names begin with")] = "",
        after: Annotated[str, Query(description="The name to go on after: `next` of the page before")] = "",
        limit: Annotated[int, Query(ge=1, le=PAGE, description="How many at the most")] = PAGE,
        key: Annotated[str | None, Query(description="Find the upload of this `Upload-Key`, and nothing else")] = None,
    ) -> Response:
        """List the streams in the order of their names' bytes; or find the caller's upload by its key."""
        if key is not None:
            return await found(request, key)
        await hooks.authorized(request, "list", prefix)
        page = await service.list(prefix, after=after, limit=limit)
        base = base_of(request, route)
        streams = [described(info, url_in(base, info.name)) for info in page.streams]
        return JSONResponse({"streams": streams, "next": page.next}, headers={"cache-control": "no-store"})

    router.get(
        "/",
        summary="List files",
        responses={200: json_of("Some of the streams", PAGE_OF_STREAMS), **problems(_400="A parameter is wrong")},
    )(listing)

    @router.post(
        "/",
        status_code=201,
        summary="Upload a file under a new name, or the files of a form",
        openapi_extra=_BODY_OR_FORM,
        responses={201: json_of("The new stream", STREAM), **problems(**_REFUSALS)},
    )
    async def create(
        request: Request, prefix: Annotated[str, Query(description="What the new name begins with")] = ""
    ) -> Response:
        """Make the body a new stream under a name that the server chooses; of a form, each file one named like it."""
        if forms.is_form(request) and asked(request).complete is not False:  # which would be a part of its text
            return await form(request, prefix)
        name = check_name(prefix + secrets.token_urlsafe(16))
        if is_tus(request):
            return await tus.answer(request, name, chosen=False)
        return await taken(request, name)

    def fields_of_options(request: Request) -> dict[str, str]:
        return {**option_fields(request, max_size), **resumable.option_fields(request)}

    router.head("/", include_in_schema=False)(listing)
    # Before a stream's routes, for which it would have no name.
    add_other_methods(router, "/", _COLLECTION_METHODS, fields_of_options)
    if prefix:  # clients are often given the URL without its last slash, and some do not follow a redirection
        router.add_api_route("", listing, methods=["GET", "HEAD"], include_in_schema=False)
        router.add_api_route("", create, methods=["POST"], include_in_schema=False)
        add_other_methods(router, "", _COLLECTION_METHODS, fields_of_options)

    @router.put(
        "/{name:path}",
        summary="Upload a file",
        openapi_extra=_BODY,
        responses={
            200: json_of("What replaced the stream", STREAM),
            201: json_of("The new stream", STREAM),
            **problems(**_REFUSALS),
        },
    )
    async def put(request: Request, name: str) -> Response:
        """Make the body the stream of this name, replacing a complete one in one step."""
        return await taken(request, name_in(request))

    async def get(request: Request, name: str) -> Response:
        """Read a stream: all of it, ranges of it (`Range`), or on past its end as it grows (`?follow`)."""
        name = name_in(request)
        if is_tus(request) and method_of(request) != "GET":
            return await tus.answer(request, name, chosen=True)
        if is_upload(request) and not await shows_its_upload(service, request, name):
            return await resumable.answer(request, name)
        await hooks.authorized(request, "read", name)
        return await downloads.answer(service, request, name)

    router.get(
        "/{name:path}",
        name=route,
        summary="Download a file",
        response_class=Response,
        responses={
            200: bytes_of("The whole stream"),
            206: bytes_of("Ranges of it"),
            304: {"description": "It has not changed"},
            **problems(
                _404="There is no such stream", _412="The conditions are not met", _416="The ranges are past its end"
            ),
        },
        openapi_extra={
            "parameters": [
                parameter("follow", "query", "Read on past the end, until the stream is closed"),
                parameter("download", "query", "Ask the browser to save the file, perhaps under this name"),
                parameter("Range", "header", "Ranges of bytes, such as bytes=0-99"),
            ]
        },
    )(get)
    router.head("/{name:path}", include_in_schema=False)(get)

    @router.delete(
        "/{name:path}",
        status_code=204,
        summary="Delete a file",
        responses=problems(_404="There is no such stream", _412="The conditions are not met"),
    )
    async def delete(request: Request, name: str) -> Response:
        """Delete a stream; who is reading a complete one may finish."""
        name = name_in(request)
        if is_tus(request):
            return await tus.answer(request, name, chosen=True)
        if is_upload(request):
            return await resumable.answer(request, name)
        await hooks.authorized(request, "delete", name)
        await service.delete(name, condition=uploads.Conditions.of(request, name))
        return Response(status_code=204)

    async def append(request: Request, name: str) -> Response:
        """Create an upload that resumes, or append to one."""
        name = name_in(request)
        if is_tus(request):
            return await tus.answer(request, name, chosen=True)
        if request.method == "PATCH" and is_upload(request):
            return await resumable.answer(request, name)
        if creates(request):
            return await resumable.create(request, name)
        allow = ", ".join(method for method in _METHODS if method not in {"PATCH", "POST"})
        raise RequestError(
            "method-not-allowed",
            405,
            f"{request.method} is for uploads that resume, of which this request says nothing; otherwise {allow} are.",
            {"allow": allow},
        )

    router.post("/{name:path}", include_in_schema=False)(append)
    router.patch("/{name:path}", include_in_schema=False)(append)

    add_other_methods(
        router,
        "/{name:path}",
        _METHODS,
        lambda request: {"accept-ranges": "bytes", **fields_of_options(request)},
    )
    return router


def _stored(info: StreamInfo, url: str, status: int, answer: Response | None) -> Response:
    """Return the answer to a completed upload: the hook's, where it has one."""
    return uploads.stored(info, url, status) if answer is None else completed_by(answer, uploads.fields(info, url))
