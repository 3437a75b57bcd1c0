"""The Durable Streams door, beyond what the protocol's own tests look at."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from fastapi import FastAPI

from applications import serving
from conftest import tool
from penstock import Streams, StreamSpec, install_problem_handlers
from penstock.core.service import StreamService
from penstock.errors import StorageFailed, StreamGone, StreamNotFound
from penstock.notifiers.inprocess import InProcessNotifier
from penstock.protocols.durable import offset
from penstock.stores.memory import MemoryStore
from penstock.testing import FaultyStore
from servers import Server
from wire import Answer, Broken, Connection, events, request, until

JSON = {"content-type": "application/json"}
TEXT = {"content-type": "text/plain"}
NEXT = "stream-next-offset"


@asynccontextmanager
async def application(**options: Any) -> AsyncIterator[tuple[int, Streams]]:
    streams = Streams(":memory:")
    app = FastAPI(lifespan=streams.lifespan)
    app.include_router(streams.durable(**options))
    app.include_router(streams.files())
    app.include_router(streams.live())
    install_problem_handlers(app)
    async with serving(app) as port:
        yield port, streams


async def put(port: int, name: str, body: bytes = b"", **fields: str) -> Answer:
    headers = {name.replace("_", "-"): value for name, value in fields.items()}
    answer = await request(port, "PUT", f"/v1/stream/{quote(name)}", body, {**TEXT, **headers})
    assert answer.status == 201, answer.body
    return answer


async def read(port: int, name: str, query: str = "") -> Answer:
    return await request(port, "GET", f"/v1/stream/{name}{query}")


def slug(answer: Answer) -> str:
    return str(answer.json()["type"]).rpartition("/")[2]


# -- one stream, several doors


async def test_messages_are_records_of_the_other_doors(server: Server, name: str) -> None:
    port = server.port
    await put(port, name, b'[{"n": 1}, [2]]', content_type="application/json; charset=utf-8")
    appended = await request(port, "POST", f"/live/{name}", b'{"n": 3}', JSON)
    assert appended.status == 200
    assert (await request(port, "POST", f"/v1/stream/{name}", b"4", JSON)).status == 204
    whole = await read(port, name)
    assert (whole.headers["content-type"], whole.json()) == (
        "application/json; charset=utf-8",
        [{"n": 1}, [2], {"n": 3}, 4],
    )
    file = await request(port, "GET", f"/files/{name}")
    assert file.headers["content-type"] == "application/x-ndjson"
    assert file.body == b'{"n":1}\n[2]\n{"n":3}\n4\n'
    async with Connection(port) as connection:
        await connection.begin("GET", f"/live/{name}?offset=0")
        await connection.head()
        seen = []
        async for event in events(connection):
            seen.append((event.id, json.loads(event.data)))
            if len(seen) == 4:
                break
    assert [value for _, value in seen] == whole.json()
    # Both doors' offsets are bytes: where one reader stands, another one can go on.
    assert (await read(port, name, f"?offset={offset(int(seen[1][0]))}")).json() == [{"n": 3}, 4]


async def test_records_of_the_live_door_are_messages(server: Server, name: str) -> None:
    port = server.port
    assert (
        await request(port, "POST", f"/live/{name}", b'{"a": 1}\n2\n', {"content-type": "application/x-ndjson"})
    ).status == 201
    answer = await read(port, name)
    assert (answer.headers["content-type"], answer.json()) == ("application/json", [{"a": 1}, 2])
    assert (await request(port, "POST", f"/v1/stream/{name}", b"[3]", JSON)).status == 204
    assert (await read(port, name, f"?offset={answer.headers[NEXT]}")).json() == [3]


async def test_lines_that_nobody_has_looked_at_are_not_shown_as_json(server: Server, name: str) -> None:
    port = server.port
    await request(port, "PUT", f"/files/{name}", b"not json\n", {"content-type": "application/x-ndjson"})
    answer = await read(port, name)
    assert (answer.headers["content-type"], answer.body) == ("application/x-ndjson", b"not json\n")
    await request(port, "PUT", f"/files/{name}.json", b'{"a":\n1}', JSON)
    answer = await read(port, f"{name}.json")
    assert (answer.headers["content-type"], answer.body) == ("application/json", b'{"a":\n1}')


# -- reading


async def test_a_long_stream_comes_in_parts_of_whole_messages(server: Server, name: str) -> None:
    port = server.port
    await put(port, name, b"[]", content_type="application/json")
    sent = [f"{number}{'x' * size}" for number, size in enumerate([700_000, 3, 1_500_000] * 12)]
    for number in range(0, len(sent), 6):
        body = json.dumps(sent[number : number + 6]).encode()
        assert (await request(port, "POST", f"/v1/stream/{name}", body, JSON)).status == 204
    await request(port, "POST", f"/v1/stream/{name}", headers={"stream-closed": "true"})
    got: list[str] = []
    at, parts = "-1", 0
    while True:
        answer = await read(port, name, f"?offset={at}")
        assert answer.status == 200
        assert int(answer.headers["content-length"]) == len(answer.body) < 10_000_000
        got += answer.json()
        parts += 1
        at = answer.headers[NEXT]
        assert ("stream-closed" in answer.headers) == ("stream-up-to-date" in answer.headers) == (len(got) == len(sent))
        if "stream-closed" in answer.headers:
            break
    assert got == sent
    assert parts > 3
    within = await read(port, name, f"?offset={offset(5)}")
    assert (within.status, slug(within)) == (410, "offset-out-of-range")


async def test_a_message_longer_than_a_part_comes_whole(server: Server, name: str) -> None:
    await put(server.port, name, json.dumps(["x" * 12_000_000, 1]).encode(), content_type="application/json")
    first = await read(server.port, name)
    assert (first.json(), "stream-up-to-date" in first.headers) == (["x" * 12_000_000], False)
    assert (await read(server.port, name, f"?offset={first.headers[NEXT]}")).json() == [1]


async def test_events_of_text_are_whole_characters(server: Server, name: str) -> None:
    port, text = server.port, "a\u00fc\U0001f600 end"
    await put(port, name)
    async with Connection(port) as connection:
        await connection.begin("GET", f"/v1/stream/{name}?offset=-1&live=sse")
        await connection.head()
        got, at = "", ""
        stream = events(connection)
        assert json.loads((await anext(stream)).data)["upToDate"]
        for number, byte in enumerate(text.encode()):
            close = {"stream-closed": "true"} if number == len(text.encode()) - 1 else {}
            await request(port, "POST", f"/v1/stream/{name}", bytes([byte]), {**TEXT, **close})
        async for event in stream:
            if event.kind == "data":
                got += event.data
            else:
                told = json.loads(event.data)
                at = told["streamNextOffset"]
                assert text.encode()[: int(at[-16:])].decode() == got
                if told.get("streamClosed"):
                    break
    assert got == text


async def test_events_end_after_their_time_and_go_on_where_they_were() -> None:
    async with application(lifetime=0.2, heartbeat=0.1) as (port, _):
        await put(port, "s", b"one")
        async with Connection(port) as connection:
            await connection.begin("GET", "/v1/stream/s?offset=-1&live=sse")
            await connection.head()
            told = [event async for event in events(connection)]
        assert (told[0].data, told[1].kind) == ("one", "control")
        assert all(json.loads(event.data)["upToDate"] for event in told[1:])


async def test_a_stream_that_broke_never_looks_complete() -> None:
    async with application(long_poll=0.1) as (port, streams):
        await put(port, "s", b"half")
        async with Connection(port) as connection:
            await connection.begin("GET", "/v1/stream/s?offset=-1&live=sse")
            await connection.head()
            stream = events(connection)
            told = [await anext(stream), await anext(stream)]
            await streams.fail("s", "the sensor broke")
            with pytest.raises(Broken):
                await anext(stream)
        assert all("streamClosed" not in event.data for event in told)
        answer = await read(port, "s")
        assert (answer.body, "stream-closed" in answer.headers, "stream-up-to-date" in answer.headers) == (
            b"half",
            False,
            False,
        )
        for query in ("", "&live=long-poll", "&live=sse"):
            rest = await read(port, "s", f"?offset={answer.headers[NEXT]}{query}")
            assert (rest.status, slug(rest)) == (409, "stream-failed")
        head = await request(port, "HEAD", "/v1/stream/s")
        assert ("stream-closed" in head.headers, head.headers["stream-failure"]) == (False, "the sensor broke")
        refused = await request(port, "POST", "/v1/stream/s", b"x", TEXT)
        assert (refused.status, refused.headers["stream-closed"]) == (409, "true")


async def test_what_may_change_is_asked_for_again() -> None:
    async with application() as (port, _):
        await put(port, "s", b"abc")
        open_ = await read(port, "s")
        assert open_.headers["cache-control"] == "public, no-cache"
        same = await request(port, "GET", "/v1/stream/s", headers={"if-none-match": open_.headers["etag"]})
        assert (same.status, same.body, same.headers["etag"]) == (304, b"", open_.headers["etag"])
        await request(port, "POST", "/v1/stream/s", headers={"stream-closed": "true"})
        closed = await request(port, "GET", "/v1/stream/s", headers={"if-none-match": open_.headers["etag"]})
        assert (closed.status, closed.headers["stream-closed"]) == (200, "true")
        assert closed.headers["cache-control"] == "public, max-age=60, stale-while-revalidate=300"
        for headers in (
            (await read(port, "s", "?offset=now")).headers,
            (await request(port, "HEAD", "/v1/stream/s")).headers,
        ):
            assert headers["cache-control"] == "no-store"


async def test_who_waits_is_told_of_a_deletion() -> None:
    async with application(long_poll=20) as (port, streams):
        await put(port, "s")
        waiting = asyncio.create_task(read(port, "s", "?offset=now&live=long-poll"))

        async def waits() -> bool:
            return "s" in streams._notifier._watches  # type: ignore[attr-defined]  # the notifier of one process

        await until(waits, True)
        await request(port, "DELETE", "/v1/stream/s")
        assert (await waiting).status == 410
        assert (await read(port, "s")).status == 404


async def test_a_stream_that_is_waited_for_does_not_expire() -> None:
    names = ("polled", "followed", "forgotten")
    async with application(long_poll=1.5) as (port, _):
        for name in names:
            await put(port, name, stream_ttl="1")
        async with Connection(port) as connection:
            await connection.begin("GET", "/v1/stream/followed?offset=now&live=sse")
            await connection.head()
            assert (await read(port, "polled", "?offset=now&live=long-poll")).status == 204
            statuses = [(await request(port, "HEAD", f"/v1/stream/{name}")).status for name in names]
        assert statuses == [200, 200, 404]


# -- writing


async def test_what_is_too_large_is_refused() -> None:
    async with application(max_append=10) as (port, _):
        await put(port, "s", b"0123456789")
        answer = await request(port, "POST", "/v1/stream/s", b"01234567890", TEXT)
        assert (answer.status, slug(answer)) == (413, "too-large")
        assert (await read(port, "s")).body == b"0123456789"


async def test_the_state_of_the_stream_comes_before_the_faults_of_the_body(server: Server, name: str) -> None:
    port = server.port
    assert (await request(port, "POST", f"/v1/stream/{name}", b"{", JSON)).status == 404
    await put(port, name, b"[1]", content_type="application/json", stream_closed="true")
    closed = await request(port, "POST", f"/v1/stream/{name}", b"{", JSON)
    assert (closed.status, closed.headers["stream-closed"], closed.headers[NEXT]) == (409, "true", offset(2))


async def test_a_sequence_survives_a_restart(tmp_path: Any) -> None:
    async def append(port: int, sequence: str) -> int:
        return (await request(port, "POST", "/v1/stream/s", b"x", {**TEXT, "stream-seq": sequence})).status

    with Server(tmp_path / "data") as first:
        await put(first.port, "s")
        assert await append(first.port, "5") == 204
    with Server(tmp_path / "data") as second:
        assert await append(second.port, "5") == 409
        assert await append(second.port, "6") == 204


@pytest.mark.parametrize("path", ["__ds/x", "__ds", "a//b", "../x", "a%2Fb"])
@pytest.mark.parametrize("method", ["GET", "PUT", "POST", "DELETE"])
async def test_there_are_names_that_streams_do_not_have(server: Server, path: str, method: str) -> None:
    for door in ("/v1/stream/", "/files/", "/live/"):
        answer = await request(server.port, method, f"{door}{path}", b"x" if method in {"PUT", "POST"} else b"", TEXT)
        assert answer.status in {400, 404, 405}
        assert answer.status != 404 or path.startswith("__ds") or "." in path


# -- forks


async def test_a_fork_is_read_through_every_door(server: Server, name: str) -> None:
    port = server.port
    await put(port, f"{name}/a b", b"0123456789")
    fork = await put(
        port, f"{name}/fork", b"abc", stream_forked_from=f"/v1/stream/{name}/a%20b", stream_fork_offset=offset(5)
    )
    assert fork.headers[NEXT] == offset(8)
    await put(
        port, f"{name}/second", b"XYZ", stream_forked_from=f"/v1/stream/{name}/fork", stream_fork_offset=offset(6)
    )
    await request(port, "POST", f"/v1/stream/{name}/second", headers={"stream-closed": "true"})
    assert (await read(port, f"{name}/second")).body == b"01234aXYZ"
    assert (await request(port, "GET", f"/files/{name}/second")).body == b"01234aXYZ"
    part = await request(port, "GET", f"/files/{name}/second", headers={"range": "bytes=3-7"})
    assert (part.status, part.body) == (206, b"34aXY")
    digest = (await request(port, "GET", f"/files/{name}/second", headers={"want-repr-digest": "sha-256=1"})).headers
    assert "repr-digest" in digest
    assert (await read(port, f"{name}/second", f"?offset={offset(4)}&live=long-poll")).body == b"4aXYZ"


async def test_a_fork_of_messages_begins_between_two_of_them(server: Server, name: str) -> None:
    port = server.port
    await put(port, name, b'[{"a": 1}, 2, 3]', content_type="application/json")
    fields = {"stream-forked-from": f"/v1/stream/{name}", "stream-fork-offset": offset(3)}
    answer = await request(port, "PUT", f"/v1/stream/{name}/fork", headers=fields)
    assert (answer.status, slug(answer)) == (400, "fork-out-of-range")
    elsewhere = await request(port, "PUT", f"/v1/stream/{name}/fork", headers={"stream-forked-from": f"/other/{name}"})
    assert elsewhere.status == 400
    alone = await request(port, "PUT", f"/v1/stream/{name}/fork", headers={"stream-fork-offset": offset(0)})
    assert alone.status == 400


async def test_a_deleted_source_is_gone_for_all_doors_but_not_for_its_forks(server: Server, name: str) -> None:
    port = server.port
    await put(port, name, b"source")
    await put(port, f"{name}/fork", b"+", stream_forked_from=f"/v1/stream/{name}")
    again = await request(port, "PUT", f"/v1/stream/{name}/fork", headers={"stream-forked-from": f"/v1/stream/{name}"})
    assert again.status == 200
    assert (await request(port, "DELETE", f"/files/{name}")).status == 204
    for method, path in (("GET", "/v1/stream/"), ("GET", "/files/"), ("GET", "/live/"), ("DELETE", "/files/")):
        answer = await request(port, method, f"{path}{name}")
        assert (answer.status, slug(answer)) == (410, "stream-gone")
    for path in ("/v1/stream/", "/files/"):
        answer = await request(port, "PUT", f"{path}{name}", b"x", TEXT)
        assert (answer.status, slug(answer)) == (409, "forks-remain")
    listed = (await request(port, "GET", f"/files/?prefix={name}")).json()["streams"]
    assert [stream["name"] for stream in listed] == [f"{name}/fork"]
    # It is there as it was asked for, whatever became of the source.
    again = await request(port, "PUT", f"/v1/stream/{name}/fork", headers={"stream-forked-from": f"/v1/stream/{name}"})
    assert (again.status, (await read(port, f"{name}/fork")).body) == (200, b"source+")
    assert (await request(port, "DELETE", f"/v1/stream/{name}/fork")).status == 204
    assert (await read(port, name)).status == 404
    await put(port, name)


async def test_a_replaced_source_stays_for_its_forks(server: Server, name: str) -> None:
    port = server.port
    await put(port, name, b"old", stream_closed="true")
    await put(port, f"{name}/fork", stream_forked_from=f"/v1/stream/{name}")
    assert (await request(port, "PUT", f"/files/{name}", b"new", TEXT)).status == 200
    assert ((await read(port, name)).body, (await read(port, f"{name}/fork")).body) == (b"new", b"old")


async def test_what_a_crash_leaves_between_two_commits_is_swept() -> None:
    store = FaultyStore(MemoryStore())
    async with StreamService(store, InProcessNotifier()) as service:
        streams = Streams(store, notifier=InProcessNotifier())
        app = FastAPI()
        app.include_router(streams.durable(subscriptions=False))
        async with serving(app, lifespan="off") as port:
            await put(port, "source", b"abc")
            source = await service.info("source")
            await put(port, "fork", b"d", stream_forked_from="/v1/stream/source")
            await service.delete("source")
            with pytest.raises(StreamGone):
                await service.info("source")
            store.refuse(StorageFailed("the process ended"), skip=1)  # the fork is removed, its source is not
            await service.delete("fork")
        assert [info.incarnation for info in await store.orphans(10)] == [source.incarnation]
        with pytest.raises(StreamGone):
            await service.info("source")
        await service.sweep()
        with pytest.raises(StreamNotFound):
            await service.info("source")
        await service.create("source", StreamSpec())


# -- who may


async def test_a_fork_is_a_read_of_its_source() -> None:
    def authorize(_: object, action: str, name: str) -> bool:
        return not (name == "secret" and action == "read")

    async with application(authorize=authorize) as (port, _):
        await put(port, "secret", b"abc")
        await put(port, "open", b"abc")
        forked = await request(port, "PUT", "/v1/stream/fork", headers={"stream-forked-from": "/v1/stream/secret"})
        assert forked.status == 403
        assert (await read(port, "secret")).status == 403
        assert (await read(port, "open")).headers["cache-control"] == "private, no-cache"
        subscribed = {"type": "pull-wake", "streams": ["secret"], "wake_stream": "wake"}
        answer = await request(port, "PUT", "/v1/stream/__ds/subscriptions/s", json.dumps(subscribed).encode(), JSON)
        assert answer.status == 403


async def test_any_page_may_ask(server: Server, name: str) -> None:
    asked = {"origin": "https://page.example", "access-control-request-method": "PUT"}
    answer = await request(server.port, "OPTIONS", f"/v1/stream/{name}", headers=asked)
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (204, "*")
    assert "PUT" in answer.headers["access-control-allow-methods"]
    assert "If-None-Match" in answer.headers["access-control-allow-headers"]
    for refused in (await read(server.port, name), await request(server.port, "PATCH", f"/v1/stream/{name}")):
        assert refused.headers["access-control-allow-origin"] == "*"
        assert refused.headers["x-content-type-options"] == "nosniff"
        assert "Stream-Next-Offset" in refused.headers["access-control-expose-headers"]


# -- other readers


async def test_curl_reads_and_follows(workers: Server, name: str) -> None:
    url = f"{workers.url}/v1/stream/{name}"
    curl = tool("curl")

    async def run(*arguments: str) -> bytes:
        process = await asyncio.create_subprocess_exec(
            curl, "-sSf", *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        out, err = await process.communicate()
        assert process.returncode == 0, err
        return out

    await run("-X", "PUT", "-H", "Content-Type: application/json", url)
    following = asyncio.create_task(run("-N", f"{url}?offset=-1&live=sse"))
    for number in range(5):
        await run("-d", f'{{"n":{number}}}', "-H", "Content-Type: application/json", url)
    await run("-X", "POST", "-H", "Stream-Closed: true", url)
    told = [line[5:] for line in (await following).decode().splitlines() if line.startswith("data:[")]
    assert [value for line in told for value in json.loads(line)] == [{"n": number} for number in range(5)]
    assert json.loads(await run(url)) == [{"n": number} for number in range(5)]


async def test_httpx_polls_and_resumes(workers: Server, name: str) -> None:
    async with httpx.AsyncClient(base_url=f"{workers.url}/v1/stream/") as client:
        assert (await client.put(name, headers=TEXT)).status_code == 201

        async def write() -> None:
            for number in range(30):
                assert (await client.post(name, content=f"{number},", headers=TEXT)).status_code == 204
            assert (await client.post(name, headers={"stream-closed": "true"})).status_code == 204

        async def poll() -> str:
            text, query = "", {"offset": "-1", "live": "long-poll"}
            while True:
                answer = await client.get(name, params=query, timeout=30)
                text += answer.text
                if answer.headers.get("stream-closed") == "true":
                    return text
                query |= {"offset": answer.headers[NEXT], "cursor": answer.headers["stream-cursor"]}

        text, _ = await asyncio.gather(poll(), write())
    assert text == "".join(f"{number}," for number in range(30))


# -- streams that keep a part


async def test_what_is_not_kept_is_gone(server: Server, name: str) -> None:
    port = server.port
    keep = {**JSON, "stream-retention": "records=2"}
    # In one append, so that the beginning is dropped once, and not again while it is looked at.
    await request(port, "POST", f"/live/{name}?batch", json.dumps(list(range(20))).encode(), keep)

    async def status() -> int:
        return (await read(port, name)).status

    await until(status, 410)
    start = (await read(port, name)).json()["start"]
    kept = await read(port, name, f"?offset={offset(start)}")
    assert kept.json() == list(range(20))[-len(kept.json()) :]
    fields = {"stream-forked-from": f"/v1/stream/{name}", "stream-fork-offset": offset(0)}
    assert (await request(port, "PUT", f"/v1/stream/{name}/fork", headers=fields)).status == 400
    await request(port, "PUT", f"/v1/stream/{name}/fork", headers={"stream-forked-from": f"/v1/stream/{name}"})
    assert (await read(port, f"{name}/fork")).status == 410
    assert (await read(port, f"{name}/fork", f"?offset={offset(start)}")).json() == kept.json()


async def test_a_compacted_stream_begins_with_what_is_kept(server: Server, name: str) -> None:
    port = server.port
    compact = {**JSON, "stream-compact": "id"}
    for batch in range(4):
        records = [{"id": number % 3, "n": number, "x": "y" * 2000} for number in range(batch * 25, batch * 25 + 25)]
        lines = b"".join(json.dumps(record).encode() + b"\n" for record in records)
        await request(port, "POST", f"/live/{name}", lines, {**compact, "content-type": "application/x-ndjson"})

    async def records_left() -> bool:
        return len((await read(port, name)).json()) < 100

    await until(records_left, True)
    answer = await read(port, name)
    assert answer.status == 200
    assert {value["id"]: value["n"] for value in answer.json()} == {0: 99, 1: 97, 2: 98}
