"""What requests of the protocol say, and the fields that answer them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from starlette.requests import Request

from penstock.core.service import StreamService
from penstock.doors.fields import key_of, media_type_of
from penstock.doors.hooks import NewUpload
from penstock.errors import StreamGone, StreamNotFound, WriterEvicted
from penstock.model import StreamInfo
from penstock.protocols import tus
from penstock.protocols.dates import format_date
from penstock.protocols.disposition import cleaned
from penstock.protocols.tus import Concatenation, TusError
from penstock.toolkit.problems import RequestError, bad_request
from penstock.toolkit.requests.checksums import SIZES
from penstock.toolkit.requests.trailers import trailers_of
from penstock.toolkit.responses.stream_fields import state_fields

KEPT: Final = "tus"
"""The attribute that holds what the protocol must tell again: fields of the creation, as they were."""

_LONGEST_METADATA: Final = 16 * 1024


def is_tus(request: Request) -> bool:
    """Tell whether a request is one of this protocol: it says its version, or has the content type that only it has."""
    return "tus-resumable" in request.headers or _media_type(request) == tus.CONTENT_TYPE


def method_of(request: Request) -> str:
    """Return the method that is meant: some clients cannot send every one (X-HTTP-Method-Override)."""
    return request.headers.get("x-http-method-override", request.method).strip().upper()


def option_fields(request: Request, max_size: int | None) -> dict[str, str]:
    """Return the fields of an answer to OPTIONS."""
    fields = {
        "tus-resumable": tus.VERSION,
        "tus-version": tus.VERSION,
        "tus-extension": tus.extensions(trailers=trailers_of(request) is not None),
        "tus-checksum-algorithm": ",".join(SIZES),
    }
    return fields if max_size is None else {**fields, "tus-max-size": str(max_size)}


@contextmanager
def well_formed() -> Iterator[None]:
    """Turn fields that cannot be read into a ``bad-request`` (400)."""
    try:
        yield
    except TusError as error:
        raise bad_request(str(error)) from None


def check_version(request: Request) -> None:
    """Refuse a request of another version.

    Raises:
        RequestError: ``precondition-failed`` (412), with the version that is spoken.
    """
    if request.headers.get("tus-resumable", "").strip() != tus.VERSION:
        raise RequestError(
            "precondition-failed",
            412,
            f"Tus-Resumable must be {tus.VERSION}, the one version that is spoken here.",
            {"tus-version": tus.VERSION},
        )


def check_type(request: Request) -> None:
    """Refuse a body of another type.

    Raises:
        RequestError: ``unsupported-media-type`` (415).
    """
    if _media_type(request) != tus.CONTENT_TYPE:
        raise RequestError(
            "unsupported-media-type", 415, f"The bytes of an upload are sent as {tus.CONTENT_TYPE}.", None
        )


def has_body(request: Request) -> bool:
    """Tell whether a request has a body that is not known to be empty."""
    return "transfer-encoding" in request.headers or request.headers.get("content-length", "0").strip("0 ") != ""


def concatenation_in(request: Request) -> Concatenation | None:
    """Return what ``Upload-Concat`` says, or None."""
    value = request.headers.get("upload-concat")
    return None if value is None else tus.parse_concat(value)


def size_in(request: Request, field: str) -> int | None:
    """Return a number of bytes, or None where the field is missing."""
    value = request.headers.get(field)
    return None if value is None else tus.parse_size(field.title(), value)


def declared_length(request: Request) -> int | None:
    """Return the length of an upload that is to be created; None if it is to be told later.

    Raises:
        TusError: neither was said, or both.
    """
    deferred = request.headers.get("upload-defer-length")
    length = size_in(request, "upload-length")
    if deferred is not None:
        tus.parse_defer_length(deferred)
    if (length is None) == (deferred is None):
        raise TusError("Upload-Length or 'Upload-Defer-Length: 1' is needed, and not both.")
    return length


def announced(request: Request, name: str, length: int | None, *, part: bool = False) -> NewUpload:
    """Return what a creation says about the upload. Metadata that is not text is kept for the client alone."""
    written = request.headers.get("upload-metadata", "")
    if len(written) > _LONGEST_METADATA:
        raise bad_request(f"Upload-Metadata may have {_LONGEST_METADATA} characters at most.")
    metadata = tus.texts(tus.parse_metadata(written))
    filename = cleaned(metadata.get("filename") or metadata.get("name") or "")
    declared = metadata.get("filetype") or metadata.get("type") or ""
    try:
        content_type = media_type_of(declared, name, filename or "")
    except RequestError:  # what some system or browser took for a type
        content_type = media_type_of("", name, filename or "")
    return NewUpload(
        name=name,
        protocol="tus",
        content_type=content_type,
        length=length,
        metadata=metadata if filename is None else {**metadata, "filename": filename},
        key=key_of(request),
        part=part,
    )


def kept_fields(request: Request) -> dict[str, str]:
    """Return the fields of a creation that every HEAD tells again, exactly."""
    fields = {name: request.headers.get(name) for name in ("upload-metadata", "upload-concat")}
    return {name: value for name, value in fields.items() if value}


def progress_fields(info: StreamInfo) -> dict[str, str]:
    """Return the fields that tell how far an upload is."""
    fields = {"upload-offset": str(info.tail), **state_fields(info)}
    if info.upload and info.deadline is not None:
        fields["upload-expires"] = format_date(info.deadline)
    return fields


def description_fields(info: StreamInfo) -> dict[str, str]:
    """Return the further fields of an answer to HEAD."""
    kept: Mapping[str, Any] = info.attributes.get(KEPT, {})
    length = info.tail if info.closed else info.length
    told = {"upload-defer-length": "1"} if length is None else {"upload-length": str(length)}
    return {**told, **kept, "cache-control": "no-store"}


def is_part(info: StreamInfo) -> bool:
    """Tell whether an upload is a part, to be joined with others."""
    kept: Mapping[str, Any] = info.attributes.get(KEPT, {})
    return bool(kept.get("upload-concat", "").strip() == "partial")


def hidden_incarnation(name: str) -> str:
    """Return the incarnation that a part has which the server named: the last segment of its name, a random one.

    So a path without a query means it, which is all that some clients keep of a URL.
    """
    return name.rpartition("/")[2]


async def upload_at(service: StreamService, name: str, incarnation: str | None) -> StreamInfo:
    """Return the upload that a URL means.

    Raises:
        StreamNotFound, StreamGone: there is none.
    """
    if incarnation is not None:
        return await service.info(name, incarnation=incarnation)
    try:
        return await service.info(name)
    except StreamNotFound:
        try:
            return await service.info(name, incarnation=hidden_incarnation(name))
        except StreamGone:
            raise StreamNotFound(name) from None


async def shows_its_upload(service: StreamService, request: Request, name: str) -> bool:
    """Tell whether a GET of an upload's URL means the stream: clients hand on the URL of what they have uploaded."""
    if request.method != "GET":
        return False
    try:
        info = await service.info(name, incarnation=request.query_params.get("upload"))
    except (StreamGone, StreamNotFound):
        return False
    return KEPT in info.attributes and info.complete and info.published


def refusal(error: Exception) -> Exception:
    """Return the error that the protocol's clients understand for one of the domain."""
    if isinstance(error, WriterEvicted):
        return RequestError("writer-evicted", 423, str(error))  # which they try again
    return error


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()
