"""Digests of streams, computed off the event loop. Algorithms go by their RFC 9530 names, such as ``sha-256``."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from penstock.core.ports import Reader
from penstock.core.uninterrupted import uninterrupted
from penstock.model import Buffer

ALGORITHMS: Mapping[str, str] = {"sha-256": "sha256", "sha-512": "sha512"}
"""What can be computed: the names of RFC 9530, and those of `hashlib`."""

_NONE: Mapping[str, Hash] = {}


class Hash(Protocol):
    """A digest that is being computed: what `hashlib` makes, and others like it."""

    @property
    def digest_size(self) -> int:
        """How many bytes the digest has."""

    def update(self, data: Buffer, /) -> None:
        """Take in bytes."""

    def digest(self) -> bytes:
        """Return the digest of all bytes so far."""


class Hasher:
    """Several digests of the same bytes.

    Args:
        algorithms: which of `ALGORITHMS`.
        others: further ones, by names of the caller's own.
    """

    def __init__(self, algorithms: Iterable[str] = (), others: Mapping[str, Hash] = _NONE) -> None:
        known: dict[str, Hash] = {name: hashlib.new(ALGORITHMS[name]) for name in algorithms}
        self._hashes = {**known, **others}

    def __bool__(self) -> bool:
        """Whether there is any digest to compute."""
        return bool(self._hashes)

    async def update(self, buffers: Sequence[Buffer]) -> None:
        """Take in bytes, in a thread; they must not change meanwhile."""
        if self._hashes:
            await uninterrupted(asyncio.to_thread(self.take, buffers))

    def take(self, buffers: Sequence[Buffer]) -> None:
        """Take in bytes, here and now."""
        for digest in self._hashes.values():
            for buffer in buffers:
                digest.update(buffer)

    def digests(self) -> dict[str, bytes]:
        """Return the digests of all bytes so far."""
        return {name: digest.digest() for name, digest in self._hashes.items()}


async def digest_of(reader: Reader, algorithm: str) -> bytes:
    """Return the digest of all bytes of a stream that is closed."""
    hasher = Hasher([algorithm])
    offset = 0
    while offset < reader.info.tail:
        data = await reader.read(offset, reader.info.tail)
        await hasher.update([data])
        offset += len(data)
    return hasher.digests()[algorithm]
