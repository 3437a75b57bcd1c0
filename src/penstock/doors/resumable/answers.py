"""The answer of an application's endpoint to an upload: kept before the client hears of it."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias

from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.types import Message, Send

from penstock.doors.finishing import ANSWER, restored
from penstock.doors.hooks import MOST_ANSWERED
from penstock.model import StreamInfo
from penstock.protocols.resumable import Dialect, final_fields
from penstock.toolkit.problems import RequestError, problem_response

__all__ = ["Answer", "given_again"]

_WHO: Final = frozenset({401, 403, 407, 429})
"""What is said to somebody, and might not be said to somebody else."""

Keep: TypeAlias = Callable[[Mapping[str, Any]], Awaitable[None]]
"""Keeps an answer: JSON that `given_again` reads."""


class Answer:
    """An answer on its way to the client, as ASGI messages.

    One to a body that is not whole is passed on: a dependency refused. One to a body that is, is held until it is whole
    itself, and kept before it is sent; one that is too large for that is not held, and its body not kept.

    What is not kept is not the last word: of an endpoint that failed (5xx), and of a dependency that refused who asks,
    and may be asked by somebody else.

    Args:
        send: sends to the client.
        dialect: the client's.

    Attributes:
        called: whether the endpoint was called.
    """

    def __init__(self, send: Send, dialect: Dialect) -> None:
        self.called = False
        self._send = send
        self._dialect = dialect
        self._keep: Keep | None = None
        self._further: Mapping[str, str] = {}
        self._start: Message | None = None
        self._body = b""

    def of_whole(self, keep: Keep, further: Mapping[str, str]) -> None:
        """Say that the body is whole.

        Args:
            keep: what keeps the answer.
            further: fields of the answer.
        """
        self._keep = keep
        self._further = further

    async def send(self, message: Message) -> None:
        """Take a message."""
        if message["type"] == "http.response.start":
            if self._keep is None:
                await self._begin(message, complete=True)
            else:
                self._start = message
        elif self._start is not None and message["type"] == "http.response.body":
            await self._held(self._start, message)
        else:
            await self._send(message)

    async def _held(self, start: Message, message: Message) -> None:
        self._body += message.get("body", b"")
        more = message.get("more_body", False)
        fits = len(self._body) <= MOST_ANSWERED
        if more and fits:
            return
        self._start = None
        final = start["status"] < 500 and (self.called or start["status"] not in _WHO)
        if final and self._keep is not None:
            await self._keep(_kept(start, self._body if fits else None))
        await self._begin(start, complete=final)
        await self._send({**message, "body": self._body})
        self._body = b""

    async def _begin(self, start: Message, *, complete: bool) -> None:
        raw = [(name.lower(), value) for name, value in start.get("headers", ())]
        headers = MutableHeaders(raw=raw)
        headers.update({**final_fields(self._dialect, complete=complete), **(self._further if complete else {})})
        await self._send({**start, "headers": headers.raw})


def _kept(start: Message, body: bytes | None) -> dict[str, Any]:
    headers = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in start.get("headers", ())]
    return {
        "status": start["status"],
        "headers": headers,
        "body": None if body is None else b64encode(body).decode(),
    }


def given_again(info: StreamInfo) -> Response | None:
    """Return the answer of an upload, or None if there was none yet.

    Of one that was too large to be kept, there is only that to say: ``answer-not-kept`` (410).
    """
    kept: Mapping[str, Any] | None = info.attributes.get(ANSWER)
    if kept is None:
        return None
    if kept["body"] is None:
        detail = f"The upload is complete. Its answer had more than {MOST_ANSWERED} bytes, and was not kept."
        return problem_response(RequestError("answer-not-kept", 410, detail, answer_status=kept["status"]))
    return restored(kept)
