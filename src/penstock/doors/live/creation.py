"""What a request says about the live stream that it creates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from fastapi import Request

from penstock.core.service import StreamService
from penstock.doors.fields import spec_of
from penstock.model import Retention, StreamSpec
from penstock.protocols.structured import parse_dictionary
from penstock.toolkit.problems import bad_request

EVENT_FIELD: Final = "event-field"
"""The attribute of a stream that names the member of its records which is their event's type."""

_LIMITS: Final = ("age", "bytes", "records")


def live_spec(request: Request, content_type: str, service: StreamService, attributes: Mapping[str, Any]) -> StreamSpec:
    """Return what the fields of a request say.

    Args:
        request: the request.
        content_type: of the stream.
        service: the streams.
        attributes: what the stream is to have of them besides.

    Raises:
        RequestError: one is not as it must be.
    """
    spec = spec_of(request, content_type, None, service.now, attributes)
    event = _member(request, "stream-event-field")
    return replace(
        spec,
        attributes={**spec.attributes, EVENT_FIELD: event} if event else spec.attributes,
        retention=_retention(request),
        compact_by=_member(request, "stream-compact"),
        timed=True,
    )


def _member(request: Request, field: str) -> str | None:
    name = request.headers.get(field)
    if name is not None and not 0 < len(name) <= 200:
        raise bad_request(f"{field.title()} is the name of a member, of up to 200 characters.")
    return name


def _retention(request: Request) -> Retention | None:
    """Return the limits of Stream-Retention: a dictionary (RFC 9651) of whole numbers."""
    value = request.headers.get("stream-retention")
    if value is None:
        return None
    limits = parse_dictionary(value)
    if not limits or any(
        name not in _LIMITS or not isinstance(limit, int) or isinstance(limit, bool) or limit < 1
        for name, limit in limits.items()
    ):
        raise bad_request(f"Stream-Retention is a dictionary of {', '.join(_LIMITS)}: age=86400, records=1000.")
    return Retention(age=limits.get("age"), bytes=limits.get("bytes"), records=limits.get("records"))
