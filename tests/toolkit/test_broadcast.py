"""A broadcast: who gets what, and what becomes of the slow ones."""

from __future__ import annotations

import asyncio

import pytest

from penstock.toolkit.responses.broadcast import Broadcast, Gap, SlowSubscriber, Subscription


async def rest(subscription: Subscription[int]) -> list[int | Gap]:
    return [item async for item in subscription]


async def test_every_subscriber_gets_what_is_published_after_it_came() -> None:
    numbers: Broadcast[int] = Broadcast()
    first = numbers.subscribe()
    await numbers.publish(1)
    second = numbers.subscribe()
    await numbers.publish(2)
    numbers.close()
    assert await rest(first) == [1, 2]
    assert await rest(second) == [2]
    assert await rest(numbers.subscribe()) == []
    assert len(numbers) == 0
    with pytest.raises(RuntimeError):
        await numbers.publish(3)


async def test_a_slow_subscriber_is_told_how_much_it_missed() -> None:
    numbers: Broadcast[int] = Broadcast(buffer=3, slow="drop")
    subscription = numbers.subscribe()
    for number in range(10):
        await numbers.publish(number)
    numbers.close()
    assert await rest(subscription) == [Gap(7), 7, 8, 9]


async def test_a_slow_subscriber_is_cut_off_after_what_waits_for_it() -> None:
    numbers: Broadcast[int] = Broadcast(buffer=2, slow="disconnect")
    slow, quick = numbers.subscribe(), numbers.subscribe()
    taken = []
    for number in range(4):
        await numbers.publish(number)
        taken.append(await anext(quick))
    assert taken == [0, 1, 2, 3]
    assert [await anext(slow), await anext(slow)] == [0, 1]
    with pytest.raises(SlowSubscriber):
        await anext(slow)
    assert len(numbers) == 1


async def test_a_publisher_waits_for_the_slowest_until_it_takes_or_leaves() -> None:
    numbers: Broadcast[int] = Broadcast(buffer=1, slow="wait")
    slow = numbers.subscribe()
    await numbers.publish(0)
    publishing = asyncio.create_task(numbers.publish(1))
    await asyncio.sleep(0)
    assert not publishing.done()
    assert await anext(slow) == 0
    await publishing
    publishing = asyncio.create_task(numbers.publish(2))
    await asyncio.sleep(0)
    assert not publishing.done()
    await slow.aclose()
    await publishing
    assert len(numbers) == 0


def test_a_buffer_has_room() -> None:
    with pytest.raises(ValueError, match="one item"):
        Broadcast(buffer=0)
