"""Telling webhooks of wakes: signed with Ed25519, and to no address that is not public.

This module needs cryptography and httpx: ``pip install 'penstock[subscriptions]'``.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from penstock.protocols import subscriptions
from penstock.protocols.subscriptions import SubscriptionRequestError

_MOST_HEARD = 64 * 1024


class Signer:
    """The server's key.

    Args:
        seed: the 32 secret bytes.
    """

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = self._key.public_key().public_bytes_raw()

    def field(self, body: bytes) -> str:
        """Return the ``Webhook-Signature`` of a body that is sent now."""
        timestamp = int(time.time())
        signature = self._key.sign(subscriptions.signed_text(timestamp, body))
        return subscriptions.signature_field(timestamp, self.public, signature)


class Sender:
    """Sends messages to webhooks.

    Args:
        local: whether webhooks of this machine may be told; see `penstock.protocols.subscriptions.check_webhook`.
    """

    def __init__(self, *, local: bool) -> None:
        self._local = local
        self._tls = httpx.create_ssl_context()

    async def send(self, url: str, message: dict[str, Any], signer: Signer, timeout: float) -> bool:
        """Send a message, and return whether the receiver says that all is done.

        Redirects are not followed, and the connection goes to the address that was looked at: what a name stands for
        may change from one moment to the next.

        Raises:
            SubscriptionRequestError: the URL leads where nobody is to be told of anything.
            httpx.HTTPError, OSError: it was not heard.
        """
        subscriptions.check_webhook(url, local=self._local)
        target = httpx.URL(url)
        body = json.dumps(message, separators=(",", ":")).encode()
        headers = {
            "content-type": "application/json",
            "user-agent": "penstock-subscriptions",
            "host": target.netloc.decode(),
            "webhook-signature": signer.field(body),
        }
        reached = target.copy_with(host=await self._address(target))
        extensions = {"sni_hostname": target.host} if target.scheme == "https" else {}
        async with (
            httpx.AsyncClient(verify=self._tls, timeout=timeout, trust_env=False) as client,
            client.stream("POST", reached, content=body, headers=headers, extensions=extensions) as answer,
        ):
            answer.raise_for_status()
            content = b""
            async for chunk in answer.aiter_bytes():
                content += chunk
                if len(content) > _MOST_HEARD:
                    return False
        return _is_done(content)

    async def _address(self, target: httpx.URL) -> str:
        port = target.port or (443 if target.scheme == "https" else 80)
        found = await asyncio.get_running_loop().getaddrinfo(target.host, port, type=socket.SOCK_STREAM)
        addresses = [str(entry[4][0]) for entry in found]
        if target.scheme == "https":
            for address in addresses:
                subscriptions.check_address(address)
        elif not all(address == "::1" or address.startswith("127.") for address in addresses):
            raise SubscriptionRequestError("WEBHOOK_URL_REJECTED", "webhook.url must be on this machine.")
        return addresses[0]


def _is_done(content: bytes) -> bool:
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        return False
    return isinstance(answer, dict) and answer.get("done") is True
