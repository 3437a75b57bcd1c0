"""The doors in somebody's own application: prefixes, dependencies, middleware, mounts, hooks."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Request
from fastapi.responses import JSONResponse, Response
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware

from applications import serving
from penstock import StreamInfo, Streams, StreamSpec
from wire import Broken, Connection, request, until

JSON = {"content-type": "application/json"}
WAITING = {"content-length": "1000000", "expect": "100-continue"}
"""A client with these sends its body once it is asked to: a 100 means that somebody began to read it."""


def application(**options: Any) -> tuple[FastAPI, Streams]:
    streams = Streams(":memory:")
    return FastAPI(lifespan=streams.lifespan, **options), streams


async def first_status(port: int, method: str, path: str, headers: dict[str, str]) -> int:
    async with Connection(port) as connection:
        await connection.begin(method, path, headers)
        return await connection.head()


# -- where it is mounted ----------------------------------------------------------------------------------------------


def plain(app: FastAPI, router: APIRouter) -> FastAPI:
    app.include_router(router)
    return app


def nested(app: FastAPI, router: APIRouter) -> FastAPI:
    middle = APIRouter(prefix="/api")
    middle.include_router(router)
    app.include_router(middle, prefix="/v1")
    return app


def mounted(app: FastAPI, router: APIRouter) -> FastAPI:
    app.include_router(router)
    outer = FastAPI(lifespan=app.router.lifespan_context)
    outer.mount("/sub/app", app)
    return outer


@pytest.mark.parametrize(
    ("mount", "prefix", "root_path", "served", "told"),
    [
        (plain, "/files", "", "/files/", "/files/"),
        (plain, "/a b/ü", "", "/a%20b/%C3%BC/", "/a%20b/%C3%BC/"),
        (nested, "/files", "", "/v1/api/files/", "/v1/api/files/"),
        (mounted, "/files", "", "/sub/app/files/", "/sub/app/files/"),
        # A proxy in front may strip what the application is told with root_path, or keep it.
        (plain, "/files", "/behind/a/proxy", "/files/", "/behind/a/proxy/files/"),
        (plain, "/files", "/behind/a/proxy", "/behind/a/proxy/files/", "/behind/a/proxy/files/"),
        (mounted, "/files", "/proxy", "/proxy/sub/app/files/", "/proxy/sub/app/files/"),
    ],
)
async def test_urls_are_right_wherever_the_router_is(
    mount: Callable[[FastAPI, APIRouter], FastAPI], prefix: str, root_path: str, served: str, told: str
) -> None:
    app, streams = application()
    outer = mount(app, streams.files(prefix=prefix))
    outer.root_path = root_path
    async with serving(outer) as port:
        await _check_urls(port, served, told)


async def test_urls_are_right_when_the_server_is_told_where_it_is() -> None:
    app, streams = application()
    app.include_router(streams.files())
    async with serving(app, root_path="/proxy") as port:
        await _check_urls(port, "/files/", "/proxy/files/")


async def _check_urls(port: int, served: str, base: str) -> None:
    stored = await request(port, "PUT", f"{served}a/b%20%C3%BC.txt", b"x")
    assert (stored.status, stored.headers["location"]) == (201, f"{base}a/b%20%C3%BC.txt")
    assert stored.json()["url"] == stored.headers["location"]
    posted = await request(port, "POST", f"{served}?prefix=a/", b"y")
    assert posted.headers["location"].startswith(f"{base}a/")
    listed = (await request(port, "GET", f"{served}?prefix=a/")).json()["streams"]
    assert {stream["url"] for stream in listed} == {stored.json()["url"], posted.json()["url"]}
    for url, body in ((stored.json()["url"], b"x"), (posted.json()["url"], b"y")):
        assert (await request(port, "GET", served + url.removeprefix(base))).body == body


async def test_a_prefix_may_have_parameters_of_its_own() -> None:
    app, streams = application()

    async def allowed(user: str, request: Request) -> None:
        if user != "ann" or request.path_params["user"] != "ann":
            raise HTTPException(403)

    app.include_router(streams.files(prefix="/users/{user}/files", dependencies=[Depends(allowed)]))
    app.include_router(streams.live(prefix="/users/{user}/live", dependencies=[Depends(allowed)]))
    async with serving(app) as port:
        await _check_urls(port, "/users/ann/files/", "/users/ann/files/")
        assert (await request(port, "PUT", "/users/bob/files/x", b"x")).status == 403
        created = await request(port, "POST", "/users/ann/live/log", b"1", JSON)
        assert (created.status, created.headers["location"]) == (201, "/users/ann/live/log")


async def test_two_stores_in_one_application_do_not_meet() -> None:
    one, two = Streams(":memory:"), Streams(":memory:")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with one.lifespan(app), two.lifespan(app):
            yield

    app = FastAPI(lifespan=lifespan)
    app.include_router(one.files(prefix="/one", tags=["one"]))
    app.include_router(two.files(prefix="/two", tags=["two"]))
    app.include_router(two.live(prefix="/two-live"))
    async with serving(app) as port:
        assert (await request(port, "PUT", "/one/x", b"1")).headers["location"] == "/one/x"
        assert (await request(port, "GET", "/two/x")).status == 404
        assert (await request(port, "PUT", "/two/x", b"2")).headers["location"] == "/two/x"
        assert (await request(port, "GET", "/one/x")).body == b"1"
        assert (await request(port, "POST", "/two-live/y", b"1", JSON)).headers["location"] == "/two-live/y"
        assert [stream["url"] for stream in (await request(port, "GET", "/two/")).json()["streams"]] == [
            "/two/x",
            "/two/y",
        ]


async def test_errors_are_problems_and_the_applications_own_stay_what_they_were() -> None:
    app, streams = application()
    app.include_router(streams.files())
    app.include_router(streams.live())

    @app.get("/own")
    async def own() -> None:
        raise HTTPException(404, "mine")

    async def refuse(code: int) -> None:
        raise HTTPException(code, {"told": ["by", code]})

    app.include_router(streams.files(prefix="/refused/{code}", dependencies=[Depends(refuse)]))

    async with serving(app) as port:
        for path in ("/files/none", "/live/none", "/files/?limit=x", "/files/a//b"):
            answer = await request(port, "GET", path)
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["status"] == answer.status
        refused = await request(port, "PATCH", "/live/x", b"")
        assert (refused.status, refused.headers["content-type"]) == (405, "application/problem+json")
        assert (await request(port, "GET", "/own")).json() == {"detail": "mine"}
        for code, title in ((409, "Conflict"), (499, "Refused")):
            problem = (await request(port, "GET", f"/refused/{code}/x")).json()
            assert (problem["type"], problem["title"], problem["status"]) == ("about:blank", title, code)
            assert json.loads(problem["detail"]) == {"told": ["by", code]}


# -- dependencies and hooks -------------------------------------------------------------------------------------------


async def test_a_dependency_that_refuses_is_asked_before_the_body_is_read() -> None:
    app, streams = application()

    async def authenticated(authorization: Annotated[str, Header()] = "") -> None:
        if authorization != "Bearer right":
            raise HTTPException(401, "Who are you?", {"www-authenticate": "Bearer"})

    app.include_router(streams.files(dependencies=[Depends(authenticated)]))
    right = {"authorization": "Bearer right"}
    async with serving(app) as port:
        for method, path in (("PUT", "/files/x"), ("POST", "/files/")):
            async with Connection(port) as connection:
                await connection.begin(method, path, WAITING)
                refused = await connection.answer()
            assert (refused.status, refused.headers["www-authenticate"]) == (401, "Bearer")
            assert refused.json() == {
                "type": "about:blank",
                "title": "Unauthorized",
                "status": 401,
                "detail": "Who are you?",
            }
            assert await first_status(port, method, path, {**WAITING, **right}) == 100
        for method in ("GET", "HEAD", "DELETE"):
            assert (await request(port, method, "/files/x")).status == 401
        assert (await request(port, "PUT", "/files/x", b"x", right)).status == 201
        assert (await streams.info("x")).tail == 1


class Guard:
    """An object that can be called, as a class of one's own would be."""

    async def __call__(self, request: Request, action: str, name: str) -> bool:
        return _may(request, action, name)

    async def method(self, request: Request, action: str, name: str) -> bool:
        return _may(request, action, name)


def _may(request: Request, action: str, name: str) -> bool:
    asked: list[tuple[str, str]] = request.app.state.asked
    asked.append((action, name))
    return not name.startswith("secret")


async def _may_async(request: Request, action: str, name: str) -> bool:
    return _may(request, action, name)


async def _may_or_raise(request: Request, action: str, name: str) -> None:
    if not _may(request, action, name):
        raise HTTPException(403, "Not for you.")


async def _may_with(_: object, request: Request, action: str, name: str) -> bool:
    return _may(request, action, name)


@pytest.mark.parametrize(
    "authorize",
    [_may, _may_async, _may_or_raise, Guard(), Guard().method, partial(_may_with, None), lambda *a: _may_async(*a)],
    ids=["function", "async", "raising", "object", "method", "partial", "lambda"],
)
async def test_authorize_is_asked_first_of_every_action(authorize: Any) -> None:
    app, streams = application()
    asked: list[tuple[str, str]] = []
    app.state.asked = asked
    app.include_router(streams.files(authorize=authorize))
    app.include_router(streams.live(authorize=authorize))
    async with serving(app) as port:
        await streams.create("secret/x", data=[b"secret"])
        for method, path, body, action in (
            ("GET", "/files/secret/x", None, "read"),
            ("HEAD", "/files/secret/x", None, "read"),
            ("DELETE", "/files/secret/x", None, "delete"),
            ("GET", "/files/?prefix=secret/", None, "list"),
            ("GET", "/live/secret/x", None, "read"),
            ("POST", "/live/secret/x", b"1", "write"),
        ):
            asked.clear()
            refused = await request(port, method, path, body, JSON if body else {})
            assert refused.status == 403
            if method != "HEAD":
                assert refused.json()["type"] == "https://penstock.dev/problems/forbidden"
            assert [told for told, _ in asked] == [action]
        for method, path in (
            ("PUT", "/files/secret/y"),
            ("POST", "/files/?prefix=secret/"),
            ("POST", "/live/secret/y"),
        ):
            assert await first_status(port, method, path, {**WAITING, **JSON}) == 403
            assert asked.pop()[0] == "write"
        assert (await streams.list()).streams[0].tail == 6
        # And whoever may, does.
        asked.clear()
        assert (await request(port, "PUT", "/files/a%20b", b"x")).status == 201
        assert (await request(port, "GET", "/files/a%20b")).body == b"x"
        assert asked == [("write", "a b"), ("read", "a b")]


async def test_a_name_that_cannot_be_is_refused_before_anybody_is_asked() -> None:
    app, streams = application()
    asked: list[tuple[str, str]] = []
    app.state.asked = asked
    app.include_router(streams.files(authorize=_may))
    async with serving(app) as port:
        assert (await request(port, "GET", "/files/public/../secret")).status == 400
        assert asked == []


@pytest.mark.parametrize("waits", [True, False], ids=["async", "function"])
@pytest.mark.parametrize("size", [10, 200_000])
async def test_on_complete_is_told_once_it_is_there_and_before_the_client(waits: bool, size: int) -> None:
    app, streams = application()
    told: list[tuple[StreamInfo, str]] = []
    go_on = asyncio.Event()

    async def hook(info: StreamInfo, request: Request) -> None:
        assert (await streams.info(info.name)).state == "closed"
        told.append((info, request.headers["x-who"]))
        await go_on.wait()

    def blocking_hook(info: StreamInfo, request: Request) -> None:
        told.append((info, request.headers["x-who"]))
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result()

    loop = asyncio.get_running_loop()
    app.include_router(streams.files(on_complete=hook if waits else blocking_hook))
    async with serving(app) as port:
        putting = asyncio.create_task(request(port, "PUT", "/files/x", b"x" * size, {"x-who": "me"}))
        await until(lambda: _value(len(told)), 1)
        done, _ = await asyncio.wait({putting}, timeout=0.05)
        assert not done
        go_on.set()
        assert (await putting).status == 201
        ((info, who),) = told
        assert (info.name, info.tail, info.state, who) == ("x", size, "closed", "me")


async def test_on_complete_is_not_told_of_what_was_not_completed() -> None:
    app, streams = application()
    told: list[str] = []

    async def hook(info: StreamInfo, _: Request) -> None:
        told.append(info.name)

    app.include_router(streams.files(on_complete=hook))
    async with serving(app) as port:
        wrong = {"content-digest": "sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:"}
        assert (await request(port, "PUT", "/files/x", b"x", wrong)).status == 400
        assert (await request(port, "PUT", "/files/x", b"x", {"if-match": "*"})).status == 412
        async with Connection(port) as connection:
            await connection.begin("PUT", "/files/x", {"content-length": "100000"})
            await connection.write(b"x")
        posted = await request(port, "POST", "/files/", b"x")
        assert told == [posted.json()["name"]]


# -- middleware -------------------------------------------------------------------------------------------------------


async def _pass_on(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await call_next(request)
    response.headers["x-own"] = "yes"
    return response


@asynccontextmanager
async def with_middleware(*kinds: str) -> AsyncIterator[tuple[int, Streams]]:
    app, streams = application()
    app.include_router(streams.files())
    app.include_router(streams.live(heartbeat=30))
    for kind in kinds:
        if kind == "base":
            app.add_middleware(BaseHTTPMiddleware, dispatch=_pass_on)
        elif kind == "gzip":
            app.add_middleware(GZipMiddleware, minimum_size=10)
        else:
            app.add_middleware(CORSMiddleware, allow_origins=["*"], allow_methods=["PUT"], expose_headers=["etag"])
    async with serving(app, log_level="critical") as port:
        yield port, streams


STACKS = [("base",), ("gzip",), ("cors",), ("base", "gzip", "cors"), ("gzip", "base"), ("base", "base")]


@pytest.mark.parametrize("kinds", STACKS, ids="+".join)
async def test_uploads_and_downloads_pass_through_middleware(kinds: tuple[str, ...]) -> None:
    body = bytes(range(256)) * 10_000
    async with with_middleware(*kinds) as (port, _):
        stored = await request(port, "PUT", "/files/x", body)
        assert stored.status == 201
        got = await request(port, "GET", "/files/x", headers={"origin": "http://elsewhere"})
        assert got.body == body
        assert got.headers.get("x-own") == ("yes" if "base" in kinds else None)
        assert got.headers.get("access-control-allow-origin") == ("*" if "cors" in kinds else None)
        part = await request(port, "GET", "/files/x", headers={"range": "bytes=5-2000", "accept-encoding": "gzip"})
        assert (part.status, part.body, part.headers["content-length"]) == (206, body[5:2001], "1996")
        unchanged = await request(port, "GET", "/files/x", headers={"if-none-match": stored.headers["etag"]})
        assert unchanged.status == 304
        assert (await request(port, "HEAD", "/files/x")).headers["content-length"] == str(len(body))


@pytest.mark.parametrize("kinds", STACKS, ids="+".join)
async def test_an_upload_behind_middleware_whose_client_goes_away_leaves_nothing(kinds: tuple[str, ...]) -> None:
    async with with_middleware(*kinds) as (port, streams):
        for fields in ({"content-length": "100001"}, {"transfer-encoding": "chunked"}):
            async with Connection(port) as connection:
                await connection.begin("PUT", "/files/x", fields)
                await connection.write_chunk(b"x" * 99_000)
                await until(partial(_count, streams), 1)
            await until(partial(_count, streams), 0)


@pytest.mark.parametrize("kinds", STACKS, ids="+".join)
@pytest.mark.parametrize("accepts", ["identity", "gzip"])
async def test_a_follower_behind_middleware_gets_bytes_as_they_come_and_no_false_end(
    kinds: tuple[str, ...], accepts: str
) -> None:
    async with with_middleware(*kinds) as (port, streams):
        await streams.create("x", StreamSpec(content_type="text/csv"), data=[b"one"])
        async with Connection(port) as connection:
            await connection.begin("GET", "/files/x?follow", {"accept-encoding": accepts})
            assert await connection.head() == 200
            body = _decoded(connection)
            assert await anext(body) == b"one"
            await streams.append("x", [b"two"])
            assert await anext(body) == b"two"
            await streams.delete("x")
            with pytest.raises(Broken):
                await anext(body)


@pytest.mark.parametrize("kinds", STACKS, ids="+".join)
async def test_events_pass_through_middleware_as_they_come(kinds: tuple[str, ...]) -> None:
    async with with_middleware(*kinds) as (port, _):
        await request(port, "POST", "/live/x", b"1", JSON)
        async with Connection(port) as connection:
            await connection.begin("GET", "/live/x?offset=0", {"accept-encoding": "gzip"})
            assert await connection.head() == 200
            body = _decoded(connection)
            assert await anext(body) == b"retry: 1000\n\n"
            assert await anext(body) == b"id: 2\ndata: 1\n\n"
            await request(port, "POST", "/live/x", b"2", {**JSON, "stream-closed": "true"})
            assert await anext(body) == b"id: 4\ndata: 2\n\n"
            assert (await anext(body)).startswith(b"event: end\n")
            assert [data async for data in body] == []


async def test_readers_behind_middleware_who_leave_are_let_go() -> None:
    async with with_middleware("base", "gzip", "cors") as (port, streams):
        await streams.create("x", StreamSpec(content_type="text/csv"), data=[b"one"])
        before = len(asyncio.all_tasks())
        for path in ("/files/x?follow", "/live/x?offset=0"):
            async with Connection(port) as connection:
                await connection.begin("GET", path)
                await connection.head()
        await until(lambda: _value(len(asyncio.all_tasks())), before)


async def test_a_browser_elsewhere_may_ask_first() -> None:
    async with with_middleware("cors") as (port, _):
        asked = {"origin": "http://elsewhere", "access-control-request-method": "PUT"}
        assert (await request(port, "OPTIONS", "/files/x", headers=asked)).headers["access-control-allow-methods"]
        assert (await request(port, "OPTIONS", "/files/x")).headers[
            "allow"
        ] == "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"


async def _count(streams: Streams) -> int:
    return len((await streams.list()).streams)


async def _value(value: int) -> int:
    return value


async def _decoded(connection: Connection) -> AsyncIterator[bytes]:
    """Yield the body's pieces, each decoded by itself if it is coded."""
    decoder = zlib.decompressobj(31) if connection.headers.get("content-encoding") == "gzip" else None
    async for data in connection.body():
        piece = data if decoder is None else decoder.decompress(data)
        if piece:
            yield piece


# -- streams in handlers of one's own ---------------------------------------------------------------------------------


async def test_handlers_of_ones_own_and_the_doors_share_the_streams() -> None:
    app, streams = application()
    app.include_router(streams.files())
    app.include_router(streams.live())

    @app.post("/own/{name}")
    async def own(name: str) -> JSONResponse:
        appended = await streams.append(
            name, [b'{"by":"handler"}\n'], create=StreamSpec(content_type="application/x-ndjson")
        )
        return JSONResponse({"offset": appended.offset})

    async with serving(app) as port:
        assert (await request(port, "POST", "/own/log", b"")).json() == {"offset": 17}
        assert (await request(port, "POST", "/live/log", b'{"by":"door"}', JSON)).status == 200
        lines = (await request(port, "GET", "/files/log")).body.splitlines()
        assert [json.loads(line)["by"] for line in lines] == ["handler", "door"]
