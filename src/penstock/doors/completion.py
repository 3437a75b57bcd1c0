"""The end of an upload that resumes, whichever protocol brings its last bytes: what its creation asked for holds.

What that was is kept with the stream, so a client may go on by another protocol than the one that it began by.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from starlette.requests import Request

from penstock.core.digests import digest_of
from penstock.core.service import StreamService
from penstock.core.uploads import Upload
from penstock.doors.uploads import Conditions
from penstock.errors import DigestMismatch, PreconditionFailed, StreamGone, StreamNotFound
from penstock.model import StreamInfo
from penstock.toolkit.requests.integrity import check_digests
from penstock.toolkit.responses.representations import wanted_digest

__all__ = [
    "ContentMismatch",
    "algorithms_of",
    "asked_for",
    "complete",
    "digests_of",
    "hopeless",
    "removed",
    "verified",
    "writing",
]

_ASKED: Final = "at_end"
"""The attribute that holds what is to be true of an upload at its end: its digests, and the conditions."""

_NOTHING: Mapping[str, bytes] = {}


class ContentMismatch(DigestMismatch):
    """The content of one request is not what its ``Content-Digest`` says. Nothing of it was appended."""


def hopeless(error: Exception) -> bool:
    """Tell whether an error is about the whole of an upload, of which nothing can come any more."""
    return isinstance(error, DigestMismatch | PreconditionFailed) and not isinstance(error, ContentMismatch)


def asked_for(request: Request, given: Mapping[str, bytes], condition: Conditions | None = None) -> dict[str, Any]:
    """Return what is to be kept of a request that creates an upload: attributes for `StreamSpec`.

    Args:
        request: the request.
        given: the digests of the whole, as far as they are known.
        condition: what must hold of the name's stream also at the end.

    Raises:
        RequestError: Want-Repr-Digest cannot be read.
    """
    kept: dict[str, Any] = {"digests": {name: b64encode(digest).decode() for name, digest in given.items()}}
    if wanted := wanted_digest(request):
        kept["wanted"] = wanted
    if condition is not None:
        kept["conditions"] = condition.as_json()
    return {_ASKED: kept}


def digests_of(info: StreamInfo) -> dict[str, bytes]:
    """Return the digests of the whole that the creation of an upload gave."""
    written: Mapping[str, str] = _kept(info).get("digests", {})
    return {name: b64decode(digest) for name, digest in written.items()}


def algorithms_of(info: StreamInfo, given: Mapping[str, bytes]) -> list[str]:
    """Return which digests of the whole are to be computed: those that were ``given``, and the one that was wanted."""
    wanted = _kept(info).get("wanted")
    return list(dict.fromkeys([*given, *([wanted] if wanted else [])]))


@asynccontextmanager
async def writing(
    service: StreamService, info: StreamInfo, *, offset: int, length: int | None = None
) -> AsyncIterator[Upload]:
    """Write to an upload, as `StreamService.upload` does; one of which nothing can come any more is removed."""
    try:
        async with service.upload(info.name, incarnation=info.incarnation, offset=offset, length=length) as upload:
            yield upload
    except (DigestMismatch, PreconditionFailed) as error:
        if hopeless(error):
            await removed(service, info)
        raise


async def removed(service: StreamService, info: StreamInfo) -> None:
    """Remove an upload; it may be gone already."""
    with suppress(StreamGone, StreamNotFound):
        await service.delete(info.name, incarnation=info.incarnation)


async def complete(upload: Upload, digests: Mapping[str, bytes]) -> StreamInfo:
    """Complete an upload that has all its bytes, and is what was asked for; its name shows it from then on.

    Args:
        upload: the upload.
        digests: those of the whole, as `verified` returns them.

    Raises:
        PreconditionFailed: what the name shows is not what the creation depends on any more.
        LengthMismatch: it is shorter than declared.
    """
    kept = _kept(upload.info).get("conditions")
    condition = None if kept is None else Conditions.from_json(kept, upload.info.name)
    return await upload.complete(digests, condition=condition)


async def verified(
    service: StreamService, info: StreamInfo, given: Mapping[str, bytes], known: Mapping[str, bytes] = _NOTHING
) -> Mapping[str, bytes]:
    """Return the digests that were asked for, of all bytes of an upload, and compare them with those given.

    Args:
        service: the streams.
        info: the upload.
        given: those that the client gave.
        known: those that were computed while the bytes came.

    Raises:
        DigestMismatch: they differ.
    """
    digests = dict(known)
    missing = [name for name in algorithms_of(info, given) if name not in digests]
    if missing:
        with await service.open(info.name, incarnation=info.incarnation) as reader:
            for algorithm in missing:
                digests[algorithm] = await digest_of(reader, algorithm)
    check_digests(info.name, given, digests)
    return digests


def _kept(info: StreamInfo) -> Mapping[str, Any]:
    kept: Mapping[str, Any] = info.attributes.get(_ASKED, {})
    return kept
