"""Names in URLs: what is a name is stored under exactly that, and whatever is hostile is refused."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from urllib.parse import quote

import pytest

from servers import Server
from wire import Answer, Connection, request

HOSTILE = [
    "..",
    "../x",
    "a/../b",
    "a/..",
    ".",
    "./a",
    "a/./b",
    "%2e%2e/x",
    "a/%2E%2e/b",
    ".%2e",
    "%2e",
    "../../../../../../etc/passwd",
    "/etc/passwd",
    "//etc/passwd",
    "a//b",
    "a/",
    "a%00b",
    "%00",
    "a%0a",
    "a%0ab",
    "a%0d%0aset-cookie:%20a=b",
    "a%1b%5b31m",
    "a%7f",
    "a%c2%85b",
    "a%e2%80%a8b",
    "a%e2%80%a9b",
    "a\\b",
    "a%5cb",
    "..%5c..%5cx",
    "a%2fb",
    "a%2Fb",
    "%2e%2e%2fx",
    "%ff",
    "a%fe%ffb",
    "%c0%ae%c0%ae/x",
    "%e0%80%af",
    "%c0%80",
    "%f8%88%80%80%80",
    "%ed%a0%80",
    "a" * 1025,
    "%c3%bc" * 512 + "a",
    "a/" * 512 + "bc",
]

SAFE = [
    "a",
    "a/b/c.txt",
    "...",
    "..a",
    "a..",
    "a/.hidden",
    "trailing.",
    "trailing./dots..",
    "%20",
    "%20a%20",
    "a+b",
    "a%2bb",
    "100%25",
    "%252e%252e",
    "a%252fb",
    "a%3fb%23c",
    "a;b=c,d",
    "~user/'quoted'/%22double%22",
    "*?".replace("?", "%3f"),
    "CON",
    "aux.txt",
    "c:/windows",
    "-rf",
    "data:text/html,x",
    "%ef%bf%bd",
    "%f0%9f%94%a5/%e6%97%a5%e6%9c%ac",
    "%e2%80%ae",
    "a" * 1024,
    "%c3%bc" * 512,
    "a/" * 511 + "bc",
]


async def ask(server: Server, method: str, target: str, body: bytes | None = None) -> Answer:
    """Send the target as it is."""
    async with Connection(server.port) as connection:
        return await connection.request(method, target, body)


@pytest.mark.parametrize("door", ["files", "live"])
@pytest.mark.parametrize("target", HOSTILE, ids=[target[:30] for target in HOSTILE])
async def test_a_hostile_name_is_refused_by_every_method(server: Server, door: str, target: str) -> None:
    for method in {"files": ("PUT", "GET", "HEAD", "DELETE"), "live": ("POST", "GET")}[door]:
        answer = await ask(server, method, f"/{door}/{target}", b"{}" if method in {"PUT", "POST"} else None)
        if "%0a" in target:  # of which the router knows that no URL has it
            assert answer.status in {400, 404}
            continue
        assert answer.status == 400
        if method != "HEAD":
            assert answer.json()["type"].rpartition("/")[2] in {"invalid-name", "bad-request"}


@pytest.mark.parametrize("target", SAFE, ids=[target[:30] for target in SAFE])
async def test_any_other_name_is_stored_under_exactly_that(server: Server, target: str) -> None:
    # The limit is for the whole name: no room for a prefix of the test's own.
    await ask(server, "DELETE", f"/files/{target}")
    stored = await ask(server, "PUT", f"/files/{target}", target.encode())
    assert stored.status == 201
    for url in (f"/files/{target}", stored.headers["location"], stored.json()["url"]):
        assert (await ask(server, "GET", url)).body == target.encode()
    listed = await ask(server, "GET", f"/files/?prefix={quote(stored.json()['name'], safe='')}")
    assert stored.json()["url"] in {stream["url"] for stream in listed.json()["streams"]}
    assert (await ask(server, "DELETE", stored.headers["location"])).status == 204


async def test_the_same_letter_written_in_two_ways_is_two_names(server: Server, name: str) -> None:
    composed, decomposed = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    for text in (composed, decomposed):
        await ask(server, "PUT", f"/files/{name}/{quote(text)}", text.encode())
    for text in (composed, decomposed):
        assert (await ask(server, "GET", f"/files/{name}/{quote(text)}")).body.decode() == text
    assert len((await ask(server, "GET", f"/files/?prefix={name}/")).json()["streams"]) == 2


async def test_the_case_of_letters_counts_and_that_of_escapes_does_not(server: Server, name: str) -> None:
    await ask(server, "PUT", f"/files/{name}/%c3%9cA", b"x")
    assert (await ask(server, "GET", f"/files/{name}/%C3%9C%41")).status == 200
    assert (await ask(server, "GET", f"/files/{name}/%c3%9ca")).status == 404


async def test_bytes_that_no_url_has_are_refused(server: Server) -> None:
    for target in (b"/files/\xff\xfe", b"/files/\xc3\xbc", b"/files/a\x00b", b"/files/a b"):
        async with Connection(server.port) as connection:
            await connection.write(b"GET " + target + b" HTTP/1.1\r\nhost: a\r\n\r\n")
            assert await connection.head() in {400, 404}


async def test_an_absolute_url_names_the_same_stream(server: Server, name: str) -> None:
    await ask(server, "PUT", f"/files/{name}", b"x")
    assert (await ask(server, "GET", f"{server.url}/files/{name}")).body == b"x"


async def test_nothing_is_written_outside_of_the_folder_or_under_a_clients_name(server: Server, name: str) -> None:
    await ask(server, "PUT", f"/files/{name}/..%20/x", b"x" * 100_000)
    assert not [path for path in server.data.rglob("*") if name in str(path.relative_to(server.data))]
    assert {path.name for path in Path(server.data).parent.iterdir()} == {"data", "data.log"}


async def test_the_collection_needs_no_slash_after_it(server: Server) -> None:
    answer = await request(server.port, "GET", "/files?limit=1")
    assert (answer.status, set(answer.json())) == (200, {"streams", "next"})
