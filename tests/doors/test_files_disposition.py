"""``?download`` (RFC 6266): the name under which a browser saves a file, whoever chose it."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from servers import Server
from wire import Connection, request


async def disposition(server: Server, target: str) -> str | None:
    answer = await request(server.port, "GET", target)
    assert answer.status == 200
    return answer.headers.get("content-disposition")


async def test_only_who_asks_for_a_download_gets_one(server: Server, name: str) -> None:
    await request(server.port, "PUT", f"/files/{name}/data.csv", b"x")
    assert await disposition(server, f"/files/{name}/data.csv") is None
    for query in ("?download", "?download="):
        assert await disposition(server, f"/files/{name}/data.csv{query}") == 'attachment; filename="data.csv"'
    assert await disposition(server, f"/files/{name}/data.csv?download=o.csv") == 'attachment; filename="o.csv"'


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ('attachment; filename="report.pdf"', 'attachment; filename="report.pdf"'),
        ("attachment; filename*=UTF-8''na%C3%AFve.txt", "filename*=UTF-8''na%C3%AFve.txt"),
        ('attachment; filename="a\\"b.txt"', "filename*=UTF-8''a%22b.txt"),
        ('attachment; filename="../../etc/passwd"', 'attachment; filename="passwd"'),
        ("attachment; filename*=UTF-8''..%2F..%2Fx", 'attachment; filename="x"'),
        ("attachment; filename*=UTF-8''a%0d%0aset-cookie%3a%20b", 'attachment; filename="a__set-cookie: b"'),
        ("attachment", 'attachment; filename="stored"'),
        ("nonsense; = ; filename", 'attachment; filename="stored"'),
    ],
)
async def test_the_uploads_file_name_is_kept(server: Server, name: str, given: str, told: str) -> None:
    await request(server.port, "PUT", f"/files/{name}/stored", b"x", {"content-disposition": given})
    assert told in (await disposition(server, f"/files/{name}/stored?download") or "")


@pytest.mark.parametrize(
    "hostile",
    [
        'a"; filename="b.exe',
        "a\r\nset-cookie: a=b\r\n\r\n<html>",
        "a\nb",
        "a\0b",
        "../../x",
        "..\\x",
        "a;b=c",
        "txt.\u202eexe",
        "日本語.txt",
        "\ud83d\udd25".encode("utf-16", "surrogatepass").decode("utf-16"),
        "x" * 5000,
    ],
)
async def test_a_hostile_name_stays_within_its_quotation_marks(server: Server, name: str, hostile: str) -> None:
    await request(server.port, "PUT", f"/files/{name}", b"x")
    async with Connection(server.port) as connection:
        await connection.begin("GET", f"/files/{name}?download={quote(hostile, safe='')}")
        assert await connection.head() == 200
        assert "set-cookie" not in connection.headers
        value = connection.headers["content-disposition"]
        assert b"".join([data async for data in connection.body()]) == b"x"
    assert value.isascii()
    assert value.isprintable()
    plain, _, extended = value.removeprefix('attachment; filename="').replace('\\"', "").partition('"')
    assert not set(plain) & set('"/\\')
    assert extended == "" or extended.startswith("; filename*=UTF-8''")
    assert '"' not in extended
    assert ";" not in extended[2:]


async def test_the_last_part_of_any_name_can_be_downloaded(server: Server, name: str) -> None:
    await request(server.port, "PUT", f"/files/{name}/%22%e6%97%a5;%22", b"x")
    told = await disposition(server, f"/files/{name}/%22%e6%97%a5;%22?download")
    assert told == "attachment; filename=\"__;_\"; filename*=UTF-8''%22%E6%97%A5%3B%22"


@pytest.mark.parametrize("kind", ["text/html", "Text/HTML; charset=utf-8", "image/svg+xml", "application/xhtml+xml"])
async def test_an_uploaded_page_runs_nothing_in_a_browser(server: Server, name: str, kind: str) -> None:
    await request(server.port, "PUT", f"/files/{name}", b"<script>", {"content-type": kind})
    answer = await request(server.port, "GET", f"/files/{name}")
    assert answer.headers["content-security-policy"] == "sandbox"
    assert answer.headers["x-content-type-options"] == "nosniff"
