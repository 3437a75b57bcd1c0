"""Complete uploads that the application could not be told of at once: it is told later, whatever happened."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from applications import serving
from form_bodies import END, TYPE, part
from penstock import StreamInfo, Streams
from penstock.doors import outbox
from penstock.doors.outbox import Outbox
from penstock.doors.webhooks import Webhooks
from penstock.protocols.webhooks import verify
from penstock.testing import ManualClock
from servers import free_port
from wire import Connection, request, until

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
TUS = {"tus-resumable": "1.0.0"}
LARGE = bytes(200_000)


class Receiver:
    """Hears webhooks of complete uploads, and answers as it is set.

    Attributes:
        answers: what to answer, by the upload's name; 500 to all others.
        ids: what it heard: the messages' ids, in order.
        heard: what they said.
        asked: is set whenever it hears something.
    """

    def __init__(self) -> None:
        self.answers: dict[str, Response] = {}
        self.ids: list[str] = []
        self.heard: list[dict[str, Any]] = []
        self.asked = asyncio.Event()
        self.app = FastAPI()
        self.app.post("/hook")(self._hear)

    async def _hear(self, request: Request) -> Response:
        body = await request.body()
        id_ = verify(SECRET, request.headers, body, now=float(request.headers["webhook-timestamp"]))
        message = json.loads(body)
        if message["type"] == "upload.requested":
            return Response(status_code=204)
        self.ids.append(id_)
        self.heard.append(message["data"])
        self.asked.set()
        return self.answers.get(message["data"]["upload"]["name"], Response(status_code=500))


@asynccontextmanager
async def door(streams: Streams, port: int) -> AsyncIterator[int]:
    """Serve a files door whose webhooks go to a port; they are sent once each time."""
    hooks = Webhooks(f"http://127.0.0.1:{port}/hook", SECRET, pauses=(), forward=["authorization", "x-who"])
    app = FastAPI(lifespan=streams.lifespan)
    app.include_router(streams.files(on_complete=hooks.on_complete))
    async with serving(app) as own:
        yield own


def outbox_of(streams: Streams) -> Outbox:
    (found,) = (companion for companion in streams.companions if isinstance(companion, Outbox))
    return found


async def notes(streams: Streams) -> int:
    return len((await streams.list("__ds/outbox/", reserved=True)).streams)


# -- uploads of each kind, whose last answer is returned ---------------------------------------------------------------

Upload = Callable[[int, dict[str, str]], Coroutine[Any, Any, int]]


async def small_put(port: int, fields: dict[str, str]) -> int:
    return (await request(port, "PUT", "/files/x", b"abc", fields)).status


async def large_put(port: int, fields: dict[str, str]) -> int:
    return (await request(port, "PUT", "/files/x", LARGE, fields)).status


async def form(port: int, fields: dict[str, str]) -> int:
    body = part("file", b"abc", "x") + END
    return (await request(port, "POST", "/files/", body, {**fields, "content-type": TYPE})).status


async def tus(port: int, fields: dict[str, str]) -> int:
    created = await request(port, "POST", "/files/x", b"", {**TUS, **fields, "upload-length": "3"})
    fields = {**TUS, **fields, "upload-offset": "0", "content-type": "application/offset+octet-stream"}
    return (await request(port, "PATCH", f"/files/{created.headers['location']}", b"abc", fields)).status


async def tus_parts(port: int, fields: dict[str, str]) -> int:
    data = {**TUS, **fields, "upload-length": "3", "content-type": "application/offset+octet-stream"}
    first = await request(port, "POST", "/files/", b"abc", {**data, "upload-concat": "partial"})
    final = {**TUS, **fields, "upload-concat": f"final;/files/{first.headers['location']}"}
    return (await request(port, "POST", "/files/x", b"", final)).status


async def draft(port: int, fields: dict[str, str]) -> int:
    return (await request(port, "PUT", "/files/x", b"abc", {**fields, "upload-complete": "?1"})).status


@pytest.mark.parametrize("upload", [small_put, large_put, form, tus, tus_parts, draft])
async def test_who_could_not_be_told_is_told_after_a_restart(tmp_path: Path, upload: Upload) -> None:
    clock, receiver = ManualClock(), Receiver()
    who = {"x-who": "me", "authorization": "Bearer token", "cookie": "a=b"}
    async with serving(receiver.app) as port:
        streams = Streams(tmp_path, clock=clock)
        async with door(streams, port) as own:
            assert await upload(own, who) == 503
            (note,) = (await streams.list("__ds/outbox/", reserved=True)).streams
            kept = dict(note.attributes["request"]["headers"])
            assert kept["x-who"] == "me"
            assert not {"authorization", "cookie"} & kept.keys()
        assert len(receiver.ids) == 1
        receiver.answers["x"] = PlainTextResponse("ok")
        clock.advance(outbox.LEASE)
        receiver.asked.clear()
        streams = Streams(tmp_path, clock=clock)
        async with door(streams, port):
            await receiver.asked.wait()
            await until(lambda: notes(streams), 0)
            info = await streams.info("x")
            assert info.complete
            clock.advance(outbox.TOLD_FOR)
            assert await outbox_of(streams).sweep() is None
    assert receiver.ids == [f"msg_{info.incarnation}"] * 2
    first, again = receiver.heard
    assert first["upload"] == again["upload"]
    assert first["request"].pop("headers") == {"authorization": "Bearer token", "x-who": "me"}
    assert again["request"].pop("headers") == {"x-who": "me"}
    assert first["request"] == again["request"]


async def test_it_is_told_less_and_less_often_and_given_up(caplog: pytest.LogCaptureFixture) -> None:
    clock, receiver = ManualClock(), Receiver()
    streams = Streams(":memory:", clock=clock)
    async with serving(receiver.app) as port, door(streams, port) as own:
        assert await small_put(own, {}) == 503
        began, times = clock.time, []
        while (due := await outbox_of(streams).sweep()) is not None:
            clock.time = due
            before = len(receiver.ids)
            await outbox_of(streams).sweep()
            times += [clock.time] * (len(receiver.ids) - before)
        assert await notes(streams) == 0
        assert (await streams.info("x")).complete
    pauses = [later - earlier for earlier, later in zip([began, *times], times, strict=False)]
    assert pauses[:9] == [15, 30, 60, 120, 240, 480, 960, 1920, 3600]
    assert set(pauses[9:]) == {3600}
    assert outbox.TOLD_FOR <= times[-1] - began < outbox.TOLD_FOR + 3600
    assert [record.levelno for record in caplog.records if "could not be told in" in record.message] == [logging.ERROR]


@pytest.mark.parametrize("upload", [small_put, tus])
async def test_a_refusal_is_an_answer(upload: Upload) -> None:
    receiver, streams = Receiver(), Streams(":memory:")
    receiver.answers["x"] = JSONResponse({"detail": "No cats."}, 422)
    async with serving(receiver.app) as port, door(streams, port) as own:
        assert await upload(own, {}) == 422
        assert await notes(streams) == 0


async def test_a_refusal_that_comes_later_is_one_too() -> None:
    clock, receiver = ManualClock(), Receiver()
    streams = Streams(":memory:", clock=clock)
    async with serving(receiver.app) as port, door(streams, port) as own:
        assert await small_put(own, {}) == 503
        receiver.answers["x"] = JSONResponse({"detail": "No cats."}, 422)
        clock.advance(outbox.LEASE)
        await outbox_of(streams).sweep()
        assert (len(receiver.ids), await notes(streams)) == (2, 0)


async def test_of_several_processes_one_tells(tmp_path: Path) -> None:
    clock, receiver = ManualClock(), Receiver()
    async with serving(receiver.app) as port:
        several = [Streams(tmp_path, clock=clock) for _ in range(3)]
        async with door(several[0], port) as own, door(several[1], port), door(several[2], port):
            assert await tus(own, {}) == 503
            receiver.answers["x"] = PlainTextResponse("ok")
            clock.advance(outbox.LEASE)
            await asyncio.gather(*(outbox_of(streams).sweep() for streams in several))
            await until(lambda: notes(several[0]), 0)
    assert len(receiver.ids) == 2


async def test_who_tells_keeps_others_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "LEASE", 0.3)
    told = 0
    going_on = asyncio.Event()

    async def on_complete(info: StreamInfo, request: Request) -> None:
        nonlocal told
        told += 1
        await going_on.wait()

    streams = Streams(":memory:")
    app = FastAPI(lifespan=streams.lifespan)
    app.include_router(streams.files(on_complete=on_complete))
    async with serving(app) as port, Connection(port) as connection:
        body = part("a", b"1", "a") + part("b", b"2", "b") + END
        await connection.begin("POST", "/files/", {"content-type": TYPE, "content-length": str(len(body))})
        await connection.write(body)
        dues: set[float] = set()

        async def renewals() -> bool:
            notes = (await streams.list("__ds/outbox/", reserved=True)).streams
            dues.update(note.attributes["due"] for note in notes)
            return len(dues) > 8  # the notes of both files, also of the one whose turn has not come

        await until(renewals, True)
        await outbox_of(streams).sweep()
        assert told == 1
        going_on.set()
        assert (await connection.answer()).status == 201
        assert (told, await notes(streams)) == (2, 0)


async def test_a_hook_of_ones_own_is_told_later_and_its_answer_kept() -> None:
    asked: list[Request] = []

    async def on_complete(info: StreamInfo, request: Request) -> Response:
        asked.append(request)
        if len(asked) == 1:
            raise RuntimeError("the database is away")
        assert await request.body() == b""
        return PlainTextResponse("done", 202, {"x-id": "7"})

    clock = ManualClock()
    streams = Streams(":memory:", clock=clock)
    app = FastAPI(lifespan=streams.lifespan)
    app.include_router(streams.files(on_complete=on_complete))
    async with serving(app) as port:
        assert await tus(port, {"x-who": "me"}) == 500
        clock.advance(outbox.LEASE)
        await outbox_of(streams).sweep()
        first, later = asked
        assert (later.method, str(later.url), later.client) == ("PATCH", str(first.url), first.client)
        assert later.headers["x-who"] == "me"
        heard = await request(port, "HEAD", "/files/x", None, TUS)
        assert (heard.status, heard.headers["x-id"], len(asked)) == (200, "7", 2)


async def test_a_note_of_what_was_never_complete_goes() -> None:
    async def on_complete(info: StreamInfo, request: Request) -> None:
        raise HTTPException(500)

    clock = ManualClock()
    streams = Streams(":memory:", clock=clock)
    app = FastAPI(lifespan=streams.lifespan)
    app.include_router(streams.files(on_complete=on_complete))
    async with serving(app) as port:
        made = Request({"type": "http", "method": "PUT", "path": "/", "query_string": b"", "headers": []})
        found = outbox_of(streams)
        upload = await streams.begin_upload("open")
        await found.expect("gone", "0" * 16, made)
        await found.expect("open", upload.incarnation, made)
        clock.advance(outbox.LEASE)
        await found.sweep()
        assert await notes(streams) == 1  # it may be completed yet
        clock.advance(outbox.TOLD_FOR)
        await found.sweep()
        assert await notes(streams) == 0
        assert (await request(port, "PUT", "/files/x", b"x", {"if-match": '"none"'})).status == 412
        await streams.delete("open")


PROGRAM = f"""
import os
import uvicorn
from fastapi import FastAPI
from penstock import Streams
from penstock.doors import once, outbox
from penstock.doors.webhooks import Webhooks
outbox.LEASE = once._CLAIMED = 1.0  # seconds after a crash
streams = Streams(os.environ["FOLDER"])
hooks = Webhooks(os.environ["HOOK"], {SECRET!r})
app = FastAPI(lifespan=streams.lifespan)
app.include_router(streams.files(on_complete=hooks.on_complete))
uvicorn.run(app, port=int(os.environ["PORT"]), log_level="warning")
"""


@pytest.mark.parametrize("upload", [small_put, tus])
async def test_a_server_that_is_killed_tells_when_it_is_back(tmp_path: Path, upload: Upload) -> None:
    receiver, hear, own = Receiver(), asyncio.Event(), free_port()

    async def held() -> Response:
        receiver.asked.set()
        await hear.wait()
        return Response(status_code=500)

    holding = FastAPI()
    holding.post("/hook")(held)

    async def started(port: int) -> asyncio.subprocess.Process:
        environment = {"FOLDER": str(tmp_path / "data"), "HOOK": f"http://127.0.0.1:{port}/hook", "PORT": str(own)}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", PROGRAM), env={**os.environ, **environment}, start_new_session=True
        )
        await until(lambda: listens(own), True)
        return process

    async with serving(holding) as port:
        process = await started(port)
        asking = asyncio.create_task(upload(own, {}))
        await receiver.asked.wait()
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        with pytest.raises(OSError):  # noqa: PT011 - whatever a connection ends by
            await asking
        hear.set()
    receiver.asked.clear()
    receiver.answers["x"] = PlainTextResponse("ok")
    async with serving(receiver.app) as port:
        process = await started(port)
        try:
            await receiver.asked.wait()
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    assert receiver.heard[0]["upload"]["name"] == "x"


async def listens(port: int) -> bool:
    try:
        async with Connection(port):
            return True
    except OSError:
        return False
