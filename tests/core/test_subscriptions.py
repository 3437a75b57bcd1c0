"""Subscriptions: their states, and two processes' engines on the same streams."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import Streams, StreamSpec
from penstock.core.subscriptions import LinkState, Settings, Subscription, Subscriptions
from penstock.core.subscriptions.errors import (
    AckOutOfRange,
    AlreadyClaimed,
    NoPendingWork,
    SubscriptionExists,
    SubscriptionNotFound,
    WakeFenced,
)
from penstock.core.subscriptions.globs import literal_prefix, matches
from penstock.core.subscriptions.record import BEFORE_FIRST
from wire import until

HOOK = Settings(webhook="https://w.example/", pattern="events/*", lease=10.0)
PULL = Settings(wake_stream="wake", pattern="events/*", lease=10.0)


# -- patterns


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("events/*", "events/a", True),
        ("events/*", "events", False),
        ("events/*", "events/a/b", False),
        ("events/**", "events", True),
        ("events/**", "events/a/b", True),
        ("**/log", "log", True),
        ("**/log", "a/b/log", True),
        ("**/log", "a/b/logs", False),
        ("a/**/b/**/c", "a/b/c", True),
        ("a/**/b/**/c", "a/x/b/y/z/c", True),
        ("a/**/b/**/c", "a/x/y/c", False),
        ("a*", "ab", False),
        ("**", "a/b", True),
        ("*", "a", True),
    ],
)
def test_a_pattern_is_of_whole_segments(pattern: str, name: str, expected: bool) -> None:
    assert matches(pattern, name) is expected


parts = st.lists(st.sampled_from(["a", "b", "*", "**"]), min_size=1, max_size=5).map("/".join)
plain = st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=6).map("/".join)


@given(parts, plain)
def test_what_matches_begins_as_the_pattern_says(pattern: str, name: str) -> None:
    if matches(pattern, name):
        assert name.startswith(literal_prefix(pattern))


def test_no_pattern_takes_long() -> None:
    assert not matches("/".join(["**", "a"] * 200), "/".join(["a"] * 199 + ["b"]))


# -- states


def states(**tails: int) -> dict[str, LinkState]:
    return {f"events/{name}": LinkState(tail, f"incarnation of {name}") for name, tail in tails.items()}


def subscription(settings: Settings = HOOK, **tails: int) -> Subscription:
    fresh = Subscription(id="s", settings=settings, base="http://x", created_at=0.0)
    return fresh.linked(states(**tails), from_tail=True)


def again(kept: Subscription) -> Subscription:
    return Subscription.from_json(json.loads(json.dumps(kept.to_json())))


def test_it_is_kept_as_json() -> None:
    kept = subscription(a=1).woken(states(a=5), 1.0)
    assert again(kept) == kept


def test_new_bytes_wake_and_old_ones_do_not() -> None:
    kept = subscription(a=3)
    assert kept.roused(states(a=3), 1.0) is kept
    woken = kept.roused(states(a=4), 1.0)
    assert (woken.generation, woken.attempt_until, woken.snapshot) == (1, 11.0, states(a=4))
    assert woken.roused(states(a=5), 2.0) is woken  # one at a time
    found = kept.linked(states(b=2))
    assert found.links["events/b"].acked == BEFORE_FIRST
    assert found.roused(states(a=3, b=2), 1.0).wake
    assert not found.roused(states(a=3, b=0), 1.0).wake


def test_what_came_after_the_snapshot_wakes_again() -> None:
    woken = subscription(a=3).roused(states(a=4), 1.0)
    rested = woken.all_done(states(a=4), 2.0)
    assert (rested.wake, rested.links["events/a"].acked) == (None, 4)
    next_ = woken.all_done(states(a=9), 2.0)
    assert (next_.generation, next_.links["events/a"].acked) == (2, 4)
    assert next_.wake != woken.wake


def test_another_stream_of_the_same_name_is_new_from_its_beginning() -> None:
    kept = subscription(a=30)
    anew = {"events/a": LinkState(2, "another")}
    woken = kept.roused(anew, 1.0)
    assert woken.wake is not None
    done = woken.acknowledged(woken.wake, 1, {"events/a": 2}, anew, 2.0, done=True)
    assert (done.wake, done.links["events/a"].acked) == (None, 2)
    assert kept.roused({"events/a": LinkState()}, 1.0) is kept  # deleted


def test_a_webhook_is_told_again_later_and_later_but_not_too_late() -> None:
    kept = subscription(a=0).roused(states(a=1), 0.0)
    now = 0.0
    for number in range(12):
        kept = kept.unheard(now)
        assert kept.failing
        assert kept.due is not None
        pause = kept.due - now
        usual = min(2.0**number, 60.0)
        assert 0.8 * usual <= pause <= 1.2 * usual
        assert kept.overdue(states(a=1), kept.due - 0.01) is kept
        now = kept.due
        kept = kept.overdue(states(a=1), now)
        assert (kept.failing, kept.attempt_until) == (False, now + 10)
    assert kept.heard().retries == 0


def test_a_wake_whose_lease_ended_gives_way_to_another_one() -> None:
    heard = subscription(a=0).roused(states(a=1), 0.0).heard()
    assert (heard.due, heard.overdue(states(a=1), 9.9)) == (10.0, heard)
    late = heard.overdue(states(a=1), 10.0)
    assert (late.generation, late.attempt_until) == (2, 20.0)
    assert heard.overdue(states(a=0), 10.0).wake is None
    with pytest.raises(WakeFenced):
        late.acknowledged(heard.wake or "", 1, {}, states(a=1), 11.0)


def test_a_worker_holds_the_wake_for_its_lease() -> None:
    kept = subscription(PULL, a=0).roused(states(a=1), 0.0)
    assert (kept.announced, kept.lease_until) == (False, None)
    held = kept.claimed("one", states(a=1), 1.0)
    assert (held.wake, held.holder, held.lease_until) == (kept.wake, "one", 11.0)
    with pytest.raises(AlreadyClaimed) as caught:
        held.claimed("two", states(a=1), 2.0)
    assert (caught.value.holder, caught.value.generation) == ("one", 1)
    alive = held.acknowledged(held.wake or "", 1, {}, states(a=1), 9.0)
    assert (alive.holder, alive.lease_until) == ("one", 19.0)
    announced = replace(alive, announced=True)
    assert announced.overdue(states(a=1), 18.9) is announced
    late = announced.overdue(states(a=1), 19.0)
    assert (late.generation, late.holder, late.announced) == (2, None, False)
    assert announced.claimed("two", states(a=1), 19.0).holder == "two"


def test_acknowledgements_are_of_what_is_there_and_never_go_back() -> None:
    held = subscription(PULL, a=2).roused(states(a=9), 0.0).claimed("one", states(a=9), 0.0)
    wake = held.wake or ""
    on = held.acknowledged(wake, 1, {"events/a": 5}, states(a=9), 1.0)
    for acks in ({"events/a": 4}, {"events/a": 10}, {"events/b": 1}, {"events/a": -1}):
        with pytest.raises(AckOutOfRange):
            on.acknowledged(wake, 1, acks, states(a=9), 1.0)
    for stale in (("other", 1), (wake, 2)):
        with pytest.raises(WakeFenced):
            on.acknowledged(*stale, {}, states(a=9), 1.0)
    with pytest.raises(NoPendingWork):
        subscription(PULL, a=2).claimed("one", states(a=2), 1.0)


def test_a_named_stream_that_the_pattern_finds_stays_when_it_is_taken_out() -> None:
    kept = subscription(a=1).linked(states(a=1, b=1), explicit=True, from_tail=True)
    assert kept.linked(states(a=1), explicit=True) is kept
    left = kept.unlinked("events/a").unlinked("events/b")
    assert [(name, link.explicit, link.glob) for name, link in left.links.items()] == [("events/a", False, True)]
    assert left.unlinked("events/a") is left


# -- engines


class Process:
    """A service with its engine, and what its deliveries were."""

    def __init__(self, streams: Streams, answer: Callable[[Subscription], Awaitable[bool]]) -> None:
        self.streams = streams
        self.engine = Subscriptions(streams, streams._notifier)
        self.engine.deliver = self._deliver
        self.told: list[tuple[int, dict[str, int]]] = []
        self._answer = answer
        streams.on_change = self.engine.changed
        streams.companions.append(self.engine)

    async def _deliver(self, kept: Subscription, found: Mapping[str, LinkState]) -> bool:
        self.told.append((kept.generation, {name: found[name].tail for name in kept.links}))
        return await self._answer(kept)


async def done(_: Subscription) -> bool:
    return True


@asynccontextmanager
async def processes(path: Path, *answers: Callable[[Subscription], Awaitable[bool]]) -> AsyncIterator[list[Process]]:
    async with AsyncExitStack() as stack:
        running = [Process(Streams(path, durability="os"), answer) for answer in answers]
        for process in running:
            await stack.enter_async_context(process.streams)
        yield running


async def acked(process: Process, id_: str, name: str) -> int:
    link = (await process.engine.get(id_)).links.get(name)
    return BEFORE_FIRST - 1 if link is None else link.acked


async def test_an_append_in_any_process_is_told_once(tmp_path: Path) -> None:
    async with processes(tmp_path, done, done) as (one, two):
        await one.streams.create("events/old", data=[b"before"])
        _, created = await one.engine.create("s", HOOK, "http://x")
        assert created
        assert await two.engine.create("s", HOOK, "http://elsewhere") == (await two.engine.get("s"), False)
        with pytest.raises(SubscriptionExists):
            await two.engine.create("s", PULL, "http://x")
        for number in range(20):
            process = (one, two)[number % 2]
            await process.streams.append(f"events/{number % 3}", [b"x"], create=StreamSpec())
        for name, tail in (("events/0", 7), ("events/1", 7), ("events/2", 6)):
            await until(lambda name=name: acked(one, "s", name), tail)  # type: ignore[misc]
        generations = sorted(generation for generation, _ in one.told + two.told)
        assert generations == list(range(1, len(generations) + 1))
        assert all(told["events/old"] == 6 for _, told in one.told + two.told)
        assert await acked(one, "s", "events/old") == 6


async def test_what_comes_while_a_webhook_works_is_told_afterwards(tmp_path: Path) -> None:
    working, go_on = asyncio.Event(), asyncio.Event()

    async def slow(_: Subscription) -> bool:
        working.set()
        await go_on.wait()
        return True

    # Whichever process sees the first append first tells of it.
    async with processes(tmp_path, slow, slow) as (one, two):
        await one.engine.create("s", HOOK, "http://x")
        await one.streams.append("events/a", [b"1"], create=StreamSpec())
        await working.wait()
        await two.streams.append("events/a", [b"2"])
        await two.streams.append("events/b", [b"3"], create=StreamSpec())
        go_on.set()
        await until(lambda: acked(two, "s", "events/a"), 2)
        await until(lambda: acked(two, "s", "events/b"), 1)
        assert dict(one.told + two.told)[1] == {"events/a": 1}


async def test_a_webhook_that_fails_is_told_again(tmp_path: Path) -> None:
    failures = [RuntimeError("not now")]

    async def flaky(_: Subscription) -> bool:
        if failures:
            raise failures.pop()
        return True

    async with processes(tmp_path, flaky) as (one,):
        await one.engine.create("s", HOOK, "http://x")
        await one.streams.append("events/a", [b"1"], create=StreamSpec())

        async def failing() -> bool:
            return (await one.engine.get("s")).failing

        await until(failing, True)
        await until(lambda: acked(one, "s", "events/a"), 1)
        assert [generation for generation, _ in one.told] == [1, 1]
        assert not (await one.engine.get("s")).failing


async def test_a_wake_goes_on_in_another_process_when_its_own_ends(tmp_path: Path) -> None:
    begun = asyncio.Event()

    async def never(_: Subscription) -> bool:
        begun.set()
        await asyncio.Event().wait()
        return True

    settings = Settings(webhook="https://w.example/", pattern="events/*", lease=2.0)
    async with AsyncExitStack() as stack:
        async with processes(tmp_path, never) as (one,):
            await one.engine.create("s", settings, "http://x")
            await one.streams.append("events/a", [b"1"], create=StreamSpec())
            await begun.wait()
            (two,) = await stack.enter_async_context(processes(tmp_path, done))
            assert not two.told
        await until(lambda: acked(two, "s", "events/a"), 1)
    async with processes(tmp_path, done) as (three,):  # what happened while nobody ran
        assert await acked(three, "s", "events/a") == 1


async def test_what_was_appended_before_a_crash_is_told_after_it(tmp_path: Path) -> None:
    async with processes(tmp_path, done) as (one,):
        await one.engine.create("s", HOOK, "http://x")
        one.streams.on_change = None  # the process ends between the append and what follows from it
        await one.streams.append("events/a", [b"1"], create=StreamSpec())
    async with processes(tmp_path, done) as (two,):
        await until(lambda: acked(two, "s", "events/a"), 1)


async def test_one_worker_holds_a_wake_until_its_lease_ends(tmp_path: Path) -> None:
    settings = Settings(wake_stream="wake", pattern="events/*", lease=2.0)
    async with processes(tmp_path, done, done) as (one, two):
        await one.streams.create("wake")
        await one.engine.create("s", settings, "http://x")
        await two.streams.append("events/a", [b"1"], create=StreamSpec())

        async def wakes() -> list[int]:
            data = b"".join([bytes(chunk.data) async for chunk in one.streams.read("wake")])
            return [json.loads(line)["generation"] for line in data.splitlines()]

        await until(wakes, [1])
        claims = await asyncio.gather(one.engine.claim("s", "a"), two.engine.claim("s", "b"), return_exceptions=True)
        (held,) = [claim[0] for claim in claims if isinstance(claim, tuple)]
        assert sum(isinstance(claim, AlreadyClaimed) for claim in claims) == 1
        await until(wakes, [1, 2])  # the worker says nothing any more
        with pytest.raises(WakeFenced):
            await one.engine.acknowledge("s", held.wake or "", held.generation, {"events/a": 1}, done=True)
        assert await acked(one, "s", "events/a") == BEFORE_FIRST
        taken, _ = await two.engine.claim("s", "b")
        assert taken.generation == 2
        assert not await one.engine.acknowledge("s", taken.wake or "", 2, {"events/a": 1}, done=True)
        assert await acked(two, "s", "events/a") == 1
        with pytest.raises(NoPendingWork):
            await one.engine.claim("s", "a")
        assert await wakes() == [1, 2]


async def test_a_wake_that_is_given_back_is_told_anew(tmp_path: Path) -> None:
    async with processes(tmp_path, done) as (one,):
        await one.streams.create("wake")
        await one.engine.create("s", PULL, "http://x")
        await one.streams.append("events/a", [b"1"], create=StreamSpec())
        held, found = await one.engine.claim("s", "a")
        assert found["events/a"].tail == 1
        await one.engine.release("s", held.wake or "", held.generation)
        kept = await one.engine.get("s")
        assert (kept.generation, kept.holder) == (held.generation + 1, None)
        with pytest.raises(WakeFenced):
            await one.engine.release("s", held.wake or "", held.generation)


async def test_a_wake_stream_that_is_missing_is_told_once_it_is_there(tmp_path: Path) -> None:
    async with processes(tmp_path, done) as (one,):
        await one.engine.create("s", PULL, "http://x")
        await one.streams.append("events/a", [b"1"], create=StreamSpec())

        async def waking() -> bool:
            return (await one.engine.get("s")).wake is not None

        await until(waking, True)
        await one.streams.create("wake")

        async def tail() -> bool:
            return (await one.streams.info("wake")).tail > 0

        await until(tail, True)


async def test_a_deleted_subscription_listens_to_nobody(tmp_path: Path) -> None:
    async with processes(tmp_path, done, done) as (one, two):
        await one.streams.create("wake")
        await one.engine.create("s", PULL, "http://x")
        await one.streams.append("events/a", [b"1"], create=StreamSpec())
        held, _ = await one.engine.claim("s", "a")
        await two.engine.delete("s")
        await two.engine.delete("s")
        with pytest.raises(SubscriptionNotFound):
            await one.engine.acknowledge("s", held.wake or "", held.generation, {"events/a": 1}, done=True)
        with pytest.raises(SubscriptionNotFound):
            await one.engine.get("s")
        await one.streams.append("events/a", [b"2"])  # which wakes nobody


async def test_named_streams_are_linked_from_their_tails_on(tmp_path: Path) -> None:
    async with processes(tmp_path, done) as (one,):
        await one.streams.create("a", data=[b"abc"])
        await one.streams.create("b", data=[b"abc"])
        await one.engine.create("s", Settings(webhook="https://w.example/", streams=("a", "later")), "http://x")
        await one.engine.link("s", ["b"])
        await one.engine.link("s", ["b"])
        await one.engine.unlink("s", "nothing")
        assert (await acked(one, "s", "a"), await acked(one, "s", "b")) == (3, 3)
        await one.engine.unlink("s", "b")
        await one.streams.append("b", [b"x"])
        await one.streams.append("later", [b"x"], create=StreamSpec())
        await until(lambda: acked(one, "s", "later"), 1)
        assert all("b" not in told for _, told in one.told)


async def test_the_keys_are_the_same_for_all_and_stay(tmp_path: Path) -> None:
    async with processes(tmp_path, done, done) as (one, two):
        keys = await asyncio.gather(one.engine.keys(), two.engine.keys())
        assert keys[0] == keys[1]
        page = await one.streams.list()
        assert list(page.streams) == []  # the server's own are nobody else's
    async with processes(tmp_path, done) as (three,):
        assert await three.engine.keys() == keys[0]
