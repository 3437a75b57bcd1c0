"""The control routes of subscriptions, under ``__ds`` (PROTOCOL.md sections 6 and 7)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote

from fastapi import APIRouter, Request
from fastapi.responses import Response

from penstock.core.subscriptions import LinkState, Settings, Subscription, Subscriptions
from penstock.core.subscriptions.errors import (
    AckOutOfRange,
    AlreadyClaimed,
    NoPendingWork,
    SubscriptionExists,
    SubscriptionNotFound,
    WakeFenced,
)
from penstock.core.subscriptions.globs import literal_prefix
from penstock.doors.durable.answers import DurableRoute, answer
from penstock.doors.hooks import Authorize, authorized
from penstock.doors.schemas import problems
from penstock.model import RESERVED, check_name
from penstock.protocols import subscriptions as protocol
from penstock.protocols.subscriptions import SubscriptionRequestError
from penstock.protocols.timestamps import timestamp
from penstock.toolkit.requests.bodies import whole

if TYPE_CHECKING:
    from penstock.doors.durable.webhooks import Sender, Signer

_MOST: Final = 1024 * 1024
_LONGEST_ID: Final = 256
_BASE: Final = f"/{RESERVED}/subscriptions/{{id}}"

_CODES: Final[Mapping[type[Exception], tuple[int, str]]] = {
    SubscriptionNotFound: (404, "SUBSCRIPTION_NOT_FOUND"),
    SubscriptionExists: (409, "SUBSCRIPTION_ALREADY_EXISTS"),
    WakeFenced: (409, "FENCED"),
    AlreadyClaimed: (409, "ALREADY_CLAIMED"),
    NoPendingWork: (409, "NO_PENDING_WORK"),
    AckOutOfRange: (409, "INVALID_OFFSET"),
}


class SubscriptionRoute(DurableRoute):
    """A route whose refusals are as the protocol has them: a code for programs, and a text for people."""

    def refusal(self, error: Exception) -> Response:
        """Return the answer to a request that ended in ``error``."""
        status, code = _CODES.get(type(error), (0, ""))
        if isinstance(error, SubscriptionRequestError):
            status, code = error.status, error.code
        if not status:
            return super().refusal(error)
        told: dict[str, Any] = {"code": code, "message": str(error)}
        if isinstance(error, AlreadyClaimed):
            told |= {"current_holder": error.holder, "generation": error.generation}
        return _json(status, {"error": told})


class Control:
    """What the routes do.

    Args:
        engine: the subscriptions.
        authorize: see `penstock.doors.hooks.Authorize`. A subscription is written by who makes or deletes it, and read
            by its workers; whoever makes it must be allowed to read its streams, or to list its pattern's.
        local: whether webhooks of this machine may be told.
    """

    def __init__(self, engine: Subscriptions, authorize: Authorize | None, *, local: bool) -> None:
        self._engine = engine
        self._authorize = authorize
        self._local = local
        self._signer: Signer | None = None
        self._token_key = b""
        # Loaded when it is first needed: a server starts sooner without.
        self._sender: Sender | None = None
        self._webhooks = all(find_spec(package) is not None for package in ("cryptography", "httpx"))
        if self._webhooks:
            engine.deliver = self._deliver

    # -- routes ---------------------------------------------------------------------------------------------------

    async def create(self, request: Request, id: str) -> Response:  # noqa: A002 - the protocol's word
        """Create a subscription, or find that it is there as it would be created."""
        id_ = _id(id)
        asked = protocol.read_created(await whole(request, _MOST))
        await self._authorized(request, "write", id_)
        for name in asked.streams:
            await authorized(self._authorize, request, "read", check_name(name))
        if asked.pattern is not None:
            await authorized(self._authorize, request, "list", literal_prefix(asked.pattern))
        if asked.wake_stream is not None:
            await authorized(self._authorize, request, "write", check_name(asked.wake_stream))
        if asked.webhook is not None:
            self._check_webhook(asked.webhook)
        settings = Settings(
            webhook=asked.webhook,
            wake_stream=asked.wake_stream,
            pattern=asked.pattern,
            streams=asked.streams,
            lease=asked.lease,
            description=asked.description,
        )
        base = str(request.url).partition(f"/{RESERVED}/")[0]
        kept, created = await self._engine.create(id_, settings, base)
        return _json(201 if created else 200, await self._described(kept))

    async def get(self, request: Request, id: str) -> Response:  # noqa: A002 - the protocol's word
        """Tell of a subscription."""
        id_ = _id(id)
        await self._authorized(request, "read", id_)
        return _json(200, await self._described(await self._engine.get(id_)))

    async def delete(self, request: Request, id: str) -> Response:  # noqa: A002 - the protocol's word
        """Delete a subscription."""
        id_ = _id(id)
        await self._authorized(request, "delete", id_)
        await self._engine.delete(id_)
        return answer(204, {})

    async def link(self, request: Request, id: str) -> Response:  # noqa: A002 - the protocol's word
        """Add streams."""
        id_ = _id(id)
        names = protocol.read_streams(await whole(request, _MOST))
        await self._authorized(request, "write", id_)
        for name in names:
            await authorized(self._authorize, request, "read", check_name(name))
        await self._engine.link(id_, names)
        return answer(204, {})

    async def unlink(self, request: Request, id: str, name: str) -> Response:  # noqa: A002 - the protocol's word
        """Take out a stream that was added."""
        id_ = _id(id)
        await self._authorized(request, "write", id_)
        await self._engine.unlink(id_, unquote(name).strip("/"))
        return answer(204, {})

    async def claim(self, request: Request, id: str) -> Response:  # noqa: A002 - the protocol's word
        """Give a worker the wake."""
        id_ = _id(id)
        worker = protocol.read_worker(await whole(request, _MOST))
        await self._authorized(request, "read", id_)
        await self._check_pulled(id_)
        kept, states = await self._engine.claim(id_, worker)
        return _json(
            200,
            {
                "wake_id": kept.wake,
                "generation": kept.generation,
                "token": await self._token(kept),
                "streams": _streams(kept, states),
                "lease_ttl_ms": round(kept.settings.lease * 1000),
            },
        )

    async def callback(self, request: Request, id: str) -> Response:  # noqa: A002 - the protocol's word
        """Take what a webhook's worker says of its wake."""
        return await self._acknowledge(request, _id(id))

    async def ack(self, request: Request, id: str) -> Response:  # noqa: A002 - the protocol's word
        """Take what a worker says of its wake."""
        id_ = _id(id)
        await self._check_pulled(id_)
        return await self._acknowledge(request, id_)

    async def release(self, request: Request, id: str) -> Response:  # noqa: A002 - the protocol's word
        """Let a worker give the wake back."""
        id_ = _id(id)
        await self._check_pulled(id_)
        said = await self._said(request, id_)
        await self._engine.release(id_, said.wake, said.generation)
        return answer(204, {})

    async def jwks(self, request: Request) -> Response:
        """Tell the public key by which webhooks know that it is this server that tells them."""
        signer = await self._keys()
        keys = [] if signer is None else [protocol.jwk(signer.public)]
        body = json.dumps({"keys": keys}).encode()
        fields = {"content-type": "application/jwk-set+json", "cache-control": "public, max-age=300"}
        return answer(200, fields, body)

    async def nothing(self, request: Request) -> Response:
        """Refuse whatever else is asked for under the prefix."""
        raise SubscriptionRequestError("SUBSCRIPTION_NOT_FOUND", "There is no such control route.", 404)

    # -- how ------------------------------------------------------------------------------------------------------

    async def _authorized(self, request: Request, action: Any, id_: str) -> None:
        await authorized(self._authorize, request, action, f"{RESERVED}/subscriptions/{id_}")

    def _check_webhook(self, url: str) -> None:
        if not self._webhooks:
            raise SubscriptionRequestError(
                "INVALID_REQUEST", "Webhooks are not served here: pip install 'penstock[subscriptions]'."
            )
        protocol.check_webhook(url, local=self._local)

    async def _check_pulled(self, id_: str) -> None:
        if (await self._engine.get(id_)).settings.webhook is not None:
            raise SubscriptionRequestError("INVALID_REQUEST", "The subscription is not of type pull-wake.")

    async def _acknowledge(self, request: Request, id_: str) -> Response:
        said = await self._said(request, id_)
        more = await self._engine.acknowledge(id_, said.wake, said.generation, said.acks, done=said.done)
        return _json(200, {"ok": True, "next_wake": more})

    async def _said(self, request: Request, id_: str) -> protocol.Acknowledgement:
        """Read what a worker says, if its token is of the wake that it speaks of."""
        kept = await self._engine.get(id_)
        await self._keys()
        now = datetime.now(UTC).timestamp()
        field = request.headers.get("authorization")
        generation = protocol.token_generation(self._token_key, field, _subject(kept), now)
        said = protocol.read_acknowledgement(await whole(request, _MOST))
        if generation != said.generation:
            raise WakeFenced(id_, kept.generation)
        return said

    async def _keys(self) -> Signer | None:
        if not self._token_key:
            keys = await self._engine.keys()
            if self._webhooks:
                from penstock.doors.durable.webhooks import Signer

                self._signer = Signer(bytes.fromhex(keys["signing"]))
            self._token_key = bytes.fromhex(keys["token"])
        return self._signer

    async def _token(self, kept: Subscription) -> str:
        await self._keys()
        return protocol.token(self._token_key, _subject(kept), kept.generation, datetime.now(UTC).timestamp())

    async def _deliver(self, kept: Subscription, states: Mapping[str, LinkState]) -> bool:
        """Tell a webhook of a wake; see `penstock.core.subscriptions.Delivery`."""
        signer = await self._keys()
        assert signer is not None  # noqa: S101 - see __init__
        if self._sender is None:
            from penstock.doors.durable.webhooks import Sender

            self._sender = Sender(local=self._local)
        assert kept.settings.webhook is not None  # noqa: S101 - only those are told
        message = {
            "subscription_id": kept.id,
            "wake_id": kept.wake,
            "generation": kept.generation,
            "streams": _streams(kept, states),
            "callback_url": f"{kept.base}/{RESERVED}/subscriptions/{quote(kept.id, safe='')}/callback",
            "callback_token": await self._token(kept),
        }
        return await self._sender.send(kept.settings.webhook, message, signer, kept.settings.lease)

    async def _described(self, kept: Subscription) -> dict[str, Any]:
        settings = kept.settings
        webhook: dict[str, Any] | None = None
        if settings.webhook is not None:
            webhook = {"url": settings.webhook}
            signer = await self._keys()
            if signer is not None:
                url = f"{kept.base}/{RESERVED}/jwks.json"
                webhook["signing"] = {"alg": "ed25519", "kid": protocol.key_id(signer.public), "jwks_url": url}
        return {
            "id": kept.id,
            "subscription_id": kept.id,
            "type": protocol.PULL_WAKE if webhook is None else protocol.WEBHOOK,
            "pattern": settings.pattern,
            "streams": [
                {"path": name, "link_type": _type(kept, name), "acked_offset": protocol.cursor_of(link.acked)}
                for name, link in kept.links.items()
            ],
            "webhook": webhook,
            "wake_stream": settings.wake_stream,
            "lease_ttl_ms": round(settings.lease * 1000),
            "created_at": timestamp(kept.created_at, "milliseconds"),
            "status": "failed" if kept.failing else "active",
            "description": settings.description,
        }


def add_subscription_routes(router: APIRouter, control: Control) -> None:
    """Add the routes."""
    for path, method, summary, handler in (
        (f"/{RESERVED}/jwks.json", "GET", "Tell the keys by which webhooks know the server", control.jwks),
        (_BASE, "PUT", "Subscribe to streams", control.create),
        (_BASE, "GET", "Tell of a subscription", control.get),
        (_BASE, "DELETE", "Delete a subscription", control.delete),
        (f"{_BASE}/streams", "POST", "Add streams to a subscription", control.link),
        (f"{_BASE}/streams/{{name:path}}", "DELETE", "Take a stream out of a subscription", control.unlink),
        (f"{_BASE}/callback", "POST", "Tell how far a webhook's worker came", control.callback),
        (f"{_BASE}/claim", "POST", "Claim the wake of a subscription", control.claim),
        (f"{_BASE}/ack", "POST", "Tell how far a worker came", control.ack),
        (f"{_BASE}/release", "POST", "Give the wake of a subscription back", control.release),
    ):
        router.add_api_route(
            path,
            handler,
            methods=[method],
            summary=summary,
            response_class=Response,
            responses=problems(),
            route_class_override=SubscriptionRoute,
        )
    for path in (f"/{RESERVED}", f"/{RESERVED}/{{rest:path}}"):
        router.add_api_route(
            path,
            control.nothing,
            methods=["DELETE", "GET", "HEAD", "PATCH", "POST", "PUT"],
            include_in_schema=False,
            route_class_override=SubscriptionRoute,
        )


def _id(id_: str) -> str:
    if not 1 <= len(id_) <= _LONGEST_ID:
        raise SubscriptionRequestError("INVALID_REQUEST", f"The id must have 1 to {_LONGEST_ID} characters.")
    return id_


def _subject(kept: Subscription) -> str:
    """Return what a token is for: one that was made for a deleted subscription is not believed by its successor."""
    return f"{kept.id}@{kept.created_at}"


def _type(kept: Subscription, name: str) -> str:
    return "explicit" if kept.links[name].explicit else "glob"


def _streams(kept: Subscription, states: Mapping[str, LinkState]) -> list[dict[str, Any]]:
    told = []
    for name, link in kept.links.items():
        state = states.get(name, LinkState())
        told.append(
            {
                "path": name,
                "link_type": _type(kept, name),
                "acked_offset": protocol.cursor_of(link.at(state)),
                "tail_offset": protocol.cursor_of(state.tail),
                "has_pending": link.pending(state),
            }
        )
    return told


def _json(status: int, value: Mapping[str, Any]) -> Response:
    return answer(status, {"content-type": "application/json", "cache-control": "no-store"}, json.dumps(value).encode())
