"""Checksums of bodies that clients of tus send: how they are computed, and which of them can be here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Final

from penstock.core.digests import Hash

__all__ = ["SIZES", "new_checksum"]


def _hashlib(name: str) -> Callable[[], Hash]:
    return lambda: hashlib.new(name, usedforsecurity=False)


def _crc32c() -> Hash:
    from crc32c import CRC32CHash

    return CRC32CHash()


_KNOWN: Final[Mapping[str, Callable[[], Hash]]] = {
    **{name: _hashlib(name) for name in ("sha1", "sha256", "sha512", "md5") if name in hashlib.algorithms_available},
    **({"crc32c": _crc32c} if find_spec("crc32c") else {}),  # pip install 'penstock[checksums]'
}

SIZES: Final[Mapping[str, int]] = {name: make().digest_size for name, make in _KNOWN.items()}
"""How many bytes the checksums have, by algorithm. CRC-32C is in network byte order, as RFC 9260 has it."""


def new_checksum(algorithm: str) -> Hash:
    """Begin a checksum of one of the algorithms in `SIZES`."""
    return _KNOWN[algorithm]()
