"""The methods of the protocol."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from penstock.core.service import StreamService
from penstock.core.uploads import Upload
from penstock.doors.checked import pump_checked
from penstock.doors.completion import complete, digests_of, verified, writing
from penstock.doors.fields import check_coding, spec_of
from penstock.doors.finishing import Finishing, completed_by
from penstock.doors.hooks import MAX_SIZE, Action, Hooks, NewUpload, check_size
from penstock.doors.keys import check_key
from penstock.doors.tus.checksum import BodyChecksum
from penstock.doors.tus.concatenation import (
    attributes_of,
    finals_of,
    fingerprint,
    is_final,
    joined,
    length_of,
    made_before,
    named_by_server,
    note,
)
from penstock.doors.tus.requests import (
    KEPT,
    announced,
    check_type,
    check_version,
    concatenation_in,
    declared_length,
    description_fields,
    has_body,
    hidden_incarnation,
    is_part,
    kept_fields,
    method_of,
    progress_fields,
    refusal,
    size_in,
    upload_at,
    well_formed,
)
from penstock.doors.uploads import Conditions
from penstock.errors import OffsetMismatch, PenstockError, StreamClosed
from penstock.model import StreamInfo
from penstock.protocols.tus import VERSION, Concatenation
from penstock.toolkit.problems import RequestError, bad_request, problem_response
from penstock.toolkit.requests.bodies import content_length, limited, pump

logger = logging.getLogger("penstock")

Locate: TypeAlias = Callable[[Request, StreamInfo, bool], str]
"""Returns the URL of an upload, relative to the request's: by its name alone (True), or by its incarnation too."""

Resolve: TypeAlias = Callable[[Request, str], tuple[str, str | None]]
"""Returns the name and the incarnation that the URL of an upload tells."""

_NOTHING: Mapping[str, Any] = {}


class TusDoor:
    """Answers the requests of the protocol.

    Args:
        service: the streams.
        hooks: what the application adds.
        finishing: what happens at the end of an upload.
        expiry: seconds without progress after which an upload expires, or None.
        locate: makes the URLs of uploads.
        resolve: reads them.
    """

    def __init__(
        self,
        service: StreamService,
        hooks: Hooks,
        finishing: Finishing,
        *,
        expiry: float | None,
        locate: Locate,
        resolve: Resolve,
    ) -> None:
        self._service = service
        self._hooks = hooks
        self._finishing = finishing
        self._expiry = expiry
        self._locate = locate
        self._resolve = resolve

    async def answer(self, request: Request, name: str, *, chosen: bool) -> Response:
        """Answer a request of the protocol.

        Args:
            request: the request.
            name: the stream's name: from the URL, or for an upload that is to be created, from the server.
            chosen: whether the name is in the URL.
        """
        try:
            check_version(request)
            with well_formed():
                response = await self._answer(request, name, chosen)
        except (PenstockError, HTTPException, ClientDisconnect) as error:
            response = problem_response(refusal(error))
        response.headers["tus-resumable"] = VERSION
        return response

    async def _answer(self, request: Request, name: str, chosen: bool) -> Response:
        match method_of(request):
            case "POST":
                return await self._post(request, name, chosen)
            case "HEAD" if chosen:
                return await self._head(request, name)
            case "PATCH" if chosen:
                return await self._patch(request, name)
            case "DELETE" if chosen:
                return await self._delete(request, name)
            case method:
                allow = "DELETE, HEAD, OPTIONS, PATCH, POST" if chosen else "OPTIONS, POST"
                raise RequestError(
                    "method-not-allowed", 405, f"{method} is not for this URL; {allow} are.", {"allow": allow}
                )

    # -- creation -------------------------------------------------------------------------------------------------

    async def _post(self, request: Request, name: str, chosen: bool) -> Response:
        await self._hooks.authorized(request, "write", name)
        concat = concatenation_in(request)
        if concat is not None and concat.final:
            info = await self._final(request, name, chosen, concat)
        else:
            info = await self._created(request, name, chosen, part=concat is not None)
        ours = info.name == name or named_by_server(info)
        plain = not chosen and ours and (info.published or is_part(info))
        location = self._locate(request, info, plain)
        if not is_final(info) and (has_body(request) or info.length == 0):
            info = await self._append(request, info, 0, None)
        return await self._answered(request, info, 201, {"location": location, **progress_fields(info)})

    async def _created(self, request: Request, name: str, chosen: bool, *, part: bool) -> StreamInfo:
        length = declared_length(request)
        if has_body(request):
            check_type(request)
            check_coding(request)
        new = await self._hooks.begun(announced(request, name, length, part=part), request)
        # A part that the server named is found by its name, though that does not show it: see `upload_at`.
        own = hidden_incarnation(name) if part and not chosen and new.name == name else None
        return await self._begin(request, new, incarnation=own)

    async def _begin(
        self,
        request: Request,
        new: NewUpload,
        further: Mapping[str, Any] = _NOTHING,
        incarnation: str | None = None,
    ) -> StreamInfo:
        await check_key(self._service, new, lambda info: self._locate(request, info, False))
        limit = {} if new.max_size is None else {MAX_SIZE: new.max_size}
        spec = replace(
            spec_of(request, new.content_type, new.length, self._service.now),
            metadata=new.metadata,
            owner=new.owner,
            key=new.key,
            attributes={KEPT: kept_fields(request), **limit, **further},
        )
        condition = Conditions.of(request, new.name)
        return await self._service.begin_upload(
            new.name, spec, ttl=self._expiry, condition=condition, shown=not new.part, incarnation=incarnation
        )

    # -- the upload -----------------------------------------------------------------------------------------------

    async def _head(self, request: Request, name: str) -> Response:
        info = await self._asked(request, "write", name)
        if is_final(info):
            info = await self._joined(request, info)
        else:
            info = await self._resumed(request, info)
        fields = {**progress_fields(info), **description_fields(info)}
        if is_final(info) and not info.closed:
            del fields["upload-offset"]
        answer = None if not info.closed or is_part(info) else await self._finishing.answer(info, request)
        response = Response(status_code=200, headers=fields)
        return response if answer is None else _with_fields_of(answer, response)

    async def _resumed(self, request: Request, info: StreamInfo) -> StreamInfo:
        """Return an upload to go on from; complete, where it has all of its bytes, which is how clients know of it."""
        info = await self._service.resume(info.name, incarnation=info.incarnation)
        if info.closed or info.tail != info.length:
            return info
        # The server went down between the last bytes and the end.
        async with writing(self._service, info, offset=info.tail) as upload:
            return await self._ended(request, upload)

    async def _patch(self, request: Request, name: str) -> Response:
        check_type(request)
        check_coding(request)
        offset, length = size_in(request, "upload-offset"), size_in(request, "upload-length")
        if offset is None:
            raise bad_request("Upload-Offset is needed: where the bytes belong.")
        info = await self._asked(request, "write", name)
        if is_final(info):
            raise RequestError("forbidden", 403, "A final upload is made of its parts: nothing can be appended to it.")
        if not info.closed:
            info = await self._append(request, info, offset, length)
        elif offset != info.tail:
            raise OffsetMismatch(info.name, offset, info.tail)
        elif has_body(request):
            raise StreamClosed(info.name, info.tail)
        return await self._answered(request, info, 204, progress_fields(info))

    async def _append(self, request: Request, info: StreamInfo, offset: int, length: int | None) -> StreamInfo:
        """Take a request's bytes, and return the upload after them: durable, and complete if these were the last."""
        limit = info.attributes.get(MAX_SIZE)
        check_size(length, limit)
        total = info.length if length is None else length
        most = min((size for size in (total, limit) if size is not None), default=None)
        checksum = BodyChecksum.of(request)
        async with writing(self._service, info, offset=offset, length=length) as upload:
            chunks = limited(request, None if most is None else most - offset)
            if checksum is None:
                await pump(chunks, upload.write)
            else:
                size = content_length(request)
                await pump_checked(self._service, chunks, size, upload.write, checksum.hasher, checksum.check)
            return await self._ended(request, upload)

    async def _ended(self, request: Request, upload: Upload) -> StreamInfo:
        """Complete an upload if all of it is there: by what its creation asked for, by whichever protocol that was."""
        info = upload.info
        if info.tail != info.length:
            return await upload.flush()
        if is_part(info):
            return await upload.complete_part()
        digests = await verified(self._service, info, digests_of(info))
        await self._finishing.expect(info.name, info.incarnation, request)
        return await complete(upload, digests)

    async def _answered(self, request: Request, info: StreamInfo, status: int, fields: Mapping[str, str]) -> Response:
        """Answer a request that may have brought the last bytes."""
        if is_final(info) and not info.closed:
            fields = {name: value for name, value in fields.items() if name != "upload-offset"}
        answer = None
        if info.closed and is_part(info):
            for final in finals_of(await self._service.info(info.name, incarnation=info.incarnation)):
                await self._complete_waiting(request, *final)
        elif info.closed:
            answer = await self._finishing.answer(info, request)
        return Response(status_code=status, headers=dict(fields)) if answer is None else completed_by(answer, fields)

    async def _delete(self, request: Request, name: str) -> Response:
        info = await self._asked(request, "delete", name)
        await self._service.delete(info.name, incarnation=info.incarnation)
        return Response(status_code=204)

    async def _asked(self, request: Request, action: Action, name: str) -> StreamInfo:
        """Return the upload that the URL means, if the caller may do this, and it is the caller's."""
        await self._hooks.authorized(request, action, name)
        info = await upload_at(self._service, name, request.query_params.get("upload"))
        return await self._hooks.owned(info, request)

    # -- concatenation --------------------------------------------------------------------------------------------

    async def _final(self, request: Request, name: str, chosen: bool, concat: Concatenation) -> StreamInfo:
        if "upload-length" in request.headers or "upload-defer-length" in request.headers or has_body(request):
            raise bad_request("A final upload has neither a length nor a body of its own: both are those of its parts.")
        parts = [await self._part(request, url) for url in concat.parts]
        made_by = fingerprint(request, name if chosen else "")
        info = await made_before(self._service, parts[0], made_by)
        if info is None:
            counted = sum(part.tail if part.length is None else part.length for part in parts)
            new = await self._hooks.begun(announced(request, name, length_of(parts)), request, counted=counted)
            info = await self._begin(request, new, attributes_of(parts, named=not chosen and new.name == name))
            await note(self._service, info, parts, made_by)
        return await self._joined(request, info)

    async def _joined(self, request: Request, final: StreamInfo) -> StreamInfo:
        return await joined(
            self._service, final, lambda: self._finishing.expect(final.name, final.incarnation, request)
        )

    async def _part(self, request: Request, url: str) -> StreamInfo:
        name, incarnation = self._resolve(request, url)
        await self._hooks.authorized(request, "write", name)
        info = await self._hooks.owned(await upload_at(self._service, name, incarnation), request)
        if not is_part(info):
            raise bad_request(f"{url[:200]!r} is no part: it was not created with 'Upload-Concat: partial'.")
        return info

    async def _complete_waiting(self, request: Request, name: str, incarnation: str) -> None:
        """Complete a final upload if this was the last of its parts. Where that fails, who asks for it tries again."""
        try:
            final = await self._joined(request, await self._service.info(name, incarnation=incarnation))
            if final.closed:
                await self._finishing.answer(final, request)
        except (PenstockError, HTTPException) as error:
            logger.warning("The upload %r could not be made of its parts yet: %s", name, error)


def _with_fields_of(answer: Response, response: Response) -> Response:
    """Let who did not hear an answer read its fields in one to HEAD; but not what frames and describes its body."""
    own = {"content-length", "content-type", "content-encoding", *response.headers.keys()}
    for name, value in answer.headers.items():
        if name not in own:
            response.headers[name] = value
    return response
