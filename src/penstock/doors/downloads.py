"""GET and HEAD of a stream as a file: all of it, ranges, or following it as it grows."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from penstock.core.service import StreamService
from penstock.toolkit.responses import stream_downloads
from penstock.toolkit.responses.stream_downloads import Manner


async def answer(service: StreamService, request: Request, name: str) -> Response:
    """Answer as the query says: ``?follow`` to the end, ``?download`` under its own name or under another.

    Raises:
        StreamNotFound: there is none.
        RequestError: conditions or ranges that cannot be met.
    """
    query = request.query_params
    manner = Manner(follow="follow" in query, filename=query.get("download"))
    return await stream_downloads.answer(service, request, name, manner)
