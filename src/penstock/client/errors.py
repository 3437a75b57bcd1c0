"""What can go wrong on a client's side. An answer for which the domain has an error becomes that one instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.errors import PenstockError, StreamError


class ClientError(PenstockError):
    """The root of the errors that only a client knows."""


class Unreachable(ClientError):
    """No connection, or one that broke, and no retry was left. The request may have taken effect."""


class ServerError(ClientError):
    """An answer that is no success, and that no error of the domain stands for.

    Attributes:
        status: the HTTP status code.
        title: the kind of problem in a few words.
        detail: what went wrong this time, or an empty string.
        slug: the problem's stable name, or None where the answer was not one of penstock's.
        extra: what else the problem told, by name.
    """

    def __init__(
        self,
        status: int,
        title: str,
        detail: str = "",
        *,
        slug: str | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        self.status = status
        self.title = title
        self.detail = detail
        self.slug = slug
        self.extra = dict(extra or {})
        super().__init__(f"The server answered {status} {title}{': ' if detail else ''}{detail}".rstrip())


class CorruptTransfer(StreamError):
    """The bytes that arrived are not those that were sent.

    Attributes:
        algorithm: an RFC 9530 name, ``sha-256``.
        expected: the digest that the server told.
        actual: the digest of what this client read or sent.
    """

    def __init__(self, name: str, algorithm: str, expected: bytes, actual: bytes) -> None:
        self.algorithm = algorithm
        self.expected = expected
        self.actual = actual
        super().__init__(
            name,
            f"The {algorithm} of {name!r} is {actual.hex()} here and {expected.hex()} at the server: "
            "the bytes changed on their way. Transfer them again.",
        )


class SourceChanged(ClientError):
    """A source gave fewer bytes than it had when it was opened, so that nothing was kept of it."""

    def __init__(self, source: str, length: int, size: int) -> None:
        self.length = length
        self.size = size
        super().__init__(f"{source} had {length} bytes, and ended after {size} while it was being sent: try again.")


class SourceBusy(ClientError):
    """Another upload of the same file to the same stream is under way."""

    def __init__(self, source: str) -> None:
        self.source = source
        super().__init__(f"Another upload of {source} to the same stream is under way: wait for it.")


class DestinationBusy(ClientError):
    """Another download to the same file is under way."""

    def __init__(self, path: str) -> None:
        self.path = path
        super().__init__(f"Another download to {path} is under way: wait for it, or choose another destination.")
