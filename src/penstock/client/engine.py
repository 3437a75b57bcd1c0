"""The HTTP engine: the one place that knows which HTTP library is used (httpx).

Connection-level trouble of any kind comes out of here as `Unreachable`, answers come out as they are.
"""

from __future__ import annotations

import socket
import ssl
import urllib.parse
import urllib.request
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Final, Self

import httpcore
import httpx

from penstock.client.errors import ClientError, Unreachable
from penstock.client.problems import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

CONNECT_TIMEOUT: Final = 10.0
_MAX_DOCUMENT: Final = 64 * 1024 * 1024  # a page of a thousand streams with much metadata stays far below it
_MAX_PROBLEM: Final = 64 * 1024

# A follower may wait for hours, and a peer that vanished without a word must not be waited for: after a minute of
# silence the kernel asks, and gives up after four unanswered questions.
_KEEP_ALIVE: Final = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)] + [
    (socket.IPPROTO_TCP, getattr(socket, name), value)
    for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 4))
    if hasattr(socket, name)
]


_READ: Final = 1024 * 1024
"""Bytes to take from a socket at once. httpcore asks for 64 KiB, with which a download costs twice the CPU time."""


class Answer:
    """An answer whose body is still to be read."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self.url = str(response.url)

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives.

        Raises:
            Unreachable: the body ended short of its length or its last chunk, or the connection broke.
        """
        with _told_plainly(self.url):
            async for piece in self._response.aiter_raw():
                if piece:
                    yield piece

    async def document(self) -> bytes:
        """Return the whole body of an answer that cannot be large.

        Raises:
            ClientError: it is large.
        """
        return await self._beginning(_MAX_DOCUMENT, strict=True)

    async def refusal(self, name: str = "", **sent: object) -> Refusal:
        """Return what an answer that is no success says about the stream ``name``."""
        return Refusal(self.status, self.headers, await self._beginning(_MAX_PROBLEM), name, sent)

    async def _beginning(self, limit: int, *, strict: bool = False) -> bytes:
        body = bytearray()
        async for piece in self.pieces():
            body += piece
            if len(body) > limit:
                if strict:
                    raise ClientError(f"The answer of {self.url} is larger than {limit} bytes.")
                break
        return bytes(body)


class Engine:
    """Connections to one server.

    Args:
        base_url: what every path is put after.
        headers: fields for every request.
        timeout: seconds of silence after which a connection counts as broken, where nothing else is said.
        tls: as httpx takes it for ``verify``: whether to verify certificates, or an `ssl.SSLContext`.
    """

    def __init__(
        self, base_url: str, *, headers: Mapping[str, str], timeout: float, tls: bool | ssl.SSLContext
    ) -> None:
        self.base_url = base_url
        self._timeout = timeout
        transport = _Transport(
            # Reading the certificates of the world takes a tenth of a second, and plain HTTP has no use for them.
            verify=tls if base_url.startswith("https:") else False,
            proxy=_proxy_for(base_url),
            socket_options=_KEEP_ALIVE,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=20, keepalive_expiry=4),
        )
        self._http = httpx.AsyncClient(
            transport=transport,
            # Offsets count the bytes of the stream, so nothing may be compressed on the way.
            headers={"accept-encoding": "identity", "accept": "*/*", **headers},
        )

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._http.__aexit__(kind, error, traceback)

    def url(self, path: str) -> str:
        """Return the whole address of a path."""
        return self.base_url + path

    @asynccontextmanager
    async def exchange(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | AsyncIterable[bytes] | None = None,
        silence: float | None = -1.0,
    ) -> AsyncIterator[Answer]:
        """Send one request and give its answer; the connection is given back, or closed, at the end of the block.

        Args:
            method: the HTTP method.
            path: what comes after the base URL.
            headers: more fields.
            body: the request's body.
            silence: seconds to wait for the next bytes of the answer, None for ever; negative for the usual time.

        Raises:
            Unreachable: no connection, or it broke before the answer was there.
        """
        usual = self._timeout
        timeout = httpx.Timeout(
            connect=CONNECT_TIMEOUT,
            read=usual if silence is not None and silence < 0 else silence,
            write=usual,
            pool=CONNECT_TIMEOUT,
        )
        url = self.url(path)
        with _told_plainly(self.base_url):
            request = self._http.build_request(method, url, headers=headers, content=body, timeout=timeout)
            response = await self._http.send(request, stream=True)
        try:
            yield Answer(response)
        finally:
            await response.aclose()


class _Transport(httpx.AsyncHTTPTransport):
    """httpx's transport, reading from its connections in large pieces."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # There is no public way to hand a network backend to httpx. Should this one cease to be, we just read slower.
        backend = getattr(self._pool, "_network_backend", None)
        if isinstance(backend, httpcore.AsyncNetworkBackend):
            self._pool._network_backend = _LargeReads(backend)


class _LargeReads(httpcore.AsyncNetworkBackend):
    def __init__(self, backend: httpcore.AsyncNetworkBackend) -> None:
        self._backend = backend

    async def connect_tcp(self, *args: Any, **options: Any) -> httpcore.AsyncNetworkStream:
        return _LargeReadsStream(await self._backend.connect_tcp(*args, **options))

    async def connect_unix_socket(self, *args: Any, **options: Any) -> httpcore.AsyncNetworkStream:
        return _LargeReadsStream(await self._backend.connect_unix_socket(*args, **options))

    async def sleep(self, seconds: float) -> None:
        await self._backend.sleep(seconds)


class _LargeReadsStream(httpcore.AsyncNetworkStream):
    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream
        self.write = stream.write  # type: ignore[method-assign]
        self.aclose = stream.aclose  # type: ignore[method-assign]
        self.get_extra_info = stream.get_extra_info  # type: ignore[method-assign]

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return await self._stream.read(max(max_bytes, _READ), timeout)

    async def start_tls(self, *args: Any, **options: Any) -> httpcore.AsyncNetworkStream:
        return _LargeReadsStream(await self._stream.start_tls(*args, **options))


@contextmanager
def _told_plainly(url: str) -> Iterator[None]:
    try:
        yield
    except httpx.ConnectTimeout as error:
        raise Unreachable(f"{url} did not answer within {CONNECT_TIMEOUT:.0f} s: is the address right?") from error
    except httpx.ConnectError as error:
        raise Unreachable(f"Cannot connect to {url} ({error}): is the server running there?") from error
    except httpx.TimeoutException as error:
        raise Unreachable(f"{url} went silent.") from error
    except (httpx.UnsupportedProtocol, httpx.LocalProtocolError, httpx.InvalidURL) as error:
        raise ClientError(f"The request to {url} cannot be sent: {error}") from error
    except httpx.TransportError as error:
        raise Unreachable(f"The connection to {url} broke: {str(error) or type(error).__name__}") from error


def _proxy_for(url: str) -> str | None:
    """Return the proxy that the environment names for this address (``HTTP_PROXY`` and the like), or None.

    httpx does not look for one itself where it is given a transport, and a transport is the way to set socket options.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.hostname is None or urllib.request.proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    proxies = urllib.request.getproxies()
    return proxies.get(parts.scheme) or proxies.get("all")
