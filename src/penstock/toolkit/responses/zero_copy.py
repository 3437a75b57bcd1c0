"""Parts of files as pieces of a body, where the server can send them by itself (ASGI extension "Zero Copy Send")."""

from __future__ import annotations

from typing import Final

from starlette.types import Message, Scope

from penstock.core.ports import FileExtent

EXTENSION: Final = "http.response.zerocopysend"


def is_offered(scope: Scope) -> bool:
    """Tell whether the server sends parts of files."""
    return EXTENSION in (scope.get("extensions") or {})


def message_of(extent: FileExtent) -> Message:
    """Return the message that sends a part of a file, with more of the body to come."""
    return {"type": EXTENSION, "file": extent, "offset": extent.offset, "count": extent.size, "more_body": True}
