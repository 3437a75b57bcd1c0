"""What a request says about the live stream that it creates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from fastapi import Request

from penstock.core.service import StreamService
from penstock.doors.fields import spec_of
from penstock.model import QUIET_AFTER, Retention, StreamSpec
from penstock.protocols.structured import parse_dictionary
from penstock.toolkit.problems import bad_request

EVENT_FIELD: Final = "event-field"
"""The attribute of a stream that names the member of its records which is their event's type."""

_LONGEST_QUIET: Final = 86_400
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
    own = {EVENT_FIELD: _member(request, "stream-event-field"), QUIET_AFTER: _quiet_after(request)}
    return replace(
        spec,
        attributes={**spec.attributes, **{name: value for name, value in own.items() if value is not None}},
        retention=_retention(request),
        compact_by=_member(request, "stream-compact"),
        timed=True,
    )


def _member(request: Request, field: str) -> str | None:
    name = request.headers.get(field)
    if name is not None and not 0 < len(name) <= 200:
        raise bad_request(f"{field.title()} is the name of a member, of up to 200 characters.")
    return name


def _quiet_after(request: Request) -> int | None:
    value = request.headers.get("stream-quiet-after")
    if value is None:
        return None
    if not value.isascii() or not value.isdigit() or len(value) > 5 or not 0 < int(value) <= _LONGEST_QUIET:
        raise bad_request("Stream-Quiet-After is a whole number of seconds, from 1 to a day.")
    return int(value)


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
