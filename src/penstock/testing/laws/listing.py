"""Listing by prefix, in the order of the names' UTF-8 bytes, and what has expired."""
# ruff: noqa: D102, S101 - these are tests: a name says what it proves, and assert is how pytest asserts

from __future__ import annotations

import asyncio
import math

from penstock.model import StreamSpec
from penstock.testing.harness import Lab, StoreHarness, law

# What a pattern, a collation, UTF-16 or a bound made of "the next character" would get wrong.
CHARACTERS = [
    *("a", "A", "b", "%", "_", "*", "?", "[", "'", '"', ";", " ", "~", "-"),
    *("\x7e", "\u00e9", "\u0130", "\ud7ff", "\ue000", "\uffff", "\U00010000", "\U0001f600", "\U0010ffff"),
]


def in_order(names: set[str], prefix: str = "", after: str = "") -> list[str]:
    """Return what a listing must show of ``names``."""
    found = [name for name in names if name.startswith(prefix) and name.encode() > after.encode()]
    return sorted(found, key=str.encode)


async def create_all(lab: Lab, names: set[str]) -> None:
    """Create a stream of every name."""
    await asyncio.gather(*(lab.create(name) for name in names))


class ListingLaws(StoreHarness):
    """What `list` and `expired` show."""

    @law
    async def test_names_are_listed_in_the_order_of_their_utf_8_bytes(self, lab: Lab) -> None:
        names = {one + two for one in CHARACTERS for two in ["", *CHARACTERS]}
        await create_all(lab, names)
        assert await lab.names(limit=1000) == in_order(names)
        assert await lab.names(limit=7) == in_order(names)

    @law
    async def test_a_prefix_is_text_and_not_a_pattern(self, lab: Lab) -> None:
        names = {one + two for one in CHARACTERS for two in ["", *CHARACTERS]}
        await create_all(lab, names)
        for prefix in ["", *CHARACTERS, *sorted(names)[::11], "a\U0010ffff", "\U0010ffff\U0010ffff", "nothing"]:
            assert await lab.names(prefix) == in_order(names, prefix)

    @law
    async def test_a_page_goes_on_after_any_name_whether_it_is_there_or_not(self, lab: Lab) -> None:
        names = {f"{folder}/{number}" for folder in ("a", "b", "b%", "c") for number in range(30)}
        await create_all(lab, names)
        for prefix in ("", "b", "b/", "b%", "b%/1"):
            for after in ("", "a", "b", "b/", "b/1", "b/10", "b/10x", "b/9", "b%/0", "b0", "c/5", "\U0010ffff"):
                for limit in (1, 3, 200):
                    page = await lab.store.list(prefix, after, limit)
                    assert [info.name for info in page] == in_order(names, prefix, after)[:limit]

    @law
    async def test_a_listing_shows_the_whole_state_of_each_stream(self, lab: Lab) -> None:
        await lab.create("live", b"abc", spec=StreamSpec(ttl=60, metadata={"k": "v"}))
        await lab.put("file", b"abc", digests={"sha-256": b"\x00"})
        await lab.create("broken")
        await lab.fail("broken", "reason")
        await lab.begin("begun")
        assert [*await lab.store.list("", "", 10)] == [
            await lab.info(name) for name in ("begun", "broken", "file", "live")
        ]

    @law
    async def test_a_listing_follows_deletes_and_creations(self, lab: Lab) -> None:
        names = {f"n{number:03}" for number in range(60)}
        await create_all(lab, names)
        for name in sorted(names)[::2]:
            await lab.delete(name)
        left = set(sorted(names)[1::2])
        assert await lab.names() == in_order(left)
        await lab.create("n000x")
        assert await lab.names(limit=4) == in_order(left | {"n000x"})

    @law
    async def test_expired_shows_exactly_those_whose_deadline_has_come(self, lab: Lab) -> None:
        specs = {
            "never": StreamSpec(),
            "ttl": StreamSpec(ttl=10),
            "fraction": StreamSpec(ttl=0.1),
            "at once": StreamSpec(ttl=0),
            "date": StreamSpec(expires_at=lab.now + 20),
            "past": StreamSpec(expires_at=0),
            "both, ttl first": StreamSpec(ttl=5, expires_at=lab.now + 30),
            "both, date first": StreamSpec(ttl=30, expires_at=lab.now + 5),
        }
        lab.now += 0.123456789
        for name, spec in specs.items():
            await lab.create(name, spec=spec)
        deadlines = {name: (await lab.info(name)).deadline for name in specs}
        moments = [lab.now, *(moment for moment in deadlines.values() if moment is not None), lab.now + 1000]
        for moment in moments:
            for now in (math.nextafter(moment, 0), moment, math.nextafter(moment, math.inf)):
                expected = {name for name, at in deadlines.items() if at is not None and at <= now}
                assert {info.name for info in await lab.store.expired(now, 100)} == expected

    @law
    async def test_expired_follows_every_change_of_a_stream(self, lab: Lab) -> None:
        await lab.create("s", spec=StreamSpec(ttl=10))
        lab.now += 9
        appended = await lab.append("s", b"a")
        assert list(await lab.store.expired(lab.now + 9, 10)) == []
        assert list(await lab.store.expired(lab.now + 10, 10)) == [appended.info]
        lab.now += 9
        closed = await lab.append("s", close=True)
        assert list(await lab.store.expired(lab.now + 9, 10)) == []
        assert list(await lab.store.expired(lab.now + 10, 10)) == [closed.info]
        lab.now += 10
        assert (await lab.expire("s")).info is None
        assert list(await lab.store.expired(lab.now + 1000, 10)) == []
        assert await lab.store.load("s") is None

    @law
    async def test_expired_shows_no_more_than_its_limit(self, lab: Lab) -> None:
        names = {f"n{number}" for number in range(25)}
        await asyncio.gather(*(lab.create(name, spec=StreamSpec(ttl=1)) for name in names))
        lab.now += 1
        while found := await lab.store.expired(lab.now, 10):
            assert len(found) <= 10
            for info in found:
                await lab.expire(info.name)
                names.remove(info.name)
        assert not names
        assert await lab.names() == []

    @law
    async def test_a_published_replacement_expires_by_its_own_times(self, lab: Lab) -> None:
        await lab.put("s", b"old", spec=StreamSpec(ttl=5))
        draft = await lab.begin("s", spec=StreamSpec(ttl=100))
        assert [info.name for info in await lab.store.expired(lab.now + 5, 10)] == ["s"]
        await lab.publish("s", draft)
        assert list(await lab.store.expired(lab.now + 99, 10)) == []
        assert [info.incarnation for info in await lab.store.expired(lab.now + 100, 10)] == [draft]
