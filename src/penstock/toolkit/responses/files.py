"""Files as responses: with validators, conditions and ranges, from one open descriptor.

::

    @app.get("/report")
    async def report() -> StreamedFile:
        return StreamedFile("/srv/reports/2026.pdf", filename="report.pdf")

What is announced is what is sent: a file that changes meanwhile breaks the body off, and never fills it up with
something else.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing
from pathlib import Path
from typing import Literal, TypeAlias, TypedDict, Unpack

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from penstock.core.digests import Hasher
from penstock.errors import PenstockError
from penstock.model import OCTETS
from penstock.protocols.conditional import ETag
from penstock.protocols.dates import parse_date
from penstock.protocols.digest import format_digests
from penstock.protocols.disposition import content_disposition
from penstock.toolkit.problems import RequestError, problem_response
from penstock.toolkit.responses.docs import Responses, documented_file
from penstock.toolkit.responses.media_types import guessed
from penstock.toolkit.responses.representations import (
    Representation,
    check_conditions,
    respond,
    wanted_digest,
    with_fields,
)
from penstock.toolkit.responses.sources import Identity, LocalFile, PathLike, RangeSource, opened
from penstock.toolkit.responses.streamed_body import StreamedBody

Source: TypeAlias = RangeSource | AbstractAsyncContextManager[RangeSource]

_MISSING = (FileNotFoundError, IsADirectoryError, NotADirectoryError)

_KNOWN_DIGESTS = 1024
_digests: dict[tuple[Identity, str], bytes] = {}


class FileOptions(TypedDict, total=False):
    """What all responses that serve files take; see `StreamedRanges`."""

    disposition: Literal["attachment", "inline"]
    headers: Mapping[str, str] | None
    digest: bool
    background: BackgroundTask | None


class StreamedRanges(Response):
    """A response that serves any `RangeSource` as a file is served.

    That is: entity tag and Last-Modified, If-None-Match and If-Modified-Since (304), If-Match and If-Unmodified-Since
    (412), Range with one, several or suffix ranges (206, 416), If-Range, HEAD (RFC 9110). A Range that cannot be read,
    or is of another unit, is ignored. To other methods than GET and HEAD, the whole is the answer.

    Args:
        source: what to serve; or an async context manager that gives it, entered when the response is sent, and left
            at its end, whatever happens. `FileNotFoundError` and the errors of penstock on entering are answered.
        status_code: the HTTP status of an answer with the whole.
        content_type: the media type.
        filename: the name to save it under, in Content-Disposition.
        disposition: whether a named one is to be saved (``attachment``) or shown (``inline``).
        headers: fields for the answer. ``ETag`` and ``Last-Modified`` among them go before what the source tells.
        digest: whether Want-Repr-Digest is answered (RFC 9530): all bytes are read for it before the first is sent.
        background: run after the response.
    """

    def __init__(
        self,
        source: Source,
        status_code: int = 200,
        *,
        content_type: str = OCTETS,
        filename: str | None = None,
        disposition: Literal["attachment", "inline"] = "attachment",
        headers: Mapping[str, str] | None = None,
        digest: bool = False,
        background: BackgroundTask | None = None,
    ) -> None:
        super().__init__(None, status_code, headers, background=background)
        del self.headers["content-length"]  # a zero that Response made up for want of a body
        self.headers.setdefault("content-type", content_type)
        self.headers.setdefault("x-content-type-options", "nosniff")
        if filename is not None:
            self.headers.setdefault("content-disposition", content_disposition(filename, disposition))
        self._source = source
        self._digest = digest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        request = Request(scope, receive)
        async with AsyncExitStack() as stack:
            try:
                response = await self._respond(request, stack)
            except _MISSING:
                response = problem_response(RequestError("not-found", 404, "There is no such file."))
            except PenstockError as error:
                response = problem_response(error)
            await response(scope, receive, send)
        if self.background is not None:
            await self.background()

    async def _respond(self, request: Request, stack: AsyncExitStack) -> Response:
        source = self._source
        if isinstance(source, AbstractAsyncContextManager):
            source = await stack.enter_async_context(source)
        return await self._answer(request, source)

    async def _answer(self, request: Request, source: RangeSource) -> Response:
        representation = self._represent(source)
        if request.method not in {"GET", "HEAD"}:
            fields = {"content-type": representation.content_type, "content-length": str(source.length)}
            return self._with_headers(StreamedBody(source.read(0, source.length), 200, fields))
        response = check_conditions(request, representation)
        if response is None:
            await self._add_digest(request, source)
            response = respond(request, representation, source.read, _nothing)
        return self._with_headers(response)

    def _represent(self, source: RangeSource) -> Representation:
        value = self.headers.get("etag", source.etag)
        etag = ETag.parse(value)
        if etag is None:
            raise ValueError(f"Not an entity tag: {value!r}. Write it with its quotation marks.")
        modified = self.headers.get("last-modified")
        return Representation(
            length=source.length,
            etag=etag,
            last_modified=source.last_modified if modified is None else parse_date(modified),
            content_type=self.headers["content-type"],
        )

    def _with_headers(self, response: Response) -> Response:
        """Add the fields of this response, which may have been changed since it was made."""
        with_fields(response, self.raw_headers)
        if response.status_code == 200:
            response.status_code = self.status_code
        return response

    @classmethod
    def docs(cls, media_type: str = OCTETS) -> Responses:
        """Return what the OpenAPI document should say of this response: for the route's ``responses``.

        ::

            @app.get("/report", response_class=StreamedFile, responses=StreamedFile.docs("application/pdf"))
        """
        return documented_file(media_type)

    async def _add_digest(self, request: Request, source: RangeSource) -> None:
        algorithm = wanted_digest(request) if self._digest else None
        if algorithm is not None and "repr-digest" not in self.headers:
            self.headers["repr-digest"] = format_digests({algorithm: await _digest_of(source, algorithm)})


class StreamedFile(StreamedRanges):
    """A response that serves a local file; see `StreamedRanges`.

    The file is opened once. If it is replaced, deleted or appended to while it is sent, what is sent is what was there;
    if it is cut or overwritten, the body breaks off. It is read in threads, a batch ahead of the client, in bounded
    memory. If there is no such regular file, the answer is a 404.

    Args:
        path: the file. Whatever it names is served: check what comes from a request.
        filename: the name to save it under, in Content-Disposition; without one, there is no such field.
        content_type: the media type; by default what the suffix of ``filename`` or ``path`` tells.
        status_code: as of `StreamedRanges`.
        options: as of `StreamedRanges`.
    """

    def __init__(
        self,
        path: PathLike,
        status_code: int = 200,
        *,
        filename: str | None = None,
        content_type: str | None = None,
        **options: Unpack[FileOptions],
    ) -> None:
        if content_type is None:
            content_type = _content_type_of(filename, Path(path).name)
        super().__init__(opened(path), status_code, content_type=content_type, filename=filename, **options)
        self.path = path


def _content_type_of(*names: str | None) -> str:
    media_type = next((found for name in names if name is not None and (found := guessed(name))), OCTETS)
    # Without a charset, browsers take text for Windows-1252, which it has not been for a long time.
    return f"{media_type}; charset=utf-8" if media_type.startswith("text/") else media_type


async def _digest_of(source: RangeSource, algorithm: str) -> bytes:
    key = (source.identity, algorithm) if isinstance(source, LocalFile) and source.identity.settled() else None
    if key is not None and key in _digests:
        return _digests[key]
    hasher = Hasher([algorithm])
    async with aclosing(source.read(0, source.length)) as chunks:
        async for chunk in chunks:
            await hasher.update([chunk])
    digest = hasher.digests()[algorithm]
    if key is not None:
        if len(_digests) >= _KNOWN_DIGESTS:
            _digests.clear()
        _digests[key] = digest
    return digest


def _nothing() -> None:
    """Release nothing: the context manager does."""
