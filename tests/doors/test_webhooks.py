"""Hooks that are asked over HTTP, with a receiver on a real server."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from applications import serving
from penstock import Streams
from penstock.doors.webhooks import Webhooks
from penstock.protocols.webhooks import WebhookError, verify
from servers import free_port
from wire import request

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class Receiver:
    """Answers each message as told, the last answer again and again; and keeps what it heard."""

    def __init__(self, *answers: Callable[[], Response]) -> None:
        self._answers = list(answers)
        self.ids: list[str] = []
        self.heard: list[dict[str, Any]] = []
        self.app = FastAPI()
        self.app.post("/hook")(self._hear)

    async def _hear(self, request: Request) -> Response:
        body = await request.body()
        self.ids.append(verify(SECRET, request.headers, body, now=time.time()))
        self.heard.append(json.loads(body))
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return answer()


@asynccontextmanager
async def penstock(receiver: Receiver, **options: Any) -> AsyncIterator[tuple[int, Streams]]:
    streams = Streams(":memory:")
    app = FastAPI(lifespan=streams.lifespan)
    async with serving(receiver.app) as port:
        hooks = Webhooks(f"http://127.0.0.1:{port}/hook", SECRET, **{"pauses": (0.01, 0.01), **options})
        app.include_router(streams.files(on_create=hooks.on_create, on_complete=hooks.on_complete))
        async with serving(app) as own:
            yield own, streams


def fine() -> Response:
    return PlainTextResponse("ok")


def broken() -> Response:
    return Response(status_code=500)


async def test_an_upload_is_asked_about_and_told_of() -> None:
    receiver = Receiver(fine)
    async with penstock(receiver, forward=("X-Who", "X-None")) as (port, streams):
        assert (await request(port, "PUT", "/files/x", b"abc", {"x-who": "me"})).status == 201
        info = await streams.info("x")
    asked, told = receiver.heard
    assert (asked["type"], told["type"]) == ("upload.requested", "upload.completed")
    assert (asked["data"]["upload"]["name"], asked["data"]["upload"]["length"]) == ("x", 3)
    assert (told["data"]["upload"]["incarnation"], told["data"]["upload"]["tail"]) == (info.incarnation, 3)
    assert told["data"]["request"]["headers"] == {"x-who": "me"}
    assert receiver.ids[1] == f"msg_{info.incarnation}"


async def test_it_changes_an_upload_and_answers_its_client() -> None:
    change = {"name": "y", "content_type": "text/x", "metadata": {"a": "b"}, "max_size": 3}
    answer = {"response": {"status": 202, "headers": {"x-id": "7"}, "body": {"id": 7}}}
    receiver = Receiver(lambda: JSONResponse(change), lambda: JSONResponse(answer))
    async with penstock(receiver) as (port, streams):
        done = await request(port, "PUT", "/files/x", b"abc")
        assert (done.status, done.json(), done.headers["x-id"]) == (202, {"id": 7}, "7")
        info = await streams.info("y")
        assert (info.content_type, info.metadata) == ("text/x", {"a": "b"})
    receiver = Receiver(lambda: JSONResponse(change))
    async with penstock(receiver) as (port, streams):
        assert (await request(port, "PUT", "/files/x", b"abcd")).status == 413


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        (lambda: JSONResponse({"detail": "No cats."}, 422), "No cats."),
        (lambda: PlainTextResponse("No dogs.", 422), "No dogs."),
        (lambda: JSONResponse([], 422), "The upload was refused."),
        (lambda: Response(status_code=422), "The upload was refused."),
    ],
)
async def test_it_refuses(answer: Callable[[], Response], detail: str) -> None:
    receiver = Receiver(answer)
    async with penstock(receiver) as (port, streams):
        refused = await request(port, "PUT", "/files/x", b"abc")
        assert (refused.status, refused.json()["detail"]) == (422, detail)
        assert not (await streams.list()).streams
    assert len(receiver.ids) == 1


async def test_what_was_not_heard_is_sent_again_under_its_id() -> None:
    receiver = Receiver(broken, lambda: Response(status_code=429, headers={"retry-after": "0"}), fine)
    async with penstock(receiver) as (port, _):
        assert (await request(port, "PUT", "/files/x", b"abc")).status == 201
    assert receiver.ids[0] == receiver.ids[1] == receiver.ids[2] != receiver.ids[3]


@pytest.mark.parametrize(
    ("answer", "attempts"),
    [
        (broken, 3),
        (lambda: Response(status_code=404), 1),
        (lambda: Response(status_code=302, headers={"location": "/hook"}), 1),
        (lambda: JSONResponse([]), 1),
        (lambda: JSONResponse({"name": 1}), 1),
        (lambda: JSONResponse({"max_size": True}), 1),
        (lambda: Response("{", media_type="application/json"), 1),
        (lambda: PlainTextResponse("x" * 300_000), 1),
    ],
)
async def test_what_is_never_heard_refuses_for_now(answer: Callable[[], Response], attempts: int) -> None:
    receiver = Receiver(answer)
    async with penstock(receiver) as (port, streams):
        refused = await request(port, "PUT", "/files/x", b"abc")
        assert (refused.status, refused.json()["type"]) == (503, "https://penstock.dev/problems/hook-failed")
        assert "retry-after" in refused.headers
        assert not (await streams.list()).streams
    assert len(receiver.ids) == attempts


@pytest.mark.parametrize("answer", [{"response": 1}, {"response": {"status": "x"}}, {"response": {"headers": 1}}])
async def test_an_answer_that_is_none(answer: Any) -> None:
    receiver = Receiver(fine, lambda: JSONResponse(answer))
    async with penstock(receiver) as (port, streams):
        assert (await request(port, "PUT", "/files/x", b"abc")).status == 503
        assert (await streams.info("x")).complete


async def test_nobody_is_there() -> None:
    streams = Streams(":memory:")
    app = FastAPI(lifespan=streams.lifespan)
    hooks = Webhooks(f"http://127.0.0.1:{free_port()}/hook", SECRET, pauses=(0.01,))
    app.include_router(streams.files(on_create=hooks.on_create))
    async with serving(app) as port:
        assert (await request(port, "PUT", "/files/x", b"abc")).status == 503


def test_what_cannot_be_a_webhook() -> None:
    with pytest.raises(ValueError, match="https://"):
        Webhooks("ftp://example.com", SECRET)
    with pytest.raises(WebhookError):
        Webhooks("https://example.com", "secret")
