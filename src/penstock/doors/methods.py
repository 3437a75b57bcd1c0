"""The methods that a URL does not have: OPTIONS tells which it has, and every other is refused in the same words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from http import HTTPMethod

from fastapi import APIRouter, Request
from fastapi.responses import Response

from penstock.toolkit.problems import RequestError

_OTHERS = (
    *("ACL", "BIND", "CHECKOUT", "COPY", "LINK", "LOCK", "M-SEARCH", "MERGE", "MKACTIVITY", "MKCALENDAR", "MKCOL"),
    *("MOVE", "NOTIFY", "PROPFIND", "PROPPATCH", "PURGE", "QUERY", "REBIND", "REPORT", "SEARCH", "SOURCE"),
    *("SUBSCRIBE", "UNBIND", "UNLINK", "UNLOCK", "UNSUBSCRIBE"),
)
_KNOWN = frozenset({*HTTPMethod, *_OTHERS})
"""Every method that httptools reads; any other one it refuses."""


def add_other_methods(
    router: APIRouter, path: str, allowed: Sequence[str], options: Callable[[Request], Mapping[str, str]] | None = None
) -> None:
    """Answer OPTIONS, and what is not allowed with a 405 that tells all that is.

    Args:
        router: gets the routes.
        path: of these URLs.
        allowed: the methods that they have, OPTIONS among them.
        options: returns further fields of the answer to OPTIONS.
    """
    allow = ", ".join(allowed)

    async def tell(request: Request) -> Response:
        further = {} if options is None else options(request)
        return Response(status_code=204, headers={"allow": allow, **further})

    async def refuse(request: Request) -> Response:
        raise RequestError(
            "method-not-allowed", 405, f"{request.method} is not for this URL; {allow} are.", {"allow": allow}
        )

    router.add_api_route(path, tell, methods=["OPTIONS"], include_in_schema=False)
    router.add_api_route(path, refuse, methods=sorted(_KNOWN - set(allowed)), include_in_schema=False)
