"""The client for sync code."""

from __future__ import annotations

import inspect
import signal
import threading
import time

import pytest

from penstock.client import Appender, Client, SyncAppender, SyncClient
from scripted import Asked, Reply, ScriptedServer


def test_nothing_of_the_client_is_missing() -> None:
    for wrapped, wrapper in ((Client, SyncClient), (Appender, SyncAppender)):
        for name, method in inspect.getmembers(wrapped, inspect.isfunction):
            if not name.startswith("_"):
                twin = getattr(wrapper, name)
                assert twin.__doc__ == method.__doc__
                assert list(inspect.signature(twin).parameters) == list(inspect.signature(method).parameters)


def test_it_is_used_in_a_with_block() -> None:
    client = SyncClient("http://127.0.0.1:1")
    with pytest.raises(RuntimeError, match="with block"):
        client.info("x")


def test_threads_end_with_the_block() -> None:
    before = threading.active_count()
    with ScriptedServer(lambda _: Reply(200, {"stream-state": "closed"}, b"data")) as server:
        for _ in range(2):
            with SyncClient(server.url) as client:
                assert client.info("x").tail == 4
        with SyncClient(server.url) as client:
            assert [client.info("x").tail for _ in range(3)] == [4, 4, 4]
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


def test_leaving_a_loop_early_closes_the_connection() -> None:
    def script(_: Asked) -> Reply:
        return Reply(200, {"stream-state": "open", "stream-incarnation": "1"}, b"x" * 10, cut=5, chunked=True)

    with ScriptedServer(script) as server, SyncClient(server.url) as client:
        chunks = client.read("x", follow=True)
        assert bytes(next(chunks).data) == b"xxxxx"
        chunks.close()
        with pytest.raises(StopIteration):
            next(chunks)


def test_an_error_in_the_block_ends_everything() -> None:
    def work(url: str) -> None:
        with SyncClient(url) as client:
            client.info("x")
            raise KeyboardInterrupt

    with ScriptedServer(lambda _: Reply(200, {}, b"data")) as server, pytest.raises(KeyboardInterrupt):
        work(server.url)


def test_an_interrupt_ends_what_is_waited_for() -> None:
    """As Ctrl-C does in the main thread."""

    def script(asked: Asked) -> Reply:
        # The body never comes to its end.
        return Reply(
            200,
            {"stream-state": "open", "stream-incarnation": "1", "stream-tail": "9"},
            b"x",
            chunked=True,
            silent=asked.method == "GET",
        )

    main = threading.main_thread().ident
    assert main is not None

    def interrupt() -> None:
        time.sleep(0.3)
        signal.pthread_kill(main, signal.SIGINT)

    with ScriptedServer(script) as server, SyncClient(server.url) as client:
        chunks = client.read("x", follow=True)
        assert bytes(next(chunks).data) == b"x"
        threading.Thread(target=interrupt).start()
        with pytest.raises(KeyboardInterrupt):
            next(chunks)
        chunks.close()
        assert client.info("x").tail == 9
