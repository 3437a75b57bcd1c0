"""When to try again, and how long to wait before."""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import anyio

from penstock.client.errors import Unreachable
from penstock.client.problems import Refusal
from penstock.errors import PenstockError
from penstock.protocols.dates import parse_date

T = TypeVar("T")

logger = logging.getLogger("penstock.client")

_MAX_RETRY_AFTER: Final = 120.0
"""A server that asks for more than this many seconds is asked again earlier: it may be back by then."""


class NotNow(Exception):
    """An answer that says "try again later". It stays within this package: the caller sees ``error``."""

    def __init__(self, error: PenstockError, wait: float | None) -> None:
        self.error = error
        self.wait = wait
        super().__init__(str(error))


def refuse(refusal: Refusal, *, now: Callable[[], float]) -> PenstockError | NotNow:
    """Return what to raise for an answer that is no success.

    Args:
        refusal: the answer.
        now: the time in Unix seconds, to count a ``Retry-After`` date from.
    """
    error = refusal.error()
    if not refusal.passing:
        return error
    return NotNow(error, _retry_after(refusal.headers.get("retry-after", ""), now))


@dataclass(frozen=True, slots=True)
class Backoff:
    """How often to try again and how long to wait.

    Attributes:
        retries: how many failures in a row to put up with; None for any number.
        first: seconds before the first retry. Each further wait is twice as long.
        most: seconds that no wait exceeds, except where the server asks for it.
    """

    retries: int | None = 8
    first: float = 0.25
    most: float = 10.0

    def pause(self, failures: int) -> float:
        """Return the seconds to wait after that many failures in a row: half of it by rule, half at random.

        The random half keeps the clients of a server that restarts from coming back all at the same moment.
        """
        whole = min(self.most, self.first * 2.0 ** min(failures - 1, 30))
        return whole * (0.5 + random.random() / 2)  # noqa: S311 -- not a secret

    async def persist(self, once: Callable[[], Awaitable[T]]) -> T:
        """Call ``once`` until it succeeds or no retry is left. Only for what may safely be done twice."""
        failures = Failures(self)
        while True:
            try:
                return await once()
            except (Unreachable, NotNow) as error:
                await failures.add(error)


class Failures:
    """The failures in a row of one operation."""

    def __init__(self, backoff: Backoff) -> None:
        self.backoff = backoff
        self.count = 0

    def forget(self) -> None:
        """Begin to count anew: something was achieved."""
        self.count = 0

    async def add(self, error: PenstockError | NotNow) -> None:
        """Count one more, and wait before the next try.

        Raises:
            PenstockError: the failure itself, where no retry is left.
        """
        self.count += 1
        retries = self.backoff.retries
        if retries is not None and self.count > retries:
            raise error.error if isinstance(error, NotNow) else error
        asked = error.wait if isinstance(error, NotNow) else None
        pause = max(self.backoff.pause(self.count), min(asked or 0.0, _MAX_RETRY_AFTER))
        logger.warning("%s Trying again in %.1f s.", error, pause)
        await anyio.sleep(pause)


def _retry_after(value: str, now: Callable[[], float]) -> float | None:
    """Read ``Retry-After`` (RFC 9110 section 10.2.3): seconds, or a date."""
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    moment = parse_date(text)
    return None if moment is None else max(0.0, moment - now())
