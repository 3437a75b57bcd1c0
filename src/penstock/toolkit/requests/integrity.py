"""Digests that a client sent along with a body (RFC 9530), and whether the body is what they say."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import TypeVar

from starlette.requests import Request

from penstock.core.digests import Hasher
from penstock.errors import DigestMismatch
from penstock.model import Buffer
from penstock.protocols.digest import SUPPORTED, DigestError, parse_digests
from penstock.toolkit.problems import bad_request
from penstock.toolkit.requests.behind import Behind
from penstock.toolkit.requests.bodies import budget, left_closed
from penstock.toolkit.responses.representations import joined

__all__ = ["agreed", "check_digests", "digests_in", "given_digests", "hashed"]

B = TypeVar("B", bound=Buffer)


def given_digests(request: Request) -> Mapping[str, bytes]:
    """Return the digests that the client gave, by algorithm; those that cannot be computed here are left out.

    Of a request without ``Content-Range``, the content is the whole representation, *in its content coding*: so both
    fields are digests of the bytes as they were sent (RFC 9530 sections 2 and 3).

    Raises:
        RequestError: ``bad-request`` for a field that cannot be read, or two that contradict each other.
    """
    return agreed(digests_in(request, "content-digest"), digests_in(request, "repr-digest"))


def digests_in(request: Request, field: str) -> Mapping[str, bytes]:
    """Return the digests in one field, by algorithm; those that cannot be computed here are left out.

    Raises:
        RequestError: ``bad-request``: it cannot be read.
    """
    value = joined(request, field)
    try:
        return {name: digest for name, digest in parse_digests(value or "").items() if name in SUPPORTED}
    except DigestError as error:
        raise bad_request(f"{field.title()}: {error}") from None


def agreed(*given: Mapping[str, bytes]) -> Mapping[str, bytes]:
    """Return several digests of the same bytes as one.

    Raises:
        RequestError: ``bad-request``: they contradict each other.
    """
    together: dict[str, bytes] = {}
    for digests in given:
        for algorithm, digest in digests.items():
            if together.setdefault(algorithm, digest) != digest:
                raise bad_request(f"Two {algorithm} digests of the same bytes contradict each other.")
    return together


def check_digests(name: str, given: Mapping[str, bytes], actual: Mapping[str, bytes]) -> None:
    """Compare the digests that were given with those of what arrived.

    Raises:
        DigestMismatch: they differ.
    """
    for algorithm, digest in given.items():
        if actual[algorithm] != digest:
            raise DigestMismatch(name, algorithm, digest, actual[algorithm])


async def hashed(chunks: AsyncIterator[B], hasher: Hasher) -> AsyncGenerator[B, None]:
    """Yield what ``chunks`` yields, and take it into the digests: in a thread, while the next chunks arrive."""
    behind = Behind(hasher.take, budget.share)
    try:
        async with left_closed(chunks):
            async for chunk in chunks:
                await behind.put((chunk,))
                yield chunk
        await behind.flush()
    finally:
        await behind.stop()
