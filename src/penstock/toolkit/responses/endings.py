"""How a streamed response ends, and who is told."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from penstock.toolkit.hooks import called

logger = logging.getLogger("penstock")

Reason: TypeAlias = Literal["complete", "failed", "disconnected", "stopping"]
"""How a stream came to its end: with its last item; by an error; its client went; the server stops."""

OnClose: TypeAlias = Callable[[Reason], Awaitable[None] | None]

OnError: TypeAlias = Callable[[Exception], Awaitable[object] | object]
"""Is given what broke a stream off after its first bytes. What it returns, if not None, is what the reader is told."""


@dataclass(frozen=True, slots=True)
class StreamEnd:
    """What the last record of a stream tells, where it has one.

    Attributes:
        reason: ``complete``: these were all items. ``stopping``: the server stops, and there may be more.
        items: how many items were sent.
        bytes: how many bytes they were, before compression.
    """

    reason: Literal["complete", "stopping"]
    items: int
    bytes: int


End: TypeAlias = bool | Callable[[StreamEnd], Any]
"""Whether a stream ends with a record of its own that says so; or what makes that record."""


async def told_by(hook: OnError | None, error: Exception) -> object:
    """Give an error to the application, and return what it wants to be told of it."""
    if hook is None:
        return None
    try:
        return await called(hook, error)
    except Exception:
        logger.exception("The hook on_error failed")
        return None
