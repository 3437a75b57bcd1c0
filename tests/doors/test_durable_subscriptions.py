"""Subscriptions over HTTP: webhooks that are told, and what they are not told of; also after a ``kill -9``."""

from __future__ import annotations

import asyncio
import json
import socket
from base64 import urlsafe_b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response

from applications import serving
from penstock import Streams, install_problem_handlers
from penstock.doors.durable.webhooks import Sender, Signer
from penstock.protocols.durable import offset
from penstock.protocols.subscriptions import SubscriptionRequestError
from servers import Server, free_port
from wire import Answer, request, until

JSON = {"content-type": "application/json"}
LOCAL = {"PENSTOCK_LOCAL_WEBHOOKS": "1"}


class Receiver:
    """A webhook: it keeps what it is told, and says that all is done."""

    def __init__(self) -> None:
        self.heard: list[tuple[bytes, str]] = []
        self.app = FastAPI()
        self.app.post("/hook")(self._hear)

    async def _hear(self, request: Request) -> Response:
        self.heard.append((await request.body(), request.headers["webhook-signature"]))
        return JSONResponse({"done": True})

    async def count(self) -> int:
        return len(self.heard)


@asynccontextmanager
async def serving_streams(**options: Any) -> AsyncIterator[int]:
    streams = Streams(":memory:")
    app = FastAPI(lifespan=streams.lifespan)
    app.include_router(streams.durable(prefix="/a/b", **options))
    install_problem_handlers(app)
    async with serving(app) as port:
        yield port


async def control(port: int, method: str, path: str, body: object = None, root: str = "/a/b", **fields: str) -> Answer:
    content = b"" if body is None else json.dumps(body).encode()
    return await request(port, method, f"{root}/__ds/{path}", content, {**JSON, **fields})


def code(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json()["error"]["code"]


def verified(body: bytes, field: str, jwk: dict[str, str]) -> bool:
    parts = dict(part.split("=", 1) for part in field.split(","))
    assert parts["kid"] == jwk["kid"]
    key = Ed25519PublicKey.from_public_bytes(urlsafe_b64decode(jwk["x"] + "="))
    try:
        key.verify(urlsafe_b64decode(parts["ed25519"] + "=="), parts["t"].encode() + b"." + body)
    except InvalidSignature:
        return False
    return True


async def test_a_webhook_is_told_with_the_servers_signature() -> None:
    receiver = Receiver()
    async with serving(receiver.app) as hook, serving_streams(local_webhooks=True) as port:
        asked = {"type": "webhook", "pattern": "events/**", "webhook": {"url": f"http://localhost:{hook}/hook"}}
        created = await control(port, "PUT", "subscriptions/a%20b", asked, host=f"127.0.0.1:{port}")
        assert created.status == 201
        told = created.json()
        assert (told["id"], told["status"], told["streams"], told["wake_stream"]) == ("a b", "active", [], None)
        await request(port, "PUT", "/a/b/events/x/y", b"[1]", JSON)
        await until(receiver.count, 1)
        body, field = receiver.heard[0]
        jwks = await request(port, "GET", told["webhook"]["signing"]["jwks_url"].partition(str(port))[2])
        (key,) = jwks.json()["keys"]
        assert (jwks.headers["content-type"], key["kid"]) == (
            "application/jwk-set+json",
            told["webhook"]["signing"]["kid"],
        )
        assert verified(body, field, key)
        assert not verified(body + b" ", field, key)
        message = json.loads(body)
        assert message["callback_url"] == f"http://127.0.0.1:{port}/a/b/__ds/subscriptions/a%20b/callback"
        assert message["streams"] == [
            {
                "path": "events/x/y",
                "link_type": "glob",
                "acked_offset": "-1",
                "tail_offset": offset(2),
                "has_pending": True,
            }
        ]

        async def cursor() -> str:
            return str((await control(port, "GET", "subscriptions/a%20b")).json()["streams"][0]["acked_offset"])

        await until(cursor, offset(2))
        assert (await control(port, "DELETE", "subscriptions/a%20b")).status == 204
        assert code(await control(port, "GET", "subscriptions/a%20b")) == (404, "SUBSCRIPTION_NOT_FOUND")


async def test_a_callback_needs_the_token_of_its_wake() -> None:
    async with serving_streams() as port:
        await request(port, "PUT", "/a/b/wake", b"", JSON)
        asked = {"type": "pull-wake", "streams": ["x"], "wake_stream": "wake"}
        assert (await control(port, "PUT", "subscriptions/s", asked)).status == 201
        assert code(await control(port, "PUT", "subscriptions/s", {**asked, "streams": ["y"]})) == (
            409,
            "SUBSCRIPTION_ALREADY_EXISTS",
        )
        assert code(await control(port, "POST", "subscriptions/s/claim", {"worker": "w"})) == (409, "NO_PENDING_WORK")
        await request(port, "PUT", "/a/b/x", b"[1]", JSON)
        claimed = (await control(port, "POST", "subscriptions/s/claim", {"worker": "w"})).json()
        said = {"wake_id": claimed["wake_id"], "generation": claimed["generation"]}
        good = {"authorization": f"Bearer {claimed['token']}"}
        for fields in ({}, {"authorization": "Bearer x.y"}, {"authorization": f"Basic {claimed['token']}"}):
            for action in ("ack", "release"):
                assert code(await control(port, "POST", f"subscriptions/s/{action}", said, **fields)) == (
                    401,
                    "TOKEN_INVALID",
                )
        past = {**said, "acks": [{"stream": "x", "offset": offset(3)}]}
        assert code(await control(port, "POST", "subscriptions/s/ack", past, **good)) == (409, "INVALID_OFFSET")
        other = {**said, "generation": said["generation"] + 1}
        assert code(await control(port, "POST", "subscriptions/s/ack", other, **good)) == (409, "FENCED")
        kept = await control(port, "POST", "subscriptions/s/ack", said, **good)
        assert kept.json() == {"ok": True, "next_wake": False}
        assert code(await control(port, "POST", "subscriptions/s/claim", {"worker": "v"})) == (409, "ALREADY_CLAIMED")
        await request(port, "POST", "/a/b/x", b"[2]", JSON)
        some = {**said, "acks": [{"stream": "x", "offset": offset(2)}], "done": True}
        assert (await control(port, "POST", "subscriptions/s/ack", some, **good)).json() == {
            "ok": True,
            "next_wake": True,
        }
        assert code(await control(port, "POST", "subscriptions/s/ack", some, **good)) == (409, "FENCED")


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("PUT", "subscriptions/s", {"type": "x", "pattern": "a"}, (400, "INVALID_REQUEST")),
        (
            "PUT",
            "subscriptions/s",
            {"type": "webhook", "pattern": "a", "webhook": {"url": "http://10.0.0.1/"}},
            (400, "WEBHOOK_URL_REJECTED"),
        ),
        (
            "PUT",
            "subscriptions/s",
            {"type": "webhook", "pattern": "a", "webhook": {"url": "http://localhost/"}},
            (400, "WEBHOOK_URL_REJECTED"),
        ),
        ("POST", "subscriptions/s/claim", {"worker": ""}, (400, "INVALID_REQUEST")),
        ("POST", "subscriptions/none/claim", {"worker": "w"}, (404, "SUBSCRIPTION_NOT_FOUND")),
        ("POST", "subscriptions/none/ack", {}, (404, "SUBSCRIPTION_NOT_FOUND")),
        ("POST", "subscriptions/none/streams", {"streams": ["a"]}, (404, "SUBSCRIPTION_NOT_FOUND")),
        ("GET", "other", None, (404, "SUBSCRIPTION_NOT_FOUND")),
        ("PUT", "jwks.json", {}, (404, "SUBSCRIPTION_NOT_FOUND")),
    ],
)
async def test_what_cannot_be_done_is_told_with_its_code(
    server: Server, method: str, path: str, body: object, expected: tuple[int, str]
) -> None:
    assert code(await control(server.port, method, path, body, root="/v1/stream")) == expected


# -- where webhooks may be


async def test_a_name_that_leads_into_a_private_network_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolve(*_: object, **__: object) -> list[Any]:
        public = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", 443))
        private = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.7", 443))
        return [public, private]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    with pytest.raises(SubscriptionRequestError):
        await Sender(local=False).send("https://worker.example/hook", {}, Signer(bytes(32)), 5)


async def test_a_webhook_cannot_send_the_server_elsewhere() -> None:
    receiver, app = Receiver(), FastAPI()

    @app.post("/hook")
    async def hook() -> Response:
        return RedirectResponse(f"http://127.0.0.1:{port}/hook", 307)

    async with serving(receiver.app) as port, serving(app) as redirecting:
        with pytest.raises(Exception, match="307"):
            await Sender(local=True).send(f"http://127.0.0.1:{redirecting}/hook", {}, Signer(bytes(32)), 5)
    assert not receiver.heard


# -- crashes


async def test_a_wake_is_told_after_a_kill(tmp_path: Path) -> None:
    hook = free_port()  # where nobody listens yet
    with Server(tmp_path / "data", "--workers", "2", environment=LOCAL) as server:
        asked = {
            "type": "webhook",
            "pattern": "events/*",
            "webhook": {"url": f"http://127.0.0.1:{hook}/hook"},
            "lease_ttl_ms": 1000,
        }
        assert (await control(server.port, "PUT", "subscriptions/s", asked, root="/v1/stream")).status == 201
        await request(server.port, "PUT", "/v1/stream/events/a", b"[1]", JSON)

        async def status() -> str:
            return str((await control(server.port, "GET", "subscriptions/s", root="/v1/stream")).json()["status"])

        await until(status, "failed")
        keys = (await request(server.port, "GET", "/v1/stream/__ds/jwks.json")).json()
        server.kill()
    receiver = Receiver()
    async with receiving(receiver, hook):
        with Server(tmp_path / "data", "--workers", "2", environment=LOCAL) as server:
            await until(receiver.count, 1)
            body, field = receiver.heard[0]
            assert (await request(server.port, "GET", "/v1/stream/__ds/jwks.json")).json() == keys
            assert verified(body, field, keys["keys"][0])

            async def cursors() -> list[str]:
                kept = (await control(server.port, "GET", "subscriptions/s", root="/v1/stream")).json()
                return [stream["acked_offset"] for stream in kept["streams"]]

            await until(cursors, [offset(2)])


@asynccontextmanager
async def receiving(receiver: Receiver, port: int) -> AsyncIterator[None]:
    server = uvicorn.Server(uvicorn.Config(receiver.app, host="127.0.0.1", port=port, log_config=None))
    running = asyncio.create_task(server.serve())
    try:
        yield
    finally:
        server.should_exit = True
        await running
