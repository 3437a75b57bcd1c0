"""Forms at the files door: what becomes of their files and fields, and of forms that break."""

from __future__ import annotations

import asyncio
import hashlib
import html
import random
from base64 import b64encode
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, Response

from applications import serving
from browser import browsing
from conftest import tool
from form_bodies import END, TYPE, part
from penstock import NewUpload, StreamInfo, Streams
from penstock.doors.outbox import LEASE, Outbox
from penstock.errors import StreamNotFound
from penstock.notifiers.inprocess import InProcessNotifier
from penstock.stores.memory import MemoryStore
from penstock.testing import FaultyStore, ManualClock
from servers import Server
from wire import Answer, Connection, request, until

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


async def post(port: int, query: str, body: bytes, content_type: str = TYPE, **fields: str) -> Answer:
    return await request(port, "POST", f"/files/?{query}", body, {"content-type": content_type, **fields})


async def listed(port: int, prefix: str) -> dict[str, Any]:
    answer = await request(port, "GET", f"/files/?prefix={prefix}")
    return {stream["name"].removeprefix(prefix): stream for stream in answer.json()["streams"]}


def slug(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json()["type"].rpartition("/")[2]


async def test_each_file_becomes_a_stream_with_the_fields_as_metadata(server: Server, name: str) -> None:
    photo = random.Random(1).randbytes(3_000_001)
    body = b"".join(
        [
            part("title", "Höhle".encode()),
            part("photo", photo, "Höhle 1.jpg", "Content-Type: image/jpeg"),
            part("tag", b"red"),
            part("notes", b"# words", "../../notes.md"),
            part("none", b"", "", "Content-Type: application/octet-stream"),
            part("tag", b"blue"),
            END,
        ]
    )
    answer = await post(server.port, f"prefix={name}/", body, want_repr_digest="sha-256=1")
    assert answer.status == 201
    assert answer.headers["content-type"] == "application/json"
    one, two = answer.json()["streams"]
    assert (one["field"], one["name"], one["content_type"]) == ("photo", f"{name}/Höhle 1.jpg", "image/jpeg")
    assert (two["field"], two["name"], two["content_type"]) == ("notes", f"{name}/notes.md", "text/markdown")
    for stream, filename in ((one, "Höhle 1.jpg"), (two, "notes.md")):
        assert stream["state"] == "closed"
        assert stream["metadata"] == {"title": "Höhle", "tag": "red\nblue", "filename": filename}
    assert (await request(server.port, "GET", one["url"])).body == photo
    assert (await request(server.port, "GET", two["url"])).body == b"# words"
    assert await listed(server.port, f"{name}/") == {
        stream["name"].removeprefix(f"{name}/"): {key: value for key, value in stream.items() if key != "field"}
        for stream in (one, two)
    }


async def test_digests_are_computed_on_request(server: Server, name: str) -> None:
    body = part("a", b"one", "one") + part("a", b"", "two") + END
    answer = await post(server.port, f"prefix={name}", body, **{"want-repr-digest": "sha-256=1"})
    assert [stream["digests"] for stream in answer.json()["streams"]] == [
        {"sha-256": b64encode(hashlib.sha256(data).digest()).decode()} for data in (b"one", b"")
    ]
    plain = await post(server.port, f"prefix={name}", body)
    assert [stream["digests"] for stream in plain.json()["streams"]] == [{}, {}]


async def test_a_name_that_is_taken_gets_a_number(server: Server, name: str) -> None:
    body = part("a", b"one", "a.txt") + part("a", b"two", "a.txt") + part("a", b"three", "noend") + END
    expected = [["a.txt", "a-2.txt", "noend"], ["a-3.txt", "a-4.txt", "noend-2"]]
    for names in expected:
        streams = (await post(server.port, f"prefix={name}/", body)).json()["streams"]
        assert [stream["name"].removeprefix(f"{name}/") for stream in streams] == names
    assert (await request(server.port, "GET", f"/files/{name}/a-3.txt")).body == b"one"
    for _ in range(5):
        last = (await post(server.port, f"prefix={name}/", part("a", b"x", "noend") + END)).json()["streams"][0]
    for _ in range(5):
        last = (await post(server.port, f"prefix={name}/", part("a", b"x", "noend") + END)).json()["streams"][0]
    random_end = last["name"].removeprefix(f"{name}/noend-")
    assert len(random_end) == 16
    assert set(random_end) <= set("0123456789abcdef")
    assert len(await listed(server.port, f"{name}/")) == 16


async def test_forms_at_once_do_not_get_each_others_names(server: Server, name: str) -> None:
    answers = await asyncio.gather(
        *(post(server.port, f"prefix={name}/", part("a", b"%d" % n, "a") + END) for n in range(12))
    )
    for number, answer in enumerate(answers):
        (stream,) = answer.json()["streams"]
        assert answer.headers["location"] == stream["url"]
        assert (await request(server.port, "GET", stream["url"])).body == b"%d" % number
    assert len(await listed(server.port, f"{name}/")) == 12


async def test_a_file_replaces_another_one_where_that_is_asked_for(server: Server, name: str) -> None:
    first = await post(server.port, f"prefix={name}/&replace", part("a", b"one", "a") + END)
    second = await post(
        server.port, f"prefix={name}/&replace", part("a", b"two!", "a") + part("a", b"three", "a") + END
    )
    third = await post(server.port, f"prefix={name}/&replace", part("a", b"four", "a") + END)
    assert [answer.status for answer in (first, second, third)] == [201, 201, 200]
    assert {path: stream["tail"] for path, stream in (await listed(server.port, f"{name}/")).items()} == {
        "a": 4,
        "a-2": 5,
    }
    assert (await request(server.port, "GET", f"/files/{name}/a")).body == b"four"


async def test_files_can_be_read_while_the_form_arrives(server: Server, name: str) -> None:
    async with Connection(server.port) as form, Connection(server.port) as reader:
        await form.begin("POST", f"/files/?prefix={name}/", {"content-type": TYPE, "transfer-encoding": "chunked"})
        await form.write_chunk(part("a", b"first", "one")[:-2])

        async def status() -> int:
            return (await request(server.port, "GET", f"/files/{name}/one")).status

        await until(status, 200)
        await reader.begin("GET", f"/files/{name}/one?follow")
        assert await reader.head() == 200
        assert reader.headers["stream-state"] == "open"
        body = reader.body()
        assert await anext(body) == b"first"
        await form.write_chunk(b" second\r\n" + part("a", b"third", "two"))
        assert await anext(body) == b" second"
        streams = await listed(server.port, f"{name}/")
        assert {stream["state"] for stream in streams.values()} == {"open"}
        await form.write_chunk(part("late", b"field") + END)
        await form.write_chunk(b"")
        assert (await form.answer()).status == 201
        assert [data async for data in body] == []
    streams = await listed(server.port, f"{name}/")
    assert [(stream["state"], stream["metadata"]["late"]) for stream in streams.values()] == [("closed", "field")] * 2


@pytest.mark.parametrize("size", [0, 30, 200, 2_000_000])
async def test_nothing_is_left_of_a_form_that_was_cut(server: Server, name: str, size: int) -> None:
    body = part("a", b"whole", "one") + part("a", bytes(3_000_000), "two")
    async with Connection(server.port) as connection:
        await connection.begin(
            "POST", f"/files/?prefix={name}/", {"content-type": TYPE, "content-length": str(len(body) + 100)}
        )
        await connection.write(body[:size])
        if size > 100:

            async def states() -> set[str]:
                return {stream["state"] for stream in (await listed(server.port, f"{name}/")).values()}

            await until(states, {"open"})

    async def left() -> int:
        return len(await listed(server.port, f"{name}/"))

    await until(left, 0)


@pytest.mark.parametrize(
    ("end", "query", "fields", "expected"),
    [
        (b"", "", {}, (400, "body-incomplete")),
        (b"--other--\r\n", "", {}, (400, "body-incomplete")),
        (b"--bound-ary\r\nnonsense\r\n\r\nx\r\n" + END, "", {}, (400, "bad-request")),
        (part("f", bytes(33_000)) + END, "", {}, (413, "too-large")),
        (part("f", bytes(20_000)) + part("g", bytes(20_000)) + END, "", {}, (413, "too-large")),
        (b"".join(part(f"f{n}", b"") for n in range(65)) + END, "", {}, (413, "too-large")),
        (b"".join(part("f", b"", f"{n}") for n in range(1001)) + END, "", {}, (413, "too-large")),
        (part("f", b"\xff\xfe") + END, "", {}, (400, "bad-request")),
        (part("f", b"x", "") + END, "", {}, (400, "bad-request")),
        (part("f", b"x", "x", "Content-Type: nonsense") + END, "", {}, (400, "bad-request")),
        (
            END,
            "",
            {"content-digest": "sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:"},
            (400, "digest-mismatch"),
        ),
        (END, "", {"content-encoding": "gzip"}, (415, "unsupported-media-type")),
        (END, "", {"content-type": "multipart/form-data"}, (400, "bad-request")),
        (END, "", {"stream-ttl": "never"}, (400, "bad-request")),
        (END, "next=//elsewhere.example/", {}, (400, "bad-request")),
        (END, "next=https://elsewhere.example/", {}, (400, "bad-request")),
        (END, "next=/%5Celsewhere.example/", {}, (400, "bad-request")),
        (END, "next=/a%0Ab", {}, (400, "bad-request")),
    ],
)
async def test_a_form_that_is_refused_leaves_nothing(
    server: Server, name: str, end: bytes, query: str, fields: dict[str, str], expected: tuple[int, str]
) -> None:
    body = part("a", b"whole", "one") + end
    answer = await request(
        server.port, "POST", f"/files/?prefix={name}/&{query}", body, {"content-type": TYPE, **fields}
    )
    assert slug(answer) == expected
    assert await listed(server.port, f"{name}/") == {}


async def test_a_form_without_a_file_and_names_that_cannot_be_are_refused(server: Server, name: str) -> None:
    empty = part("a", b"", "", "Content-Type: application/octet-stream")
    for body in (END, part("f", b"x") + END, empty + END):
        assert slug(await post(server.port, f"prefix={name}/", body)) == (400, "bad-request")
    answer = await post(server.port, f"prefix={name}//", part("a", b"x", "x") + END)
    assert slug(answer) == (400, "invalid-name")


async def test_files_have_a_size_limit_each() -> None:
    streams = Streams(":memory:")
    app = FastAPI(lifespan=streams.lifespan)
    app.include_router(streams.files(max_size=1000))
    async with serving(app) as port:
        both = part("a", bytes(1000), "one") + part("a", bytes(1000), "two") + END
        assert (await post(port, "prefix=a/", both)).status == 201
        answer = await post(port, "prefix=b/", part("a", bytes(10), "one") + part("a", bytes(1001), "two") + END)
        assert slug(answer) == (413, "too-large")
        assert answer.json()["max_size"] == 1000
        assert await listed(port, "b/") == {}


async def test_whoever_may_not_write_sends_nothing_and_leaves_nothing() -> None:
    streams = Streams(":memory:")
    asked: list[tuple[str, str]] = []

    async def authorize(_: Request, action: str, name: str) -> bool:
        asked.append((action, name))
        return name.startswith("mine/") and name != "mine/two"

    completed: list[str] = []

    async def on_complete(info: StreamInfo, _: Request) -> None:
        assert info.closed
        completed.append(info.name)

    app = FastAPI(lifespan=streams.lifespan)
    app.include_router(streams.files(authorize=authorize, on_complete=on_complete))
    async with serving(app) as port:
        waiting = {"content-type": TYPE, "content-length": "1000000", "expect": "100-continue"}
        async with Connection(port) as connection:
            await connection.begin("POST", "/files/?prefix=theirs/", waiting)
            assert await connection.head() == 403
        answer = await post(port, "prefix=mine/", part("a", b"x", "one") + part("a", b"x", "two") + END)
        assert slug(answer) == (403, "forbidden")
        assert (completed, (await streams.list()).streams) == ([], ())
        assert (await post(port, "prefix=mine/", part("a", b"x", "one") + END)).status == 201
        assert completed == ["mine/one"]
    assert asked == [
        ("write", "theirs/"),
        *[("write", "mine/"), ("write", "mine/one"), ("write", "mine/two")],
        *[("write", "mine/"), ("write", "mine/one")],
    ]


async def test_the_application_names_limits_and_describes_files_and_answers() -> None:
    async def on_create(new: NewUpload, _: Request) -> NewUpload:
        metadata = {**new.metadata, "by": "the application"}
        del metadata["token"]
        return replace(new, name=f"safe/{new.name}", content_type="text/own", metadata=metadata, max_size=5)

    async def on_complete(info: StreamInfo, _: Request) -> Response | None:
        return Response(f"answer to {info.name}", 202) if info.name.endswith("two") else None

    streams = Streams(":memory:")
    app = FastAPI(lifespan=streams.lifespan)
    app.include_router(streams.files(on_create=on_create, on_complete=on_complete))
    fields = part("token", b"secret") + part("by", b"me") + part("tag", b"1")
    rest = part("tag", b"2") + part("late", b"x") + part("token", b"again") + END
    async with serving(app) as port:
        first = await post(port, "", fields + part("a", b"12345", "one") + rest)
        (stream,) = first.json()["streams"]
        assert (stream["name"], stream["content_type"]) == ("safe/one", "text/own")
        assert stream["metadata"] == {"by": "the application", "tag": "1\n2", "late": "x", "filename": "one"}
        second = await post(port, "", fields + part("a", b"", "one") + part("a", b"", "two") + rest)
        assert (second.status, second.body) == (202, b"answer to safe/two")
        assert [info.name for info in (await streams.list()).streams] == ["safe/one", "safe/one-2", "safe/two"]
        third = await post(port, "", fields + part("a", b"123456", "three") + rest)
        assert slug(third) == (413, "too-large")
        assert third.json()["max_size"] == 5


async def test_files_of_one_form_are_shown_together_or_not_at_all() -> None:
    store = FaultyStore(MemoryStore())
    streams = Streams(store, notifier=InProcessNotifier())
    app = FastAPI(lifespan=streams.lifespan)
    app.include_router(streams.files())
    async with serving(app) as port, Connection(port) as form:
        await form.begin("POST", "/files/", {"content-type": TYPE, "transfer-encoding": "chunked"})
        await form.write_chunk(part("a", b"x", "one") + part("a", b"x", "two") + part("a", b"x", "three"))

        async def names() -> list[str]:
            return [info.name for info in (await streams.list()).streams if info.tail]

        await until(names, ["one", "three", "two"])
        await streams.delete("two")
        await form.write_chunk(END)
        await form.write_chunk(b"")
        assert slug(await form.answer()) == (410, "stream-gone")
        assert await names() == []


async def test_files_that_replaced_others_stay_where_the_rest_of_their_form_fails() -> None:
    told: list[str] = []
    clock = ManualClock()
    streams = Streams(":memory:", clock=clock)
    app = FastAPI(lifespan=streams.lifespan)
    app.include_router(streams.files(on_complete=lambda info, _: told.append(info.name)))
    async with serving(app) as port, Connection(port) as form:
        for name in ("one", "two"):
            await streams.put(name, [b"old"])
        await form.begin("POST", "/files/?replace", {"content-type": TYPE, "transfer-encoding": "chunked"})
        await form.write_chunk(part("a", b"new", "one") + part("b", b"new", "two") + part("c", b"new", "three"))
        await until(lambda: shown(streams, "three"), b"new")
        await streams.delete("two")
        await streams.create("two")  # by somebody who goes on to write it, and must not be replaced
        await form.write_chunk(END)
        await form.write_chunk(b"")
        answer = await form.answer()
        assert slug(answer) == (409, "stream-is-open")
        stored, missing = answer.json()["stored"], answer.json()["missing"]
        assert [(file["field"], file["name"], file["url"]) for file in stored] == [
            ("a", "one", "/files/one"),
            ("c", "three", "/files/three"),
        ]
        assert missing == [{"field": "b", "name": "two"}]
        assert [await shown(streams, name) for name in ("one", "two", "three")] == [b"new", b"", b"new"]
        assert not (await streams.info("two")).closed
        clock.advance(LEASE)
        for companion in streams.companions:
            if isinstance(companion, Outbox):
                await companion.sweep()
        assert sorted(told) == ["one", "three"]


async def shown(streams: Streams, name: str) -> bytes:
    try:
        return b"".join([bytes(chunk.data) async for chunk in streams.read(name)])
    except StreamNotFound:
        return b"not there"


@pytest.mark.parametrize(
    ("filename", "kept"),
    [
        ("photos/2026/a.jpg", "photos/2026/a.jpg"),
        ("Höhle/%22x%22.txt", 'Höhle/"x".txt'),
        ("a/b\x01c/d", "a/b_c/d"),
        ("a/.hidden", "a/.hidden"),
        ("../../a", "a"),
        ("a/../b", "b"),
        ("a/./b", "b"),
        ("a/ ../b", "a/unnamed/b"),
        ("/etc/passwd", "passwd"),
        ("//host/a", "a"),
        ("a//b", "b"),
        ("a/b\\\\..\\\\c", "c"),
        ("C:\\\\fakepath\\\\a.txt", "a.txt"),
        ("C:/a", "a"),
        ("a/", "unnamed"),
    ],
)
async def test_files_keep_their_folders_but_those_that_lead_elsewhere(
    server: Server, name: str, filename: str, kept: str
) -> None:
    answer = await post(server.port, f"prefix={name}/in/", part("f", b"x", filename.replace("\x01", "\t")) + END)
    assert answer.status == 201
    (stream,) = answer.json()["streams"]
    assert stream["name"] == f"{name}/in/{kept}"
    assert stream["metadata"] == {"filename": kept.rpartition("/")[2]}


async def test_folders_do_not_lead_to_names_that_cannot_be(server: Server) -> None:
    for filename in ("__ds/subscriptions/x", "/".join(["a" * 200] * 6)):
        assert slug(await post(server.port, "", part("f", b"x", filename) + END)) == (400, "invalid-name")


async def test_browsers_get_a_page_or_are_sent_on(server: Server, name: str) -> None:
    body = part("a", bytes(1234), "<b>&amp;.bin") + part("a", b"", "two") + END
    answer = await post(server.port, f"prefix={name}/", body, accept=BROWSER)
    assert (answer.status, answer.headers["content-type"]) == (201, "text/html; charset=utf-8")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    page = answer.body.decode()
    assert "<b>" not in page
    for path, stream in (await listed(server.port, f"{name}/")).items():
        assert f'<a href="{html.escape(stream["url"])}">{html.escape(f"{name}/{path}")}</a>' in page
    assert "1,234 bytes" in page
    answer = await post(server.port, f"prefix={name}/&next=/thanks%3Fid%3D1", body, accept=BROWSER)
    assert (answer.status, answer.headers["location"]) == (303, "/thanks?id=1")
    answer = await post(server.port, f"prefix={name}/&next=/thanks", body)
    assert (answer.status, len(answer.json()["streams"])) == (201, 2)


async def test_curl_sends_forms(server: Server, name: str, tmp_path: Path) -> None:
    data = random.Random(2).randbytes(5_000_000)
    (tmp_path / "big.bin").write_bytes(data)
    process = await asyncio.create_subprocess_exec(
        *(tool("curl"), "--silent", "-F", "note=hello", "-F", f"file=@{tmp_path}/big.bin"),
        *("-F", "other=@-;filename=from input.txt", f"{server.url}/files/?prefix={name}/"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    await process.communicate(b"typed")
    assert process.returncode == 0
    streams = await listed(server.port, f"{name}/")
    assert {path: stream["metadata"]["note"] for path, stream in streams.items()} == {
        "big.bin": "hello",
        "from input.txt": "hello",
    }
    assert (await request(server.port, "GET", f"/files/{name}/big.bin")).body == data


FORM = """<!DOCTYPE html>
<form action="{action}" method="post" enctype="multipart/form-data">
<input name="title" value="Grüße"><input type="file" name="files" multiple><input type="file" name="other">
<button>Send</button>
</form>"""


async def test_a_browser_without_javascript_sends_a_form(tmp_path: Path) -> None:
    tool("chromium")
    streams = Streams(tmp_path / "data")
    app = FastAPI(lifespan=streams.lifespan)
    app.include_router(streams.files())

    @app.get("/form")
    async def form(action: str) -> HTMLResponse:
        return HTMLResponse(FORM.format(action=html.escape(action)))

    @app.get("/thanks")
    async def thanks() -> HTMLResponse:
        return HTMLResponse("<h1>Thanks</h1>")

    data = random.Random(3).randbytes(4_000_000)
    (tmp_path / 'Ünï "quoted".bin').write_bytes(data)
    (tmp_path / "words.txt").write_text("words")
    async with serving(app) as port, browsing(tmp_path / "profile") as page:
        await page.command("Emulation.setScriptExecutionDisabled", value=True)
        for action in ("/files/?prefix=in/", "/files/?prefix=in/&next=/thanks"):
            await page.go(f"http://127.0.0.1:{port}/form?action={action.replace('&', '%26')}")
            await page.choose("input[name=files]", tmp_path / 'Ünï "quoted".bin', tmp_path / "words.txt")
            await page.click("button")
            if "next" in action:
                assert await page.run("document.body?.innerText") == "Thanks"
                assert await page.run("location.pathname") == "/thanks"
            else:
                links = "[...document.querySelectorAll('a')].map(a => a.innerText)"
                assert await page.run(links) == ['in/Ünï "quoted".bin', "in/words.txt"]
    async with streams:
        for info in (await streams.list()).streams:
            assert info.metadata["title"] == "Grüße"
            assert info.complete
        found = {info.name: info.tail for info in (await streams.list()).streams}
        assert list(found.values()) == [5, 5, 4_000_000, 4_000_000]
        assert b"".join([bytes(chunk.data) async for chunk in streams.read('in/Ünï "quoted".bin')]) == data


async def test_a_browser_sends_a_folder(tmp_path: Path) -> None:
    tool("chromium")
    streams = Streams(tmp_path / "data")
    app = FastAPI(lifespan=streams.lifespan)
    app.include_router(streams.files())

    @app.get("/form")
    async def form() -> HTMLResponse:
        return HTMLResponse(
            '<form action="/files/?prefix=in/" method="post" enctype="multipart/form-data">'
            '<input type="file" name="files" webkitdirectory><button>Send</button></form>'
        )

    sent = {"Höhle/a.txt": b"1", "Höhle/b/c d.txt": b"2", "Höhle/b/e/a.txt": b"3"}
    for path, data in sent.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(data)
    async with serving(app) as port, browsing(tmp_path / "profile") as page:
        await page.go(f"http://127.0.0.1:{port}/form")
        await page.choose("input", tmp_path / "Höhle")
        await page.click("button")
        assert await page.run("document.querySelector('h1').innerText") == "Stored"
        names = [info.name for info in (await streams.list()).streams]
        assert {name: await shown(streams, name) for name in names} == {f"in/{path}": sent[path] for path in sent}


async def test_the_applications_own_refusals_stay_what_they_are() -> None:
    streams = Streams(":memory:")

    def authorize(_: Request, __: str, name: str) -> None:
        if name.endswith("two"):
            raise HTTPException(402, "Pay first.")

    app = FastAPI(lifespan=streams.lifespan)
    app.include_router(streams.files(authorize=authorize))
    async with serving(app) as port:
        answer = await post(port, "", part("a", b"x", "one") + part("a", b"x", "two") + END)
        assert (answer.status, answer.json()["detail"]) == (402, "Pay first.")
        assert (await streams.list()).streams == ()
