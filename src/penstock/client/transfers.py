"""One upload at the server, from wherever it is to its end, over as many requests as it takes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Final

from penstock.client.errors import ClientError, Unreachable
from penstock.client.feeds import HELD, Feed, Lost
from penstock.client.retry import Failures, NotNow
from penstock.client.tus import BodyRefused, Standing, TusDoor
from penstock.errors import OffsetMismatch, PenstockError

_FIRST_GUESS: Final = 64 * 1024 * 1024
"""Bytes of a request that hardly any proxy with a limit refuses; many draw it at 100 MB."""

_LEAST: Final = 64 * 1024
"""A body of this size that is refused is not refused for its size."""


class BodyLimit:
    """How large the bodies of requests may be: as the caller says, the server, and what is between us.

    Args:
        most: bytes, or None for any size.
    """

    def __init__(self, most: int | None) -> None:
        self.most = most

    def told(self, most: int | None) -> None:
        """Hear what the server sets."""
        if most is not None:
            self.most = most if self.most is None else min(self.most, most)

    def refused(self, size: int) -> bool:
        """Hear that a body was refused; False if a smaller one would be, too."""
        if size <= _LEAST:
            return False
        self.most = max(_LEAST, min(_FIRST_GUESS, size // 2))
        return True


class Transfer:
    """Brings a feed into an upload.

    Args:
        tus: where to.
        name: the stream's name, for errors.
        standing: how far the upload is.
        feed: the bytes.
        limit: of the bodies of requests.
        progress: is told how many bytes are sent.
    """

    def __init__(
        self,
        tus: TusDoor,
        name: str,
        standing: Standing,
        feed: Feed,
        limit: BodyLimit,
        progress: Callable[[int], None],
    ) -> None:
        self._tus = tus
        self._name = name
        self._standing = standing
        self._feed = feed
        self._limit = limit
        self._progress = progress
        self._failures = Failures(tus.door.backoff)

    @property
    def path(self) -> str:
        """The upload's URL, from the server's base URL on."""
        return self._standing.path

    async def run(self) -> None:
        """Send what the server does not have yet, until it has everything.

        After a failure, the server is asked where to go on: nothing that it has is sent again.

        Raises:
            PenstockError: whatever the server refuses it for, or the last failure where no retry is left.
        """
        self._hear(self._standing)
        in_doubt = False
        while not self._standing.complete:
            try:
                if in_doubt:
                    self._hear(await self._tus.look(self.path, self._name))
                    in_doubt = False
                else:
                    await self._send()
            except (Unreachable, NotNow, OffsetMismatch) as error:
                in_doubt = True
                await self._failures.add(error)
            except BodyRefused as error:
                in_doubt = True
                if not self._limit.refused(self._size):
                    raise error.error from None
            except Lost:
                raise _taken_back(self._name) from None

    _size = 0

    async def _send(self) -> None:
        offset, feed, most = self._standing.offset, self._feed, self._limit.most
        size = await feed.size(offset, most)
        self._size = min(HELD, most or HELD) if size is None else size
        async with aclosing(self._body(offset, size, most)) as body:
            standing = await self._tus.append(self._standing, self._name, body, size=size, length=feed.length)
        if standing.offset == offset and (size != 0 or not standing.complete):
            raise ClientError(
                f"The server took nothing of {self._name!r} from offset {offset} on, but did not say why."
            )
        self._hear(standing)

    async def _body(self, offset: int, size: int | None, most: int | None) -> AsyncGenerator[bytes, None]:
        async with aclosing(self._feed.body(offset, size, most)) as pieces:
            async for piece in pieces:
                yield piece  # type: ignore[misc]  # any buffer will do for what happens to it
                offset += len(piece)
                self._progress(offset)

    def _hear(self, standing: Standing) -> None:
        if standing.offset > self._standing.offset or standing.complete:
            self._failures.forget()
        self._limit.told(standing.most)
        self._standing = standing
        self._progress(standing.offset)


def _taken_back(name: str) -> PenstockError:
    return ClientError(f"The server lost bytes of {name!r} that it had acknowledged, and that cannot be sent again.")
