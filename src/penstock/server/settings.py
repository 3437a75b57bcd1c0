"""What can be set about the server: by options of ``penstock serve``, or by ``PENSTOCK_*`` variables."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Self, cast

from penstock.server.trusted import TrustedProxies

_PREFIX = "PENSTOCK_"


class SettingsError(ValueError):
    """A setting that is not as it must be; the text names the variable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The server's settings.

    Attributes:
        host: the address to listen on.
        port: the port; 0 takes a free one.
        data: the folder of the streams.
        workers: how many processes serve.
        durability: ``fsync`` or ``os``; see `penstock.Streams`.
        max_size: the most bytes of an upload; 0 for no limit.
        upload_expiry: seconds without progress after which an upload that is not complete is removed; 0 for never.
        cors: the origins whose scripts may use ``/files``, with commas between: ``https://app.example``; ``*`` for all.
        webhook_url: is asked before every upload, and told of every complete one; see `penstock.doors.webhooks`.
        webhook_secret: what those messages are signed with: ``whsec_`` and Base64.
        max_append_size: the most bytes of one request of a resumable upload; 0 for no limit.
        grace: seconds that uploads and downloads get to finish when the server stops.
        access_log: whether every request is logged.
        forwarded_allow_ips: addresses and networks of proxies whose ``X-Forwarded-…`` fields count, with commas
            between; ``*`` for all.
        root_path: the path under which the server is to be seen from outside, which a proxy takes away: ``/store``.
        long_poll: seconds that a long-poll waits for something new.
        local_webhooks: whether subscriptions may have webhooks on this machine: for development.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    data: str = "./data"
    workers: int = 1
    durability: Literal["fsync", "os"] = "fsync"
    max_size: int = 0
    upload_expiry: int = 7 * 86400
    cors: str = ""
    webhook_url: str = ""
    webhook_secret: str = field(default="", repr=False)
    max_append_size: int = 0
    grace: int = 30
    access_log: bool = False
    long_poll: int = 20
    local_webhooks: bool = False
    forwarded_allow_ips: str = "127.0.0.1,::1"
    root_path: str = ""

    def __post_init__(self) -> None:
        try:
            TrustedProxies.parse(self.forwarded_allow_ips)
        except ValueError as error:
            raise SettingsError(f"PENSTOCK_FORWARDED_ALLOW_IPS must be addresses or networks: {error}.") from None
        if self.root_path and not (self.root_path.startswith("/") and self.root_path.rstrip("/") == self.root_path):
            raise SettingsError(f"PENSTOCK_ROOT_PATH must begin with a slash and not end with one: {self.root_path!r}.")
        if self.webhook_url and not self.webhook_secret:
            raise SettingsError("PENSTOCK_WEBHOOK_URL needs PENSTOCK_WEBHOOK_SECRET, which signs its messages.")

    @property
    def origins(self) -> tuple[str, ...]:
        """The origins in ``cors``."""
        return tuple(origin for part in self.cors.split(",") if (origin := part.strip()))

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Return the settings that the ``PENSTOCK_*`` variables give.

        Raises:
            SettingsError: one of them is not as it must be.
        """
        variables = os.environ if environment is None else environment
        given: dict[str, Any] = {}
        for each in fields(cls):
            text = variables.get(_PREFIX + each.name.upper())
            if text:
                given[each.name] = _parsed(each.name, each.default, text)
        return cls(**given)

    def to_environment(self) -> dict[str, str]:
        """Return the variables that give these settings: how worker processes are told."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {
            _PREFIX + name.upper(): str(int(value)) if isinstance(value, bool) else str(value)
            for name, value in values.items()
        }


def _parsed(name: str, default: object, text: str) -> object:
    variable = _PREFIX + name.upper()
    if isinstance(default, bool):
        if text.lower() not in {"0", "1", "true", "false", "yes", "no"}:
            raise SettingsError(f"{variable} must be 1 or 0, not {text!r}.")
        return text.lower() in {"1", "true", "yes"}
    if isinstance(default, int):
        if not text.isascii() or not text.isdigit():
            raise SettingsError(f"{variable} must be a whole number, not {text!r}.")
        return int(text)
    if name == "durability":
        if text not in {"fsync", "os"}:
            raise SettingsError(f"{variable} must be fsync or os, not {text!r}.")
        return cast("Literal['fsync', 'os']", text)
    return text
