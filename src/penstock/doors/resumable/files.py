"""Files by resumable uploads: an upload's URL is its stream's, with ``?upload=`` and the incarnation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from penstock.core.service import StreamService
from penstock.core.uploads import Upload
from penstock.doors.completion import complete
from penstock.doors.fields import check_coding, filename_of, media_type_of, spec_of
from penstock.doors.finishing import Finishing, answered
from penstock.doors.hooks import Hooks, NewUpload
from penstock.doors.resumable.uploads import STATE, Resumable, asked, checked
from penstock.doors.tus import requests as tus
from penstock.doors.tus.requests import well_formed
from penstock.doors.uploads import Conditions, receive
from penstock.errors import PenstockError
from penstock.model import StreamInfo
from penstock.protocols.resumable import MEDIA_TYPE, Limits, final_fields
from penstock.toolkit.problems import bad_request

__all__ = ["ResumableFiles", "is_upload"]

QUERY: Final = "upload"
"""The parameter that makes of a stream's URL that of an upload."""


class ResumableFiles:
    """The files door's uploads by the IETF's protocol.

    Args:
        service: the streams.
        hooks: what the application adds.
        finishing: what happens at the end of an upload.
        limits: what holds for its uploads.
        expiry: seconds without progress after which an unfinished one expires, or None.
        url: returns the path of a stream's URL.
        stored: returns the answer to a completed upload: with this status, and with the hook's response, if it has one.
    """

    def __init__(
        self,
        service: StreamService,
        hooks: Hooks,
        finishing: Finishing,
        limits: Limits,
        *,
        expiry: float | None,
        url: Callable[[Request, str], str],
        stored: Callable[[StreamInfo, Request, int, Response | None], Response],
    ) -> None:
        self._service = service
        self._hooks = hooks
        self._finishing = finishing
        self._expiry = expiry
        self._url = url
        self._stored = stored
        self._uploads = Resumable(service, self, limits)

    # -- requests -----------------------------------------------------------------------------------------------------

    async def create(self, request: Request, name: str) -> Response:
        """Make of a request's body an upload, which may go on after it."""
        try:
            return await self._created(request, name)
        except (PenstockError, HTTPException) as error:
            return self._uploads.refused(request, error)

    async def answer(self, request: Request, name: str) -> Response:
        """Do with an upload what the method says: HEAD, GET, PATCH or DELETE of its URL."""
        try:
            await self._hooks.authorized(request, "write", name)
            info = await self._service.info(name, incarnation=request.query_params[QUERY])
            info = checked(await self._hooks.owned(info, request))
            match request.method:
                case "PATCH":
                    return await self._uploads.append(request, info)
                case "DELETE":
                    return await self._uploads.cancel(request, info)
                case _:
                    return await self._uploads.look(request, info)
        except (PenstockError, HTTPException) as error:
            return self._uploads.refused(request, error)

    def option_fields(self, request: Request) -> dict[str, str]:
        """Return the fields by which a client that asks (OPTIONS) learns of resumable uploads."""
        return self._uploads.option_fields(request)

    async def _created(self, request: Request, name: str) -> Response:
        await self._hooks.authorized(request, "write", name)
        fields = asked(request)
        length = self._uploads.announced_length(request, fields)
        new = await self._hooks.begun(_announced(request, name, length), request)
        if self._uploads.is_small(fields, length):
            info, created = await receive(self._service, request, new, self._finishing.expect)
            answer = await self._finishing.tell([info], request)
            response = self._stored(info, request, 201 if created else 200, answer)
            response.headers.update(final_fields(fields.dialect, complete=True, offset=info.tail))
            return response
        condition = Conditions.of(request, new.name)
        spec = replace(
            spec_of(request, new.content_type, length, self._service.now),
            metadata=new.metadata,
            owner=new.owner,
            key=new.key,
            attributes=self._uploads.attributes(request, fields, new.max_size, condition),
        )
        info = await self._service.begin_upload(new.name, spec, ttl=self._expiry, condition=condition)
        if condition.found:
            info = await self._service.annotate(info.name, {STATE: {"status": 200}}, incarnation=info.incarnation)
        return await self._uploads.begun(request, fields, info)

    # -- a target of uploads ------------------------------------------------------------------------------------------

    def location(self, request: Request, info: StreamInfo) -> str:
        """See `Target.location`."""
        return f"{self._url(request, info.name)}?{QUERY}={info.incarnation}"

    def answered(self, info: StreamInfo) -> bool:
        """See `Target.answered`."""
        return self._hooks.on_complete is None or answered(info)

    async def complete(self, request: Request, upload: Upload, digests: Mapping[str, bytes]) -> StreamInfo:
        """See `Target.complete`: the name shows the stream from then on."""
        await self._finishing.expect(upload.info.name, upload.info.incarnation, request)
        return await complete(upload, digests)

    async def finish(self, request: Request, info: StreamInfo) -> Response:
        """See `Target.finish`: the answer is that to a PUT, or the hook's."""
        answer = await self._finishing.answer(info, request)
        return self._stored(info, request, info.attributes[STATE].get("status", 201), answer)


def is_upload(request: Request) -> bool:
    """Tell whether a URL is that of an upload, for a request that is not one of tus."""
    return QUERY in request.query_params


def _announced(request: Request, name: str, length: int | None) -> NewUpload:
    check_coding(request)
    if "content-range" in request.headers:
        raise bad_request("Upload-Complete and Content-Range do not go together.")
    # A client that speaks tus too (tus-js-client) tells the name and type of a file as it does there.
    with well_formed():
        said = tus.announced(request, name, length)
    filename = filename_of(request)
    metadata = said.metadata if filename is None else {**said.metadata, "filename": filename}
    declared = request.headers.get("content-type", "")
    if declared.partition(";")[0].strip().lower() == MEDIA_TYPE:  # with which it says nothing of the file
        declared = ""
    if declared or "filetype" not in said.metadata:
        said = replace(said, content_type=media_type_of(declared, name, metadata.get("filename", "")))
    return replace(said, protocol="resumable", metadata=metadata)
