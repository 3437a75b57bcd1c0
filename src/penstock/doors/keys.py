"""Uploads that are found again by a key of the client's choice: on another device, or after its memory was lost.

A key is unique among its owner's uploads. The request that creates one tells it in ``Upload-Key``; ``GET /files/?key=``
finds it, complete or not.
"""

from __future__ import annotations

from collections.abc import Callable

from penstock.core.service import StreamService
from penstock.doors.hooks import NewUpload
from penstock.model import StreamInfo
from penstock.toolkit.problems import RequestError


async def check_key(service: StreamService, new: NewUpload, locate: Callable[[StreamInfo], str]) -> None:
    """Refuse an upload whose key its owner has given to another one, and tell where that is.

    Args:
        service: the streams.
        new: the upload that is to be created.
        locate: makes the URLs of uploads.

    Raises:
        RequestError: ``key-in-use`` (409), with ``Location``.
    """
    if new.key is None:
        return
    known = await service.find(new.owner, new.key)
    if known is None or known.failure is not None:
        return
    url = locate(known)
    raise RequestError(
        "key-in-use",
        409,
        "There is an upload of this Upload-Key: go on with that one, or delete it first.",
        {"location": url},
        url=url,
        state=known.state,
    )
