"""Resumable uploads of the IETF: what is done with an upload, whatever it is for.

The resource that a request was sent to creates an upload (`Resumable.begun`); the client then knows the upload's URL,
at which it asks for the offset (`look`), appends (`append`) and cancels (`cancel`). What an upload is for, and what its
URL is, is the `Target`'s matter. The fields, and what versions of the draft differ in, are those of
`penstock.protocols.resumable`; sections are cited as there.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from penstock.core.digests import Hasher
from penstock.core.service import StreamService
from penstock.core.uploads import Upload
from penstock.doors.checked import pump_checked
from penstock.doors.completion import (
    ContentMismatch,
    algorithms_of,
    asked_for,
    digests_of,
    hopeless,
    removed,
    verified,
    writing,
)
from penstock.doors.fields import check_coding
from penstock.doors.hooks import MAX_SIZE
from penstock.doors.uploads import Conditions
from penstock.errors import (
    DigestMismatch,
    LengthMismatch,
    NotAnUpload,
    OffsetMismatch,
    PenstockError,
    StreamClosed,
    StreamGone,
    StreamNotFound,
)
from penstock.model import Buffer, StreamInfo
from penstock.protocols.resumable import (
    INTERIM_STATUS,
    MEDIA_TYPE,
    REQUEST_FIELDS,
    Dialect,
    InconsistentLength,
    Limits,
    UploadRequest,
    dialect_of,
    final_fields,
    interim_fields,
    total_length,
)
from penstock.toolkit.problems import RequestError, bad_request, problem_response
from penstock.toolkit.requests.bodies import content_length, pump
from penstock.toolkit.requests.integrity import agreed, check_digests, digests_in
from penstock.toolkit.responses.interim import interim_of
from penstock.toolkit.responses.representations import joined
from penstock.toolkit.responses.stream_fields import state_fields

__all__ = ["STATE", "Resumable", "Target", "asked", "checked", "creates"]

STATE: Final = "resumable"
"""The attribute of a stream in which is kept what its creation asked for. Who has it is an upload of this protocol."""

_PROGRESS: Final = 1.0
"""Seconds between two 104 responses that tell of progress: each of them is the disk's word, and costs a sync."""


def asked(request: Request) -> UploadRequest:
    """Return what a request says of an upload."""
    names = map(str.lower, REQUEST_FIELDS)
    return UploadRequest.from_headers({name: value for name in names if (value := joined(request, name)) is not None})


def creates(request: Request) -> bool:
    """Tell whether a request, sent to whatever takes a body, is to be an upload (section 4.2).

    One of tus is not, whose fields go by the same names.
    """
    return "tus-resumable" not in request.headers and asked(request).complete is not None


class Target(Protocol):
    """What uploads are for."""

    def location(self, request: Request, info: StreamInfo) -> str:
        """Return the path of an upload's URL."""

    def answered(self, info: StreamInfo) -> bool:
        """Tell whether the final answer of a complete upload was made."""

    async def complete(self, request: Request, upload: Upload, digests: Mapping[str, bytes]) -> StreamInfo:
        """Complete an upload whose bytes are all there, and durably so when this returns."""

    async def finish(self, request: Request, info: StreamInfo) -> Response:
        """Return the final answer of an upload that is complete: made once, and then given again."""


@dataclass(frozen=True, slots=True)
class _Transfer:
    """The content of one request, on its way into an upload."""

    request: Request
    fields: UploadRequest
    info: StreamInfo
    offset: int
    length: int | None

    @property
    def whole(self) -> bool:
        """Whether the content is the whole representation."""
        return self.offset == 0 and bool(self.fields.completes)

    @property
    def given(self) -> Mapping[str, bytes]:
        """The digests of the whole that the client gave, when it created the upload or now."""
        # The content of a request that has it all is the whole (RFC 9530 section 2).
        content = digests_in(self.request, "content-digest") if self.whole else {}
        return agreed(digests_of(self.info), digests_in(self.request, "repr-digest"), content)


class Resumable:
    """The uploads of one target.

    Args:
        service: the streams.
        target: what they are for.
        limits: what holds for all of them; each may have a smaller ``max_size``.
    """

    def __init__(self, service: StreamService, target: Target, limits: Limits) -> None:
        self._service = service
        self._target = target
        self.limits = limits

    # -- creation -----------------------------------------------------------------------------------------------------

    def announced_length(self, request: Request, fields: UploadRequest) -> int | None:
        """Return the length that a request which creates an upload tells, or None.

        Raises:
            RequestError: what it says cannot be, or goes past a limit.
        """
        if fields.offset is not None:
            # Whoever sends one means to append: what would be created is not what there should be.
            raise bad_request("Upload-Offset belongs into a PATCH of an upload's URL, not into its creation.")
        length = _total_length(request, fields, offset=0)
        self._check_append(request, fields, creates=True)
        _check_size(length, self.limits.max_size)
        return length

    def is_small(self, fields: UploadRequest, length: int | None) -> bool:
        """Tell whether a body is too small to be worth an upload of its own (``min-size``): it is taken in as ever."""
        least = self.limits.min_size
        return least is not None and fields.complete is True and length is not None and length < least

    def attributes(
        self,
        request: Request,
        fields: UploadRequest,
        max_size: int | None,
        condition: Conditions | None = None,
        **state: Any,
    ) -> dict[str, Any]:
        """Return what is to be kept of a request that creates an upload: attributes for `StreamSpec`.

        Args:
            request: the request.
            fields: what it says of the upload.
            max_size: the most bytes that the upload may have.
            condition: what must hold at its end, too.
            state: what the target wants to be kept.

        Raises:
            RequestError: a digest field cannot be read.
        """
        given = digests_in(request, "repr-digest")
        if fields.complete:
            given = agreed(given, digests_in(request, "content-digest"))
        limit = {} if max_size is None else {MAX_SIZE: max_size}
        return {STATE: state, **limit, **asked_for(request, given, condition)}

    async def begun(self, request: Request, fields: UploadRequest, info: StreamInfo) -> Response:
        """Take in the content of the request that has created an upload, and answer it."""
        info, response = await self.arrived(request, fields, info)
        if response is None:
            response = await self._final(request, fields, info)
            if fields.dialect.relocated:
                response.headers["location"] = self._target.location(request, info)
        return response

    async def arrived(
        self, request: Request, fields: UploadRequest, info: StreamInfo
    ) -> tuple[StreamInfo, Response | None]:
        """Take in the content of the request that has created an upload.

        Returns:
            the upload, and, if there is more to come, the answer to the request.
        """
        location = self._target.location(request, info)
        await self._tell(request, fields.dialect, location=location, limits=self._limits_of(info))
        info = await self._taken(_Transfer(request, fields, info, 0, info.length))
        if info.complete:
            return info, None
        response = self._acknowledged(fields.dialect, info, 201)
        response.headers["location"] = location
        return info, response

    # -- the upload's URL ---------------------------------------------------------------------------------------------

    async def look(self, request: Request, info: StreamInfo) -> Response:
        """Tell how far an upload is, for its client to go on from there (section 4.3).

        Whoever is still writing is evicted, and what was written is made durable: so the offset holds.
        """
        fields = asked(request)
        if fields.dialect.bare and fields.transfers:
            raise bad_request("A request for the offset must not tell an offset, a length, or completeness.")
        info = await self._service.resume(info.name, incarnation=info.incarnation)
        headers = final_fields(
            fields.dialect,
            complete=info.complete and self._target.answered(info),
            offset=info.tail,
            length=info.tail if info.complete else info.length,
            limits=self._limits_of(info),
        )
        return Response(status_code=204, headers={**headers, **state_fields(info), "cache-control": "no-store"})

    async def append(self, request: Request, info: StreamInfo) -> Response:
        """Append the content of a request to an upload, and perhaps complete it (section 4.4)."""
        fields = asked(request)
        _check_type(request, fields.dialect)
        if fields.offset is None:
            raise bad_request("An append must tell where its content belongs: Upload-Offset, a number of bytes.")
        if fields.completes is None:
            raise bad_request("An append must tell whether it is the last: Upload-Complete, ?1 or ?0.")
        if not info.complete:
            if fields.offset != info.tail:  # comes first: the rule that takes over would say so too, but later
                raise OffsetMismatch(info.name, fields.offset, info.tail)
            length = _total_length(request, fields, offset=fields.offset, known=info.length)
            self._check_append(request, fields)
            _check_size(length, _max_size(info))
            try:
                info = await self._taken(_Transfer(request, fields, info, fields.offset, length))
            except StreamClosed:  # by another request, just now
                info = await self._service.info(info.name, incarnation=info.incarnation)
            else:
                if info.complete:
                    return await self._final(request, fields, info)
                return self._acknowledged(fields.dialect, info, fields.dialect.appended)
        return await self._again(request, fields, info)

    async def cancel(self, request: Request, info: StreamInfo) -> Response:
        """Cancel an upload (section 4.5). Of one that is complete and shown, only the URL goes."""
        fields = asked(request)
        if fields.dialect.bare and fields.transfers:
            raise bad_request("A cancellation must not tell an offset, a length, or completeness.")
        if info.complete and info.published:
            await self._service.annotate(info.name, {STATE: None}, incarnation=info.incarnation)
        else:
            await self._service.delete(info.name, incarnation=info.incarnation)
        return Response(status_code=204)

    # -- content ------------------------------------------------------------------------------------------------------

    async def _taken(self, transfer: _Transfer) -> StreamInfo:
        """Take in the content of a request, and return the upload after it: complete, if this was the last."""
        try:
            async with writing(self._service, transfer.info, offset=transfer.offset, length=transfer.length) as upload:
                known = await self._received(transfer, upload)
                if not (transfer.fields.completes or _ends_at_length(transfer.fields, upload.info)):
                    return await upload.flush()
                digests = await verified(self._service, transfer.info, transfer.given, known)
                return await self._target.complete(transfer.request, upload, digests)
        except LengthMismatch as error:
            if error.size > error.length and transfer.fields.dialect.ends_on_excess:
                await removed(self._service, transfer.info)
            raise

    async def _received(self, transfer: _Transfer, upload: Upload) -> Mapping[str, bytes]:
        """Write the content, and return those digests of the whole that could be taken of it meanwhile."""
        request, fields = transfer.request, transfer.fields
        hasher = Hasher(algorithms_of(transfer.info, transfer.given) if transfer.whole else ())
        told = _Progress(upload, lambda offset: self._tell(request, fields.dialect, offset=offset))
        write = told.write if _listens(request, fields.dialect) else upload.write
        given = {} if transfer.whole else digests_in(request, "content-digest")
        async with aclosing(self._bounded(transfer)) as chunks:
            if given:
                await self._received_checked(transfer, chunks, write, given)
            else:
                await pump(chunks, write, hasher)
        return hasher.digests()

    async def _received_checked(
        self,
        transfer: _Transfer,
        chunks: AsyncGenerator[Buffer, None],
        write: Callable[[Sequence[Buffer]], Awaitable[None]],
        given: Mapping[str, bytes],
    ) -> None:
        """Write the content once all of it is there, and is what its digests say (section 10.2).

        Raises:
            ContentMismatch: it is something else.
        """
        hasher, name = Hasher(given), transfer.info.name

        def check() -> None:
            try:
                check_digests(name, given, hasher.digests())
            except DigestMismatch as error:
                raise ContentMismatch(name, error.algorithm, error.given, error.actual) from None

        await pump_checked(self._service, chunks, content_length(transfer.request), write, hasher, check)

    async def _bounded(self, transfer: _Transfer) -> AsyncGenerator[Buffer, None]:
        """Yield a request's content; more than a limit allows is refused, and what came before stays."""
        left = self.limits.max_append_size
        most = _max_size(transfer.info)
        if most is not None:
            left = min(most - transfer.offset, most if left is None else left)
        size = 0
        async with aclosing(transfer.request.stream()) as chunks:
            async for chunk in chunks:
                size += len(chunk)
                if left is not None and size > left:
                    raise _too_large(left)
                if chunk:
                    yield chunk

    # -- answers ------------------------------------------------------------------------------------------------------

    def _acknowledged(self, dialect: Dialect, info: StreamInfo, status: int) -> Response:
        """Return the answer to content after which there is more to come."""
        headers = final_fields(
            dialect, complete=False, offset=info.tail, length=info.length, limits=self._limits_of(info)
        )
        return Response(status_code=status, headers={**headers, **state_fields(info)})

    async def _final(self, request: Request, fields: UploadRequest, info: StreamInfo) -> Response:
        """Return the answer of the resource to which the representation was sent."""
        response = await self._target.finish(request, info)
        response.headers.update(final_fields(fields.dialect, complete=True, offset=info.tail))
        return response

    async def _again(self, request: Request, fields: UploadRequest, info: StreamInfo) -> Response:
        """Answer an append to an upload that is complete: with the final answer, if there is nothing to append."""
        if fields.offset != info.tail:
            raise OffsetMismatch(info.name, fields.offset or 0, info.tail)
        async with aclosing(request.stream()) as chunks:
            async for chunk in chunks:
                if chunk:
                    raise LengthMismatch(info.name, info.tail, info.tail + len(chunk))
        if not fields.completes or (fields.dialect.final and self._target.answered(info)):
            raise RequestError("completed-upload", 400, "The upload is complete: nothing can be appended to it.")
        return await self._final(request, fields, info)

    def refused(self, request: Request, error: PenstockError | HTTPException) -> Response:
        """Return the answer to a request of this protocol that ended in an error."""
        fields = asked(request)
        response = problem_response(_in_our_terms(error))
        # What is wrong with the whole is the last word on it; anything else is about this request.
        response.headers.update(final_fields(fields.dialect, complete=hopeless(error)))
        if isinstance(error, OffsetMismatch):
            response.headers["upload-offset"] = str(error.tail)
        if response.status_code == 413:
            response.headers["upload-limit"] = self.limits.format(fields.dialect)
        return response

    def option_fields(self, request: Request) -> dict[str, str]:
        """Return the fields by which a client that asks (OPTIONS) learns of resumable uploads (section 4.1.4)."""
        return {"upload-limit": self.limits.format(dialect_of(request.headers)), "accept-patch": MEDIA_TYPE}

    def _limits_of(self, info: StreamInfo) -> Limits:
        deadline = None if info.complete else info.deadline
        left = None if deadline is None else max(0, int(deadline - self._service.now()))
        return replace(self.limits, max_size=_max_size(info), max_age=left)

    async def _tell(self, request: Request, dialect: Dialect, **said: Any) -> None:
        """Send a 104 response, where the client and the server can have it."""
        interim = interim_of(request.scope)
        if interim is not None and dialect.answers_early:
            await interim.send(INTERIM_STATUS, interim_fields(dialect, **said))

    # -- limits -------------------------------------------------------------------------------------------------------

    def _check_append(self, request: Request, fields: UploadRequest, *, creates: bool = False) -> None:
        """Refuse content that is known to be of a size that is not taken.

        Raises:
            RequestError: ``too-large`` (413), ``too-small`` (400).
        """
        size = content_length(request)
        most, least = self.limits.max_append_size, self.limits.min_append_size
        if most is not None and size is not None and size > most:
            raise _too_large(most)
        if least is None or size is None or size >= least or fields.completes or (creates and not size):
            return
        raise RequestError(
            "too-small",
            400,
            f"The content has {size} bytes, and all but the last must have {least} at least.",
            {"upload-limit": self.limits.format(fields.dialect)},
            min_append_size=least,
        )


class _Progress:
    """Writes to an upload, and tells now and then how much of it is durable."""

    def __init__(self, upload: Upload, tell: Callable[[int], Awaitable[None]]) -> None:
        self._upload = upload
        self._tell = tell
        self._next = time.monotonic() + _PROGRESS

    async def write(self, data: Sequence[Buffer]) -> None:
        await self._upload.write(data)
        if time.monotonic() >= self._next:
            await self._tell((await self._upload.flush()).tail)
            self._next = time.monotonic() + _PROGRESS


def _ends_at_length(fields: UploadRequest, info: StreamInfo) -> bool:
    return fields.dialect.ends_at_length and info.tail == info.length


def _listens(request: Request, dialect: Dialect) -> bool:
    return dialect.answers_early and interim_of(request.scope) is not None


def _check_type(request: Request, dialect: Dialect) -> None:
    check_coding(request)  # the codings of the whole were told at its creation (section 8)
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if dialect.typed and media_type != MEDIA_TYPE:
        raise RequestError(
            "unsupported-media-type",
            415,
            f"An append must have the Content-Type {MEDIA_TYPE}.",
            {"accept-patch": MEDIA_TYPE},
        )


def _total_length(request: Request, fields: UploadRequest, *, offset: int, known: int | None = None) -> int | None:
    try:
        return total_length(fields, offset=offset, content=content_length(request), known=known)
    except InconsistentLength as error:
        raise RequestError("inconsistent-upload-length", 400, str(error)) from None


def _check_size(length: int | None, most: int | None) -> None:
    if length is not None and most is not None and length > most:
        raise _too_large(most)


def _too_large(most: int) -> RequestError:
    return RequestError("too-large", 413, f"It is larger than {most} bytes, which is the most here.", max_size=most)


def checked(info: StreamInfo) -> StreamInfo:
    """Return an upload if it is one of this protocol.

    Raises:
        RequestError: ``not-found`` (404).
    """
    if STATE not in info.attributes:
        raise _no_upload()
    return info


def _no_upload() -> RequestError:
    return RequestError("not-found", 404, "There is no such upload; it may have been cancelled, or have expired.")


def _in_our_terms(error: PenstockError | HTTPException) -> PenstockError | HTTPException:
    """Return the error that the draft has for what went wrong (section 7)."""
    match error:
        case OffsetMismatch():
            facts: dict[str, Any] = {"expected-offset": error.tail, "provided-offset": error.offset}
            detail = f"The upload's offset is {error.tail}, not {error.offset}."
            return RequestError("mismatching-upload-offset", 409, detail, **facts)
        case LengthMismatch():
            return RequestError("inconsistent-upload-length", 400, str(error))
        case StreamGone() | StreamNotFound() | NotAnUpload():
            return _no_upload()
    return error


def _max_size(info: StreamInfo) -> int | None:
    most: int | None = info.attributes.get(MAX_SIZE)
    return most
