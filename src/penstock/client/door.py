"""The files door of a server, as the client's parts share it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final, Protocol

from penstock.client.engine import Engine
from penstock.client.paths import path_of
from penstock.client.remote import RemoteStream, remote_from_headers
from penstock.client.retry import Backoff, refuse

ALGORITHM: Final = "sha-256"
WANT_DIGEST: Final = {"want-repr-digest": f"{ALGORITHM}=1"}

USUAL_SILENCE: Final = -1.0

LONG_SILENCE: Final = 600.0
"""Seconds to wait for the answer after the last byte: the server may have gigabytes to bring safely to the disk."""


class Progress(Protocol):
    """Is told how far a transfer is, from the event loop: it must not block."""

    def __call__(self, done: int, total: int | None, /) -> None:
        """Bytes so far, and bytes in all where that is known. ``done`` falls when a transfer begins again."""


def no_progress(done: int, total: int | None, /) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class FilesDoor:
    """Where streams are read and written as files.

    Attributes:
        engine: the connections.
        prefix: the door's path.
        backoff: when to try again.
        patience: when to try again once a stream is being followed.
    """

    engine: Engine
    prefix: str
    backoff: Backoff
    patience: Backoff

    async def head(self, name: str, *, digest: bool = True) -> RemoteStream:
        """Return what the name shows now, trying once.

        Args:
            name: the stream's name.
            digest: whether to ask for the digest of a closed stream, which the server may have to compute.

        Raises:
            StreamNotFound: it shows nothing.
            Unreachable, NotNow: it is worth trying again.
        """
        return await self.head_of(path_of(self.prefix, name), name, digest=digest)

    async def head_of(
        self, path: str, name: str, *, digest: bool, silence: float | None = USUAL_SILENCE
    ) -> RemoteStream:
        """Return what a path shows now, trying once; see `head`.

        Args:
            path: of the stream's URL.
            name: the stream's name.
            digest: whether to ask for its digest.
            silence: seconds that the answer may take.
        """
        headers = WANT_DIGEST if digest else {}
        async with self.engine.exchange("HEAD", path, headers=headers, silence=silence) as answer:
            if answer.status != 200:
                raise refuse(await answer.refusal(name), now=time.time)
            return remote_from_headers(name, answer.url, answer.headers)
