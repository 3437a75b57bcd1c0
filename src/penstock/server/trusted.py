"""Which proxies are trusted to tell where a request comes from."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Self


class TrustedProxies:
    """The addresses of proxies whose word counts.

    Args:
        networks: their networks; None for any address.
    """

    def __init__(self, networks: Iterable[IPv4Network | IPv6Network] | None) -> None:
        self._networks = None if networks is None else tuple(networks)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read addresses and networks with commas between, ``*`` for all.

        Raises:
            ValueError: one of them is neither.
        """
        if text.strip() == "*":
            return cls(None)
        return cls(ip_network(item.strip()) for item in text.split(",") if item.strip())

    def __contains__(self, address: str) -> bool:
        if self._networks is None:
            return True
        try:
            found = ip_address(address)
        except ValueError:
            return False
        return any(found in network for network in self._networks)

    def client(self, forwarded: Iterable[str]) -> str | None:
        """Return the address that the outermost trusted proxy was asked from, or None if none is told.

        Args:
            forwarded: the elements of ``X-Forwarded-For``: each proxy adds whom it was asked by.
        """
        found = None
        for element in reversed(list(forwarded)):
            host = element.strip()
            if host.startswith("["):
                host = host[1:].partition("]")[0]
            elif host.count(":") == 1:
                host = host.partition(":")[0]
            try:
                ip_address(host)
            except ValueError:
                return found
            found = host
            if host not in self:
                return found
        return found
