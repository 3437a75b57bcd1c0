"""What all tests share."""

from __future__ import annotations

import asyncio
import inspect
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from servers import Server, free_port
from wire import request as ask
from wire import until


def missing(what: str) -> NoReturn:
    """Skip a test whose tool is missing."""
    pytest.skip(f"{what} is missing")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    """Make a skip a failure where everything must be there."""
    outcome: Any = yield
    report = outcome.get_result()
    if report.skipped and os.environ.get("PENSTOCK_REQUIRE_ALL") == "1" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"PENSTOCK_REQUIRE_ALL=1 allows no skip: {report.longrepr[2]}"


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine, within a minute."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(pyfuncitem.obj).parameters}
    asyncio.run(asyncio.wait_for(pyfuncitem.obj(**arguments), 60))
    return True


@pytest.fixture(autouse=True, scope="session")
def _state_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what clients note of their uploads out of the user's own folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture
def name() -> str:
    """A name that no other test uses."""
    return f"t{secrets.token_hex(6)}"


def tool(name: str) -> str:
    """Return the path of a program, or skip the test."""
    return shutil.which(name) or missing(name)


JAVASCRIPT = Path(__file__).parent / "js"
"""Where the clients in JavaScript are: `npm ci` there installs them."""


def node() -> str:
    """Return the path of node, which runs programs in `JAVASCRIPT`; skip the test where something is not installed."""
    if not (JAVASCRIPT / "node_modules").is_dir():
        missing("tests/js/node_modules")
    return tool("node")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that all tests of a process share: let each use names of its own."""
    with Server(tmp_path_factory.mktemp("server") / "data") as running:
        yield running


@pytest.fixture(scope="session")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The same with four worker processes."""
    with Server(tmp_path_factory.mktemp("workers") / "data", "--workers", "4") as running:
        yield running


@pytest.fixture(scope="module")
def granian(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a server that hands no connections over."""
    port = free_port()
    command = [sys.executable, "-m", "granian", "--interface", "asgi", "--port", str(port), "--no-log"]
    process = subprocess.Popen(
        [*command, "fanout_application:app"],
        cwd=Path(__file__).parent / "doors",
        env={**os.environ, "FANOUT_FOLDER": str(tmp_path_factory.mktemp("granian") / "data")},
        start_new_session=True,
    )

    async def ready() -> int:
        try:
            return (await ask(port, "GET", "/readyz")).status
        except OSError:
            return 0

    asyncio.run(until(ready, 200))
    yield port
    process.send_signal(signal.SIGINT)
    process.wait(30)


@pytest.fixture(params=["handed over", "plain ASGI"])
def port(request: pytest.FixtureRequest) -> int:
    """The port of a server of either kind."""
    if request.param == "plain ASGI":
        found: int = request.getfixturevalue("granian")
        return found
    server: Server = request.getfixturevalue("server")
    return server.port
