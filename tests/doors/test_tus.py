"""tus 1.0.0 at the files door, held to the text of the protocol, on a real server."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
from crc32c import CRC32CHash
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, Response

from applications import serving
from penstock import NewUpload, StreamInfo, Streams
from penstock.testing.faults import ManualClock
from wire import Answer, Connection, request, until

TUS = {"tus-resumable": "1.0.0"}
BYTES = {**TUS, "content-type": "application/offset+octet-stream"}


@pytest.fixture(params=["local", "memory"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return tmp_path / "data" if request.param == "local" else ":memory:"


@asynccontextmanager
async def penstock(
    where: Any = ":memory:", clock: ManualClock | None = None, **options: Any
) -> AsyncIterator[tuple[int, Streams]]:
    streams = Streams(where, clock=clock)
    app = FastAPI(lifespan=streams.lifespan)
    app.include_router(streams.files(**options))
    async with serving(app) as port:
        yield port, streams


async def create(port: int, length: int | None, path: str = "/files/", **fields: str) -> Answer:
    size = {"upload-defer-length": "1"} if length is None else {"upload-length": str(length)}
    own = {name.replace("_", "-"): value for name, value in fields.items()}
    return await request(port, "POST", path, headers={**TUS, **size, **own})


async def location(port: int, length: int | None, path: str = "/files/", **fields: str) -> str:
    created = await create(port, length, path, **fields)
    assert created.status == 201, created.body
    assert created.headers["tus-resumable"] == "1.0.0"
    return located(created, path)


def located(created: Answer, path: str = "/files/") -> str:
    """The path and query that a Location tells, which is relative to the request's URL."""
    return urljoin(path, created.headers["location"])


async def patch(port: int, url: str, offset: int, data: bytes, headers: Mapping[str, str] | None = None) -> Answer:
    return await request(port, "PATCH", url, data, {**BYTES, "upload-offset": str(offset), **(headers or {})})


async def head(port: int, url: str) -> Answer:
    return await request(port, "HEAD", url, headers=TUS)


def kind(answer: Answer) -> tuple[int, str]:
    """The status and the last part of the problem's type."""
    return answer.status, answer.json()["type"].rpartition("/")[2]


# -- the core protocol ------------------------------------------------------------------------------------------------


async def test_an_upload_in_pieces(where: Any) -> None:
    data = os.urandom(300_000)
    async with penstock(where) as (port, streams):
        url = await location(port, len(data))
        offset = 0
        for size in (1, 100_000, 0, 199_999):
            asked = await head(port, url)
            assert asked.status == 200
            assert asked.headers["upload-offset"] == str(offset)
            assert asked.headers["upload-length"] == str(len(data))
            assert asked.headers["cache-control"] == "no-store"
            done = await patch(port, url, offset, data[offset : offset + size])
            offset += size
            assert (done.status, done.headers["upload-offset"]) == (204, str(offset))
            assert done.headers["tus-resumable"] == "1.0.0"
        asked = await head(port, url)
        assert (asked.headers["upload-offset"], asked.headers["upload-length"]) == ("300000", "300000")
        assert "upload-expires" not in asked.headers
        assert (await request(port, "GET", url)).body == data
        assert (await streams.list()).streams[0].complete


async def test_options_tell_what_there_is() -> None:
    async with penstock(max_size=1000) as (port, _):
        for url in ("/files/", "/files/x"):
            told = await request(port, "OPTIONS", url, headers={"tus-resumable": "0.2.0"})
            assert told.status == 204
            assert told.headers["tus-version"] == told.headers["tus-resumable"] == "1.0.0"
            assert told.headers["tus-max-size"] == "1000"
            assert told.headers["tus-extension"] == (
                "creation,creation-with-upload,creation-defer-length,expiration,checksum,termination,"
                "concatenation,concatenation-unfinished"
            )
            assert told.headers["tus-checksum-algorithm"] == "sha1,sha256,sha512,md5,crc32c"
    async with penstock() as (port, _):
        assert "tus-max-size" not in (await request(port, "OPTIONS", "/files/")).headers


@pytest.mark.parametrize("version", ["0.2.2", "1.0.1", "", "2"])
async def test_another_version_is_refused_unprocessed(version: str) -> None:
    async with penstock() as (port, streams):
        url = await location(port, 3)
        for method, path in (("POST", "/files/"), ("HEAD", url), ("PATCH", url), ("DELETE", url)):
            fields = {**BYTES, "tus-resumable": version, "upload-length": "3", "upload-offset": "0"}
            refused = await request(port, method, path, headers=fields)
            assert (refused.status, refused.headers["tus-version"]) == (412, "1.0.0")
        without = {name: value for name, value in BYTES.items() if name != "tus-resumable"}
        assert (await request(port, "PATCH", url, b"abc", {**without, "upload-offset": "0"})).status == 412
        assert [info.tail for info in (await streams.list()).streams] == [0]


async def test_what_does_not_fit_is_refused_and_changes_nothing() -> None:
    async with penstock() as (port, _):
        url = await location(port, 5)
        assert kind(await patch(port, url, 1, b"a")) == (409, "offset-mismatch")
        assert kind(await patch(port, url, 0, b"abcdef")) == (413, "too-large")
        assert kind(await patch(port, url, 0, b"a", {"content-type": "text/plain"})) == (415, "unsupported-media-type")
        assert kind(await patch(port, url, 0, b"a", {"upload-offset": "-1"})) == (400, "bad-request")
        assert kind(await patch(port, url, 0, b"a", {"upload-length": "6"})) == (400, "length-mismatch")
        assert kind(await patch(port, url, 0, b"a", {"content-encoding": "gzip"})) == (415, "unsupported-media-type")
        assert kind(await request(port, "PATCH", url, b"a", BYTES)) == (400, "bad-request")
        assert (await head(port, url)).headers["upload-offset"] == "0"
        assert (await patch(port, url, 0, b"abcde")).status == 204
        assert kind(await patch(port, url, 2, b"a")) == (409, "offset-mismatch")
        assert kind(await patch(port, url, 5, b"a")) == (409, "stream-closed")
        assert (await patch(port, url, 5, b"")).status == 204


async def test_what_is_not_there(name: str) -> None:
    async with penstock() as (port, streams):
        for url in (f"/files/{name}", f"/files/{name}?upload=0123456789abcdef"):
            for answer in (await head(port, url), await patch(port, url, 0, b"a")):
                assert answer.status in {404, 410}
                assert "upload-offset" not in answer.headers
                assert answer.headers["tus-resumable"] == "1.0.0"
        await streams.create("live")
        assert (await head(port, "/files/live")).status == 409
        assert kind(await patch(port, "/files/live", 0, b"a")) == (409, "not-an-upload")


@pytest.mark.parametrize("method", ["PATCH", "DELETE", "HEAD"])
async def test_the_method_may_be_overridden(method: str) -> None:
    async with penstock() as (port, streams):
        url = await location(port, 3)
        fields = {**BYTES, "x-http-method-override": method, "upload-offset": "0"}
        answer = await request(port, "POST", url, b"abc" if method == "PATCH" else b"", fields)
        assert answer.status == {"PATCH": 204, "DELETE": 204, "HEAD": 200}[method]
        there = [info.tail for info in (await streams.list()).streams]
        assert there == {"PATCH": [3], "DELETE": [], "HEAD": [0]}[method]
        assert (await request(port, "POST", "/files/", headers={**TUS, "x-http-method-override": method})).status == 405
        assert (await request(port, "POST", url, headers={**TUS, "x-http-method-override": "MOVE"})).status == 405


# -- creation ---------------------------------------------------------------------------------------------------------


async def test_the_location_is_relative_and_names_what_the_client_chose() -> None:
    async with penstock() as (port, _):
        for path, begin in {"/files/": "", "/files/?prefix=in/": "in/", "/files": "files/"}.items():
            told = (await create(port, 3, path)).headers["location"]
            assert re.fullmatch(rf"{begin}[\w-]{{22}}", told)
            assert (await head(port, urljoin(path, told))).status == 200
        for path, begin in {"/files/x": "x", "/files/a%20b/%C3%BC": "%C3%BC"}.items():
            told = (await create(port, 3, path)).headers["location"]
            assert re.fullmatch(rf"{begin}\?upload=\w+", told)
            assert (await head(port, urljoin(path, told))).status == 200
        own = await location(port, 3)
        assert own.startswith("/files/")
        assert "?" not in own
        assert (await location(port, 3, "/files/?prefix=in/")).startswith("/files/in/")
        chosen = await location(port, 3, "/files/a%20b/c")
        assert chosen.startswith("/files/a%20b/c?upload=")
        assert (await patch(port, chosen, 0, b"abc")).status == 204
        for url in ("/files/a%20b/c", chosen):
            assert (await request(port, "GET", url)).body == b"abc"


async def test_a_complete_stream_stays_until_the_upload_to_its_name_is_complete(where: Any) -> None:
    async with penstock(where) as (port, _):
        await request(port, "PUT", "/files/x", b"old")
        one, two = await location(port, 4, "/files/x"), await location(port, 4, "/files/x")
        assert (await patch(port, one, 0, b"on")).status == 204
        assert (await patch(port, two, 0, b"two!")).status == 204
        assert (await request(port, "GET", "/files/x")).body == b"two!"
        assert (await patch(port, one, 2, b"e!")).status == 204
        assert (await request(port, "GET", "/files/x")).body == b"one!"
        assert (await head(port, two)).status == 410


@pytest.mark.parametrize("fields", [
    {}, {"upload-length": "-1"}, {"upload-length": "1.5"}, {"upload-length": "1" * 19}, {"upload-defer-length": "2"},
    {"upload-length": "1", "upload-defer-length": "1"}, {"upload-length": "1", "upload-metadata": "a b c"},
    {"upload-length": "1", "upload-metadata": "a YQ==,a YQ=="}, {"upload-length": "1", "upload-concat": "whole"},
    {"upload-concat": "final;"}, {"upload-concat": "final;/elsewhere/x"}, {"upload-length": "1", "upload-key": "ä"},
    {"upload-length": "1", "upload-metadata": "a " + "YQ" * 10_000},
])  # fmt: skip
async def test_creations_that_cannot_be(fields: dict[str, str]) -> None:
    async with penstock() as (port, streams):
        assert kind(await request(port, "POST", "/files/", headers={**TUS, **fields})) == (400, "bad-request")
        assert not (await streams.list()).streams


async def test_an_upload_that_is_too_large_is_refused() -> None:
    async with penstock(max_size=10) as (port, _):
        assert kind(await create(port, 11)) == (413, "too-large")
        url = await location(port, None)
        assert kind(await patch(port, url, 0, b"a" * 11)) == (413, "too-large")
        assert kind(await patch(port, url, 0, b"a", {"upload-length": "11"})) == (413, "too-large")
        assert (await patch(port, url, 0, b"a" * 10)).status == 204
        assert kind(await patch(port, url, 10, b"a")) == (413, "too-large")
        assert (await patch(port, url, 10, b"", {"upload-length": "10"})).status == 204


async def test_an_upload_of_nothing_is_complete_at_once(where: Any) -> None:
    async with penstock(where) as (port, streams):
        url = await location(port, 0)
        asked = await head(port, url)
        assert (asked.headers["upload-offset"], asked.headers["upload-length"]) == ("0", "0")
        assert (await streams.list()).streams[0].complete


async def test_a_length_that_is_told_later() -> None:
    async with penstock() as (port, streams):
        url = await location(port, None)
        asked = await head(port, url)
        assert asked.headers["upload-defer-length"] == "1"
        assert "upload-length" not in asked.headers
        assert (await patch(port, url, 0, b"abc")).status == 204
        assert (await patch(port, url, 3, b"de", {"upload-length": "6"})).status == 204
        asked = await head(port, url)
        assert "upload-defer-length" not in asked.headers
        assert asked.headers["upload-length"] == "6"
        assert kind(await patch(port, url, 5, b"f", {"upload-length": "7"})) == (400, "length-mismatch")
        assert (await patch(port, url, 5, b"f", {"upload-length": "6"})).status == 204
        assert (await streams.list()).streams[0].complete
        late = await location(port, None)
        assert (await patch(port, late, 0, b"abc")).status == 204
        assert kind(await patch(port, late, 3, b"", {"upload-length": "2"})) == (400, "length-mismatch")
        assert (await patch(port, late, 3, b"", {"upload-length": "3"})).status == 204
        assert (await head(port, late)).headers["upload-length"] == "3"


async def test_creation_with_the_first_bytes(where: Any) -> None:
    async with penstock(where) as (port, _):
        some = await request(port, "POST", "/files/", b"hello", {**BYTES, "upload-length": "10"})
        assert (some.status, some.headers["upload-offset"]) == (201, "5")
        url = located(some)
        assert (await patch(port, url, 5, b" all!")).status == 204
        assert (await request(port, "GET", url)).body == b"hello all!"
        whole = await request(port, "POST", "/files/", b"hello", {**BYTES, "upload-length": "5"})
        assert (whole.status, whole.headers["upload-offset"]) == (201, "5")
        assert (await request(port, "GET", located(whole))).body == b"hello"
        typed = await request(port, "POST", "/files/", b"hello", {**TUS, "upload-length": "5"})
        assert typed.status == 415
        long = await request(port, "POST", "/files/", b"hello!", {**BYTES, "upload-length": "5"})
        assert long.status == 413


async def test_a_creation_that_expects_to_be_told_to_go_on_is_refused_before_its_body() -> None:
    async with penstock(max_size=10) as (port, _), Connection(port) as connection:
        fields = {**BYTES, "upload-length": "11", "content-length": "11", "expect": "100-continue"}
        await connection.begin("POST", "/files/", fields)
        assert (await connection.answer()).status == 413


@pytest.mark.parametrize(
    "metadata",
    [
        "filename d29ybGRfZG9taW5hdGlvbl9wbGFuLnBkZg==,is_confidential",
        "a",
        "a ,b YQ==",
        "name eA==,x //8=",
        "b YQ==, a YQ==",
    ],
)
async def test_metadata_is_echoed_exactly(metadata: str) -> None:
    async with penstock() as (port, _):
        url = await location(port, 3, upload_metadata=metadata)
        for data in (b"ab", b"c"):
            assert (await head(port, url)).headers["upload-metadata"] == metadata
            offset = int((await head(port, url)).headers["upload-offset"])
            assert (await patch(port, url, offset, data)).status == 204
        assert (await head(port, url)).headers["upload-metadata"] == metadata


async def test_empty_metadata_is_accepted() -> None:
    async with penstock() as (port, _):
        assert "upload-metadata" not in (await head(port, await location(port, 3, upload_metadata=""))).headers


def metadata(**pairs: str) -> str:
    return ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in pairs.items())


@pytest.mark.parametrize(
    ("given", "filename", "content_type"),
    [
        ({"filename": "a.pdf", "filetype": "image/png"}, "a.pdf", "image/png"),
        ({"filename": "ä ö.pdf"}, "ä ö.pdf", "application/pdf"),
        ({"name": "a.csv", "type": "text/csv"}, "a.csv", "text/csv"),
        ({"filename": "../../x/a\r\n.pdf", "filetype": "no type"}, "a__.pdf", "application/pdf"),
        ({"filetype": "a/b\r\nx: y"}, None, "application/octet-stream"),
    ],
)
async def test_metadata_names_and_types_the_stream(
    given: dict[str, str], filename: str | None, content_type: str
) -> None:
    async with penstock() as (port, streams):
        url = await location(port, 3, upload_metadata=metadata(**given, own="x"))
        await patch(port, url, 0, b"abc")
        (info,) = (await streams.list()).streams
        assert (info.metadata.get("filename"), info.content_type) == (filename, content_type)
        assert info.metadata["own"] == "x"
        assert (await request(port, "GET", url)).headers["content-type"] == content_type


# -- expiration and termination ---------------------------------------------------------------------------------------


async def test_uploads_expire_for_want_of_progress(where: Any) -> None:
    clock = ManualClock(1_400_000_000)
    async with penstock(where, clock, upload_expiry=3600) as (port, streams):
        created = await create(port, 6)
        url = located(created)
        assert created.headers["upload-expires"] == "Tue, 13 May 2014 17:53:20 GMT"
        clock.advance(3000)
        assert (await patch(port, url, 0, b"abc")).headers["upload-expires"] == "Tue, 13 May 2014 18:43:20 GMT"
        assert (await head(port, url)).headers["upload-expires"] == "Tue, 13 May 2014 18:43:20 GMT"
        hidden = await location(port, 6, upload_concat="partial")
        unseen = await location(port, 6)
        clock.advance(3601)
        for gone in (url, hidden):
            assert (await head(port, gone)).status in {404, 410}
            assert (await patch(port, gone, 3, b"def")).status in {404, 410}
        assert await streams.sweep() == 1  # those that were asked for are gone already
        assert (await head(port, unseen)).status == 404
        done = await location(port, 3)
        assert "upload-expires" not in (await patch(port, done, 0, b"abc")).headers
        clock.advance(10**6)
        assert await streams.sweep() == 0
        assert (await head(port, done)).status == 200


async def test_what_expired_while_the_server_was_down_is_cleaned_up(tmp_path: Path) -> None:
    clock = ManualClock(1_400_000_000)
    async with penstock(tmp_path / "data", clock, upload_expiry=3600) as (port, _):
        for fields in ({}, {"upload_concat": "partial"}):
            url = await location(port, 400_000, **fields)
            assert (await patch(port, url, 0, b"a" * 300_000)).status == 204
    clock.advance(3601)

    async def blobs() -> int:
        return sum(path.is_file() for path in (tmp_path / "data" / "blobs").rglob("*"))

    assert await blobs() == 2
    async with penstock(tmp_path / "data", clock):
        await until(blobs, 0)  # nobody has to ask for that


async def test_uploads_can_be_kept_for_ever() -> None:
    async with penstock(upload_expiry=None) as (port, _):
        assert "upload-expires" not in (await create(port, 6)).headers


async def test_termination(where: Any) -> None:
    async with penstock(where) as (port, streams):
        for size in (2, 3):  # unfinished, and complete
            url = await location(port, 3)
            await patch(port, url, 0, b"abc"[:size])
            assert (await request(port, "DELETE", url, headers=TUS)).status == 204
            assert (await head(port, url)).status == 404
            assert (await patch(port, url, size, b"")).status == 404
            assert (await request(port, "DELETE", url, headers=TUS)).status == 404
        assert not (await streams.list()).streams


async def test_termination_ends_the_request_that_is_under_way() -> None:
    async with penstock() as (port, streams), Connection(port) as connection:
        url = await location(port, 100)
        await connection.begin("PATCH", url, {**BYTES, "upload-offset": "0", "content-length": "100"})
        await connection.write(b"abc")
        await until(lambda: tail(streams, url), 3)
        assert (await request(port, "DELETE", url, headers=TUS)).status == 204
        assert (await connection.answer()).status in {404, 410}


async def tail(streams: Streams, url: str) -> int:
    return (await streams.info(url.removeprefix("/files/").partition("?")[0])).tail


# -- checksums --------------------------------------------------------------------------------------------------------


def checksum(algorithm: str, data: bytes) -> str:
    digest: Any = CRC32CHash(data) if algorithm == "crc32c" else hashlib.new(algorithm, data)
    return f"{algorithm} {base64.b64encode(digest.digest()).decode()}"


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512", "md5", "crc32c"])
@pytest.mark.parametrize("size", [5, 1_500_000])
async def test_checksums(where: Any, algorithm: str, size: int) -> None:
    data = os.urandom(size)
    async with penstock(where) as (port, streams):
        url = await location(port, 2 * size)
        wrong = {"upload-checksum": checksum(algorithm, data + b"x")}
        assert kind(await patch(port, url, 0, data, wrong)) == (460, "checksum-mismatch")
        assert (await head(port, url)).headers["upload-offset"] == "0"
        for offset in (0, size):
            right = {"upload-checksum": checksum(algorithm, data)}
            assert (await patch(port, url, offset, data, right)).status == 204
        assert (await request(port, "GET", url)).body == data * 2
        assert len((await streams.list()).streams) == 1


async def test_a_checksum_of_the_first_bytes() -> None:
    async with penstock() as (port, _):
        fields = {**BYTES, "upload-length": "5", "upload-checksum": checksum("sha1", b"hello")}
        assert (await request(port, "POST", "/files/", b"hello", fields)).status == 201
        assert (await request(port, "POST", "/files/", b"hellO", fields)).status == 460


@pytest.mark.parametrize("value", ["crc64 AAAA", "sha1", "sha1 AAAA", "SHA1 Kq5sNclPz7QV2+lfQIuc6R7oRu0="])
async def test_checksums_that_cannot_be(value: str) -> None:
    async with penstock() as (port, _):
        url = await location(port, 5)
        assert kind(await patch(port, url, 0, b"hello", {"upload-checksum": value})) == (400, "bad-request")
        assert (await head(port, url)).headers["upload-offset"] == "0"


async def test_nothing_is_kept_of_a_body_that_was_cut_before_its_checksum_could_be_taken() -> None:
    async with penstock() as (port, streams):
        url = await location(port, 5_000_000)
        for size in (100_000, 5_000_000):
            async with Connection(port) as connection:
                fields = {**BYTES, "upload-offset": "0", "upload-checksum": checksum("sha1", b"")}
                await connection.begin("PATCH", url, {**fields, "content-length": str(size)})
                await connection.write(b"a" * (size // 2))
        assert (await head(port, url)).headers["upload-offset"] == "0"
        assert len((await streams.list()).streams) == 1


# -- concatenation ----------------------------------------------------------------------------------------------------


async def part(port: int, data: bytes, sent: int | None = None) -> str:
    url = await location(port, len(data), upload_concat="partial")
    done = await patch(port, url, 0, data if sent is None else data[:sent])
    assert done.status == 204
    return url


async def final(port: int, *urls: str, path: str = "/files/", **fields: str) -> Answer:
    own = {name.replace("_", "-"): value for name, value in fields.items()}
    return await request(port, "POST", path, headers={**TUS, "upload-concat": f"final;{' '.join(urls)}", **own})


async def test_parts_are_joined(where: Any) -> None:
    data = [b"hello", os.urandom(200_000), os.urandom(2_000_000), b""]
    async with penstock(where) as (port, streams):
        urls = [await part(port, each) for each in data]
        assert not (await streams.list()).streams
        asked = await head(port, urls[0])
        assert (asked.headers["upload-concat"], asked.headers["upload-offset"]) == ("partial", "5")
        created = await final(port, *urls, upload_metadata=metadata(filename="a.txt"))
        assert created.status == 201
        url = located(created)
        asked = await head(port, url)
        assert asked.headers["upload-concat"] == f"final;{' '.join(urls)}"
        assert asked.headers["upload-offset"] == asked.headers["upload-length"] == "2200005"
        assert (await request(port, "GET", url)).body == b"".join(data)
        assert (await streams.list()).streams[0].metadata == {"filename": "a.txt"}
        assert kind(await patch(port, url, 2_200_005, b"")) == (403, "forbidden")
        # As whole URLs, several times, in another order, to a name.
        again = await final(port, *(f"http://proxy.example:8080/up{urls[n]}" for n in (1, 0, 1)), path="/files/x")
        assert again.status == 201
        assert (await request(port, "GET", "/files/x")).body == data[1] + data[0] + data[1]


async def test_parts_may_be_joined_before_they_are_complete(where: Any) -> None:
    async with penstock(where) as (port, _):
        one, two = await part(port, b"hello", sent=2), await part(port, b" world")
        open_ended = await location(port, None, upload_concat="partial")
        created = await final(port, one, two)
        assert created.status == 201
        assert "upload-offset" not in created.headers
        url = located(created)
        assert located(await final(port, one, two)) == url  # to who did not hear the answer
        asked = await head(port, url)
        assert asked.headers["upload-length"] == "11"
        assert "upload-offset" not in asked.headers
        assert kind(await patch(port, url, 0, b"x")) == (403, "forbidden")
        late = located(await final(port, one, open_ended, one))
        assert "upload-length" not in (await head(port, late)).headers
        assert (await patch(port, one, 2, b"llo")).status == 204
        assert (await request(port, "GET", url)).body == b"hello world"
        assert (await head(port, url)).headers["upload-offset"] == "11"
        assert (await patch(port, open_ended, 0, b"-", {"upload-length": "1"})).status == 204
        assert (await request(port, "GET", late)).body == b"hello-hello"


async def test_what_cannot_be_joined(where: Any) -> None:
    async with penstock(where, max_size=10) as (port, streams):
        whole, one = await location(port, 3), await part(port, b"abc")
        assert kind(await final(port, one, whole)) == (400, "bad-request")
        assert (await final(port, one, "/files/none")).status == 404
        assert kind(await final(port, one, one, one, one)) == (413, "too-large")
        assert kind(await final(port, one, upload_length="3")) == (400, "bad-request")
        assert (await request(port, "DELETE", one, headers=TUS)).status == 204
        assert (await final(port, one)).status in {404, 410}
        assert len((await streams.list()).streams) == 1


async def test_who_did_not_hear_of_a_join_asks_again_and_parts_go(where: Any) -> None:
    clock = ManualClock(1_400_000_000)
    async with penstock(where, clock) as (port, streams):
        one, two = await part(port, b"abc"), await part(port, b"def")
        first = await final(port, one, two)
        again = await final(port, one, two)
        assert (again.status, again.headers["location"]) == (201, first.headers["location"])
        assert (await final(port, two, one)).headers["location"] != first.headers["location"]
        assert len((await streams.list()).streams) == 2
        clock.advance(3601)
        assert await streams.sweep() == 2
        assert (await head(port, one)).status == 404
        assert (await head(port, located(first))).status == 200


# -- lost connections -------------------------------------------------------------------------------------------------


async def test_what_arrived_before_a_disconnect_is_kept(where: Any) -> None:
    data = os.urandom(500_000)
    async with penstock(where) as (port, streams):
        url = await location(port, len(data))
        async with Connection(port) as connection:
            await connection.begin("PATCH", url, {**BYTES, "upload-offset": "0", "content-length": str(len(data))})
            await connection.write(data[:200_001])
            await until(lambda: tail(streams, url), 200_001)
        assert (await head(port, url)).headers["upload-offset"] == "200001"
        assert (await patch(port, url, 200_001, data[200_001:])).status == 204
        assert (await request(port, "GET", url)).body == data


async def test_who_comes_back_at_once_takes_over(where: Any) -> None:
    data = os.urandom(500_000)
    async with penstock(where) as (port, streams), Connection(port) as old:
        url = await location(port, len(data))
        await old.begin("PATCH", url, {**BYTES, "upload-offset": "0", "content-length": str(len(data))})
        await old.write(data[:1000])
        await until(lambda: tail(streams, url), 1000)
        assert (await head(port, url)).headers["upload-offset"] == "1000"
        ended = await old.answer()  # though its connection is fine
        assert kind(ended) == (423, "writer-evicted")
        assert ended.headers["connection"] == "close"
        assert (await patch(port, url, 1000, data[1000:])).status == 204
        assert (await request(port, "GET", url)).body == data


async def test_it_can_be_read_while_it_is_uploaded(where: Any) -> None:
    data = os.urandom(300_000)
    async with penstock(where) as (port, streams), Connection(port) as writer, Connection(port) as reader:
        url = await location(port, len(data))
        await writer.begin("PATCH", url, {**BYTES, "upload-offset": "0", "content-length": str(len(data))})
        await writer.write(data[:100_000])
        await until(lambda: tail(streams, url), 100_000)
        ranged = await request(port, "GET", url, headers={"range": "bytes=10-19"})
        assert (ranged.status, ranged.body) == (206, data[10:20])
        assert (await request(port, "GET", url)).body == data[:100_000]
        await reader.begin("GET", f"{url}?follow")
        await reader.head()
        following = reader.body()
        got = b""
        while len(got) < 100_000:
            got += await anext(following)
        await writer.write(data[100_000:])
        assert (await writer.answer()).status == 204
        async for chunk in following:
            got += chunk
        assert got == data


# -- hooks ------------------------------------------------------------------------------------------------------------


async def test_on_create_renames_and_limits(where: Any) -> None:
    asked: list[NewUpload] = []

    async def on_create(new: NewUpload, _: Request) -> NewUpload | None:
        asked.append(new)
        if new.metadata.get("filename") == "no.txt":
            raise HTTPException(422, "Not that one.")
        return replace(new, name=f"safe/{new.metadata['filename']}", metadata={"who": "me"}, max_size=5)

    async with penstock(where, on_create=on_create) as (port, streams):
        refused = await create(port, 3, upload_metadata=metadata(filename="no.txt"))
        assert (refused.status, refused.json()["detail"]) == (422, "Not that one.")
        assert refused.headers["tus-resumable"] == "1.0.0"
        named = metadata(filename="a.txt")
        assert kind(await create(port, 6, upload_metadata=named)) == (413, "too-large")
        url = await location(port, None, upload_metadata=named)
        assert url.startswith("/files/safe/a.txt?upload=")
        assert kind(await patch(port, url, 0, b"abcdef")) == (413, "too-large")
        assert (await patch(port, url, 0, b"abcd", {"upload-length": "4"})).status == 204
        assert (await streams.info("safe/a.txt")).metadata == {"who": "me"}
        assert (await head(port, url)).headers["upload-metadata"] == named
    assert [(new.protocol, new.length) for new in asked] == [("tus", 3), ("tus", 6), ("tus", None)]


async def test_on_complete_answers_and_answers_again(where: Any) -> None:
    told: list[tuple[str, bool]] = []

    async def on_complete(info: StreamInfo, _: Request) -> Response:
        told.append((info.name, info.complete))
        return JSONResponse({"id": 7}, 200, {"x-id": "7"})

    async with penstock(where, on_complete=on_complete) as (port, _):
        url = await location(port, 3)
        assert (await patch(port, url, 0, b"ab")).status == 204
        assert not told
        done = await patch(port, url, 2, b"c")
        again = await patch(port, url, 3, b"")
        for answer in (done, again):
            assert (answer.status, answer.json(), answer.headers["x-id"]) == (200, {"id": 7}, "7")
            assert (answer.headers["upload-offset"], answer.headers["tus-resumable"]) == ("3", "1.0.0")
        asked = await head(port, url)
        assert (asked.status, asked.headers["x-id"], asked.headers["upload-offset"]) == (200, "7", "3")
        assert len(told) == 1
        whole = await request(port, "POST", "/files/", b"hello", {**BYTES, "upload-length": "5"})
        assert (whole.status, whole.json(), whole.headers["upload-offset"]) == (200, {"id": 7}, "5")
        assert "location" in whole.headers
        one, two = await part(port, b"abc"), await part(port, b"def")
        assert len(told) == 2
        assert (await final(port, one, two)).json() == {"id": 7}
        assert len(told) == 3
        assert all(complete for _, complete in told)


async def test_on_complete_that_failed_is_told_again(where: Any) -> None:
    calls = 0

    async def on_complete(_: StreamInfo, __: Request) -> None:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise HTTPException(503, "Not now.")

    async with penstock(where, on_complete=on_complete) as (port, _):
        url = await location(port, 3)
        assert (await patch(port, url, 0, b"abc")).status == 503
        assert (await head(port, url)).status == 503
        assert (await head(port, url)).status == 200
        assert (await head(port, url)).status == 200
        assert (await patch(port, url, 3, b"")).status == 204
        assert calls == 3


async def test_two_who_ask_at_once_are_told_the_same_by_one_call(where: Any) -> None:
    go_on = asyncio.Event()
    calls = 0

    async def on_complete(_: StreamInfo, __: Request) -> Response:
        nonlocal calls
        calls += 1
        await go_on.wait()
        return JSONResponse({"call": calls})

    async with penstock(where, on_complete=on_complete) as (port, _):
        url = await location(port, 3)
        first = asyncio.create_task(patch(port, url, 0, b"abc"))
        await until(lambda: _value(calls), 1)
        second = asyncio.create_task(patch(port, url, 3, b""))
        await asyncio.sleep(0.05)
        go_on.set()
        assert (await first).json() == (await second).json() == {"call": 1}


async def _value(value: int) -> int:
    return value


async def test_every_request_is_authorized() -> None:
    allowed = {"first"}

    def authorize(request: Request, action: str, _: str) -> bool:
        return request.headers.get("authorization") in allowed

    async with penstock(authorize=authorize) as (port, _):
        assert (await create(port, 3)).status == 403
        url = await location(port, 3, authorization="first")
        assert (await patch(port, url, 0, b"a", {"authorization": "first"})).status == 204
        allowed.clear()
        allowed.add("second")
        assert (await patch(port, url, 1, b"b", {"authorization": "first"})).status == 403
        assert (await head(port, url)).status == 403
        assert (await patch(port, url, 1, b"bc", {"authorization": "second"})).status == 204


def who(request: Request) -> str | None:
    return request.headers.get("x-who")


async def test_an_upload_is_its_owners(where: Any) -> None:
    me, you = {"x-who": "me"}, {"x-who": "you"}
    async with penstock(where, owner=who) as (port, _):
        url = await location(port, 3, x_who="me")
        for fields in (you, {}):
            assert (await request(port, "HEAD", url, headers={**TUS, **fields})).status == 404
            assert (await patch(port, url, 0, b"abc", fields)).status == 404
            assert (await request(port, "DELETE", url, headers={**TUS, **fields})).status == 404
        own = await location(port, 3, x_who="me", upload_concat="partial")
        assert (await final(port, own, x_who="you")).status == 404
        assert (await patch(port, url, 0, b"abc", me)).status == 204


async def test_quotas(where: Any) -> None:
    async def quota(owner: str) -> int | None:
        return {"me": 10, "you": 5}.get(owner)

    async with penstock(where, owner=who, quota=quota) as (port, _):
        assert (await create(port, 10**9, x_who="boss")).status == 201
        assert (await create(port, 6, x_who="you")).status == 413
        assert (await create(port, 6, x_who="me")).status == 201
        refused = await create(port, 5, x_who="me")
        assert (*kind(refused), refused.json()["left"]) == (413, "quota-exceeded", 4)
        url = await location(port, None, x_who="me")
        assert (await patch(port, url, 0, b"abcde", {"x-who": "me"})).status == 413
        assert (await patch(port, url, 0, b"abcd", {"x-who": "me"})).status == 204
        assert (await request(port, "PUT", "/files/plain", b"a", {"x-who": "me"})).status == 413
        one = await location(port, 5, x_who="you", upload_concat="partial")
        assert (await patch(port, one, 0, b"abcde", {"x-who": "you"})).status == 204
        assert (await final(port, one, x_who="you")).status == 201


async def test_all_bytes_are_there_but_the_server_went_down_before_the_end(where: Any) -> None:
    async with penstock(where) as (port, streams):
        whole, piece = await location(port, 3), await location(port, 3, upload_concat="partial")
        for url in (whole, piece):
            name = url.removeprefix("/files/")
            incarnation = name if url == piece else None
            async with streams.upload(name, incarnation=incarnation, offset=0) as upload:
                await upload.write([b"abc"])
            asked = await head(port, url)  # as clients do, who take this for the end
            assert (asked.headers["upload-offset"], asked.headers["upload-length"]) == ("3", "3")
            assert (await streams.info(name, incarnation=incarnation)).closed
        assert (await streams.list()).streams[0].complete
