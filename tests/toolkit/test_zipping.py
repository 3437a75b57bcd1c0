"""`StreamedZip` on a real server, its archives judged by Python's zipfile and by unzip."""

from __future__ import annotations

import asyncio
import io
import os
import random
import subprocess
import zipfile
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st

from applications import serving
from conftest import tool
from penstock.model import Buffer
from penstock.protocols.archive import ArchiveWriter, Member, Written, check_member_name
from penstock.toolkit.responses import members, zipping
from penstock.toolkit.responses.zipping import StreamedZip, ZipEntry, ZipFolder
from wire import Broken, Connection, request, until

BODY = random.Random(4).randbytes(700_000)
TEXT = b"the same line again\n" * 20_000
MODIFIED = 1_750_000_001


class Bucket:
    """Somebody's object store."""

    length = len(BODY)
    etag = '"object"'
    last_modified: float | None = MODIFIED

    async def read(self, start: int, stop: int) -> AsyncGenerator[Buffer, None]:
        for offset in range(start, stop, 100_000):
            await asyncio.sleep(0)
            yield memoryview(BODY)[offset : min(offset + 100_000, stop)]


async def lines() -> AsyncIterator[str]:
    for number in range(1000):
        yield f"line {number} ü\n"


def blocks() -> Iterator[bytes]:
    for _ in range(20):
        yield TEXT


LINES = "".join(f"line {number} ü\n" for number in range(1000)).encode()


def folder(path: Path) -> Path:
    root = path / "photos"
    for name, body in {"a.bin": BODY, "b/c.txt": TEXT, "b/Ünï.txt": b"", "b/back\\slash\n": b"x"}.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(body)
        os.utime(file, (MODIFIED, MODIFIED))
    (root / "empty").mkdir()
    (root / "link").symlink_to("/etc/passwd")
    (root / "loop").symlink_to(root)
    (root / "a.bin").chmod(0o755)
    return root


def application(entries: Any, **options: Any) -> FastAPI:
    app = FastAPI()

    @app.api_route("/zip", methods=["GET", "HEAD"])
    async def archive() -> StreamedZip:
        return StreamedZip(entries(), **options)

    return app


def unpacked(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


async def check_with_unzip(path: Path, data: bytes) -> None:
    await asyncio.to_thread(path.write_bytes, data)
    command = [tool("unzip"), "-tqq", str(path)]
    result = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("deflate", [False, True])
async def test_folder(tmp_path: Path, deflate: bool) -> None:
    root = folder(tmp_path)
    async with serving(application(lambda: ZipFolder(root), deflate=deflate, filename="f.zip")) as port:
        answer = await request(port, "GET", "/zip")
        head = await request(port, "HEAD", "/zip")
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/zip"
    assert answer.headers["content-disposition"] == 'attachment; filename="f.zip"'
    assert unpacked(answer.body) == {
        "photos/a.bin": BODY,
        "photos/b/back_slash_": b"x",
        "photos/b/c.txt": TEXT,
        "photos/b/Ünï.txt": b"",
        "photos/empty/": b"",
    }
    with zipfile.ZipFile(io.BytesIO(answer.body)) as archive:
        assert archive.getinfo("photos/a.bin").external_attr >> 16 == 0o100755
        assert archive.getinfo("photos/empty/").is_dir()
    await check_with_unzip(tmp_path / "it.zip", answer.body)
    if deflate:
        assert len(answer.body) < len(BODY) + len(TEXT) // 2
    else:
        assert int(answer.headers["content-length"]) == len(answer.body)
    assert (head.status, head.body) == (200, b"")
    for field in ("content-length", "etag"):
        assert head.headers.get(field) == answer.headers.get(field)


async def test_all_kinds(tmp_path: Path) -> None:
    file = folder(tmp_path) / "a.bin"

    def entries() -> list[Any]:
        return [
            file,
            ("in/other.bin", file),
            ("in/text.txt", b"bytes"),
            ("in/object", Bucket()),
            ("lines.txt", lines()),
            ("blocks.txt", blocks()),
            ZipEntry("deflated.txt", blocks(), modified=MODIFIED, deflate=True),
            ("end/", b""),
        ]

    expected = {
        "a.bin": BODY,
        "in/other.bin": BODY,
        "in/text.txt": b"bytes",
        "in/object": BODY,
        "lines.txt": LINES,
        "blocks.txt": TEXT * 20,
        "deflated.txt": TEXT * 20,
        "end/": b"",
    }

    async def one_by_one() -> AsyncIterator[Any]:
        for entry in entries():
            yield entry

    for source in (entries, lambda: iter(entries()), one_by_one):
        async with serving(application(source)) as port:
            answer = await request(port, "GET", "/zip", headers={"range": "bytes=0-9"})
        assert answer.status == 200
        assert "content-length" not in answer.headers
        assert "accept-ranges" not in answer.headers
        assert unpacked(answer.body) == expected
        await check_with_unzip(tmp_path / "it.zip", answer.body)


async def test_known_length_of_what_comes_once(tmp_path: Path) -> None:
    size = len(TEXT) * 20
    async with serving(application(lambda: [ZipEntry("a.txt", blocks(), size=size), ("b", BODY)])) as port:
        answer = await request(port, "GET", "/zip", headers={"range": "bytes=0-9"})
    assert (answer.status, answer.headers["content-length"]) == (200, str(len(answer.body)))
    assert unpacked(answer.body) == {"a.txt": TEXT * 20, "b": BODY}
    await check_with_unzip(tmp_path / "it.zip", answer.body)
    for wrong in (size - 1, size + 1):
        async with serving(application(lambda wrong=wrong: [ZipEntry("a.txt", blocks(), size=wrong)])) as port:
            with pytest.raises(Broken):
                await request(port, "GET", "/zip")


async def test_every_range_is_a_part_of_the_same_archive(tmp_path: Path) -> None:
    root = folder(tmp_path)

    def entries() -> list[Any]:
        return [*ZipFolder(root), ("object", Bucket()), ("object2", Bucket()), ("bytes", b"12345")]

    chance = random.Random(5)
    async with serving(application(entries)) as port:
        whole = await request(port, "GET", "/zip")
        assert unpacked(whole.body)["object2"] == BODY
        size, etag = len(whole.body), whole.headers["etag"]
        assert etag.startswith('"')
        assert (await request(port, "GET", "/zip", headers={"if-none-match": etag})).status == 304
        cuts = [(0, 0), (0, size - 1), (size - 1, size - 1), (size - 22, size - 1)]
        cuts += [tuple(sorted((chance.randrange(size), chance.randrange(size)))) for _ in range(40)]  # type: ignore[misc]
        cuts += [(start, min(start + chance.randrange(100), size - 1)) for start in range(size - 900, size, 17)]
        for first, last in cuts:
            zipping._crcs.clear()  # as in another process
            fields = {"range": f"bytes={first}-{last}", "if-range": etag}
            part = await request(port, "GET", "/zip", headers=fields)
            assert (part.status, part.body == whole.body[first : last + 1]) == (206, True), (first, last)
        os.utime(root / "b/c.txt", (MODIFIED + 2, MODIFIED + 2))
        changed = await request(port, "GET", "/zip", headers={"range": "bytes=1-2", "if-range": etag})
        assert changed.status == 200
        assert changed.headers["etag"] != etag


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 400), min_size=0, max_size=8),
    cut=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_ranges_of_small_archives(sizes: list[int], cut: tuple[float, float]) -> None:
    entries: list[Any] = [(f"f{index}", bytes([index]) * size) for index, size in enumerate(sizes)]
    archive = zipping.StoredZip(members.plan_all(entries, False))

    async def read(start: int, stop: int) -> bytes:
        return b"".join([bytes(piece) async for piece in archive.read(start, stop)])

    whole = asyncio.run(read(0, archive.length))
    assert len(whole) == archive.length
    assert unpacked(whole) == dict(entries)
    start, stop = sorted(int(part * archive.length) for part in cut)
    assert asyncio.run(read(start, stop)) == whole[start:stop]


@pytest.mark.parametrize(
    "name", ["", "/", "/etc/passwd", "../up", "a/../../b", "a//b", "./a", "a\\b", "C:/x", "a\0b", "a\nb", "x" * 70_000]
)
async def test_unsafe_names(name: str) -> None:
    with pytest.raises(ValueError, match=r"for an archive|in an archive"):
        check_member_name(name)
    with pytest.raises(ValueError, match="archive"):
        members.plan_all([(name, b"")], False)


def test_names_that_overwrite_each_other() -> None:
    with pytest.raises(ValueError, match="one name"):
        members.plan_all([("a", b"1"), ("a", b"2")], False)


async def test_missing_file(tmp_path: Path) -> None:
    file = folder(tmp_path) / "a.bin"
    entries = [file, tmp_path / "missing"]
    async with serving(application(lambda: entries)) as port:
        assert (await request(port, "GET", "/zip")).status == 404
    async with serving(application(lambda: iter(entries[1:]))) as port:
        assert (await request(port, "GET", "/zip")).status == 404
    async with serving(application(lambda: iter(entries))) as port:
        with pytest.raises(Broken):
            await request(port, "GET", "/zip")


async def test_failure_breaks_off() -> None:
    def failing() -> Iterator[bytes]:
        yield BODY
        raise OSError("no more")

    for deflate in (False, True):
        async with serving(application(lambda: [("a", failing())], deflate=deflate)) as port:
            with pytest.raises(Broken):
                await request(port, "GET", "/zip")


async def test_many_small_files(tmp_path: Path) -> None:
    for number in range(1000):
        (tmp_path / f"{number:04}").write_bytes(b"%d" % number)
    for deflate in (False, True):
        async with serving(application(lambda: ZipFolder(tmp_path, prefix=""), deflate=deflate)) as port:
            answer = await request(port, "GET", "/zip")
        assert unpacked(answer.body) == {f"{number:04}": b"%d" % number for number in range(1000)}


def test_more_than_65535_members(tmp_path: Path) -> None:
    writer = ArchiveWriter()
    pieces = []
    for number in range(70_000):
        member = Member(name=f"{number}", modified=MODIFIED, size=0, crc=0)
        pieces += [writer.begin(member), writer.end(Written(0, 0, 0))]
    data = b"".join(pieces) + writer.finish()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert len(archive.namelist()) == 70_000
    (tmp_path / "many.zip").write_bytes(data)
    subprocess.run([tool("unzip"), "-Zt", str(tmp_path / "many.zip")], check=True, capture_output=True)


GIB = 1024**3


class Zeros:
    """5 GiB that nobody wrote."""

    length = 5 * GIB
    etag = '"zeros"'
    last_modified: float | None = MODIFIED

    async def read(self, start: int, stop: int) -> AsyncGenerator[Buffer, None]:
        zeros = memoryview(bytes(16 * 1024 * 1024))
        while start < stop:
            data = zeros[: stop - start]
            yield data
            start += len(data)


def holes(path: Path) -> Iterator[Any]:
    yield path


@pytest.mark.slow
@pytest.mark.parametrize("sized", [True, False])
async def test_more_than_4_gib(tmp_path: Path, sized: bool) -> None:
    """Sizes and offsets of more than 32 bits, with holes for zeros on the way and on the disk."""
    entries: list[Any] = [("zeros", Zeros()), ("after", b"the end")]
    path = tmp_path / "large.zip"
    planned = members.plan_all(entries, False)
    if sized:
        archive = zipping.StoredZip(planned)
        pieces = archive.read(0, archive.length)
    else:
        pieces = zipping._written(zipping._in_runs(planned), 6)
    zeros = bytes(16 * 1024 * 1024)
    with path.open("wb") as file:
        async for piece in pieces:
            if len(piece) == len(zeros):
                file.seek(len(piece), os.SEEK_CUR)
            else:
                file.write(piece)
    if sized:
        assert path.stat().st_size == archive.length

    def check() -> None:
        with zipfile.ZipFile(path) as found:
            info = found.getinfo("zeros")
            assert (info.file_size, info.compress_size) == (5 * GIB, 5 * GIB)
            assert found.getinfo("after").header_offset > 5 * GIB
            assert found.read("after") == b"the end"
            expected = 0
            for _ in range(5 * GIB // len(zeros)):
                expected = zlib.crc32(zeros, expected)
            assert expected == info.CRC
        command = [tool("unzip"), "-p", str(path), "after"]
        assert subprocess.run(command, check=True, capture_output=True).stdout == b"the end"

    await asyncio.to_thread(check)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_client_leaves(tmp_path: Path) -> None:
    path = tmp_path / "zeros"
    path.touch()
    os.truncate(path, GIB)
    closed = []

    async def endless() -> AsyncGenerator[bytes, None]:
        try:
            while True:
                yield bytes(100_000)
                await asyncio.sleep(0)
        finally:
            closed.append(True)

    async def leave(port: int) -> None:
        async with Connection(port) as connection:
            await connection.begin("GET", "/zip")
            await connection.head()
            await anext(connection.body())

    async def ended() -> int:
        return len(closed)

    before = open_files()
    async with serving(application(lambda: [path, ("again", path)])) as port:
        for _ in range(5):
            await leave(port)
    async with serving(application(lambda: [("endless", endless())])) as port:
        await leave(port)
        await until(ended, 1)
    assert open_files() <= before
