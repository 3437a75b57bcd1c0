"""The server's application: the one place that knows every room."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from penstock import Streams, __version__
from penstock.doors.live.quick import QuickAppends
from penstock.doors.quick import STATE, QuickDoor
from penstock.doors.quick_downloads import QuickDownloads
from penstock.doors.quick_uploads import QuickUploads
from penstock.server.date import Dated
from penstock.server.forwarded import Forwarded
from penstock.server.settings import Settings
from penstock.server.trusted import TrustedProxies
from penstock.toolkit.problems import install_problem_handlers, problem_response

if TYPE_CHECKING:
    from penstock.doors.webhooks import Webhooks

_WELCOME = """\
This is penstock {version}.

  curl -T FILE   {base}files/NAME             upload
  curl -O        {base}files/NAME             download
  curl           {base}files/                 list
  curl -d TEXT -H 'Content-Type: text/plain' {base}live/NAME   append a line
  curl -N        {base}live/NAME              follow it live

{base}docs describes it all.
"""

_FRESH = {"cache-control": "no-store"}


def create_app(settings: Settings | None = None) -> FastAPI:
    """Return the application; without settings, as the ``PENSTOCK_*`` variables say."""
    settings = settings or Settings.from_environment()
    streams = Streams(settings.data, durability=settings.durability)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, object]]:
        downloads = QuickDownloads(streams)
        files: list[QuickDoor[Any]] = []
        if not settings.origins:  # to whose scripts an answer tells more
            files.append(downloads)
            if webhooks is None:
                most = settings.max_size or None
                files.append(QuickUploads(streams, root_path=settings.root_path, max_size=most))
        async with streams.lifespan(app):
            try:
                yield {STATE: [QuickAppends(streams), *files]}
            finally:
                await downloads.stop()

    app = FastAPI(
        title="penstock",
        version=__version__,
        summary="Uploads that resume, downloads that seek, live streams that replay.",
        lifespan=lifespan,
    )
    app.add_middleware(Dated)
    webhooks = _webhooks(settings)
    # Routes are tried in turn, and what takes little time itself is asked for most often.
    app.include_router(streams.durable(long_poll=settings.long_poll, local_webhooks=settings.local_webhooks))
    app.include_router(streams.live())
    app.include_router(
        streams.files(
            max_size=settings.max_size or None,
            max_append_size=settings.max_append_size or None,
            upload_expiry=settings.upload_expiry or None,
            cors=settings.origins,
            on_create=None if webhooks is None else webhooks.on_create,
            on_complete=None if webhooks is None else webhooks.on_complete,
        )
    )

    @app.get("/", include_in_schema=False)
    async def welcome(request: Request) -> Response:
        return PlainTextResponse(_WELCOME.format(version=__version__, base=request.base_url), headers=_FRESH)

    @app.get("/healthz", tags=["health"], summary="Whether the process lives")
    async def healthz() -> Response:
        return JSONResponse({"status": "ok"}, headers=_FRESH)

    @app.get("/readyz", tags=["health"], summary="Whether requests are taken", responses={503: {}})
    async def readyz() -> Response:
        if streams.stopping:
            return JSONResponse({"status": "stopping"}, 503, _FRESH)
        await streams.list(limit=1)
        return JSONResponse({"status": "ready"}, headers=_FRESH)

    async def on_error(_: Request, error: Exception) -> Response:
        return problem_response(error)

    install_problem_handlers(app)
    app.add_exception_handler(Exception, on_error)
    # Last, so that it is the outermost: what is within sees requests as they were addressed.
    trusted = TrustedProxies.parse(settings.forwarded_allow_ips)
    app.add_middleware(Forwarded, trusted=trusted, root_path=settings.root_path)
    return app


def _webhooks(settings: Settings) -> Webhooks | None:
    if not settings.webhook_url:
        return None
    from penstock.doors.webhooks import Webhooks  # a server starts sooner without httpx

    return Webhooks(settings.webhook_url, settings.webhook_secret)
