"""What a browser lets scripts of other origins send to a door, and see of its answers (CORS, in the Fetch standard)."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, ClassVar, Final

from starlette.requests import Request
from starlette.responses import Response

from penstock.protocols import resumable, tus
from penstock.toolkit.problems import ProblemRoute

_METHODS: Final = "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"
_EXPOSED: Final = ", ".join(
    dict.fromkeys(
        (
            *(
                "Accept-Ranges",
                "Content-Disposition",
                "Content-Range",
                "ETag",
                "Location",
                "Repr-Digest",
                "Retry-After",
            ),
            *("Stream-Expires-At", "Stream-Failure", "Stream-Incarnation", "Stream-State", "Stream-Tail"),
            *tus.EXPOSED,
            *resumable.EXPOSED,
        )
    )
)
_LASTS: Final = "7200"
"""Seconds for which a browser remembers; longer ones are cut to that by some."""


class Cors:
    """Which origins' scripts may use a door.

    Args:
        origins: such as ``https://app.example``, whose scripts may send cookies along; or ``*``: any, without cookies.
    """

    def __init__(self, origins: Sequence[str]) -> None:
        self._any = "*" in origins
        self._origins = frozenset(origin.rstrip("/") for origin in origins)

    def preflight(self, request: Request) -> Response | None:
        """Return the answer to the question that a browser asks first, before anybody is asked who is calling.

        None if the request is no such question.
        """
        headers = request.headers
        if request.method != "OPTIONS" or "origin" not in headers or "access-control-request-method" not in headers:
            return None
        response = Response(status_code=204)
        self.mark(request, response)
        if "access-control-allow-origin" in response.headers:
            response.headers["access-control-allow-methods"] = _METHODS
            # What a client sends beside the fields that are known here is between it and the application.
            response.headers["access-control-allow-headers"] = headers.get("access-control-request-headers", "")
            response.headers["access-control-max-age"] = _LASTS
        response.headers.add_vary_header("Access-Control-Request-Headers")
        return response

    def mark(self, request: Request, response: Response) -> None:
        """Say in a response who may see it."""
        response.headers.add_vary_header("Origin")
        origin = request.headers.get("origin")
        if origin is None:
            return
        if origin in self._origins:
            response.headers["access-control-allow-origin"] = origin
            response.headers["access-control-allow-credentials"] = "true"
        elif self._any:
            response.headers["access-control-allow-origin"] = "*"
        else:
            return
        response.headers["access-control-expose-headers"] = _EXPOSED


def route_class(origins: Sequence[str]) -> type[ProblemRoute]:
    """Return the class of a router's routes; with no origins, of one that scripts of others cannot use."""
    if not origins:
        return ProblemRoute

    class Route(_CorsRoute):
        cors = Cors(origins)

    return Route


class _CorsRoute(ProblemRoute):
    cors: ClassVar[Cors]

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return self.cors.preflight(request) or await handler(request)

        return handle

    def finish(self, request: Request, response: Response) -> None:
        self.cors.mark(request, response)
