"""Scripts of other origins at the files door."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import Depends, FastAPI, HTTPException

from applications import serving
from penstock import Streams
from wire import request

OURS = {"origin": "https://app.example"}
ASKING = {**OURS, "access-control-request-method": "PATCH", "access-control-request-headers": "tus-resumable,x-own"}


def _nobody() -> None:
    raise HTTPException(401, "Who are you?")


@asynccontextmanager
async def penstock(*origins: str, **options: Any) -> AsyncIterator[int]:
    streams = Streams(":memory:")
    app = FastAPI(lifespan=streams.lifespan)
    app.include_router(streams.files(cors=origins, **options))
    async with serving(app) as port:
        yield port


@pytest.mark.parametrize("path", ["/files/", "/files/a/b"])
async def test_a_browser_is_told_what_it_may_send_before_anybody_is_asked_who_it_is(path: str) -> None:
    async with penstock("https://app.example", dependencies=[Depends(_nobody)], authorize=lambda *_: False) as port:
        told = await request(port, "OPTIONS", path, headers=ASKING)
        assert told.status == 204
        assert told.headers["access-control-allow-origin"] == "https://app.example"
        assert told.headers["access-control-allow-credentials"] == "true"
        assert {"PATCH", "DELETE", "HEAD", "POST"} <= set(told.headers["access-control-allow-methods"].split(", "))
        assert told.headers["access-control-allow-headers"] == "tus-resumable,x-own"
        assert "Origin" in told.headers["vary"]


async def test_every_answer_can_be_read() -> None:
    async with penstock("https://app.example") as port:
        for method, path in (("POST", "/files/"), ("HEAD", "/files/none"), ("GET", "/files/"), ("OPTIONS", "/files/")):
            fields = {**OURS, "tus-resumable": "1.0.0", "upload-length": "3"}
            answer = await request(port, method, path, headers=fields)
            assert answer.headers["access-control-allow-origin"] == "https://app.example"
            exposed = set(answer.headers["access-control-expose-headers"].split(", "))
            assert {"Location", "Upload-Offset", "Upload-Length", "Tus-Resumable", "Upload-Limit", "ETag"} <= exposed
        with_body = {**OURS, "tus-resumable": "1.0.0", "content-type": "application/offset+octet-stream"}
        refused = await request(port, "PATCH", "/files/none", b"abc", {**with_body, "upload-offset": "0"})
        assert (refused.status, "access-control-allow-origin" in refused.headers) == (404, True)


async def test_other_origins_are_told_nothing() -> None:
    async with penstock("https://app.example") as port:
        for fields in ({**ASKING, "origin": "https://other.example"}, {"origin": "null"}, {}):
            for method in ("OPTIONS", "GET"):
                answer = await request(port, method, "/files/", headers=fields)
                assert "access-control-allow-origin" not in answer.headers
                assert "Origin" in answer.headers["vary"]
    async with penstock() as port:
        answer = await request(port, "GET", "/files/", headers=OURS)
        assert "access-control-allow-origin" not in answer.headers
        assert "vary" not in answer.headers


async def test_any_origin_goes_without_credentials() -> None:
    async with penstock("*", "https://app.example") as port:
        other = await request(port, "OPTIONS", "/files/", headers={**ASKING, "origin": "https://other.example"})
        assert other.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in other.headers
        own = await request(port, "OPTIONS", "/files/", headers=ASKING)
        assert own.headers["access-control-allow-credentials"] == "true"
