"""Ranges of files (RFC 9110 section 14): exactly the bytes that were asked for, in whatever way."""

from __future__ import annotations

import random
import re
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from conftest import tool
from servers import Server
from wire import Answer, request

BODY = bytes(random.Random(1).randbytes(10_000))
SIZE = len(BODY)


async def ranged(server: Server, name: str, value: str, body: bytes = BODY, **fields: str) -> Answer:
    path = f"/files/{name}"
    if (await request(server.port, "HEAD", path)).status == 404:
        await request(server.port, "PUT", path, body, {"content-type": "text/x-own"})
    headers = {"range": value, **{field.replace("_", "-"): text for field, text in fields.items()}}
    return await request(server.port, "GET", path, headers=headers)


def parts(answer: Answer) -> Iterator[tuple[int, int, bytes]]:
    """Take a multipart/byteranges body apart, as strictly as RFC 2046 writes it."""
    match = re.fullmatch(r"multipart/byteranges; boundary=([0-9A-Za-z'+_.-]{1,70})", answer.headers["content-type"])
    assert match
    boundary = match[1].encode()
    first, *middle, last = (b"\r\n" + answer.body).split(b"\r\n--" + boundary)
    assert (first, last) == (b"", b"--\r\n")
    for part in middle:
        head, data = part.removeprefix(b"\r\n").split(b"\r\n\r\n", 1)
        kind, position = head.decode().split("\r\n")
        assert kind == "Content-Type: text/x-own"
        numbers = re.fullmatch(rf"Content-Range: bytes (\d+)-(\d+)/{SIZE}", position)
        assert numbers
        yield int(numbers[1]), int(numbers[2]), data


@pytest.mark.parametrize(
    ("value", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=0-99", 0, 99),
        ("bytes=5000-", 5000, SIZE - 1),
        ("bytes=0-", 0, SIZE - 1),
        ("bytes=9999-9999", SIZE - 1, SIZE - 1),
        ("bytes=9990-99999999", 9990, SIZE - 1),
        ("bytes=9990-9007199254740991", 9990, SIZE - 1),
        ("bytes=-1", SIZE - 1, SIZE - 1),
        ("bytes=-99999999", 0, SIZE - 1),
        ("bytes= 1-2", 1, 2),
        ("BYTES=1-2", 1, 2),
        ("bytes=1-2,", 1, 2),
        ("bytes=1-2, 90000-", 1, 2),
        ("bytes=0-4,5-9", 0, 9),
        ("bytes=3-5,0-9", 0, 9),
    ],
)
async def test_one_range_is_a_206_of_its_bytes(server: Server, name: str, value: str, first: int, last: int) -> None:
    answer = await ranged(server, name, value)
    assert (answer.status, answer.headers["content-range"]) == (206, f"bytes {first}-{last}/{SIZE}")
    assert answer.headers["content-type"] == "text/x-own"
    assert int(answer.headers["content-length"]) == len(answer.body)
    assert answer.body == BODY[first : last + 1]
    assert {"etag", "last-modified", "cache-control", "accept-ranges", "stream-state"} <= answer.headers.keys()


@pytest.mark.parametrize(
    "value",
    [
        "bytes=5-4",
        "bytes=a-b",
        "bytes=-",
        "bytes=",
        "bytes",
        "bytes 0-1",
        "lines=0-1",
        "bytes=0-1;2-3",
        "bytes=0x0-0x1",
        "bytes=+1-2",
        "bytes=1-2-3",
        "bytes=0-999999999999999999999999",
        "bytes=0-0," + ",".join(f"{start}-{start}" for start in range(100, 10_000, 99)),
    ],
)
async def test_what_is_no_range_is_ignored(server: Server, name: str, value: str) -> None:
    answer = await ranged(server, name, value)
    assert (answer.status, answer.body == BODY) == (200, True)
    assert "content-range" not in answer.headers


@pytest.mark.parametrize("value", ["bytes=10000-", "bytes=10000-20000", "bytes=-0", "bytes=99999-,20000-30000"])
async def test_a_range_past_the_end_is_a_416_that_tells_the_length(server: Server, name: str, value: str) -> None:
    answer = await ranged(server, name, value)
    assert (answer.status, answer.headers["content-range"]) == (416, f"bytes */{SIZE}")
    assert answer.json()["type"] == "https://penstock.dev/problems/range-not-satisfiable"
    assert answer.json()["tail"] == SIZE
    assert (answer.headers["stream-state"], answer.headers["stream-tail"]) == ("closed", str(SIZE))


async def test_several_ranges_are_parts_in_the_order_of_the_request(server: Server, name: str) -> None:
    answer = await ranged(server, name, "bytes=9000-9099, 0-0, -100, 4000-4999")
    assert answer.status == 206
    assert "content-range" not in answer.headers
    assert int(answer.headers["content-length"]) == len(answer.body)
    found = list(parts(answer))
    assert [part[:2] for part in found] == [(9000, 9099), (0, 0), (9900, 9999), (4000, 4999)]
    assert all(data == BODY[first : last + 1] for first, last, data in found)


async def test_ranges_that_overlap_or_nearly_touch_are_sent_once(server: Server, name: str) -> None:
    answer = await ranged(server, name, "bytes=5000-5999,0-99,5500-6499,150-199")
    found = list(parts(answer))
    assert [part[:2] for part in found] == [(5000, 6499), (0, 199)]
    assert all(data == BODY[first : last + 1] for first, last, data in found)


async def test_however_a_file_is_cut_its_pieces_make_it_whole(server: Server, name: str) -> None:
    rng = random.Random(3)
    for _ in range(15):
        cuts = sorted({0, SIZE, *(rng.randrange(SIZE) for _ in range(rng.randrange(1, 20)))})
        wanted = [(first, stop - 1) for first, stop in pairwise(cuts)][:: rng.choice((1, 2))]
        rng.shuffle(wanted)
        answer = await ranged(server, name, "bytes=" + ",".join(f"{first}-{last}" for first, last in wanted))
        assert answer.status == 206
        if "content-range" in answer.headers:
            continue
        have = {first + index: byte for first, _, data in parts(answer) for index, byte in enumerate(data)}
        assert all(have[at] == BODY[at] for first, last in wanted for at in range(first, last + 1))
        assert len(answer.body) < 2 * SIZE + 200 * len(wanted)  # nothing is sent again and again


async def test_a_hundred_ranges_of_everything_are_no_amplifier(server: Server, name: str) -> None:
    answer = await ranged(server, name, "bytes=" + ",".join(["0-"] * 100))
    assert len(answer.body) == SIZE


async def test_head_answers_as_for_the_whole(server: Server, name: str) -> None:
    whole = await ranged(server, name, "bytes=x")
    head = await request(server.port, "HEAD", f"/files/{name}", headers={"range": "bytes=0-1"})
    assert (head.status, head.headers) == (200, {**whole.headers, "date": head.headers["date"]})


@pytest.mark.parametrize(
    ("condition", "status"),
    [("@", 206), ("W/@", 200), ('"other"', 200), ("@, @", 200), ("Fri, 01 Jan 2100 00:00:00 GMT", 200), ("", 200)],
)
async def test_if_range_wants_the_very_same_file(server: Server, name: str, condition: str, status: int) -> None:
    etag = (await ranged(server, name, "bytes=0-0")).headers["etag"]
    answer = await ranged(server, name, "bytes=1-2", if_range=condition.replace("@", etag))
    assert (answer.status, answer.body) == (status, BODY[1:3] if status == 206 else BODY)


async def test_after_a_replacement_if_range_sends_the_new_one_whole(server: Server, name: str) -> None:
    etag = (await ranged(server, name, "bytes=0-0")).headers["etag"]
    await request(server.port, "PUT", f"/files/{name}", BODY[::-1])
    assert (await ranged(server, name, "bytes=1-2", if_range=etag)).body == BODY[::-1]
    assert (await ranged(server, name, "bytes=10000-", if_range=etag)).status == 200


async def test_an_empty_file_is_empty_whatever_is_asked_of_it(server: Server, name: str) -> None:
    for value in ("bytes=0-", "bytes=-1", "bytes=0-0", "bytes=0-9007199254740991"):
        answer = await ranged(server, name, value, b"")
        assert (answer.status, answer.headers["content-length"], answer.body) == (200, "0", b"")
    head = await request(server.port, "HEAD", f"/files/{name}")
    assert (head.status, head.headers["content-length"]) == (200, "0")


async def test_ranges_of_a_growing_stream_do_not_tell_a_length(server: Server, name: str) -> None:
    await request(server.port, "POST", f"/live/{name}", b"0123456789", {"content-type": "text/plain"})
    answer = await ranged(server, name, "bytes=2-4")
    assert (answer.status, answer.headers["content-range"], answer.body) == (206, "bytes 2-4/*", b"234")
    assert answer.headers["stream-state"] == "open"
    assert (await ranged(server, name, "bytes=-3")).body == b"89\n"
    assert (await ranged(server, name, "bytes=11-")).headers["content-range"] == "bytes */11"
    whole = await request(server.port, "GET", f"/files/{name}")
    assert (whole.status, whole.headers["content-length"]) == (200, "11")


def test_curl_resumes_a_download_that_broke_off(server: Server, name: str, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(BODY * 500)
    url = f"{server.url}/files/{name}"
    curl = [tool("curl"), "--silent", "--show-error", "--fail"]
    subprocess.run([*curl, "-T", str(source), url], check=True, capture_output=True)
    target.write_bytes(source.read_bytes()[:1_234_567])
    subprocess.run([*curl, "-C", "-", "-o", str(target), url], check=True)
    assert target.read_bytes() == source.read_bytes()
    # Once more, where nothing is missing: 416 means that to curl.
    again = subprocess.run([*curl, "-C", "-", "-o", str(target), url], check=False, capture_output=True)
    assert target.read_bytes() == source.read_bytes(), again.stderr
