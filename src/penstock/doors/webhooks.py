"""Hooks that are asked over HTTP: messages signed as Standard Webhooks describes, sent again until they are heard.

Both are part of the upload, whose client waits for them: ``upload.requested`` may refuse or change it, and
``upload.completed`` may give its answer. A message that is not heard in the end refuses the request with a 503;
``upload.completed`` is sent again, under the same ``webhook-id``, when the client of an upload that resumes comes back,
and by the server itself until it is heard (`penstock.doors.outbox`).
This module needs httpx: ``pip install 'penstock[client]'``.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Final

import httpx
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from penstock.doors.fields import described
from penstock.doors.hooks import NewUpload
from penstock.model import StreamInfo
from penstock.protocols.timestamps import timestamp
from penstock.protocols.webhooks import key_of, signed_fields
from penstock.toolkit.problems import RequestError

logger = logging.getLogger("penstock")

_AGAIN: Final = frozenset({408, 425, 429})
_NOBODY: Final = frozenset({404, 405, 410})
"""That nobody is there who knows of webhooks: the operator's mistake, not a refusal of the upload."""

_LONGEST_PAUSE: Final = 10.0
_MOST_HEARD: Final = 256 * 1024


class Webhooks:
    """Hooks of a door that ask a URL.

    ::

        hooks = Webhooks("https://example.com/hooks", secret="whsec_...")
        app.include_router(streams.files(on_create=hooks.on_create, on_complete=hooks.on_complete))

    Each message is a POST of ``{"type": ..., "timestamp": ..., "data": {"upload": ..., "request": ...}}``. An answer of
    2xx agrees, and may have a body of JSON; any other 4xx than 404, 405, 408, 410, 425 and 429 refuses, and is passed
    on to the client with its ``detail``. What it is about and what a 2xx may say:

    ``upload.requested``, before an upload is created: ``{"name": ..., "content_type": ..., "metadata": {...},
    "max_size": ...}``, each of which may be left out, changes the upload.

    ``upload.completed``, when it is complete and durable: ``{"response": {"status": 200, "headers": {...}, "body":
    "..."}}`` is what the client gets.

    Args:
        url: where they are sent. Redirects are not followed.
        secret: what they are signed with, ``whsec_`` and Base64; or several, the current one first.
        forward: the header fields of the client's request that are passed on, in ``data.request.headers``. Those that
            `penstock.doors.outbox.SECRET` names are not kept, and so are missing where that is told later.
        timeout: seconds that an attempt may take.
        pauses: seconds before each further attempt; a ``Retry-After`` of up to ten seconds counts instead.
    """

    def __init__(
        self,
        url: str,
        secret: str | Sequence[str],
        *,
        forward: Sequence[str] = (),
        timeout: float = 15.0,
        pauses: Sequence[float] = (0.5, 2.0, 5.0),
    ) -> None:
        if httpx.URL(url).scheme not in {"http", "https"}:
            raise ValueError(f"a webhook's URL begins with https:// (or http://): {url!r}")
        self._url = url
        self._secrets = (secret,) if isinstance(secret, str) else tuple(secret)
        for each in self._secrets:
            key_of(each)
        self._forward = tuple(name.lower() for name in forward)
        self._timeout = timeout
        self._pauses = tuple(pauses)
        self._tls = httpx.create_ssl_context()

    async def on_create(self, new: NewUpload, request: Request) -> NewUpload:
        """Ask about an upload that is to be created; see `penstock.doors.hooks.OnCreate`."""
        heard = await self._ask("upload.requested", f"msg_{secrets.token_hex(12)}", asdict(new), request)
        known = {"name": str, "content_type": str, "max_size": int, "metadata": dict}
        changes = {name: heard[name] for name in known if heard.get(name) is not None}
        for name, value in changes.items():
            if not isinstance(value, known[name]) or isinstance(value, bool):
                raise self._unheard(f"its answer has no proper {name!r}")
        if "metadata" in changes:
            changes["metadata"] = {str(key): str(value) for key, value in changes["metadata"].items()}
        return replace(new, **changes)

    async def on_complete(self, info: StreamInfo, request: Request) -> Response | None:
        """Tell that an upload is complete; see `penstock.doors.hooks.OnComplete`."""
        upload = described(info, "")
        del upload["url"]  # it depends on where the door is, and who asks from where
        heard = await self._ask("upload.completed", f"msg_{info.incarnation}", upload, request)
        answer = heard.get("response")
        if answer is None:
            return None
        try:
            headers = {str(name): str(value) for name, value in (answer.get("headers") or {}).items()}
            body = answer.get("body", "")
            content = body if isinstance(body, str) else json.dumps(body)
            media_type = None if isinstance(body, str) else "application/json"
            return Response(content, int(answer.get("status", 200)), headers, media_type)
        except (AttributeError, TypeError, ValueError) as error:
            raise self._unheard("its answer has no proper 'response'") from error

    async def _ask(self, kind: str, message_id: str, upload: Mapping[str, Any], request: Request) -> dict[str, Any]:
        """Send a message until it is heard, and return what the receiver says to it.

        Raises:
            HTTPException: the receiver refuses.
            RequestError: ``hook-failed`` (503): it was not heard.
        """
        body = json.dumps(
            {
                "type": kind,
                "timestamp": timestamp(time.time()),
                "data": {"upload": upload, "request": self._described(request)},
            },
            ensure_ascii=False,
        ).encode(errors="backslashreplace")
        reason = ""
        async with httpx.AsyncClient(verify=self._tls, timeout=self._timeout) as client:
            for pause in (*self._pauses, None):
                wait = pause
                try:
                    answer = await self._sent(client, message_id, body)
                except httpx.HTTPError as error:
                    reason = f"{type(error).__name__} {error}".strip()
                else:
                    if answer.status_code < 300:
                        return self._heard(answer)
                    if 400 <= answer.status_code < 500 and answer.status_code not in _AGAIN | _NOBODY:
                        raise HTTPException(answer.status_code, _detail(answer))
                    reason = f"it answered {answer.status_code}"
                    if answer.status_code < 500 and answer.status_code not in _AGAIN:
                        break
                    wait = _retry_after(answer, pause)
                if wait is not None and pause is not None:
                    await asyncio.sleep(wait * random.uniform(0.75, 1.25))  # noqa: S311 - spreads load, hides nothing
        raise self._unheard(reason)

    async def _sent(self, client: httpx.AsyncClient, message_id: str, body: bytes) -> httpx.Response:
        fields = signed_fields(self._secrets, message_id=message_id, timestamp=int(time.time()), body=body)
        headers = {"content-type": "application/json", "user-agent": "penstock-webhooks", **fields}
        async with client.stream("POST", self._url, content=body, headers=headers) as answer:
            content = bytearray()
            async for chunk in answer.aiter_bytes():
                content += chunk
                if len(content) > _MOST_HEARD:
                    raise self._unheard(f"it answered with more than {_MOST_HEARD} bytes")
            # The body as it was decoded has no coding, and no length but its own.
            kept = [(k, v) for k, v in answer.headers.items() if k not in {"content-encoding", "content-length"}]
            return httpx.Response(answer.status_code, headers=kept, content=bytes(content))

    def _described(self, request: Request) -> dict[str, Any]:
        headers = {name: request.headers[name] for name in self._forward if name in request.headers}
        return {
            "method": request.method,
            "url": str(request.url),
            "client": None if request.client is None else request.client.host,
            "headers": headers,
        }

    def _heard(self, answer: httpx.Response) -> dict[str, Any]:
        if not answer.content.strip():
            return {}
        try:
            heard = answer.json()
        except ValueError:
            heard = None
        if not isinstance(heard, dict):
            if "json" in answer.headers.get("content-type", ""):
                raise self._unheard("its answer is not an object of JSON")
            return {}  # "ok"
        return heard

    def _unheard(self, reason: str) -> RequestError:
        logger.warning("The webhook %s was not heard: %s.", self._url, reason)
        return RequestError(
            "hook-failed",
            503,
            "The application that decides about uploads did not answer as it must: come back in a moment.",
            {"retry-after": "5"},
        )


def _retry_after(answer: httpx.Response, pause: float | None) -> float | None:
    value = answer.headers.get("retry-after", "")
    if pause is None or not value.isascii() or not value.isdigit() or len(value) > 6:
        return pause
    return min(float(value), _LONGEST_PAUSE)


def _detail(answer: httpx.Response) -> str:
    """Return why a receiver refuses: a problem's ``detail``, or its text."""
    try:
        told = answer.json()
    except ValueError:
        return answer.text.strip()[:1000] or "The upload was refused."
    detail = told.get("detail") if isinstance(told, dict) else None
    return detail if isinstance(detail, str) else "The upload was refused."
