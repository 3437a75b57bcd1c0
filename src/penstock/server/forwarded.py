"""What a proxy says of a request that it passes on: ``X-Forwarded-For``, ``-Proto``, ``-Host`` and ``-Prefix``.

Anybody can send these fields. So they count only where the connection comes from a proxy that is trusted, and of a
field that came several times, or as a list, the last value: that is the one that the proxy itself has put there.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote, unquote

from starlette.types import ASGIApp, Receive, Scope, Send

from penstock.server.trusted import TrustedProxies

_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z_.-]+)(:[0-9]{1,5})?")
_PREFIX: Final = re.compile(r"(/[0-9A-Za-z._~%!$&'()*+,;=:@-]+)+")


class Forwarded:
    """ASGI middleware that takes a trusted proxy's word for where a request comes from and how it was addressed.

    It goes around everything that looks at a request's scheme, host, client or path.

    Args:
        app: the application.
        trusted: whose word counts.
        root_path: the path under which the application is to be seen from outside, and which the proxy takes away from
            the paths of requests. ``X-Forwarded-Prefix`` of a trusted proxy counts more.
    """

    def __init__(self, app: ASGIApp, trusted: TrustedProxies, root_path: str = "") -> None:
        self._app = app
        self._trusted = trusted
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on as it was addressed."""
        if scope["type"] in {"http", "websocket"}:
            client = scope.get("client")
            # A proxy on a Unix socket has no address; whoever may connect there is as good as this process.
            told = _fields(scope) if client is None or client[0] in self._trusted else {}
            scope = self._as_addressed(scope, told)
        await self._app(scope, receive, send)

    def _as_addressed(self, scope: Scope, told: dict[bytes, list[str]]) -> Scope:
        client = self._trusted.client(told.get(b"x-forwarded-for", ()))
        if client is not None:
            scope["client"] = (client, 0)  # in place: the server's access log is to know it, too
        scope = dict(scope)
        scheme = _last(told, b"x-forwarded-proto").lower()
        if scheme in {"http", "https", "ws", "wss"}:
            secure = scheme in {"https", "wss"}
            plain, safe = ("ws", "wss") if scope["type"] == "websocket" else ("http", "https")
            scope["scheme"] = safe if secure else plain
        host = _last(told, b"x-forwarded-host")
        if _HOST.fullmatch(host):
            scope["headers"] = [
                *(field for field in scope["headers"] if field[0] != b"host"),
                (b"host", host.encode()),
            ]
        prefix = _last(told, b"x-forwarded-prefix").rstrip("/")
        root_path = unquote(prefix) if _PREFIX.fullmatch(prefix) else self._root_path
        if root_path:
            scope["root_path"] = root_path
            scope["path"] = root_path + scope["path"]  # ASGI: the whole path is told, the root with it
            if isinstance(scope.get("raw_path"), bytes):
                scope["raw_path"] = quote(root_path).encode() + scope["raw_path"]
        return scope


def _fields(scope: Scope) -> dict[bytes, list[str]]:
    """Return the elements of the fields that proxies add."""
    found: dict[bytes, list[str]] = {}
    for name, value in scope["headers"]:
        if name.startswith(b"x-forwarded-"):
            found.setdefault(name, []).extend(element.strip() for element in value.decode("latin-1").split(","))
    return found


def _last(told: dict[bytes, list[str]], name: bytes) -> str:
    return told.get(name, [""])[-1]
