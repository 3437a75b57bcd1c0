"""The fields after a request's body (RFC 9110 section 6.5), where the server passes them on.

ASGI has no message for them, and uvicorn drops them or takes them for header fields. A server that passes them on has
the extension `EXTENSION` in the scope: a list of names, in lower case, and values, that is filled when the body has
ended. So does `penstock.server.protocol`.
"""

from __future__ import annotations

from typing import Final

from starlette.requests import Request

__all__ = ["EXTENSION", "trailers_of"]

EXTENSION: Final = "penstock.request.trailers"


def trailers_of(request: Request) -> list[tuple[bytes, bytes]] | None:
    """Return the list that has the trailer fields once the body has ended; None where the server does not tell them."""
    extensions = request.scope.get("extensions") or {}
    fields: list[tuple[bytes, bytes]] | None = extensions.get(EXTENSION)
    return fields
