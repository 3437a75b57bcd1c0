"""Interim responses (RFC 9110 section 15.2): what is told to a client before its answer, while its body still arrives.

ASGI has no message for them. A server that can send them offers an extension in the scope, under `EXTENSION`::

    scope["extensions"]["penstock.response.informational"] = {"send": send}

where ``send`` is an async function that is given a message, any number of times before ``http.response.start``::

    {"type": "penstock.response.informational", "status": 104, "headers": [(b"upload-offset", b"7"), ...]}

Once the answer has begun, or the client is gone, a message is dropped. It does not go the way of the other messages,
since there it would meet middleware that takes the first message for the answer.

penstock's own server offers it (`penstock.server.protocol`), and so does any uvicorn that is given that protocol:
``uvicorn app:app --http penstock.server.protocol:InformationalProtocol``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final, TypeAlias

from starlette.types import Scope

__all__ = ["EXTENSION", "Interim", "interim_of"]

EXTENSION: Final = "penstock.response.informational"
"""The extension's name, which is the messages' type too."""

_PASSED_ON: Final = frozenset({b"forwarded", b"via", b"x-forwarded-for"})
"""Fields of which proxies add one at least."""

_Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Interim:
    """How to send interim responses to one request. See `interim_of`.

    Args:
        send: the server's function.
    """

    def __init__(self, send: _Send) -> None:
        self._send = send

    async def send(self, status: int, fields: Mapping[str, str]) -> None:
        """Send one; dropped if the answer has begun or the client is gone.

        Args:
            status: 102 to 199, but for 101, which is no interim response to the same request.
            fields: its header fields, in ASCII.
        """
        headers = [(name.lower().encode("ascii"), value.encode("ascii")) for name, value in fields.items()]
        await self._send({"type": EXTENSION, "status": status, "headers": headers})


def interim_of(scope: Scope) -> Interim | None:
    """Return how to send interim responses to a request, or None where the server or the client cannot have them.

    Nor does a request have them that a proxy has passed on, and says so: some break over them. nginx 1.22 takes a 104
    for the answer, and waits for more of it (where RFC 9110 section 15.2 would have it passed on, as Caddy 2.6 does).
    """
    extension = (scope.get("extensions") or {}).get(EXTENSION)
    if extension is None or any(name in _PASSED_ON for name, _ in scope.get("headers", ())):
        return None
    return Interim(extension["send"])
