"""What every answer of the door says, and how it tells errors: with the protocol's fields, in problems as elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from penstock.errors import (
    InvalidRecord,
    ProducerFenced,
    ProducerOutOfSequence,
    StreamClosed,
    StreamFailed,
)
from penstock.protocols import durable
from penstock.toolkit.problems import ProblemRoute, RequestError, problem_response

_EXPOSED: Final = (
    *("Content-Encoding", "Content-Type", "ETag", "Location", "Producer-Epoch", "Producer-Expected-Seq"),
    *("Producer-Received-Seq", "Producer-Seq", "Retry-After", "Stream-Closed", "Stream-Cursor", "Stream-Expires-At"),
    *("Stream-Next-Offset", "Stream-SSE-Data-Encoding", "Stream-TTL", "Stream-Up-To-Date"),
)
_ALLOWED: Final = (
    *("Authorization", "Content-Type", "If-None-Match", "Last-Event-ID", "Producer-Epoch", "Producer-Id"),
    *("Producer-Seq", "Stream-Closed", "Stream-Expires-At", "Stream-Fork-Offset", "Stream-Fork-Sub-Offset"),
    *("Stream-Forked-From", "Stream-Seq", "Stream-TTL"),
)

COMMON: Final[list[tuple[bytes, bytes]]] = [
    (b"access-control-allow-origin", b"*"),
    (b"access-control-expose-headers", ", ".join(_EXPOSED).encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"cross-origin"),
]
"""Fields of every answer: any page may use the streams (what it may do is for ``authorize``), as nothing but data."""


def answer(status: int, fields: Mapping[str, str], body: bytes = b"") -> Response:
    """Return an answer with the common fields."""
    return common(Response(body, status, fields))


def common(response: Response) -> Response:
    """Add the common fields to a response."""
    response.raw_headers.extend(COMMON)
    return response


def options(request: Request, methods: str) -> Response:
    """Answer OPTIONS: what a browser asks before it sends a request to another origin (Fetch, 3.2.3), or anybody."""
    fields = {"allow": methods}
    if "access-control-request-method" in request.headers:
        fields["access-control-allow-methods"] = methods
        fields["access-control-allow-headers"] = ", ".join(_ALLOWED)
        fields["access-control-max-age"] = "7200"  # longer ones are cut to that by some browsers
    return answer(204, fields)


class DurableRoute(ProblemRoute):
    """A route whose refusals have the protocol's fields."""

    def refusal(self, error: Exception) -> Response:
        """Return the answer to a request that ended in ``error``."""
        response = problem_response(_translated(error))
        response.headers.update(_fields(error))
        return common(response)


def _translated(error: Exception) -> Exception:
    """Return an error with the status that the protocol wants for it, where that is not the usual one."""
    if isinstance(error, durable.MalformedError):
        return RequestError("bad-request", 400, str(error))
    if isinstance(error, InvalidRecord):
        return RequestError("invalid-record", 400, str(error))
    return error


def _fields(error: Exception) -> dict[str, str]:
    match error:
        case StreamClosed() | StreamFailed():
            return {"stream-closed": "true", "stream-next-offset": durable.offset(error.tail)}
        case ProducerFenced():
            return {"producer-epoch": str(error.current)}
        case ProducerOutOfSequence():
            return {"producer-expected-seq": str(error.expected), "producer-received-seq": str(error.sequence)}
    return {}
