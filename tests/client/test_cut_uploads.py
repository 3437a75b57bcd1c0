"""Uploads over a network that is cut at any byte: each arrives whole, and nothing that the server has is sent twice.

The long form: ``PENSTOCK_UPLOADS=500 PENSTOCK_LARGEST=64 PENSTOCK_SEED=1 pytest -s tests/client/test_cut_uploads.py``.
"""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import pytest

from cutting import Cutting
from penstock.client import Client, SyncClient
from penstock.client.retry import Backoff
from servers import Server

MiB = 1024 * 1024
UPLOADS = int(os.environ.get("PENSTOCK_UPLOADS", "12"))
LARGEST = int(os.environ.get("PENSTOCK_LARGEST", "8"))
"""In MiB."""
SEED = int(os.environ.get("PENSTOCK_SEED", "1"))


@pytest.fixture(autouse=True)
def _little_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backoff, "pause", lambda _self, _failures: 0.01)


def cuts_of(chance: random.Random, size: int) -> list[int]:
    """Return after how many bytes each to cut: at once, within a request's head or an answer, or somewhere within."""
    return [
        chance.choice([chance.randrange(1, 400), chance.randrange(1, 2000), chance.randrange(1, size)])
        for _ in range(chance.randrange(1, 6))
    ]


@pytest.mark.timeout(60 + 30 * UPLOADS)
def test_every_upload_arrives_and_nothing_is_sent_twice(server: Server, name: str, tmp_path: Path) -> None:
    chance = random.Random(SEED)
    cuts = requests = again = 0
    for number in range(UPLOADS):
        data = chance.randbytes(chance.randrange(MiB, LARGEST * MiB + 1))
        path = tmp_path / "source"
        path.write_bytes(data)
        max_body = chance.choice([None, None, chance.randrange(MiB // 2, 8 * MiB)])
        proxy = asyncio.run(upload(server, path, f"{name}/{number}", cuts_of(chance, len(data)), max_body))
        with SyncClient(server.url) as client:
            assert b"".join(bytes(chunk.data) for chunk in client.read(f"{name}/{number}")) == data
            client.delete(f"{name}/{number}")
        again += check(proxy, len(data), max_body)
        cuts += proxy.cuts
        requests += len(proxy.requests)
        if (number + 1) % 50 == 0 or number + 1 == UPLOADS:
            print(f"{number + 1} uploads, {cuts} cuts, {requests} requests, {again} bytes sent again")  # noqa: T201 - with -s
    assert cuts >= UPLOADS


async def upload(server: Server, path: Path, name: str, cuts: list[int], max_body: int | None) -> Cutting:
    async with Cutting(server.port, cuts) as proxy, Client(f"http://127.0.0.1:{proxy.port}", retries=50) as client:
        stream = await client.put(path, name, max_body=max_body)
        assert stream.state == "closed"
    return proxy


def check(proxy: Cutting, size: int, max_body: int | None) -> int:
    """Look at what went through, and return how many bytes of the source were sent again."""
    proxy.check_offsets()
    sent = [request.body for request in proxy.requests if request.method == "PATCH"]
    assert max(sent) <= (max_body or size)
    # A cut costs the request that it broke off, which is made again, and at most one more, which asks where to go on.
    needed = 1 + -(-size // (max_body or size)) + 1  # the creation, the bytes, a look at what it has become
    answered = sum(request.answered for request in proxy.requests)
    passed = [(request.method, request.body, request.status, request.answered) for request in proxy.requests]
    assert answered <= needed + proxy.cuts, passed
    assert len(passed) - answered <= proxy.cuts, passed
    return sum(sent) - size
