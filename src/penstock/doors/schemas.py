"""What the OpenAPI document says of the doors, where FastAPI cannot see it in a function's signature."""

from __future__ import annotations

from typing import Any, Final

from penstock.toolkit.requests.openapi import PROBLEM

_PROBLEM: Final[dict[str, Any]] = {"content": PROBLEM}
_TEXT: Final[dict[str, Any]] = {"type": "string"}
_MOMENT: Final[dict[str, Any]] = {"type": "string", "format": "date-time"}
_SIZE: Final[dict[str, Any]] = {"type": "integer", "minimum": 0}

STREAM: Final[dict[str, Any]] = {
    "title": "Stream",
    "type": "object",
    "properties": {
        "name": _TEXT,
        "url": {"type": "string", "format": "uri-reference"},
        "state": {"type": "string", "enum": ["open", "closed", "failed"]},
        "tail": _SIZE,
        "length": {"anyOf": [_SIZE, {"type": "null"}]},
        "content_type": _TEXT,
        "etag": _TEXT,
        "incarnation": _TEXT,
        "failure": {"anyOf": [_TEXT, {"type": "null"}]},
        "created_at": _MOMENT,
        "modified_at": _MOMENT,
        "expires_at": {"anyOf": [_MOMENT, {"type": "null"}]},
        "metadata": {"type": "object", "additionalProperties": _TEXT},
        "digests": {"type": "object", "additionalProperties": {"type": "string", "contentEncoding": "base64"}},
    },
}
"""A stream as JSON: see `penstock.doors.fields.described`."""

PAGE_OF_STREAMS: Final[dict[str, Any]] = {
    "title": "Page",
    "type": "object",
    "properties": {
        "streams": {"type": "array", "items": STREAM},
        "next": {"anyOf": [_TEXT, {"type": "null"}]},
    },
}

APPENDED: Final[dict[str, Any]] = {
    "title": "Appended",
    "type": "object",
    "properties": {"name": _TEXT, "offset": _SIZE, "duplicate": {"type": "boolean"}},
}


def json_of(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    """Return a response of JSON."""
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def bytes_of(description: str) -> dict[str, Any]:
    """Return a response of bytes."""
    return {
        "description": description,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }


def problems(**statuses: str) -> dict[int | str, dict[str, Any]]:
    """Return the responses of refusals: ``_404="There is no such stream"``, and the default, which is one too.

    With a default, FastAPI leaves out the 422 of its own that would be documented, and never sent.
    """
    refusals: dict[int | str, dict[str, Any]] = {
        int(status[1:]): {"description": text, **_PROBLEM} for status, text in statuses.items()
    }
    return {**refusals, "default": {"description": "A problem", **_PROBLEM}}


def parameter(name: str, place: str, description: str) -> dict[str, Any]:
    """Return an optional parameter of text."""
    return {"name": name, "in": place, "description": description, "required": False, "schema": {"type": "string"}}
