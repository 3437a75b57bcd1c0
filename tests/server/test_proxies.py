"""The server behind nginx and Caddy, configured exactly as the documentation says."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import socket
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self
from urllib.parse import quote

import pytest

from conftest import tool
from cutting import Cutting
from penstock import StreamGone
from penstock.client import Client
from processes import descriptors
from resuming import PARTIAL
from resuming import Client as Resuming
from servers import Server, free_port
from wire import Broken, Connection, events, request, until

DOCS = Path(__file__).parents[2] / "docs" / "proxies.md"
JSON = {"content-type": "application/json"}


def documented(kind: str) -> str:
    """Return a configuration, as it stands in the documentation."""
    (text,) = re.findall(rf"^```{kind}\n(.*?)^```$", DOCS.read_text(), re.DOTALL | re.MULTILINE)
    return str(text)


class Proxy:
    """A proxy in front of a server.

    Attributes:
        port: where it listens.
        folder: what it writes to.
    """

    def __init__(
        self, kind: str, folder: Path, server: Server, certificate: Path | None = None, largest: str = "0"
    ) -> None:
        self.kind = kind
        self.folder = folder
        self.port = free_port()
        self._server = server
        self._certificate = certificate
        self._largest = largest
        self._configure = {"nginx": self._nginx, "caddy": self._caddy}[kind]

    def _nginx(self) -> list[str]:
        text = documented("nginx")
        secure = "" if self._certificate is None else f" ssl; ssl_certificate {self._certificate}"
        secure += "" if self._certificate is None else f"; ssl_certificate_key {self._certificate}"
        text = _put(text, "listen 80;", f"listen 127.0.0.1:{self.port}{secure};")
        text = _put(text, "server 127.0.0.1:8080;", f"server 127.0.0.1:{self._server.port};")
        text = _put(text, "client_max_body_size 0;", f"client_max_body_size {self._largest};")
        temporary = "".join(
            f"{module}_temp_path {self.folder}/temporary;"
            for module in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        main = f"user root; daemon off; pid {self.folder}/pid; error_log {self.folder}/log;"
        path = self.folder / "nginx.conf"
        path.write_text(f"{main} events {{}} http {{ access_log off; {temporary}\n{text} }}")
        return [tool("nginx"), "-p", str(self.folder), "-c", str(path)]

    def _caddy(self) -> list[str]:
        text = _put(documented("caddy"), "files.example.com {", f"http://127.0.0.1:{self.port} {{")
        text = _put(text, "127.0.0.1:8080", f"127.0.0.1:{self._server.port}")
        path = self.folder / "Caddyfile"
        path.write_text(f"{{\nadmin off\nauto_https off\n}}\n{text}")
        return [tool("caddy"), "run", "--config", str(path)]

    def __enter__(self) -> Self:
        command = self._configure()
        home = dict.fromkeys(("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"), str(self.folder))
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, env={**os.environ, **home}, start_new_session=True
            )
        deadline = time.monotonic() + 20
        while not self._listens():
            assert self._process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return self

    def _listens(self) -> bool:
        with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", self.port), 5):
            return True
        return False

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def _put(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1
    return text.replace(old, new)


@pytest.fixture(scope="module", params=["nginx", "caddy"])
def proxy(request: pytest.FixtureRequest, server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    tool(request.param)
    with Proxy(request.param, tmp_path_factory.mktemp(request.param), server) as running:
        yield running


def spooled(proxy: Proxy) -> list[Path]:
    """Return what the proxy keeps of bodies on its disk."""
    return [path for path in proxy.folder.glob("temporary/**/*") if path.is_file()]


@pytest.mark.parametrize("odd", ["plain.txt", "é ü.txt", "a?b#c.txt", "100%.txt", "a+b&c=d;e.txt", "%2e", "a:b@c"])
async def test_urls_are_those_that_clients_see(proxy: Proxy, server: Server, name: str, odd: str) -> None:
    path = f"/store/files/{name}/{quote(odd)}"
    stored = await request(proxy.port, "PUT", path, b"hello")
    assert (stored.status, stored.json()["name"]) == (201, f"{name}/{odd}")
    assert stored.headers["location"] == stored.json()["url"] == path
    assert (await request(proxy.port, "GET", stored.headers["location"])).body == b"hello"
    listed = (await request(proxy.port, "GET", f"/store/files/?prefix={name}/")).json()["streams"]
    assert [stream["url"] for stream in listed] == [path]
    direct = await request(server.port, "GET", path.removeprefix("/store"))
    assert direct.body == b"hello"


async def test_the_prefix_and_the_host_are_known(proxy: Proxy) -> None:
    async with Connection(proxy.port) as connection:
        welcome = await connection.request("GET", "/store/", headers={"host": f"127.0.0.1:{proxy.port}"})
    assert f"http://127.0.0.1:{proxy.port}/store/files/NAME" in welcome.body.decode()
    posted = await request(proxy.port, "POST", "/store/live/forwarded", b"1", JSON)
    assert posted.status in {200, 201}
    assert posted.headers.get("location", "/store/live/forwarded") == "/store/live/forwarded"


@pytest.mark.parametrize("declared", [True, False], ids=["length", "chunked"])
async def test_an_upload_arrives_as_it_is_sent(proxy: Proxy, name: str, declared: bool) -> None:
    body = random.Random(1).randbytes(12_000_000)
    fields = {"content-length": str(len(body))} if declared else {"transfer-encoding": "chunked"}
    path = f"/store/files/{name}"
    async with Connection(proxy.port) as upload, Connection(proxy.port) as reader:
        await upload.begin("PUT", path, fields)
        send = upload.write if declared else upload.write_chunk
        await send(body[:3_000_000])

        async def there() -> bool:
            return int((await request(proxy.port, "HEAD", path)).headers.get("stream-tail", 0)) == 3_000_000

        await until(there, True)
        await reader.begin("GET", f"{path}?follow")
        assert await reader.head() == 200
        received = bytearray()
        following = reader.body()
        while len(received) < 3_000_000:
            received += await anext(following)
        await send(body[3_000_000:])
        if not declared:
            await upload.write_chunk(b"")
        assert (await upload.answer()).status == 201
        async for data in following:
            received += data
        assert received == body
    assert spooled(proxy) == []


async def test_an_upload_that_breaks_off_is_known_to(proxy: Proxy, name: str) -> None:
    async with Connection(proxy.port) as upload:
        await upload.begin("PUT", f"/store/files/{name}", {"content-length": "10000000"})
        await upload.write(bytes(1_000_000))

        async def status() -> int:
            return (await request(proxy.port, "HEAD", f"/store/files/{name}")).status

        await until(status, 200)
    await until(status, 404)


async def test_an_upload_that_resumes_does_so_through_it(proxy: Proxy, name: str, tmp_path: Path) -> None:
    data = random.Random(3).randbytes(20_000_000)
    source = tmp_path / "source"
    source.write_bytes(data)
    cuts = [5_000_000, 300, 6_000_000]
    async with Cutting(proxy.port, cuts) as cutting, Client(f"http://127.0.0.1:{cutting.port}/store") as client:
        stream = await client.put(source, name)
        assert (stream.state, stream.tail, stream.digests != {}) == ("closed", len(data), True)
        assert stream.url == f"http://127.0.0.1:{cutting.port}/store/files/{name}"
        joined = await client.put(source, f"{name}-parts", parts=3)
        assert joined.tail == len(data)
        result = await client.get(f"{name}-parts", tmp_path / "copy")
        assert result.verified
    assert cutting.cuts == 3
    # What the proxy had not passed on when its client was gone is lost with it: no more than it has buffers for.
    assert sum(request.body for request in cutting.requests) < 2 * len(data) + 3 * 1024 * 1024
    assert (tmp_path / "copy").read_bytes() == data
    assert spooled(proxy) == []


@pytest.mark.parametrize("size", [100, 3_000_000])
async def test_uploads_by_the_ietfs_protocol_pass(proxy: Proxy, name: str, size: int) -> None:
    body = random.Random(5).randbytes(size)
    path = f"/store/files/{name}"
    fields = {"upload-draft-interop-version": "8", "upload-complete": "?1", "content-length": str(size)}
    async with Connection(proxy.port) as connection:
        await connection.begin("PUT", path, fields)
        await connection.write(body)
        assert await connection.head() == 201
    assert (await request(proxy.port, "GET", path)).body == body
    async with Connection(proxy.port) as connection:
        await connection.begin("POST", path, {**fields, "upload-complete": "?0", "content-length": "0"})
        assert await connection.head() in {200, 201}
        assert connection.headers["location"].startswith(f"{path}?upload=")


async def test_a_resumable_upload_goes_through_it(proxy: Proxy, name: str) -> None:
    client = Resuming(proxy.port)
    body = random.Random(5).randbytes(1_000_000)
    begun = await client.create(f"/store/files/{name}", body[:300_000], complete=False)
    location = begun.headers["location"]
    assert location.startswith(f"/store/files/{name}?upload=")
    async with Connection(proxy.port) as broken:
        fields = client.fields(True, content_type=PARTIAL, upload_offset="300000", content_length="700000")
        await broken.begin("PATCH", location, fields)
        await broken.write(body[300_000:500_000])

        async def arrived() -> bool:
            return int((await request(proxy.port, "HEAD", f"/store/files/{name}")).headers["stream-tail"]) > 300_000

        await until(arrived, True)
    offset = await client.offset(location)
    done = await client.append(location, body[offset:], offset)
    assert (done.status, done.headers["upload-complete"]) == (201, "?1")
    assert (await request(proxy.port, "GET", f"/store/files/{name}")).body == body

    one = await client.create(f"/store/files/{name}-one", body)
    assert (one.status, one.headers["upload-complete"]) == (201, "?1")
    assert one.interim == []  # as the documentation says; a proxy that passes them on is worth another word there


async def test_a_limit_of_the_proxy_is_found_out_and_kept_to(server: Server, name: str, tmp_path: Path) -> None:
    tool("nginx")
    data = random.Random(4).randbytes(5_000_000)
    with Proxy("nginx", tmp_path, server, largest="1m") as proxy:
        async with Client(f"http://127.0.0.1:{proxy.port}/store") as client:
            stream = await client.put(data, name)
            assert (stream.state, stream.tail) == ("closed", len(data))
            assert b"".join([bytes(chunk.data) async for chunk in client.read(name)]) == data


async def test_events_come_at_once_and_readers_are_let_go(proxy: Proxy, server: Server, name: str) -> None:
    async with Connection(proxy.port) as reader:
        await request(proxy.port, "POST", f"/store/live/{name}", b"0", JSON)
        await reader.begin("GET", f"/store/live/{name}?offset=0")
        assert await reader.head() == 200
        told = events(reader)
        for number in range(5):
            assert (await asyncio.wait_for(anext(told), 10)).data == str(number)
            await request(proxy.port, "POST", f"/store/live/{name}", b"%d" % (number + 1), JSON)

    # Whether the server has noticed that the reader is gone shows in what it holds open.
    def held() -> int:
        return sum("socket:" in target for target in descriptors(server.pid))

    before = held()
    readers = [await Connection(proxy.port).open() for _ in range(10)]
    for one in readers:
        await one.begin("GET", f"/store/live/{name}?offset=0")
        assert await one.head() == 200
    assert held() >= before + 5
    for one in readers:
        one.close()

    async def released() -> bool:
        return held() < before + 5

    await until(released, True)


async def test_a_long_download_waits_for_its_reader(proxy: Proxy, name: str) -> None:
    body = random.Random(2).randbytes(60_000_000)
    assert (await request(proxy.port, "PUT", f"/store/files/{name}", body)).status == 201
    async with Connection(proxy.port, receive_buffer=65536) as reader:
        await reader.begin("GET", f"/store/files/{name}")
        assert await reader.head() == 200
        assert reader.headers["content-length"] == str(len(body))
        received = bytearray()
        async for data in reader.body():
            if len(received) < 1_000_000 <= len(received) + len(data):
                assert spooled(proxy) == []
            received += data
        assert received == body
    assert spooled(proxy) == []
    part = await request(proxy.port, "GET", f"/store/files/{name}", headers={"range": "bytes=30000000-30000009"})
    assert (part.status, part.body) == (206, body[30_000_000:30_000_010])


async def test_a_broken_stream_looks_broken(proxy: Proxy, name: str) -> None:
    async with Connection(proxy.port) as reader, Client(f"http://127.0.0.1:{proxy.port}/store") as client:
        await client.append(name, "1")
        await reader.begin("GET", f"/store/files/{name}?follow")
        assert await reader.head() == 200
        body = reader.body()
        assert await anext(body) == b"1\n"
        chunks = client.read(name, follow=True)
        assert (await anext(chunks)).data == b"1\n"
        await client.delete(name)
        if proxy.kind == "nginx":  # Caddy 2.6 ends what was broken off as if it were complete
            with pytest.raises((Broken, ConnectionError)):
                await anext(body)
        with pytest.raises(StreamGone):
            await anext(chunks)


def test_tls_at_the_proxy_is_known(server: Server, tmp_path: Path) -> None:
    tool("nginx")
    certificate = tmp_path / "certificate.pem"
    subprocess.run(
        [
            *(tool("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1", "-days", "2"),
            *("-keyout", str(certificate), "-out", str(tmp_path / "public.pem")),
        ],
        check=True,
        capture_output=True,
    )
    with certificate.open("a") as whole:
        whole.write((tmp_path / "public.pem").read_text())
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with Proxy("nginx", tmp_path, server, certificate) as proxy:
        url = f"https://127.0.0.1:{proxy.port}/store/"
        with urllib.request.urlopen(url, timeout=10, context=context) as answer:
            assert f"{url}files/NAME" in answer.read().decode()
