"""Parts of files as pieces of a body, where the server can send them by itself (ASGI extension "Zero Copy Send")."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from starlette.types import Message, Scope

from penstock.core.ports import FileExtent

EXTENSION: Final = "http.response.zerocopysend"

_WORTH_IT: Final = 4
"""Transfers at once from which on the server is to send by itself.

That takes half the processor time, which counts when many want some. But a client on the same machine, when it is
alone, gets its bytes a fifth sooner if this process has brought them into the processor's cache.
"""

_under_way = 0


@contextmanager
def transfer() -> Iterator[None]:
    """Count a transfer, for as long as it lasts."""
    global _under_way
    _under_way += 1
    try:
        yield
    finally:
        _under_way -= 1


def is_offered(scope: Scope) -> bool:
    """Tell whether the server sends parts of files."""
    return EXTENSION in (scope.get("extensions") or {})


def is_worth_it() -> bool:
    """Tell whether it is to do so now."""
    return _under_way >= _WORTH_IT


def message_of(extent: FileExtent) -> Message:
    """Return the message that sends a part of a file, with more of the body to come."""
    return {"type": EXTENSION, "file": extent, "offset": extent.offset, "count": extent.size, "more_body": True}
