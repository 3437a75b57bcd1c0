"""Uploads by the IETF's resumable uploads, request by request, in all versions of the draft."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse

from applications import serving
from penstock import Streams
from resuming import PARTIAL, Client, told
from servers import Server
from wire import Answer, Connection, request, until

IANA = "https://iana.org/assignments/http-problem-types#"
VERSIONS: list[int | None] = [3, 4, 5, 6, 7, 8, None]
INFORMATIONAL = "penstock.server.protocol:InformationalProtocol"

BODY = random.Random(1).randbytes(300_000)


@pytest.fixture(params=VERSIONS, ids=str)
def client(request: pytest.FixtureRequest, server: Server) -> Client:
    return Client(server.port, request.param)


@pytest.fixture
def newest(server: Server) -> Client:
    return Client(server.port)


def digest(data: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"


async def content(client: Client, path: str) -> bytes:
    got = await request(client.port, "GET", path)
    assert got.status == 200
    return got.body


@asynccontextmanager
async def application(streams: Streams | None = None, **options: Any) -> AsyncIterator[int]:
    """An application with the files door, on a server that sends interim responses."""
    streams = streams or Streams(":memory:")
    app = FastAPI(lifespan=streams.lifespan)
    app.include_router(streams.files(**options))
    async with serving(app, http=INFORMATIONAL) as port:
        yield port


# -- in every version -------------------------------------------------------------------------------------------------


async def test_an_upload_in_one_request(client: Client, name: str) -> None:
    done = await client.create(f"/files/{name}", BODY, content_type="text/csv")
    assert done.status == 201
    assert client.complete(done.headers) is True
    assert done.headers["upload-offset"] == str(len(BODY))
    assert done.answer.json()["name"] == name
    if client.version is None:
        assert done.interim == []
    else:
        assert [status for status, _ in done.interim] == [104]
        assert done.announced["upload-draft-interop-version"] == str(client.version)
        assert "upload-limit" in done.announced
        location = done.announced["location"]
        assert location.startswith(f"/files/{name}?")
        assert (done.headers["location"] == location) == (client.version <= 6)
        seen = await client.look(location)
        assert (seen.status, seen.headers["upload-offset"], client.complete(seen.headers)) == (204, "300000", True)
        assert seen.headers["upload-length"] == "300000"
    got = await request(client.port, "GET", f"/files/{name}")
    assert (got.status, got.headers["content-type"], got.body) == (200, "text/csv", BODY)


async def test_an_upload_in_parts(client: Client, name: str) -> None:
    begun = await client.create(f"/files/{name}", b"abc", complete=False)
    location = begun.headers["location"]
    assert (begun.status, client.complete(begun.headers), begun.headers["upload-offset"]) == (201, False, "3")
    assert begun.headers["content-length"] == "0"
    assert "upload-limit" in begun.headers
    assert [fields["location"] for _, fields in begun.interim if "location" in fields] == [location] * len(
        begun.interim
    )

    more = await client.append(location, b"def", 3, complete=False)
    assert more.status == (201 if client.version in {3, 4, 5, 6} else 204)
    assert (client.complete(more.headers), more.headers["upload-offset"]) == (False, "6")
    assert more.interim == []

    seen = await client.look(location)
    assert (seen.status, client.complete(seen.headers), seen.headers["upload-offset"]) == (204, False, "6")
    assert seen.headers["cache-control"] == "no-store"
    assert "upload-length" not in seen.headers

    done = await client.append(location, b"ghi", 6)
    assert (done.status, client.complete(done.headers), done.headers["upload-offset"]) == (201, True, "9")
    assert done.answer.json()["tail"] == 9
    assert await content(client, f"/files/{name}") == b"abcdefghi"


async def test_an_upload_that_begins_with_nothing(client: Client) -> None:
    begun = await client.create("/files/", b"", complete=False, method="POST", upload_length="9")
    location = begun.headers["location"]
    assert (begun.status, begun.headers["upload-length"]) == (201, "9")
    assert (await client.look(location)).headers["upload-length"] == "9"
    done = await client.append(location, b"abcdefghi", 0, chunked=True)
    assert (done.status, done.answer.json()["tail"]) == (201, 9)
    assert await content(client, done.answer.json()["url"]) == b"abcdefghi"


async def test_an_upload_that_was_cut_goes_on(client: Client, name: str) -> None:
    begun = await client.create(f"/files/{name}", b"", complete=False)
    location = begun.headers["location"]
    async with Connection(client.port) as connection:
        fields = client.fields(True, content_type=PARTIAL, upload_offset="0")
        await connection.begin("PATCH", location, {**fields, "content-length": str(len(BODY))})
        await connection.write(BODY[:200_000])

        async def tail() -> int:
            return int((await request(client.port, "HEAD", f"/files/{name}")).headers["stream-tail"])

        await until(tail, 200_000)
    assert await client.offset(location) == 200_000
    done = await client.append(location, BODY[200_000:], 200_000)
    assert done.status == 201
    assert await content(client, f"/files/{name}") == BODY


async def test_a_client_that_comes_back_at_once_takes_over(client: Client, name: str) -> None:
    begun = await client.create(f"/files/{name}", b"", complete=False)
    location = begun.headers["location"]
    async with Connection(client.port) as stale:
        fields = client.fields(True, content_type=PARTIAL, upload_offset="0", content_length="6")
        await stale.begin("PATCH", location, fields)
        await stale.write(b"abc")
        await until(lambda: tail_of(client.port, name), "3")
        assert await client.offset(location) == 3  # while the other request still hangs
        evicted = (await told(stale)).answer
        assert (evicted.status, evicted.json()["type"]) == (409, "https://penstock.dev/problems/writer-evicted")
        assert client.complete(evicted.headers) is False
    done = await client.append(location, b"def", 3)
    assert done.status == 201
    assert await content(client, f"/files/{name}") == b"abcdef"


async def tail_of(port: int, name: str) -> str:
    return (await request(port, "HEAD", f"/files/{name}")).headers.get("stream-tail", "")


async def test_an_upload_that_is_cancelled_is_gone(client: Client, name: str) -> None:
    location = (await client.create(f"/files/{name}", b"abc", complete=False)).headers["location"]
    async with Connection(client.port) as writing:
        fields = client.fields(True, content_type=PARTIAL, upload_offset="3", content_length="1000")
        await writing.begin("PATCH", location, fields)
        await writing.write(b"def")
        await until(lambda: tail_of(client.port, name), "6")
        assert (await client.cancel(location)).status == 204
        assert (await told(writing)).status == 404
    assert (await client.look(location)).status == 404
    assert (await client.append(location, b"x", 3)).status == 404
    assert (await client.cancel(location)).status == 404
    assert (await request(client.port, "GET", f"/files/{name}")).status == 404


async def test_a_wrong_offset_is_refused_with_the_right_one(client: Client, name: str) -> None:
    location = (await client.create(f"/files/{name}", b"abc", complete=False)).headers["location"]
    for offset in (0, 2, 4, 10**14):
        refused = await client.append(location, b"xyz", offset)
        assert (refused.status, refused.headers["upload-offset"]) == (409, "3")
        assert client.complete(refused.headers) is False
        problem = refused.answer.json()
        assert problem["type"] == IANA + "mismatching-upload-offset"
        assert (problem["expected-offset"], problem["provided-offset"]) == (3, offset)
    assert await content(client, f"/files/{name}") == b"abc"


async def test_an_empty_file(client: Client, name: str) -> None:
    done = await client.create(f"/files/{name}", b"")
    assert (done.status, client.complete(done.headers), done.headers["upload-offset"]) == (201, True, "0")
    assert await content(client, f"/files/{name}") == b""


async def test_lengths_that_contradict_each_other_are_refused(client: Client, name: str) -> None:
    refused = await client.create(f"/files/{name}", b"abc", upload_length="4")
    assert (refused.status, refused.answer.json()["type"]) == (400, IANA + "inconsistent-upload-length")
    assert (await request(client.port, "GET", f"/files/{name}")).status == 404
    location = (await client.create(f"/files/{name}", b"abc", False, upload_length="6")).headers["location"]
    requests: list[tuple[bytes, bool, dict[str, Any]]] = [
        (b"de", True, {}),
        (b"defg", True, {}),
        (b"defg", False, {}),
        (b"def", True, {"upload_length": "7"}),
    ]
    for body, complete, fields in requests:
        refused = await client.append(location, body, 3, complete, **fields)
        assert (refused.status, refused.answer.json()["type"]) == (400, IANA + "inconsistent-upload-length")
        assert client.complete(refused.headers) is False
        assert await client.offset(location) == 3
    assert (await client.append(location, b"def", 3, upload_length="6")).status == 201


async def test_more_than_the_length_is_refused_also_where_it_comes_unannounced(client: Client, name: str) -> None:
    location = (await client.create(f"/files/{name}", b"abc", False, upload_length="6")).headers["location"]
    refused = await client.append(location, b"defghi", 3, chunked=True)
    assert (refused.status, refused.answer.json()["type"]) == (400, IANA + "inconsistent-upload-length")
    seen = await client.look(location)
    if client.version in {8, None}:
        assert seen.status == 404
    else:
        assert (seen.status, seen.headers["upload-offset"]) == (204, "3")


async def test_less_than_the_length_does_not_complete_it(client: Client, name: str) -> None:
    location = (await client.create(f"/files/{name}", b"abc", False, upload_length="6")).headers["location"]
    refused = await client.append(location, b"de", 3, chunked=True)
    assert (refused.status, refused.answer.json()["type"]) == (400, IANA + "inconsistent-upload-length")
    assert await client.offset(location) == 5
    assert (await client.append(location, b"f", 5)).status == 201


async def test_in_early_versions_an_upload_is_complete_when_it_has_its_length(client: Client, name: str) -> None:
    location = (await client.create(f"/files/{name}", b"abc", False, upload_length="6")).headers["location"]
    done = await client.append(location, b"def", 3, complete=False)
    early = client.version in {3, 4, 5, 6}
    assert client.complete(done.headers) is client.complete((await client.look(location)).headers) is early
    last = await client.append(location, b"", 6)
    assert (last.status, client.complete(last.headers)) == (201, True)
    empty = await client.create(f"/files/{name}-empty", b"", complete=False, upload_length="0")
    assert (empty.status, client.complete(empty.headers)) == (201, early)


async def test_a_completed_upload_is_not_changed(client: Client, name: str) -> None:
    location = (await client.create(f"/files/{name}", b"abc", complete=False)).headers["location"]
    done = await client.append(location, b"def", 3)
    again = await client.append(location, b"", 6)
    if client.version == 7:
        assert (again.status, again.answer.json()["type"]) == (400, IANA + "completed-upload")
    else:  # who did not hear the answer is given it again
        assert (again.status, again.answer.body) == (done.status, done.answer.body)
        assert client.complete(again.headers) is True
    for body, offset, complete, status, slug in (
        (b"", 3, True, 409, "mismatching-upload-offset"),
        (b"x", 6, True, 400, "inconsistent-upload-length"),
        (b"", 6, False, 400, "completed-upload"),
    ):
        refused = await client.append(location, body, offset, complete)
        assert (refused.status, refused.answer.json()["type"]) == (status, IANA + slug)
        assert client.complete(refused.headers) is False
    assert await content(client, f"/files/{name}") == b"abcdef"
    assert (await client.cancel(location)).status == 204  # the upload; the file stays
    assert (await client.look(location)).status == 404
    assert await content(client, f"/files/{name}") == b"abcdef"


# -- where versions differ --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [3, 4, 5])
async def test_early_versions_have_no_media_type_of_appends(server: Server, name: str, version: int) -> None:
    client = Client(server.port, version)
    location = (await client.create(f"/files/{name}", b"abc", complete=False)).headers["location"]
    assert (await client.append(location, b"d", 3, content_type="image/png")).status == 201


@pytest.mark.parametrize("version", [6, 7, 8, None])
async def test_later_ones_insist_on_it(server: Server, name: str, version: int | None) -> None:
    client = Client(server.port, version)
    location = (await client.create(f"/files/{name}", b"abc", complete=False)).headers["location"]
    refused = await client.append(location, b"d", 3, content_type="image/png")
    assert (refused.status, refused.headers["accept-patch"]) == (415, PARTIAL)
    assert await client.offset(location) == 3


@pytest.mark.parametrize(("version", "complete"), [(3, True), (4, False), (5, False), (6, False)])
async def test_what_early_appends_mean_that_do_not_say(server: Server, name: str, version: int, complete: bool) -> None:
    client = Client(server.port, version)
    location = (await client.create(f"/files/{name}", b"abc", complete=False)).headers["location"]
    assert client.complete((await client.append(location, b"d", 3, complete=None)).headers) is complete


@pytest.mark.parametrize("version", [7, 8, None])
async def test_later_ones_must_say(server: Server, name: str, version: int | None) -> None:
    client = Client(server.port, version)
    location = (await client.create(f"/files/{name}", b"abc", complete=False)).headers["location"]
    assert (await client.append(location, b"d", 3, complete=None)).status == 400
    assert (await client.append(location, b"d", None)).status == 400
    assert await client.offset(location) == 3


@pytest.mark.parametrize("version", [3, 4, 5, 6])
async def test_early_versions_want_bare_requests(server: Server, name: str, version: int) -> None:
    client = Client(server.port, version)
    location = (await client.create(f"/files/{name}", b"abc", complete=False)).headers["location"]
    assert (await client.look(location, upload_offset="3")).status == 400
    assert (await client.cancel(location, upload_offset="3")).status == 400
    assert await client.offset(location) == 3


async def test_an_unknown_version_gets_no_interim_response(server: Server, name: str) -> None:
    client = Client(server.port, 99)
    begun = await client.create(f"/files/{name}", b"abc", complete=False)
    assert (begun.status, begun.interim) == (201, [])
    assert (await client.append(begun.headers["location"], b"d", 3)).status == 201


async def test_a_body_without_a_word_of_uploads_is_taken_as_ever(server: Server, name: str) -> None:
    for fields in ({}, {"upload-complete": "true"}, {"upload-draft-interop-version": "8"}):
        stored = await request(server.port, "PUT", f"/files/{name}", b"abc", fields)
        assert stored.status in {200, 201}
        assert "upload-complete" not in stored.headers


async def test_a_creation_that_tells_an_offset_is_refused(newest: Client, name: str) -> None:
    refused = await newest.create(f"/files/{name}", b"abc", upload_offset="0")
    assert (refused.status, refused.headers["upload-complete"]) == (400, "?0")
    assert (await request(newest.port, "GET", f"/files/{name}")).status == 404


async def test_a_patch_elsewhere_than_at_an_upload_is_refused(newest: Client, name: str) -> None:
    assert (await newest.append(f"/files/{name}", b"abc", 0)).status == 400
    assert (await request(newest.port, "PATCH", f"/files/{name}", b"abc")).status == 405
    for path in (f"/files/{name}?upload=0123456789abcdef", f"/files/{name}?upload="):
        assert (await newest.append(path, b"abc", 0)).status == 404
        assert (await newest.look(path)).status == 404
    stored = await request(newest.port, "PUT", f"/files/{name}", b"abc")  # no upload of this protocol
    path = f"/files/{name}?upload={stored.headers['stream-incarnation']}"
    assert (await newest.look(path)).status == 404
    assert (await newest.cancel(path)).status == 404
    assert await content(newest, f"/files/{name}") == b"abc"


# -- interim responses ------------------------------------------------------------------------------------------------


async def test_one_request_that_is_cut_goes_on_where_the_interim_response_said(newest: Client, name: str) -> None:
    async with Connection(newest.port) as connection:
        await connection.begin("PUT", f"/files/{name}", newest.fields(True, content_length=str(len(BODY))))
        assert await connection.head() == 104
        location = connection.headers["location"]
        await connection.write(BODY[:100_000])
        await until(lambda: tail_of(newest.port, name), "100000")
    assert await newest.offset(location) == 100_000
    done = await newest.append(location, BODY[100_000:], 100_000)
    assert (done.status, done.headers["location"]) == (201, f"/files/{name}")
    assert await content(newest, f"/files/{name}") == BODY


async def test_progress_is_told_while_the_bytes_arrive(newest: Client, name: str) -> None:
    async with Connection(newest.port) as connection:
        await connection.begin("PUT", f"/files/{name}", newest.fields(True, content_length="1000000"))
        assert await connection.head() == 104
        location = connection.headers["location"]
        offsets: list[int] = []
        sending = asyncio.create_task(_trickle(connection, 1_000_000))
        while await connection.head() == 104:
            assert "location" not in connection.headers
            assert connection.headers["upload-draft-interop-version"] == "8"
            offsets.append(int(connection.headers["upload-offset"]))
        assert connection.status == 201
        await sending
    assert offsets
    assert offsets == sorted(set(offsets))
    assert await newest.offset(location) == 1_000_000


async def _trickle(connection: Connection, size: int) -> None:
    """Send for about two seconds, so that progress is told once at least."""
    for _ in range(20):
        await connection.write(b"x" * (size // 20))
        await asyncio.sleep(0.12)


async def test_expecting_100_continue_one_gets_both(newest: Client, name: str) -> None:
    async with Connection(newest.port) as connection:
        fields = newest.fields(True, content_length="3", expect="100-continue")
        await connection.begin("PUT", f"/files/{name}", fields)
        assert [await connection.head(), await connection.head()] == [104, 100]
        await connection.write(b"abc")
        assert (await told(connection)).status == 201


# -- a PUT is a PUT ---------------------------------------------------------------------------------------------------


async def test_a_file_is_replaced_when_the_upload_is_complete(newest: Client, name: str) -> None:
    path = f"/files/{name}"
    await request(newest.port, "PUT", path, b"old")
    location = (await newest.create(path, b"new", complete=False)).headers["location"]
    assert await content(newest, path) == b"old"
    assert await newest.offset(location) == 3
    assert (await newest.append(location, b"er", 3)).status == 200
    assert await content(newest, path) == b"newer"
    assert (await newest.append(location, b"", 5)).status == 200


async def test_conditions_are_asked_at_the_beginning_and_at_the_end(newest: Client, name: str) -> None:
    path = f"/files/{name}"
    first = await request(newest.port, "PUT", path, b"one")
    assert (await newest.create(path, b"two", if_match='"other"')).status == 412
    assert (await newest.create(path, b"two", complete=False, if_none_match="*")).status == 412
    etag = first.headers["etag"]
    kept, late = [
        (await newest.create(path, b"two", complete=False, if_match=etag)).headers["location"] for _ in range(2)
    ]
    assert (await newest.append(kept, b"", 3)).status == 200
    refused = await newest.append(late, b"", 3)
    assert (refused.status, refused.headers["upload-complete"]) == (412, "?1")
    assert (await newest.look(late)).status == 404
    assert await content(newest, path) == b"two"


async def test_a_put_that_was_cut_and_is_sent_anew_is_not_held_up(newest: Client, name: str) -> None:
    path = f"/files/{name}"
    async with Connection(newest.port) as connection:
        await connection.begin("PUT", path, newest.fields(True, content_length="1000"))
        await connection.write(b"abc")
        await until(lambda: tail_of(newest.port, name), "3")
    for answer in (
        (await newest.create(path, b"again", if_none_match="*")).answer,
        await request(newest.port, "PUT", path, b"again"),
    ):
        assert answer.status in {200, 201}
    assert await content(newest, path) == b"again"


async def test_what_is_being_uploaded_can_be_read_and_followed(newest: Client, name: str) -> None:
    location = (await newest.create(f"/files/{name}", b"abc", complete=False)).headers["location"]
    async with Connection(newest.port) as follower:
        await follower.begin("GET", f"/files/{name}?follow")
        assert await follower.head() == 200
        body = follower.body()
        assert await anext(body) == b"abc"
        ranged = await request(newest.port, "GET", f"/files/{name}", headers={"range": "bytes=1-"})
        assert (ranged.status, ranged.body) == (206, b"bc")
        await newest.append(location, b"def", 3)
        assert b"".join([data async for data in body]) == b"def"


async def test_the_name_and_type_of_a_file_are_kept(newest: Client) -> None:
    begun = await newest.create(
        "/files/",
        b"a,b\n",
        complete=False,
        method="POST",
        content_disposition="inline; filename=\"x.csv\"; filename*=UTF-8''%C3%BC.csv",
    )
    done = (await newest.append(begun.headers["location"], b"", 4)).answer.json()
    assert (done["metadata"], done["content_type"]) == ({"filename": "ü.csv"}, "text/csv")


async def test_the_name_and_type_may_be_told_as_in_tus(newest: Client) -> None:
    written = ",".join(
        f"{name} {base64.b64encode(value.encode()).decode()}"
        for name, value in {"filename": "ü.bin", "filetype": "text/x-own", "own": "x"}.items()
    )
    fields: dict[str, Any] = {"upload_metadata": written, "content_type": PARTIAL}
    done = (await newest.create("/files/", b"abc", method="POST", **fields)).answer.json()
    assert (done["metadata"]["filename"], done["metadata"]["own"]) == ("ü.bin", "x")
    assert done["content_type"] == "text/x-own"
    fields = {"upload_metadata": "filename !", "content_type": PARTIAL}
    assert (await newest.create("/files/", b"abc", method="POST", **fields)).status == 400


@pytest.mark.parametrize("method", ["PUT", "POST", "PATCH"])
async def test_an_upload_begins_with_any_method_that_has_a_body(newest: Client, name: str, method: str) -> None:
    begun = await newest.create(f"/files/{name}", b"abc", complete=False, method=method)
    assert begun.status == 201
    assert (await newest.append(begun.headers["location"], b"def", 3)).status == 201
    assert await content(newest, f"/files/{name}") == b"abcdef"


async def test_a_coded_body_is_refused(newest: Client, name: str) -> None:
    refused = await newest.create(f"/files/{name}", b"abc", content_encoding="gzip")
    assert (refused.status, refused.headers["upload-complete"]) == (415, "?0")
    location = (await newest.create(f"/files/{name}", b"abc", complete=False)).headers["location"]
    assert (await newest.append(location, b"d", 3, content_encoding="gzip")).status == 415


# -- digests ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [1, 2], ids=["one request", "two requests"])
async def test_the_digest_of_the_whole_is_verified(newest: Client, name: str, parts: int) -> None:
    for given, status in ((BODY, 201), (b"other", 400)):
        path = f"/files/{name}-{status}"
        fields: dict[str, Any] = {"repr_digest": digest(given)}
        if parts == 1:
            done = await newest.create(path, BODY, **fields)
            location = done.announced["location"]
        else:
            location = (await newest.create(path, BODY[:99], complete=False, **fields)).headers["location"]
            done = await newest.append(location, BODY[99:], 99)
        assert (done.status, done.headers["upload-complete"]) == (status, "?1")
        if status == 201:
            assert done.headers["repr-digest"] == digest(BODY)
            assert await content(newest, path) == BODY
        else:
            assert done.answer.json()["type"].endswith("/digest-mismatch")
            assert (await newest.look(location)).status == 404
            assert (await request(newest.port, "GET", path)).status == 404


async def test_the_digest_of_the_whole_may_come_last(newest: Client, name: str) -> None:
    location = (await newest.create(f"/files/{name}", b"abc", complete=False)).headers["location"]
    done = await newest.append(location, b"def", 3, repr_digest=digest(b"abcdef"))
    assert (done.status, done.headers["repr-digest"]) == (201, digest(b"abcdef"))


@pytest.mark.parametrize("method", ["PATCH", "HEAD"])
async def test_what_the_creation_asked_for_holds_where_tus_ends_the_upload(
    newest: Client, name: str, method: str
) -> None:
    path, sent = f"/files/{name}", BODY[:99] if method == "PATCH" else BODY  # a HEAD finds that all of it is there

    async def begun(path: str, **fields: Any) -> str:
        told = await newest.create(path, sent, complete=False, upload_length=str(len(BODY)), **fields)
        return told.headers["location"]

    async def ended(location: str) -> int:
        fields = {"tus-resumable": "1.0.0", "content-type": "application/offset+octet-stream", "upload-offset": "99"}
        return (await request(newest.port, method, location, BODY[len(sent) :] or None, fields)).status

    done = 204 if method == "PATCH" else 200
    first, second = [await begun(path, repr_digest=digest(BODY), if_none_match="*") for _ in range(2)]
    wrong = await begun(f"{path}-wrong", repr_digest=digest(b"other"))
    wanted = await begun(f"{path}-wanted", want_repr_digest="sha-256=1")
    assert [await ended(location) for location in (first, second, wrong, wanted)] == [done, 412, 400, done]
    assert [(await newest.look(location)).status for location in (second, wrong)] == [404, 404]
    assert await content(newest, path) == BODY
    assert (await request(newest.port, "GET", f"{path}-wrong")).status == 404
    assert (await newest.append(wanted, b"", len(BODY))).headers["repr-digest"] == digest(BODY)


async def test_a_digest_that_is_wanted_is_told(newest: Client, name: str) -> None:
    begun = await newest.create(f"/files/{name}", b"abc", complete=False, want_repr_digest="sha-256=1")
    done = await newest.append(begun.headers["location"], b"def", 3)
    assert done.headers["repr-digest"] == digest(b"abcdef")


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
async def test_content_that_is_not_what_its_digest_says_is_not_appended(
    newest: Client, name: str, chunked: bool
) -> None:
    location = (await newest.create(f"/files/{name}", b"abc", complete=False)).headers["location"]
    wrong = {"content_digest": digest(b"other")}
    for complete in (False, True):
        refused = await newest.append(location, BODY, 3, complete, chunked=chunked, **wrong)
        assert (refused.status, refused.headers["upload-complete"]) == (400, "?0")
        assert refused.answer.json()["type"].endswith("/digest-mismatch")
        assert await newest.offset(location) == 3
        assert await content(newest, f"/files/{name}") == b"abc"
    done = await newest.append(location, BODY, 3, chunked=chunked, content_digest=digest(BODY))
    assert done.status == 201
    assert await content(newest, f"/files/{name}") == b"abc" + BODY


async def test_content_with_a_digest_that_is_cut_is_not_appended(newest: Client, name: str) -> None:
    location = (await newest.create(f"/files/{name}", b"abc", complete=False)).headers["location"]
    async with Connection(newest.port) as connection:
        fields = newest.fields(True, content_type=PARTIAL, upload_offset="3", content_digest=digest(BODY))
        await connection.begin("PATCH", location, {**fields, "content-length": str(len(BODY))})
        await connection.write(BODY[:100_000])
    assert await newest.offset(location) == 3
    assert (await newest.append(location, BODY, 3, content_digest=digest(BODY))).status == 201
    assert await content(newest, f"/files/{name}") == b"abc" + BODY


async def test_the_first_part_may_have_a_digest_too(newest: Client, name: str) -> None:
    refused = await newest.create(f"/files/{name}", b"abc", complete=False, content_digest=digest(b"x"))
    assert (refused.status, refused.headers["upload-complete"]) == (400, "?0")
    begun = await newest.create(f"/files/{name}", b"abc", complete=False, content_digest=digest(b"abc"))
    assert (begun.status, begun.headers["upload-offset"]) == (201, "3")


async def test_of_one_request_the_digest_of_the_content_is_the_whole_s(newest: Client, name: str) -> None:
    refused = await newest.create(f"/files/{name}", BODY, content_digest=digest(b"x"))
    assert (refused.status, refused.headers["upload-complete"]) == (400, "?1")
    assert (await request(newest.port, "GET", f"/files/{name}")).status == 404
    location = (await newest.create(f"/files/{name}", b"", complete=False)).headers["location"]
    refused = await newest.append(location, BODY, 0, content_digest=digest(b"x"))
    assert (refused.status, refused.headers["upload-complete"]) == (400, "?1")
    contradiction: dict[str, Any] = {"content_digest": digest(b"x"), "repr_digest": digest(b"y")}
    assert (await newest.create(f"/files/{name}", BODY, **contradiction)).status == 400
    assert (await newest.create(f"/files/{name}", BODY, content_digest="nonsense")).status == 400


# -- limits -----------------------------------------------------------------------------------------------------------


async def test_limits_are_told_wherever_one_looks() -> None:
    limits: dict[str, Any] = {"max_size": 100, "max_append_size": 10, "min_append_size": 2, "min_resumable_size": 5}
    said = "max-size=100, min-size=5, max-append-size=10, min-append-size=2, max-age="
    async with application(upload_expiry=60, **limits) as port:
        client = Client(port)
        for path in ("/files/", "/files/x"):
            asked = await request(port, "OPTIONS", path)
            assert "tus-version" in asked.headers
            assert asked.headers["upload-limit"] == said + "60"
            assert asked.headers["accept-patch"] == PARTIAL
        begun = await client.create("/files/x", b"abc", complete=False)
        seen = await client.look(begun.headers["location"])
        for fields in (begun.announced, begun.headers, seen.headers):
            assert fields["upload-limit"].startswith(said)
            assert 0 < int(fields["upload-limit"].removeprefix(said)) <= 60
        six = await Client(port, 6).create("/files/y", b"abc", complete=False)
        assert "expires=" in six.headers["upload-limit"]


async def test_what_is_too_large_is_refused_with_the_limits() -> None:
    async with application(max_size=20, max_append_size=10) as port:
        client = Client(port)
        limits = "max-size=20, max-append-size=10, max-age=604800"
        requests: list[tuple[bytes, bool, dict[str, Any]]] = [
            (b"x" * 11, True, {}),
            (b"x" * 11, False, {}),
            (b"x", False, {"upload_length": "21"}),
        ]
        for body, complete, fields in requests:
            refused = await client.create("/files/x", body, complete, **fields)
            assert (refused.status, refused.headers["upload-limit"]) == (413, limits)
            assert refused.headers["upload-complete"] == "?0"
        assert (await request(port, "GET", "/files/x")).status == 404

        location = (await client.create("/files/x", b"x" * 10, complete=False)).headers["location"]
        assert (await client.append(location, b"x" * 11, 10, complete=False)).status == 413
        assert (await client.append(location, b"x" * 11, 10, complete=False, chunked=True)).status == 413
        assert await client.offset(location) == 10
        assert (await client.append(location, b"x" * 9, 10, complete=False)).status == 204
        assert (await client.append(location, b"xx", 19, chunked=True)).status == 413
        assert (await client.append(location, b"x", 19)).status == 201


async def test_what_is_too_small_is_refused_unless_it_is_the_first_or_the_last() -> None:
    async with application(min_append_size=5) as port:
        client = Client(port)
        assert (await client.create("/files/x", b"abc", complete=False)).status == 400
        location = (await client.create("/files/x", b"", complete=False)).headers["location"]
        for body in (b"", b"abcd"):
            refused = await client.append(location, body, 0, complete=False)
            assert (refused.status, refused.answer.json()["min_append_size"]) == (400, 5)
            assert "min-append-size=5" in refused.headers["upload-limit"]
        assert (await client.append(location, b"abcde", 0, complete=False)).status == 204
        assert (await client.append(location, b"f", 5)).status == 201
        assert (await client.create("/files/y", b"a")).status == 201


async def test_a_small_body_need_not_be_resumable() -> None:
    async with application(min_resumable_size=5) as port:
        client = Client(port)
        small = await client.create("/files/x", b"abcd")
        assert (small.status, small.interim, small.headers["upload-complete"]) == (201, [], "?1")
        large = await client.create("/files/y", b"abcde")
        assert (large.status, len(large.interim)) == (201, 1)


async def test_an_upload_without_progress_expires() -> None:
    class Clock:
        time = 1_000_000.0

        def now(self) -> float:
            return self.time

    clock = Clock()
    async with application(Streams(":memory:", clock=clock), upload_expiry=60) as port:
        client = Client(port)
        location = (await client.create("/files/x", b"abc", complete=False)).headers["location"]
        clock.time += 59
        assert (await client.look(location)).headers["upload-limit"] == "max-age=1"
        assert (await client.append(location, b"d", 3, complete=False)).headers["upload-limit"] == "max-age=60"
        clock.time += 61
        assert (await client.look(location)).status == 404
        assert (await client.append(location, b"d", 4)).status == 404
        assert (await request(port, "GET", "/files/x")).status == 404


# -- hooks ------------------------------------------------------------------------------------------------------------


def who(request: Request) -> str | None:
    return request.headers.get("x-user")


async def test_an_upload_is_its_owner_s_and_every_request_is_authorized() -> None:
    refused: set[str] = set()

    async def authorize(request: Request, action: str, name: str) -> bool:
        return (request.headers.get("x-user") or "") not in refused and (action, name) == ("write", "x")

    async with application(owner=who, authorize=authorize) as port:
        ann, bob = (Client(port, headers={"x-user": user}) for user in ("ann", "bob"))
        location = (await ann.create("/files/x", b"abc", complete=False)).headers["location"]
        assert (await bob.look(location)).status == 404
        assert (await bob.append(location, b"d", 3)).status == 404
        assert (await bob.cancel(location)).status == 404
        refused.add("ann")  # in the middle of it
        for answer in (await ann.look(location), (await ann.append(location, b"d", 3)).answer):
            assert (answer.status, answer.headers["upload-complete"]) == (403, "?0")
        refused.clear()
        assert (await ann.append(location, b"d", 3)).status == 201


async def test_hooks_name_limit_and_answer_an_upload() -> None:
    completed: list[Any] = []

    async def on_create(upload: Any, _: Request) -> Any:
        assert (upload.protocol, upload.length) == ("resumable", 6)
        return replace(upload, name="chosen", content_type="text/x-own", metadata={"a": "b"}, max_size=6)

    async def on_complete(info: Any, _: Request) -> JSONResponse:
        completed.append(info)
        return JSONResponse({"number": len(completed)}, 202, {"x-own": "yes"})

    async with application(on_create=on_create, on_complete=on_complete) as port:
        client = Client(port)
        begun = await client.create("/files/x", b"abc", complete=False, upload_length="6")
        location = begun.headers["location"]
        assert location.startswith("/files/chosen?")
        assert begun.headers["upload-limit"].startswith("max-size=6,")
        done = await client.append(location, b"def", 3)
        assert (done.status, done.answer.json(), done.headers["x-own"]) == (202, {"number": 1}, "yes")
        assert done.headers["upload-complete"] == "?1"
        again = await client.append(location, b"", 6)
        assert (again.status, again.answer.json(), again.headers["x-own"]) == (202, {"number": 1}, "yes")
        [info] = completed
        assert (info.name, info.content_type, info.metadata) == ("chosen", "text/x-own", {"a": "b"})


async def test_a_hook_that_fails_is_asked_again_and_until_then_nothing_is_answered() -> None:
    calls = 0

    async def on_complete(*_: object) -> JSONResponse:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise HTTPException(503, "later")
        return JSONResponse({"call": calls})

    for version in (6, 8):
        calls = 0
        async with application(on_complete=on_complete) as port:
            client = Client(port, version)
            refused = await client.create("/files/x", b"abc")
            location = refused.announced["location"]
            assert (refused.status, refused.headers["upload-complete"]) == (503, "?0")
            seen = await client.look(location)
            assert (seen.headers["upload-offset"], seen.headers["upload-complete"]) == ("3", "?0")
            assert (await client.append(location, b"", 3)).status == 503
            done = await client.append(location, b"", 3)
            assert (done.status, done.answer.json(), done.headers["upload-complete"]) == (200, {"call": 3}, "?1")
            assert (await client.look(location)).headers["upload-complete"] == "?1"
            assert calls == 3


async def test_an_answer_is_made_once_however_many_ask_and_whoever_goes_away() -> None:
    calls = 0
    asked, go = asyncio.Event(), asyncio.Event()

    async def on_complete(*_: object) -> JSONResponse:
        nonlocal calls
        calls += 1
        asked.set()
        await go.wait()
        return JSONResponse({"call": calls})

    async with application(on_complete=on_complete) as port:
        client = Client(port)
        async with Connection(port) as connection:
            await connection.begin("PUT", "/files/x", client.fields(True, content_length="3"))
            assert await connection.head() == 104
            location = connection.headers["location"]
            await connection.write(b"abc")
            await asked.wait()
        assert (await client.look(location)).headers["upload-complete"] == "?0"
        waiting = [asyncio.create_task(client.append(location, b"", 3)) for _ in range(3)]
        await asyncio.sleep(0.1)  # none of them is answered yet, nor asks the hook again
        assert not any(task.done() for task in waiting)
        go.set()
        for task in waiting:
            done = await task
            assert (done.status, done.answer.json()) == (200, {"call": 1})


# -- races ------------------------------------------------------------------------------------------------------------


async def test_of_two_who_append_at_once_the_later_one_goes_on(newest: Client, name: str) -> None:
    location = (await newest.create(f"/files/{name}", b"", complete=False)).headers["location"]

    async def send(data: bytes) -> Answer:
        async with Connection(newest.port) as connection:
            fields = newest.fields(True, content_type=PARTIAL, upload_offset="0", content_length=str(len(data)))
            await connection.begin("PATCH", location, fields)
            for start in range(0, len(data), 50_000):
                await connection.write(data[start : start + 50_000])
            return (await told(connection)).answer

    answers = await asyncio.gather(send(b"a" * 400_000), send(b"b" * 400_000), return_exceptions=True)
    statuses = {answer.status for answer in answers if isinstance(answer, Answer)}
    assert statuses <= {201, 409}
    offset = await newest.offset(location)
    body = await content(newest, f"/files/{name}")
    assert len(body) == offset
    # One of them, or one after the other: never in turn.
    assert set(body) <= {ord("a"), ord("b")}
    assert body in {
        b"a" * body.count(b"a") + b"b" * body.count(b"b"),
        b"b" * body.count(b"b") + b"a" * body.count(b"a"),
    }
