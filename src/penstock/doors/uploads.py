"""PUT and POST of whole files."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, Self, TypeAlias

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from penstock.core.digests import Hasher
from penstock.core.service import StreamService
from penstock.doors.fields import check_coding, content_type_of, described, filename_of, key_of, spec_of
from penstock.doors.hooks import NewUpload
from penstock.errors import PreconditionFailed
from penstock.model import StreamInfo, new_incarnation
from penstock.protocols.conditional import Preconditions, Verdict, evaluate
from penstock.protocols.digest import format_digests
from penstock.toolkit.problems import bad_request
from penstock.toolkit.requests.bodies import content_length, limited, pump
from penstock.toolkit.requests.integrity import check_digests, given_digests
from penstock.toolkit.responses.representations import precondition_fields, wanted_digest
from penstock.toolkit.responses.stream_fields import etag_of, state_fields

SMALL = 64 * 1024
"""A body of at most this many declared bytes is taken in one commit, which is what many small files are quickest by."""


def announced(request: Request, name: str) -> NewUpload:
    """Return what a request with a whole file says about it.

    Raises:
        RequestError: the request says what cannot be.
    """
    check_coding(request)
    if "content-range" in request.headers:  # RFC 9110 section 14.5: a server that does not do partial PUT answers 400
        raise bad_request("A PUT with Content-Range is not supported: send the whole body.")
    filename = filename_of(request)
    return NewUpload(
        name=name,
        protocol="plain",
        content_type=content_type_of(request, name, filename or ""),
        length=content_length(request),
        metadata={} if filename is None else {"filename": filename},
        key=key_of(request),
    )


Expect: TypeAlias = Callable[[str, str, Request], Awaitable[None]]
"""Is told the name and incarnation of an upload before it is complete; see `Finishing.expect`."""


async def receive(service: StreamService, request: Request, new: NewUpload, expect: Expect) -> tuple[StreamInfo, bool]:
    """Make a request's body the stream of that name; see ``PUT`` in the HTTP interface.

    Args:
        service: the streams.
        request: the request.
        new: what is to be made of it.
        expect: is told before the stream is complete.

    Returns:
        the stream, and whether the name showed nothing before.

    Raises:
        RequestError: the request says what cannot be.
        PreconditionFailed, StreamIsOpen: the name must not be replaced now.
        DigestMismatch, LengthMismatch: what arrived is not what was announced; nothing of it is kept.
    """
    name, length = new.name, new.length
    given = given_digests(request)
    hasher = Hasher({*given, *_wanted_digest(request)})
    about = spec_of(request, new.content_type, length, service.now)
    spec = replace(about, metadata=new.metadata, owner=new.owner, key=new.key)
    condition = Conditions.of(request, name)
    chunks = limited(request, new.max_size)
    if length is not None and length <= SMALL:
        data = [chunk async for chunk in chunks]
        await hasher.update(data)
        check_digests(name, given, hasher.digests())
        incarnation = new_incarnation()
        await expect(name, incarnation, request)
        info = await service.put(
            name, data, spec, condition=condition, digests=hasher.digests(), incarnation=incarnation
        )
        return info, not condition.found
    async with await service.replace(name, spec, condition=condition) as draft:
        await pump(chunks, draft.write, hasher)
        check_digests(name, given, hasher.digests())
        await expect(name, draft.info.incarnation, request)
        info = await draft.publish(hasher.digests())
        return info, not condition.found


def fields(info: StreamInfo, url: str) -> dict[str, str]:
    """Return the fields that tell of a complete upload."""
    told = {"etag": str(etag_of(info)), "location": url, **state_fields(info)}
    return {**told, "repr-digest": format_digests(info.digests)} if info.digests else told


def stored(info: StreamInfo, url: str, status: int) -> Response:
    """Return the answer to a complete upload."""
    return JSONResponse(described(info, url), status, fields(info, url))


class Conditions:
    """What If-Match and its kin ask of the stream that a name shows: a `Condition` for the rules.

    Attributes:
        found: whether the name showed a stream when it was last asked.
    """

    def __init__(self, name: str, method: str, fields: Mapping[str, str]) -> None:
        self._preconditions = Preconditions.from_headers(fields)
        self._fields = fields
        self._method = method
        self._name = name
        self.found = False

    @classmethod
    def of(cls, request: Request, name: str) -> Self:
        """Return what a request states."""
        return cls(name, request.method, precondition_fields(request))

    @classmethod
    def from_json(cls, kept: Mapping[str, Any], name: str) -> Self:
        """Return what was kept of a request, to be asked again."""
        return cls(name, kept["method"], kept["fields"])

    def as_json(self) -> dict[str, Any]:
        """Return what JSON can keep."""
        return {"method": self._method, "fields": dict(self._fields)}

    def __call__(self, info: StreamInfo | None) -> None:
        """Raise `PreconditionFailed` if ``info`` is not what the request depends on."""
        self.found = info is not None
        verdict = evaluate(
            self._preconditions,
            method=self._method,
            etag=None if info is None else etag_of(info),
            last_modified=None if info is None else info.modified_at,
        )
        if verdict is not Verdict.PROCEED:
            raise PreconditionFailed(self._name)


def _wanted_digest(request: Request) -> tuple[str, ...]:
    algorithm = wanted_digest(request)
    return () if algorithm is None else (algorithm,)
