"""Uploads that are found again by a key of the client's choice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
from fastapi import FastAPI

from applications import serving
from penstock import Streams
from wire import request

TUS = {"tus-resumable": "1.0.0", "upload-length": "3"}
BYTES = {"tus-resumable": "1.0.0", "content-type": "application/offset+octet-stream", "upload-offset": "0"}


@pytest.fixture(params=["local", "memory"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return tmp_path / "data" if request.param == "local" else ":memory:"


@asynccontextmanager
async def penstock(where: Any, **options: Any) -> AsyncIterator[int]:
    streams = Streams(where)
    app = FastAPI(lifespan=streams.lifespan)
    app.include_router(streams.files(**options))
    async with serving(app) as port:
        yield port


async def test_an_upload_is_found_by_its_key_and_not_begun_twice(where: Any) -> None:
    async with penstock(where) as port:
        assert (await request(port, "GET", "/files/?key=my/key-1")).status == 404
        created = await request(port, "POST", "/files/", headers={**TUS, "upload-key": "my/key-1"})
        url = f"/files/{created.headers['location']}"
        for complete in (False, True):
            found = await request(port, "GET", "/files/?key=my/key-1")
            assert (found.status, found.headers["cache-control"]) == (200, "no-store")
            assert found.json()["url"] == found.headers["location"]
            assert found.json()["state"] == found.headers["stream-state"] == ("closed" if complete else "open")
            assert found.headers["location"] == url + ("" if complete else f"?upload={found.json()['incarnation']}")
            assert (await request(port, "HEAD", found.headers["location"], headers=TUS)).status == 200
            assert (await request(port, "HEAD", "/files/?key=my/key-1")).headers["location"] == found.headers[
                "location"
            ]
            again = await request(port, "POST", "/files/", headers={**TUS, "upload-key": "my/key-1"})
            assert again.status == 409
            assert urljoin("/files/", again.headers["location"]) == found.headers["location"]
            assert again.json()["type"].endswith("/key-in-use")
            if not complete:
                assert (await request(port, "PATCH", found.headers["location"], b"abc", BYTES)).status == 204
        assert (await request(port, "DELETE", url)).status == 204
        assert (await request(port, "GET", "/files/?key=my/key-1")).status == 404
        assert (await request(port, "POST", "/files/", headers={**TUS, "upload-key": "my/key-1"})).status == 201


async def test_keys_are_their_owners(where: Any) -> None:
    async with penstock(where, owner=lambda request: request.headers.get("x-who")) as port:
        for who in ({"x-who": "me"}, {"x-who": "you"}, {}):
            assert (await request(port, "GET", "/files/?key=k", headers=who)).status == 404
            assert (await request(port, "POST", "/files/", headers={**TUS, **who, "upload-key": "k"})).status == 201
        found = {
            (await request(port, "GET", "/files/?key=k", headers=who)).headers["location"]
            for who in ({"x-who": "me"}, {"x-who": "you"}, {})
        }
        assert len(found) == 3


async def test_who_may_not_write_finds_nothing(where: Any) -> None:
    def authorize(request: Any, action: str, _: str) -> bool:
        return bool(request.headers.get("x-who") == "me")

    async with penstock(where, authorize=authorize) as port:
        me = {"x-who": "me"}
        assert (await request(port, "POST", "/files/", headers={**TUS, **me, "upload-key": "k"})).status == 201
        assert (await request(port, "GET", "/files/?key=k")).status == 403
        assert (await request(port, "GET", "/files/?key=none")).status == 403
        assert (await request(port, "GET", "/files/?key=k", headers=me)).status == 200


async def test_a_whole_file_has_a_key_too(where: Any) -> None:
    async with penstock(where) as port:
        for body in (b"abc", b"x" * 100_000):
            assert (await request(port, "PUT", "/files/x", body, {"upload-key": "k"})).status in {200, 201}
            found = await request(port, "GET", "/files/?key=k")
            assert (found.headers["location"], found.json()["tail"]) == ("/files/x", len(body))
