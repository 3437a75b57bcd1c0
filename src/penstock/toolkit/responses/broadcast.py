"""Telling many subscribers of one process the same thing, each with a bounded buffer of its own.

::

    prices: Broadcast[Price] = Broadcast(buffer=100, slow="drop")

    @app.get("/prices")
    async def follow() -> StreamedEvents:
        return StreamedEvents(prices.subscribe())

    await prices.publish(Price(...))

Nothing is kept for who comes later, or comes back. What must not be lost belongs into a stream (`penstock.Streams`),
which remembers, for other processes too.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Literal, Self, TypeAlias, TypeVar

from penstock.errors import PenstockError

T = TypeVar("T")

Slow: TypeAlias = Literal["wait", "drop", "disconnect"]


@dataclass(frozen=True, slots=True)
class Gap:
    """Stands where items were dropped, because their subscriber was too slow; ``missed`` is how many."""

    missed: int


class SlowSubscriber(PenstockError):
    """A subscriber that fell too far behind was cut off."""

    def __init__(self, buffer: int) -> None:
        self.buffer = buffer
        super().__init__(f"The subscriber fell more than {buffer} items behind, and was cut off.")


class Broadcast(Generic[T]):
    """One publisher's items for every subscriber. For one event loop.

    Args:
        buffer: how many items may wait for a subscriber.
        slow: what happens when they are more. ``wait``: the publisher waits for the slowest. ``drop``: the oldest are
            dropped, and a `Gap` says how many. ``disconnect``: the subscriber gets what waits, then `SlowSubscriber`.
    """

    def __init__(self, *, buffer: int = 100, slow: Slow = "disconnect") -> None:
        if buffer < 1:
            raise ValueError(f"A buffer has room for one item at least, not {buffer}.")
        self._buffer = buffer
        self._slow = slow
        self._subscriptions: set[Subscription[T]] = set()
        self._closed = False
        self._room = asyncio.Event()

    def __len__(self) -> int:
        """Return how many subscribers there are."""
        return len(self._subscriptions)

    def subscribe(self) -> Subscription[T]:
        """Return an async iterator of what is published from now on; closing it ends the subscription."""
        subscription = Subscription(self)
        if self._closed:
            subscription.end()
        else:
            self._subscriptions.add(subscription)
        return subscription

    async def publish(self, item: T) -> None:
        """Give an item to every subscriber; waits only where ``slow`` says so.

        Raises:
            RuntimeError: it was closed.
        """
        if self._closed:
            raise RuntimeError("The broadcast is closed.")
        if self._slow == "wait":
            while any(subscription.waiting >= self._buffer for subscription in self._subscriptions):
                self._room.clear()
                await self._room.wait()
        for subscription in list(self._subscriptions):
            subscription.offer(item, self._buffer, self._slow)

    def close(self) -> None:
        """End every subscription, once it has what was published."""
        self._closed = True
        for subscription in list(self._subscriptions):
            subscription.end()

    def taken(self) -> None:
        """Note that a subscriber took an item: whoever waits for room looks again."""
        self._room.set()

    def forget(self, subscription: Subscription[T]) -> None:
        """Note that a subscription has ended."""
        self._subscriptions.discard(subscription)
        self._room.set()


class Subscription(Generic[T]):
    """An async iterator of what is published: items, and a `Gap` where some were dropped."""

    def __init__(self, broadcast: Broadcast[T]) -> None:
        self._broadcast = broadcast
        self._items: deque[T] = deque()
        self._missed = 0
        self._ended = False
        self._error: SlowSubscriber | None = None
        self._changed = asyncio.Event()

    @property
    def waiting(self) -> int:
        """How many items wait to be taken."""
        return len(self._items)

    def offer(self, item: T, buffer: int, slow: Slow) -> None:
        """Take in an item, as the policy for slow subscribers says."""
        if len(self._items) >= buffer:
            if slow == "disconnect":
                self._error = SlowSubscriber(buffer)
                self.end()
                return
            self._items.popleft()
            self._missed += 1
        self._items.append(item)
        self._changed.set()

    def end(self) -> None:
        """Let the iteration end after what waits."""
        self._ended = True
        self._changed.set()
        self._broadcast.forget(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T | Gap:
        while not self._items:
            if self._ended:
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        if self._missed:
            gap, self._missed = Gap(self._missed), 0
            return gap
        item = self._items.popleft()
        self._broadcast.taken()
        return item

    async def aclose(self) -> None:
        """End the subscription."""
        self._items.clear()
        self.end()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
