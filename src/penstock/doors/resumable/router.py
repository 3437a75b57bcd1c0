"""A router whose endpoints take resumable uploads."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, ClassVar

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from penstock.core.service import StreamService
from penstock.doors.hooks import Owner
from penstock.doors.resumable.bodies import METHODS, Bodies, whole
from penstock.protocols.resumable import Limits
from penstock.toolkit.problems import ProblemRoute

__all__ = ["ResumableRouter"]


class ResumableRouter(APIRouter):
    """A router whose endpoints for POST, PUT and PATCH take resumable uploads too.

    ::

        uploads = streams.resumable()


        @uploads.post("/videos")
        async def video(user: CurrentUser, body: Annotated[StreamBody, Depends(stream_body())]) -> Video: ...


        app.include_router(uploads)

    An endpoint is what it would be on any router, and takes its body in whichever way it likes: it is called once, when
    the body is all there, however many requests brought it. Before, its dependencies are solved, by the first request
    and again by the last. Its answer goes to the last one, and is kept for a client that did not hear it; one of 5xx is
    not kept, and the endpoint is called again when the client comes back.

    What there is of an upload meanwhile: the bytes, in a stream that no name shows; the method, the path and the header
    fields of the first request, but for those that are ``private``.

    Args:
        service: where bodies wait until they are whole.
        at: the path, under the router's prefix, of the uploads' own URLs.
        owner: tells who is calling: an upload is its creator's. Without it, whoever knows its URL may go on with it.
        max_size: the most bytes of a body; None for no limit but the endpoint's.
        max_append_size: the most bytes of one request; None for no limit.
        min_append_size: the fewest bytes of one request that is not the last.
        min_resumable_size: the fewest bytes that are worth it; a smaller body goes to its endpoint as ever.
        expiry: seconds without progress after which an unfinished upload is removed.
        keep: seconds for which the body and the answer are kept once the endpoint has answered.
        private: fields of requests, such as ``X-API-Key``, that are not kept: those of the last request count, as of
            Authorization, Cookie and Proxy-Authorization.
        options: whatever else FastAPI's `APIRouter` takes: ``prefix``, ``dependencies``, ...
    """

    def __init__(
        self,
        service: StreamService,
        *,
        at: str = "/uploads",
        owner: Owner | None = None,
        max_size: int | None = None,
        max_append_size: int | None = None,
        min_append_size: int | None = None,
        min_resumable_size: int | None = None,
        expiry: float = 86400.0,
        keep: float = 600.0,
        private: Sequence[str] = (),
        **options: Any,
    ) -> None:
        limits = Limits(
            max_size=max_size,
            min_size=min_resumable_size,
            max_append_size=max_append_size,
            min_append_size=min_append_size,
            max_age=int(expiry),
        )
        self._bodies = Bodies(
            service, limits, owner=owner, expiry=expiry, keep=keep, private=frozenset(map(str.lower, private))
        )
        self._methods: dict[str, set[str]] = {}
        bodies = self._bodies

        class Route(_ResumableRoute):
            pass

        Route.bodies = bodies
        super().__init__(route_class=Route, **options)

        async def upload(request: Request) -> Response:
            return await bodies.answer(request)

        super().add_api_route(
            f"{at}/{{upload_id}}",
            upload,
            methods=["DELETE", "GET", "HEAD", "PATCH"],
            name=bodies.route,
            include_in_schema=False,
            route_class_override=ProblemRoute,
        )

    def add_api_route(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        """Add an endpoint; one for POST, PUT or PATCH takes resumable uploads.

        Raises:
            TypeError: such an endpoint yields: when it is called would not be known.
        """
        methods = {method.upper() for method in options.get("methods") or ("GET",)}
        if not methods & METHODS:
            super().add_api_route(path, endpoint, **options)
            return
        super().add_api_route(path, _when_whole(endpoint), **options)
        known = path in self._methods
        self._methods.setdefault(path, set()).update(methods)
        if not known:
            self._add_options(path)

    def _add_options(self, path: str) -> None:
        """Let clients learn that there are uploads, and of their limits (section 4.1.4)."""

        async def tell(request: Request) -> Response:
            allow = ", ".join(sorted({*self._methods[path], "OPTIONS"}))
            return Response(status_code=204, headers={"allow": allow, **self._bodies.uploads.option_fields(request)})

        super().add_api_route(path, tell, methods=["OPTIONS"], include_in_schema=False)


class _ResumableRoute(APIRoute):
    bodies: ClassVar[Bodies]

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.bodies.handle(super().handle, scope, receive, send)


def _when_whole(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    """Return an endpoint that is called when its body is whole."""
    if inspect.isgeneratorfunction(endpoint) or inspect.isasyncgenfunction(endpoint):
        raise TypeError(f"{endpoint.__qualname__} yields: an endpoint that takes resumable uploads returns a response")

    @functools.wraps(endpoint)
    async def called(*args: Any, **kwargs: Any) -> Any:
        await whole()
        if inspect.iscoroutinefunction(endpoint):
            return await endpoint(*args, **kwargs)
        return await run_in_threadpool(endpoint, *args, **kwargs)

    with suppress(NameError):  # texts that name what is known to nobody but the function: FastAPI says so
        called.__signature__ = inspect.signature(endpoint, eval_str=True)  # type: ignore[attr-defined]  # PEP 362
    return called
