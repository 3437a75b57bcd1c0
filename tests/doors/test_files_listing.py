"""The listing of files: in order, by prefix, page by page."""

from __future__ import annotations

import random
from typing import Any
from urllib.parse import quote

import pytest

from servers import Server
from wire import Connection, request


async def stored(server: Server, *names: str) -> None:
    async with Connection(server.port) as connection:
        for name in random.Random(1).sample(names, len(names)):
            assert (await connection.request("PUT", f"/files/{quote(name)}", b"12345")).status == 201


async def listed(server: Server, **parameters: str) -> tuple[list[str], str | None]:
    query = "&".join(f"{key}={quote(value, safe='')}" for key, value in parameters.items())
    answer = await request(server.port, "GET", f"/files/?{query}")
    assert answer.status == 200
    page: dict[str, Any] = answer.json()
    return [stream["name"] for stream in page["streams"]], page["next"]


async def test_a_stream_is_listed_as_its_upload_described_it(server: Server, name: str) -> None:
    described = (await request(server.port, "PUT", f"/files/{name}", b"12345", {"content-type": "text/csv"})).json()
    (found,) = (await request(server.port, "GET", f"/files/?prefix={name}")).json()["streams"]
    assert found == described
    assert set(found) == {
        *("name", "incarnation", "content_type", "state", "tail", "length", "failure", "created_at", "modified_at"),
        *("expires_at", "metadata", "digests", "etag", "url"),
    }


async def test_names_come_in_the_order_of_their_bytes(server: Server, name: str) -> None:
    names = [f"{name}{end}" for end in ("", " ", "-", "/a", "/a.b", "/a/b", "0", "A", "B", "_", "a", "ü", "€", "𝄞")]
    await stored(server, *names)
    assert await listed(server, prefix=name) == (names, None)


async def test_a_prefix_is_text_and_no_pattern(server: Server, name: str) -> None:
    names = [f"{name}/100%", f"{name}/100_", f"{name}/[a]", f"{name}/a", f"{name}/*", f"{name}x"]
    await stored(server, *names)
    for end in ("/100%", "/100_", "/[a]", "/*", "/a", "x"):
        assert await listed(server, prefix=name + end) == ([name + end], None)
    assert len((await listed(server, prefix=f"{name}/"))[0]) == 5
    assert await listed(server, prefix=f"{name}/nothing") == ([], None)


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8])
async def test_pages_follow_each_other_without_gap_or_repetition(server: Server, name: str, limit: int) -> None:
    names = [f"{name}/{index}" for index in range(7)]
    await stored(server, *names)
    found: list[str] = []
    after: str | None = ""
    while after is not None:
        page, after = await listed(server, prefix=f"{name}/", limit=str(limit), after=after)
        assert 0 < len(page) <= limit
        assert after in {None, page[-1]}
        found += page
    assert found == names


async def test_a_page_goes_on_after_a_name_that_is_not_there_any_more(server: Server, name: str) -> None:
    await stored(server, *(f"{name}/{index}" for index in range(4)))
    await request(server.port, "DELETE", f"/files/{name}/1")
    assert await listed(server, prefix=f"{name}/", after=f"{name}/1") == ([f"{name}/2", f"{name}/3"], None)


async def test_what_grows_is_listed_and_a_replacement_is_not(server: Server, name: str) -> None:
    await stored(server, f"{name}/a")
    async with Connection(server.port) as connection:
        await connection.begin("PUT", f"/files/{name}/a", {"transfer-encoding": "chunked"})
        await connection.write_chunk(b"x" * 100_000)
        await request(server.port, "POST", f"/live/{name}/b", b"{}", {"content-type": "application/json"})
        streams = (await request(server.port, "GET", f"/files/?prefix={name}/")).json()["streams"]
        assert [(stream["name"], stream["state"], stream["tail"], stream["length"]) for stream in streams] == [
            (f"{name}/a", "closed", 5, 5),
            (f"{name}/b", "open", 3, None),
        ]


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=-1", "limit=x", "limit="])
async def test_a_parameter_that_is_wrong_is_a_problem(server: Server, query: str) -> None:
    answer = await request(server.port, "GET", f"/files/?{query}")
    assert (answer.status, answer.headers["content-type"]) == (400, "application/problem+json")
    assert answer.json()["type"] == "https://penstock.dev/problems/bad-request"
    assert "'limit'" in answer.json()["detail"]
