"""Handlers with ``yield``: what FastAPI hands to the response class of such a route."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from typing import Any


def unwrapped(content: Any) -> Any:
    """Return the handler's own generator.

    FastAPI passes an async one inside of another that pauses after every item, and that leaves the handler's to the
    garbage collector instead of closing it. Both are done here, better. Should FastAPI come to do it in another way,
    what it passes is iterated as it is.
    """
    if inspect.isasyncgen(content) and content.ag_code.co_name == "_async_stream_raw" and content.ag_frame is not None:
        inner = content.ag_frame.f_locals.get("async_gen")
        if isinstance(inner, AsyncIterator):
            return inner
    return content
