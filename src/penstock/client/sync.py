"""The client for sync code: `Client`, seen through `penstock.client.blocking`."""

from __future__ import annotations

from typing import Unpack

from penstock.client.appending import Appender
from penstock.client.blocking import Blocking, blocking, iterating, nested
from penstock.client.client import DEFAULT_URL, Client, ClientOptions


class SyncAppender(Blocking[Appender]):
    """See `penstock.client.Appender`; for use in a plain ``with``."""

    append = blocking(Appender.append)
    flush = blocking(Appender.flush)

    @property
    def offset(self) -> int | None:
        """The offset after the last record that is safe, or None before the first."""
        return self._wrapped.offset

    @property
    def count(self) -> int:
        """How many records are safe."""
        return self._wrapped.count


class SyncClient(Blocking[Client]):
    """See `penstock.client.Client`; for use in a plain ``with``, from any thread.

    ::

        with SyncClient("http://127.0.0.1:8080") as client:
            client.put("big.iso", "images/big.iso")
            for chunk in client.read("logs/today", follow=True):
                print(chunk.offset, chunk.data)

    ``progress`` functions are called in the thread of the event loop.

    Args:
        base_url: the server's address.
        **options: see `ClientOptions`.
    """

    def __init__(self, base_url: str = DEFAULT_URL, **options: Unpack[ClientOptions]) -> None:
        super().__init__(Client(base_url, **options))

    put = blocking(Client.put)
    put_growing = blocking(Client.put_growing)
    put_folder = iterating(Client.put_folder)
    find = blocking(Client.find)
    get = blocking(Client.get)
    read = iterating(Client.read)
    tail = iterating(Client.tail)
    records = iterating(Client.records)
    stop = blocking(Client.stop)
    presence = blocking(Client.presence)
    append = blocking(Client.append)
    close_stream = blocking(Client.close_stream)
    appender = nested(Client.appender, SyncAppender)
    list = iterating(Client.list)
    info = blocking(Client.info)
    delete = blocking(Client.delete)
