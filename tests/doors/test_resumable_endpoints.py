"""Endpoints of an application's own that take resumable uploads."""

# Without the future import: FastAPI reads annotations that name what only a test knows.

import asyncio
import gzip
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, File, Header, HTTPException, Request, UploadFile
from fastapi.middleware.cors import CORSMiddleware
from pydantic import BaseModel
from starlette.middleware.base import RequestResponseEndpoint
from starlette.responses import Response, StreamingResponse

from applications import serving
from form_bodies import END, TYPE, part
from penstock import StreamBody, Streams, stream_body
from penstock.doors.resumable import ResumableRouter
from resuming import PARTIAL, Client, told
from wire import Connection, request

INFORMATIONAL = "penstock.server.protocol:InformationalProtocol"
BODY = random.Random(2).randbytes(300_000)


class Application:
    """An application with some endpoints, and what happened in them.

    Attributes:
        calls: the names of endpoints and dependencies, in the order of their calls.
    """

    def __init__(self, streams: Streams | None = None, app: FastAPI | None = None, **options: Any) -> None:
        self.calls: list[str] = []
        self.streams = streams or Streams(":memory:")
        self.app = app or FastAPI(lifespan=self.streams.lifespan)
        self.uploads: ResumableRouter = self.streams.resumable(**options)

    @asynccontextmanager
    async def served(self, **options: Any) -> AsyncIterator[Client]:
        self.app.include_router(self.uploads)
        async with serving(self.app, **{"http": INFORMATIONAL, **options}) as port:
            yield Client(port)

    async def user(self, authorization: Annotated[str | None, Header()] = None) -> str:
        self.calls.append("user")
        if authorization is None:
            raise HTTPException(401, "who are you?")
        return authorization


def counting(**options: Any) -> Application:
    """An application that counts the bytes of a body, by chunks of a `StreamBody`."""
    application = Application(**options)

    @application.uploads.post("/count/{project}")
    async def count(
        project: str,
        request: Request,
        user: Annotated[str, Depends(application.user)],
        body: Annotated[StreamBody, Depends(stream_body())],
        q: str = "",
    ) -> dict[str, Any]:
        application.calls.append("count")
        size = sum([len(chunk) async for chunk in body])
        return {
            "project": project,
            "q": q,
            "user": user,
            "size": size,
            "length": body.length,
            "type": body.content_type,
            "headers": dict(request.headers),
            "url": str(request.url),
        }

    return application


ANN = {"authorization": "ann"}


async def test_a_request_without_a_word_of_uploads_is_as_ever() -> None:
    application = counting()
    async with application.served() as client:
        answer = await request(client.port, "POST", "/count/p?q=1", BODY, ANN)
        assert (answer.status, answer.json()["size"]) == (200, len(BODY))
        assert "upload-complete" not in answer.headers
        assert application.calls == ["user", "count"]
        assert (await request(client.port, "GET", "/count/p")).status == 405


async def test_an_upload_in_one_request_calls_the_endpoint_in_it() -> None:
    application = counting()
    async with application.served() as client:
        client.headers = ANN
        done = await client.create("/count/p?q=1", BODY, method="POST", content_type="text/x-own")
        assert (done.status, done.headers["upload-complete"]) == (200, "?1")
        assert [status for status, _ in done.interim] == [104]
        assert done.answer.json()["size"] == len(BODY)
        assert application.calls == ["user", "count"]
        location = done.announced["location"]
        assert location.startswith("/uploads/")
        assert (await client.look(location)).headers["upload-complete"] == "?1"


async def test_an_upload_in_parts_calls_it_once_with_the_whole_body() -> None:
    application = counting()
    async with application.served() as client:
        client.headers = ANN
        begun = await client.create(
            "/count/p%20q?q=%C3%BC", BODY[:99], False, method="POST", content_type="text/x-own", x_own="kept"
        )
        location = begun.headers["location"]
        assert (begun.status, begun.headers["upload-complete"], begun.headers["upload-offset"]) == (201, "?0", "99")
        assert application.calls == ["user"]
        assert (await client.append(location, BODY[99:200], 99, complete=False)).status == 204
        assert await client.offset(location) == 200
        client.headers = {"authorization": "bob"}  # the last word is the last request's
        done = await client.append(location, BODY[200:], 200)
        assert (done.status, done.headers["upload-complete"], done.headers["upload-offset"]) == (200, "?1", "300000")
        assert application.calls == ["user", "user", "count"]
        seen = done.answer.json()
        assert (seen["project"], seen["q"], seen["user"]) == ("p q", "ü", "bob")
        assert (seen["size"], seen["length"], seen["type"]) == (300_000, 300_000, "text/x-own")
        plain = await request(client.port, "POST", "/count/p%20q?q=%C3%BC", BODY, ANN)
        assert seen["url"] == plain.json()["url"]
        assert seen["headers"]["x-own"] == "kept"
        assert not [name for name in seen["headers"] if name.startswith("upload-")]


@pytest.mark.parametrize("version", [3, 5, 6, 7, None])
async def test_other_versions(version: int | None) -> None:
    application = counting()
    async with application.served() as client:
        client.headers, client.version = ANN, version
        done = await client.create("/count/p", BODY, method="POST")
        assert (done.status, client.complete(done.headers), done.answer.json()["size"]) == (200, True, len(BODY))
        location = (await client.create("/count/p", b"", False, method="POST")).headers["location"]
        done = await client.append(location, BODY, 0)
        assert (done.status, client.complete(done.headers), done.answer.json()["size"]) == (200, True, len(BODY))


async def test_an_upload_that_was_cut_goes_on() -> None:
    application = counting()
    async with application.served() as client:
        client.headers = ANN
        async with Connection(client.port) as connection:
            fields = client.fields(True, content_length=str(len(BODY)))
            await connection.begin("POST", "/count/p", fields)
            assert await connection.head() == 104
            location = connection.headers["location"]
            await connection.write(BODY[:100_000])
        offset = await client.offset(location)
        assert 0 <= offset <= 100_000
        done = await client.append(location, BODY[offset:], offset)
        assert (done.status, done.answer.json()["size"]) == (200, len(BODY))
        assert application.calls.count("count") == 1


async def test_it_works_where_no_interim_response_can_be_sent() -> None:
    application = counting()
    async with application.served(http="h11") as client:
        client.headers = ANN
        begun = await client.create("/count/p", b"abc", False, method="POST")
        assert (begun.status, begun.interim) == (201, [])
        assert (await client.append(begun.headers["location"], b"def", 3)).answer.json()["size"] == 6


# -- ways to take a body ----------------------------------------------------------------------------------------------


class Item(BaseModel):
    name: str
    price: float


async def both_ways(client: Client, path: str, body: bytes, **fields: str) -> Any:
    """Upload in one request, and in parts; return the answer, which must be the same."""
    one = await client.create(path, body, method="POST", **fields)  # type: ignore[arg-type]  # none of them is a flag
    begun = await client.create(path, body[:7], False, method="POST", **fields)  # type: ignore[arg-type]  # likewise
    parts = await client.append(begun.headers["location"], body[7:], 7)
    assert (one.status, one.answer.body) == (parts.status, parts.answer.body)
    assert one.headers["upload-complete"] == parts.headers["upload-complete"] == "?1"
    return one.answer.json()


async def test_a_body_is_taken_in_whichever_way() -> None:
    application = Application()
    uploads = application.uploads

    @uploads.post("/json")
    async def of_json(item: Item) -> Item:
        return item

    @uploads.post("/form")
    async def of_form(file: Annotated[UploadFile, File()]) -> dict[str, Any]:
        return {"name": file.filename, "size": len(await file.read())}

    @uploads.post("/raw")
    async def raw(request: Request) -> int:
        return len(await request.body())

    @uploads.post("/plain")
    def plain(body: Annotated[bytes, Depends(read)]) -> int:
        return len(body)

    @uploads.post("/nothing")
    def nothing() -> str:
        return "never looked"

    @uploads.api_route("/any", methods=["POST", "PUT", "PATCH"])
    async def anything(body: Annotated[StreamBody, Depends(stream_body())]) -> int:
        return len(await body.read())

    async with application.served() as client:
        item = {"name": "a pen", "price": 1.5}
        assert await both_ways(client, "/json", json.dumps(item).encode(), content_type="application/json") == item
        body = part("file", BODY, "x.bin") + END
        told = await both_ways(client, "/form", body, content_type=TYPE)
        assert told == {"name": "x.bin", "size": len(BODY)}
        assert await both_ways(client, "/raw", BODY) == len(BODY)
        assert await both_ways(client, "/plain", BODY) == len(BODY)
        assert await both_ways(client, "/nothing", BODY) == "never looked"
        coded = gzip.compress(BODY)
        assert await both_ways(client, "/any", coded, content_encoding="gzip") == len(BODY)
        for method in ("PUT", "PATCH"):
            begun = await client.create("/any", b"abc", False, method=method)
            assert (await client.append(begun.headers["location"], b"def", 3)).answer.json() == 6
        assert (await client.create("/raw", b"", method="POST")).answer.json() == 0


async def read(request: Request) -> bytes:
    return await request.body()


async def test_what_is_wrong_with_the_body_is_the_last_word() -> None:
    application = Application()

    @application.uploads.post("/json")
    async def of_json(item: Item) -> Item:
        return item

    async with application.served() as client:
        for path, body in (("/json", b'{"name": 1, "price": "x"}'), ("/json", b"no json at all")):
            told = await both_ways(client, path, body, content_type="application/json")
            assert told["detail"]


def test_an_endpoint_that_yields_is_refused() -> None:
    uploads = Streams(":memory:").resumable()

    async def rows() -> AsyncIterator[int]:
        yield 1

    with pytest.raises(TypeError, match="yields"):
        uploads.post("/rows")(rows)
    uploads.get("/rows")(rows)


# -- who may ----------------------------------------------------------------------------------------------------------


async def test_nobody_uploads_who_may_not() -> None:
    application = counting()
    async with application.served() as client:
        async with Connection(client.port) as connection:
            await connection.begin("POST", "/count/p", client.fields(True, content_length="1000"))
            answer = (await told(connection)).answer  # with nothing of the body sent
        assert (answer.status, answer.headers["upload-complete"]) == (401, "?1")
        assert (await client.create("/count/p", b"abc", False, method="POST")).status == 401
        assert application.calls == ["user", "user"]
        assert (await application.streams.usage("")).streams == 0


async def test_who_may_not_any_more_does_not_end_the_upload() -> None:
    application = counting()
    async with application.served() as client:
        client.headers = ANN
        location = (await client.create("/count/p", b"abc", False, method="POST")).headers["location"]
        client.headers = {}
        refused = await client.append(location, b"def", 3)
        assert (refused.status, refused.headers["upload-complete"]) == (401, "?0")
        assert (await client.look(location)).headers["upload-complete"] == "?0"
        assert "count" not in application.calls
        client.headers = ANN
        done = await client.append(location, b"", 6)
        assert (done.status, done.answer.json()["size"]) == (200, 6)


async def test_what_is_secret_is_not_kept() -> None:
    application = counting(private=["X-API-Key"])
    async with application.served() as client:
        client.headers = {**ANN, "cookie": "c=secret", "x-api-key": "secret", "x-own": "kept"}
        begun = await client.create("/count/p", b"abc", False, method="POST")
        key = f"resumable:{begun.headers['location'].rpartition('/')[2]}"
        info = await application.streams.find(None, key)
        assert info is not None
        written = json.dumps(info.attributes)
        assert "kept" in written
        assert "secret" not in written
        assert "ann" not in written


async def test_an_upload_is_its_owner_s() -> None:
    async def owner(request: Request) -> str | None:
        return request.headers.get("authorization")

    application = counting(owner=owner)
    async with application.served() as client:
        client.headers = ANN
        location = (await client.create("/count/p", b"abc", False, method="POST")).headers["location"]
        client.headers = {"authorization": "bob"}
        assert (await client.look(location)).status == 404
        assert (await client.append(location, b"def", 3)).status == 404
        assert (await client.cancel(location)).status == 404
        client.headers = ANN
        assert (await client.append(location, b"def", 3)).answer.json()["size"] == 6


async def test_the_router_s_dependencies_are_the_uploads_too() -> None:
    application = Application()

    async def only_ann(authorization: Annotated[str, Header()] = "") -> None:
        if authorization != "ann":
            raise HTTPException(403)

    application.uploads = application.streams.resumable(dependencies=[Depends(only_ann)])

    @application.uploads.post("/size")
    async def size(request: Request) -> int:
        return len(await request.body())

    async with application.served() as client:
        client.headers = ANN
        location = (await client.create("/size", b"abc", False, method="POST")).headers["location"]
        client.headers = {}
        assert (await client.look(location)).status == 403
        assert (await client.append(location, b"def", 3)).status == 403
        client.headers = ANN
        assert (await client.append(location, b"def", 3)).answer.json() == 6


# -- answers ----------------------------------------------------------------------------------------------------------


def answering(answers: list[Any]) -> Application:
    """An application whose endpoint gives one answer after another."""
    application = Application()

    @application.uploads.put("/answer")
    async def answer(body: Annotated[StreamBody, Depends(stream_body())]) -> Any:
        await body.digest()
        application.calls.append("answer")
        given = answers.pop(0)
        if isinstance(given, Exception):
            raise given
        return given

    return application


async def test_an_answer_is_given_again_to_who_did_not_hear_it() -> None:
    application = answering([Response(b"\0bytes", 202, {"x-own": "yes"}, "application/x-own")])
    async with application.served() as client:
        begun = await client.create("/answer", BODY)
        location = begun.announced["location"]
        for answer in (begun.answer, *[(await client.append(location, b"", len(BODY))).answer for _ in range(2)]):
            assert (answer.status, answer.body, answer.headers["upload-complete"]) == (202, b"\0bytes", "?1")
            assert (answer.headers["x-own"], answer.headers["content-type"]) == ("yes", "application/x-own")
        assert application.calls == ["answer"]
        assert (await client.append(location, b"x", len(BODY))).status == 400
        assert (await client.cancel(location)).status == 204
        assert (await client.look(location)).status == 404


@pytest.mark.parametrize("parts", [1, 2])
async def test_a_refusal_of_the_endpoint_is_an_answer(parts: int) -> None:
    application = answering([HTTPException(422, "not a video"), {"never": "given"}])
    async with application.served() as client:
        if parts == 1:
            done = await client.create("/answer", b"abc")
            location = done.announced["location"]
        else:
            location = (await client.create("/answer", b"ab", complete=False)).headers["location"]
            done = await client.append(location, b"c", 2)
        for answer in (done.answer, (await client.append(location, b"", 3)).answer):
            assert (answer.status, answer.headers["upload-complete"]) == (422, "?1")
            assert answer.json() == {"detail": "not a video"}
        assert application.calls == ["answer"]


@pytest.mark.parametrize("failure", [HTTPException(503, "later"), ValueError("a bug")], ids=["503", "500"])
async def test_an_endpoint_that_failed_is_called_again(failure: Exception) -> None:
    application = answering([failure, failure, {"at": "last"}])
    async with application.served() as client:
        failed = await client.create("/answer", b"abc")
        location = failed.announced["location"]
        assert failed.status >= 500
        assert failed.headers.get("upload-complete") != "?1"
        seen = await client.look(location)
        assert (seen.headers["upload-offset"], seen.headers["upload-complete"]) == ("3", "?0")
        assert (await client.append(location, b"", 3)).status >= 500
        done = await client.append(location, b"", 3)
        assert (done.status, done.answer.json(), done.headers["upload-complete"]) == (200, {"at": "last"}, "?1")
        assert application.calls == ["answer"] * 3


async def test_a_large_answer_is_sent_and_not_kept() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield b"x" * 10_000

    for parts in (1, 2):
        application = answering([StreamingResponse(chunks())])
        async with application.served() as client:
            if parts == 1:
                done = await client.create("/answer", b"abc")
                location = done.announced["location"]
            else:
                location = (await client.create("/answer", b"", complete=False)).headers["location"]
                done = await client.append(location, b"abc", 0)
            assert (done.status, done.headers["upload-complete"]) == (200, "?1")
            assert done.answer.body == b"x" * 300_000
            again = await client.append(location, b"", 3)
            assert (again.status, again.headers["upload-complete"]) == (410, "?1")
            assert again.answer.json()["answer_status"] == 200
            assert application.calls == ["answer"]


async def test_an_endpoint_runs_once_however_many_ask_and_whoever_goes_away() -> None:
    application = Application()
    asked, go = asyncio.Event(), asyncio.Event()

    @application.uploads.put("/slow")
    async def slow(body: Annotated[StreamBody, Depends(stream_body())]) -> dict[str, int]:
        application.calls.append("slow")
        asked.set()
        await go.wait()
        return {"size": len(await body.read())}

    async with application.served() as client:
        for parts in (1, 2):
            asked.clear()
            go.clear()
            application.calls.clear()
            async with Connection(client.port) as connection:
                if parts == 1:
                    await connection.begin("PUT", "/slow", client.fields(True, content_length="3"))
                    assert await connection.head() == 104
                    location = connection.headers["location"]
                else:
                    location = (await client.create("/slow", b"", complete=False)).headers["location"]
                    fields = client.fields(True, content_type=PARTIAL, upload_offset="0", content_length="3")
                    await connection.begin("PATCH", location, fields)
                await connection.write(b"abc")
                await asked.wait()
            seen = await client.look(location)
            assert (seen.headers["upload-offset"], seen.headers["upload-complete"]) == ("3", "?0")
            waiting = [asyncio.create_task(client.append(location, b"", 3)) for _ in range(3)]
            await asyncio.sleep(0.1)
            assert not any(task.done() for task in waiting)
            go.set()
            for task in waiting:
                done = await task
                assert (done.status, done.answer.json()) == (200, {"size": 3})
            assert application.calls == ["slow"]


# -- where applications put it ----------------------------------------------------------------------------------------


async def test_under_prefixes_with_parameters_and_a_root_path() -> None:
    application = Application(prefix="/users/{user}", at="/_uploads")

    @application.uploads.post("/files/{file}")
    async def size(user: str, file: str, request: Request) -> dict[str, Any]:
        return {"user": user, "file": file, "size": len(await request.body())}

    async with application.served(root_path="/api") as client:
        begun = await client.create("/users/ann/files/x", b"abc", False, method="POST")
        location = begun.headers["location"]
        assert location.startswith("/api/users/ann/_uploads/")
        done = await client.append(location.removeprefix("/api"), b"def", 3)
        assert done.answer.json() == {"user": "ann", "file": "x", "size": 6}


async def test_in_an_application_that_is_mounted() -> None:
    application = Application()

    @application.uploads.post("/size")
    async def size(request: Request) -> int:
        return len(await request.body())

    application.app.include_router(application.uploads)
    outer = FastAPI(lifespan=application.streams.lifespan)
    outer.mount("/inner", application.app)
    async with serving(outer, http=INFORMATIONAL) as port:
        client = Client(port)
        location = (await client.create("/inner/size", b"abc", False, method="POST")).headers["location"]
        assert location.startswith("/inner/uploads/")
        assert (await client.append(location, b"def", 3)).answer.json() == 6


async def test_among_middleware() -> None:
    application = counting()
    app = application.app
    app.add_middleware(CORSMiddleware, allow_origins=["http://a"], expose_headers=["Upload-Offset", "Location"])

    @app.middleware("http")
    async def through(request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        response.headers.append("x-through", "yes")
        return response

    async with application.served() as client:
        client.headers = {**ANN, "origin": "http://a"}
        begun = await client.create("/count/p", b"abc", False, method="POST")
        assert begun.announced["location"] == begun.headers["location"]
        done = await client.append(begun.headers["location"], b"def", 3)
        assert (done.status, done.answer.json()["size"]) == (200, 6)
        for headers in (begun.headers, done.headers):
            assert (headers["x-through"], headers["access-control-allow-origin"]) == ("yes", "http://a")


async def test_options_tell_the_limits() -> None:
    application = counting(max_size=100, max_append_size=10, expiry=60)
    async with application.served() as client:
        answer = await request(client.port, "OPTIONS", "/count/p")
        assert (answer.status, answer.headers["allow"]) == (204, "OPTIONS, POST")
        assert answer.headers["upload-limit"] == "max-size=100, max-append-size=10, max-age=60"
        client.headers = ANN
        refused = await client.create("/count/p", b"x" * 11, method="POST")
        assert (refused.status, refused.headers["upload-complete"]) == (413, "?0")
        location = (await client.create("/count/p", b"x" * 10, False, method="POST")).headers["location"]
        assert (await client.append(location, b"x" * 11, 10)).status == 413
        assert application.calls.count("count") == 0
        assert (await client.append(location, b"x" * 10, 10)).answer.json()["size"] == 20


async def test_a_small_body_goes_to_its_endpoint_at_once() -> None:
    application = counting(min_resumable_size=5)
    async with application.served() as client:
        client.headers = ANN
        done = await client.create("/count/p", b"abcd", method="POST")
        assert (done.status, done.interim, done.headers["upload-complete"]) == (200, [], "?1")
        assert done.answer.json()["size"] == 4


async def test_what_was_answered_and_what_was_left_goes(tmp_path: Path) -> None:
    class Clock:
        time = 1_000_000.0

        def now(self) -> float:
            return self.time

    clock = Clock()
    streams = Streams(tmp_path, clock=clock)
    application = counting(streams=streams, expiry=1000, keep=60)
    async with application.served() as client:
        client.headers = ANN
        left = (await client.create("/count/p", b"abc", False, method="POST")).headers["location"]
        done = (await client.create("/count/p", b"abc", method="POST")).announced["location"]
        clock.time += 59
        assert (await client.append(done, b"", 3)).status == 200
        clock.time += 2
        assert (await client.look(done)).status == 404
        assert (await client.look(left)).status == 204
        clock.time += 1001
        assert (await client.look(left)).status == 404
        await streams.sweep()
        assert [await streams.find(None, f"resumable:{location.rpartition('/')[2]}") for location in (left, done)] == [
            None,
            None,
        ]


async def test_nothing_is_shown_of_a_body_that_waits() -> None:
    application = counting()
    application.app.include_router(application.streams.files())
    async with application.served() as client:
        client.headers = ANN
        location = (await client.create("/count/p", b"abc", False, method="POST")).headers["location"]
        assert (await request(client.port, "GET", "/files/")).json()["streams"] == []
        name = f"resumable/{location.rpartition('/')[2]}"
        assert (await request(client.port, "GET", f"/files/{name}")).status == 404
