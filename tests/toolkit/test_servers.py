"""Bodies that broke off, under the servers that people use."""

from __future__ import annotations

from pathlib import Path

import pytest

from asgi_servers import SERVERS, running
from wire import Broken, Connection

APPLICATION = Path(__file__).parent / "live_application.py"


@pytest.mark.parametrize("server", list(SERVERS))
async def test_a_body_that_failed_never_looks_complete(server: str, tmp_path: Path) -> None:
    async with running(server, APPLICATION, NOTES=str(tmp_path / "notes")) as (port, _), Connection(port) as connection:
        with pytest.raises(Broken):
            await connection.request("GET", "/broken")
        assert connection.status == 200
