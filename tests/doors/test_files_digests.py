"""Digest fields (RFC 9530) of files: verified on the way in, told on the way out."""

from __future__ import annotations

import hashlib
from base64 import b64encode

import pytest

from servers import Server
from wire import request

SIZES = [5, 300_000]


def digest(algorithm: str, body: bytes) -> str:
    return f"{algorithm}=:{b64encode(hashlib.new(algorithm.replace('-', ''), body).digest()).decode()}:"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("field", ["content-digest", "repr-digest"])
@pytest.mark.parametrize("algorithm", ["sha-256", "sha-512"])
async def test_a_right_digest_is_accepted_and_kept(
    server: Server, name: str, field: str, algorithm: str, size: int
) -> None:
    body = b"x" * size
    given = digest(algorithm, body)
    stored = await request(server.port, "PUT", f"/files/{name}", body, {field: given})
    assert (stored.status, stored.headers["repr-digest"]) == (201, given)
    assert stored.json()["digests"] == {algorithm: given.split(":")[1]}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("field", ["content-digest", "repr-digest"])
async def test_a_wrong_digest_leaves_nothing(server: Server, name: str, field: str, size: int) -> None:
    path = f"/files/{name}"
    wrong = {field: digest("sha-256", b"something else")}
    refused = await request(server.port, "PUT", path, b"x" * size, wrong)
    assert (refused.status, refused.json()["type"]) == (400, "https://penstock.dev/problems/digest-mismatch")
    assert (await request(server.port, "GET", path)).status == 404
    await request(server.port, "PUT", path, b"old")
    assert (await request(server.port, "PUT", path, b"x" * size, wrong)).status == 400
    assert (await request(server.port, "GET", path)).body == b"old"


async def test_every_one_of_several_digests_is_verified(server: Server, name: str) -> None:
    right, wrong = digest("sha-256", b"body"), digest("sha-512", b"other")
    for value in (f"{right}, {wrong}", f"{wrong}, {right}"):
        assert (await request(server.port, "PUT", f"/files/{name}", b"body", {"repr-digest": value})).status == 400
    contradicting = {"repr-digest": right, "content-digest": digest("sha-256", b"other")}
    assert (await request(server.port, "PUT", f"/files/{name}", b"body", contradicting)).status == 400
    both = {"repr-digest": right, "content-digest": digest("sha-512", b"body")}
    assert len((await request(server.port, "PUT", f"/files/{name}", b"body", both)).json()["digests"]) == 2


@pytest.mark.parametrize("value", ["sha-256", "sha-256=abc", "sha-256=:AAAA:", "sha-256=:!:", "=:AAAA:"])
async def test_a_digest_that_cannot_be_read_is_refused(server: Server, name: str, value: str) -> None:
    assert (await request(server.port, "PUT", f"/files/{name}", b"x", {"content-digest": value})).status == 400


async def test_an_unknown_algorithm_is_left_alone(server: Server, name: str) -> None:
    fields = {"repr-digest": "md5=:AAAA:, unixsum=:AAAA:"}
    stored = await request(server.port, "PUT", f"/files/{name}", b"x", fields)
    assert (stored.status, stored.json()["digests"]) == (201, {})


@pytest.mark.parametrize(
    ("wish", "algorithm"),
    [
        ("sha-256=1", "sha-256"),
        ("sha-512=1", "sha-512"),
        ("sha-256=3, sha-512=10", "sha-512"),
        ("sha-256=0", None),
        ("md5=10", None),
    ],
)
async def test_the_wanted_digest_is_told_by_put_get_and_head(
    server: Server, name: str, wish: str, algorithm: str | None
) -> None:
    path, body, want = f"/files/{name}", b"abc" * 1000, {"want-repr-digest": wish}
    expected = None if algorithm is None else digest(algorithm, body)
    for other in (path, f"{path}-2"):  # told while it arrived, or computed later
        stored = await request(server.port, "PUT", other, body, want if other == path else {})
        assert stored.headers.get("repr-digest") == (expected if other == path else None)
        for method in ("HEAD", "GET"):
            assert (await request(server.port, method, other, headers=want)).headers.get("repr-digest") == expected
        # Of a part, too, it is the whole's.
        part = await request(server.port, "GET", other, headers={**want, "range": "bytes=1-2"})
        assert (part.status, part.headers.get("repr-digest")) == (206, expected)


async def test_of_a_stream_that_grows_no_digest_is_told(server: Server, name: str) -> None:
    await request(server.port, "POST", f"/live/{name}", b"line", {"content-type": "text/plain"})
    answer = await request(server.port, "GET", f"/files/{name}", headers={"want-repr-digest": "sha-256=1"})
    assert (answer.status, answer.headers.get("repr-digest")) == (200, None)
