"""Fields after a request's body, and the checksums that clients of tus send in them."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping

import pytest

from servers import Server
from wire import Answer, Connection, request

TUS = {"tus-resumable": "1.0.0"}
SENDING = {
    **TUS,
    "content-type": "application/offset+octet-stream",
    "transfer-encoding": "chunked",
    "trailer": "Upload-Checksum",
    "upload-offset": "0",
}


async def send(port: int, url: str, data: bytes, trailers: str, headers: Mapping[str, str] = SENDING) -> Answer:
    async with Connection(port) as connection:
        await connection.begin("PATCH", url, headers)
        await connection.write_chunk(data)
        await connection.write(f"0\r\n{trailers}\r\n".encode())
        return await connection.answer()


async def created(port: int, length: int) -> str:
    answer = await request(port, "POST", "/files/", headers={**TUS, "upload-length": str(length)})
    return f"/files/{answer.headers['location']}"


def checksum(data: bytes) -> str:
    return f"Upload-Checksum: sha1 {base64.b64encode(hashlib.sha1(data).digest()).decode()}\r\n"  # noqa: S324 - theirs


async def test_the_extension_is_told(server: Server) -> None:
    told = await request(server.port, "OPTIONS", "/files/")
    assert "checksum-trailer" in told.headers["tus-extension"].split(",")


async def test_a_checksum_after_the_body(server: Server) -> None:
    url = await created(server.port, 5)
    assert (await send(server.port, url, b"hello", checksum(b"hellO"))).status == 460
    assert (await request(server.port, "HEAD", url, headers=TUS)).headers["upload-offset"] == "0"
    assert (await send(server.port, url, b"hello", f"X-Other: x\r\n{checksum(b'hello')}")).status == 204
    assert (await request(server.port, "GET", url)).body == b"hello"


@pytest.mark.parametrize("trailers", ["", "X-Other: x\r\n", "Upload-Checksum: crc64 AAAA\r\n", "Upload-Checksum:\r\n"])
async def test_a_checksum_that_was_announced_must_come(server: Server, trailers: str) -> None:
    url = await created(server.port, 5)
    assert (await send(server.port, url, b"hello", trailers)).status == 400
    assert (await request(server.port, "HEAD", url, headers=TUS)).headers["upload-offset"] == "0"


async def test_a_trailer_is_no_header_field(server: Server) -> None:
    url = await created(server.port, 6)
    fields = {name: value for name, value in SENDING.items() if name != "trailer"}
    flood = "".join(f"X-{number}: {'x' * 100}\r\n" for number in range(100))
    sent = await send(server.port, url, b"hello", f"Upload-Length: 5\r\n{checksum(b'other')}{flood}", fields)
    assert (sent.status, sent.headers["upload-offset"]) == (204, "5")
    assert (await request(server.port, "HEAD", url, headers=TUS)).headers["upload-length"] == "6"
