"""aiotus, as it is published, against the server."""

from __future__ import annotations

import io
import os

import aiohttp
import aiotus
import pytest
import yarl
from aiotus import core, creation

from servers import Server
from wire import request

# It sends chunks of bytes as they are, and aiohttp has an opinion on that.
pytestmark = pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning")

DATA = os.urandom(3_000_000)


async def content(server: Server, url: yarl.URL) -> bytes:
    return (await request(server.port, "GET", url.raw_path_qs)).body


async def test_upload(server: Server) -> None:
    url = await aiotus.upload(
        f"{server.url}/files/", io.BytesIO(DATA), {"filename": b"a.csv", "empty": None}, chunksize=500_000
    )
    assert url is not None
    assert await content(server, url) == DATA
    assert await aiotus.metadata(url) == {"filename": b"a.csv", "empty": None}


async def test_upload_in_parts(server: Server) -> None:
    parts = [io.BytesIO(DATA[start : start + 700_000]) for start in range(0, len(DATA), 700_000)]
    url = await aiotus.upload_multiple(f"{server.url}/files/", parts, {"filename": b"a.csv"})
    assert url is not None
    assert await content(server, yarl.URL(f"{server.url}/files/").join(url)) == DATA


class Stopping(io.BytesIO):
    """A file that cannot be read to its end."""

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() >= 1_000_000:
            raise OSError("the disk is gone")
        return super().read(size)


async def test_pause_resume_and_abort(server: Server) -> None:
    endpoint = yarl.URL(f"{server.url}/files/")
    async with aiohttp.ClientSession() as session:
        location = endpoint.join(await creation.create(session, endpoint, io.BytesIO(DATA), {}))
        with pytest.raises(OSError, match="the disk is gone"):
            await core.upload_buffer(session, location, Stopping(DATA), chunksize=500_000)
        assert await core.offset(session, location) == 1_000_000
        await core.upload_buffer(session, location, io.BytesIO(DATA))
        assert await content(server, location) == DATA
        async with session.delete(location, headers={"Tus-Resumable": "1.0.0"}) as answer:
            assert answer.status == 204
        assert (await request(server.port, "GET", location.raw_path_qs)).status == 404


async def test_it_is_told_what_the_server_can(server: Server) -> None:
    async with aiohttp.ClientSession() as session:
        told = await core.configuration(session, yarl.URL(f"{server.url}/files/"))
        assert told.protocol_versions == ["1.0.0"]
        assert {"creation", "termination", "concatenation"} <= set(told.protocol_extensions)
